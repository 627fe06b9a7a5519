"""The inputs of figures: datasets, trained encoders with their histories, and AUCs, each computed once and cached."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench import data
from bench.analysis import statistics
from bench.data import Dataset
from bench.engine import protocol, tasks
from bench.engine.arguments import portable_command, table1_parser
from bench.engine.cells import Cell, MethodSpec, described, flattened, plan
from bench.engine.execute import Options, execute
from bench.engine.isolation import process_unchanged
from bench.engine.settings import method_specs
from bench.engine.store import STORE_FILE, Rows, Store
from methods.corel import Corel, history_path

#: The numbers of training images per class of the paper's Fig. 5.
PAPER_M = (10, 20, 50, 80, 120, 250, 500, 1000, 2500, 5000)


@dataclasses.dataclass(frozen=True)
class Training:
    """A trained encoder, the same that a table uses.

    Attributes
    ----------
    method
        Holds the encoder.
    cell
        One of the table's cells that it serves.
    path
        The encoder's file.
    about
        What was trained, with settings, seed, device and commit.
    """

    method: Corel
    cell: Cell
    path: Path
    about: str

    @property
    def history(self) -> pd.DataFrame:
        """The history that :func:`corel.train_autoencoder` returned.

        Raises
        ------
        ValueError
            If it was not kept.
        """
        try:
            return pd.read_csv(history_path(self.path))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no history is kept beside the encoder {str(self.path)!r} ({error}); move the encoder away and it is "
                "trained again"
            ) from None

    def encode(self, *splits: np.ndarray) -> np.ndarray:
        """Codes of images by branch: arrays (n, 3, 32, 32) uint8 → (branches, Σn, branch_dim) float32."""
        codes = np.concatenate([self.method.prepare(images) for images in splits])
        settings = self.method.settings
        return codes.reshape(len(codes), settings.branches, settings.branch_dim).transpose(1, 0, 2).copy()


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """What all figures of a command share.

    Attributes
    ----------
    out
        Folder with the store and the cache, as those of a table.
    names
        Datasets. AUCs are of the first; all that the encoder was not trained on serve for comparison, in this order.
    auxiliary_name
        The dataset that the encoder learns from; None: the default of the first dataset.
    profile, changes
        The encoder's settings, and strings as of ``--set`` that change them.
    device, threads, seed, runs
        As of a table; ``device`` is "cpu" or begins with "cuda".
    published
        Finished rows to take, and the folders that they are from.
    """

    out: Path
    names: Sequence[str]
    auxiliary_name: str | None
    data_root: str
    download: bool
    profile: str
    changes: Sequence[str]
    device: str
    threads: int
    runs: int
    seed: int
    published: Rows
    published_in: Sequence[Path] = ()

    @functools.cache  # noqa: B019 - one study a process
    def dataset(self, name: str) -> Dataset:
        """Load a dataset."""
        return data.load(name, data_root=self.data_root, download=self.download)

    @property
    def evaluated(self) -> Dataset:
        """The dataset that AUCs are of."""
        return self.dataset(self.names[0])

    @property
    def auxiliary(self) -> Dataset:
        """The dataset that the encoder learns from."""
        return self.dataset(self.auxiliary_name or data.default_auxiliary(self.names[0]))

    @property
    def sizes(self) -> list[int]:
        """The paper's m, as far as every class has so many training images; at least one m."""
        smallest = int(np.bincount(self.evaluated.train_labels).min())
        return [m for m in PAPER_M if m <= smallest] or [smallest]

    def generator(self, name: str) -> torch.Generator:
        """A random generator on the CPU that depends on the seed and the name alone."""
        return torch.Generator("cpu").manual_seed(protocol.derive_seed("figures", name, self.seed))

    def local(self) -> str:
        """Where this process computes what no row and no training holds."""
        return f"base seed {self.seed}; {tasks.device_name('cpu')}"

    def training(self, *changes: str) -> Training:
        """The shared encoder with ``changes`` made to its settings, trained where it is not there."""
        cell = self._cells(self._spec(changes), self.sizes[-1:], runs=1)[0]
        cache = (self.out / "cache").absolute()
        prepared = tasks.prepare(
            tasks.Preparation(
                cell,
                cell.method,
                train=tasks.mapped_file(self.evaluated.train_images),
                test=tasks.mapped_file(self.evaluated.test_images),
                auxiliary=tasks.mapped_file(self.auxiliary.train_images),
                conditions=tasks.Conditions(cache, self.device, self.threads, progress=True),
            )
        )
        if prepared.error:
            raise RuntimeError(prepared.error)
        path = cache / "auxiliary" / cell.auxiliary_key
        method = cell.method.create(seed=cell.auxiliary_seed, device=self.device)
        assert isinstance(method, Corel)
        with process_unchanged(cell.auxiliary_seed):
            method.fit_auxiliary(self.auxiliary.train_images, path=path)
        took = prepared.training or {}
        if took:
            with Store(self.out / STORE_FILE, self._command(changes, self.sizes[-1:])) as store:
                if store.auxiliaries([cell.auxiliary_key]).empty:
                    store.add_auxiliary(cell, **took)
        images = self.auxiliary
        shaping = {name: value for name, value in cell.method.auxiliary_settings.items() if name != "method"}
        where = f"{took['device']}, commit {took['git_commit']}" if took else "where is not recorded"
        about = (
            f"encoder: corel, {described(flattened(shaping))}, seed {cell.auxiliary_seed}, "
            f"trained on {len(images.train_images):,} images of {images.title} (fingerprint {images.fingerprint}); "
            f"{where}"
        )  # fmt: skip
        return Training(method, cell, path, about)

    def aucs(self, sizes: Sequence[int], *changes: str) -> tuple[pd.DataFrame, str]:
        """AUCs of the encoder with ``changes``, as means over classes and their spread over runs.

        Rows are taken from the store and from what is published; cells that are missing are computed and kept.

        Returns
        -------
        tuple
            Columns ``m``, ``auc_mean`` and ``auc_std``, a row for each of ``sizes``; and what was run for them.

        Raises
        ------
        RuntimeError
            If a cell ended in an error: of the others, no average is to be had.
        """
        cells = self._cells(self._spec(changes), sizes, self.runs)
        command = self._command(changes, sizes)
        datasets = {dataset.name: dataset for dataset in (self.evaluated, self.auxiliary)}
        with Store(self.out / STORE_FILE, command) as store:
            store.take(self.published, cells)
            execute(cells, datasets, store, Options(self.out / "cache", self.device, self.threads))
            rows = store.of(cells)
        failed = rows[rows["aucs"].isna()]
        if len(failed):
            raise RuntimeError(f"{len(failed)} of {len(rows)} cells failed, the first with {failed['error'].iloc[0]}")
        table = statistics.summarise(statistics.by_variant(statistics.with_seed(rows)))
        table = table.assign(m=table["train_per_class"].astype(int)).sort_values("m", ignore_index=True)
        places = rows[["device", "git_commit"]].drop_duplicates()
        origins = " and ".join(f"{device}, commit {commit}" for device, commit in places.to_numpy())
        about = f"AUC: {len(rows)} cells, means over classes, then over {self.runs} runs; {origins}; by `{command}`"
        return table[["m", "auc_mean", "auc_std"]], about

    def _spec(self, changes: Sequence[str]) -> MethodSpec:
        (spec,) = method_specs(["corel"], self.profile, self._merged(changes))
        return spec

    def _merged(self, changes: Sequence[str]) -> list[str]:
        """The user's changes, and ``changes`` of a figure, which replace those of the same setting."""
        return list({change.partition("=")[0]: change for change in (*self.changes, *changes)}.values())

    def _cells(self, spec: MethodSpec, sizes: Sequence[int], runs: int) -> list[Cell]:
        return plan(
            self.evaluated,
            [spec],
            auxiliary=self.auxiliary,
            train_per_class=sizes,
            runs=runs,
            classes=range(len(self.evaluated.classes)),
            base_seed=self.seed,
        )

    def _command(self, changes: Sequence[str], sizes: Sequence[int]) -> str:
        """The command of a table that computes the same rows."""
        words = ["--datasets", self.names[0], "--methods", "corel", "--profile", self.profile]
        words += [word for change in self._merged(changes) for word in ("--set", change)]
        words += ["--train-per-class", *map(str, sizes), "--runs", str(self.runs), "--seed", str(self.seed)]
        if self.auxiliary_name:
            words += ["--auxiliary", self.auxiliary_name]
        return portable_command(table1_parser().parse_args(words))


def batches(codes: np.ndarray, size: int, generator: torch.Generator) -> torch.Tensor:
    """Cut clouds into random batches, all the same points in each cloud; what is left over is dropped.

    Parameters
    ----------
    codes
        (branches, n, d).
    size
        Points of a batch, b.
    generator
        Draws the order of the points.

    Returns
    -------
    Tensor
        (branches, n // b, b, d).

    Raises
    ------
    ValueError
        If there are fewer points than a batch.
    """
    n = codes.shape[1]
    if n < size:
        raise ValueError(f"{n} images are fewer than a batch of {size}")
    order = torch.randperm(n, generator=generator)[: n // size * size]
    return torch.from_numpy(codes)[:, order].unflatten(1, (-1, size))


def about_all(trainings: Sequence[Training]) -> Iterator[str]:
    """What was trained, once each."""
    yield from dict.fromkeys(training.about for training in trainings)
