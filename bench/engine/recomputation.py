"""Published rows computed once more, with their own settings, seeds and data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench import data
from bench.engine.cells import Cell, MethodSpec, canonical_json, method_spec
from bench.engine.cores import available_cores
from bench.engine.execute import Options, execute
from bench.engine.store import Rows, Store
from bench.engine.tasks import file_identity

EXACT, CLOSE, DIFFERENT, UNCHECKED = "equal bit for bit", "equal within rounding", "different", "not checked"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result for a row: one of the four verdicts, both AUCs by score variant, and an explanation."""

    cell: Cell
    verdict: str
    published: dict[str, float]
    recomputed: dict[str, float] = dataclasses.field(default_factory=dict)
    detail: str = ""

    @property
    def difference(self) -> float:
        """The largest of the differences of its AUCs."""
        return max((abs(self.published[name] - auc) for name, auc in self.recomputed.items()), default=0.0)

    def __str__(self) -> str:
        def text(name: str, value: float) -> str:
            label = f"{name} " if name else ""
            return f"{label}{value!r}" + (f" → {self.recomputed[name]!r}" if name in self.recomputed else "")

        aucs = ", ".join(text(name, value) for name, value in self.published.items())
        return f"{self.verdict}: {self.cell}: {aucs}" + (f" ({self.detail})" if self.detail else "")


def sample(cells: pd.DataFrame, count: int, seed: int, by: Sequence[str], method: str = "method_identity") -> list[str]:
    """Draw rows, spread over methods first, then over the other rows of the tables.

    Parameters
    ----------
    cells
        Published cells.
    count
        How many; more than there are: all of them.
    seed
        Of the draw: the same rows and seed give the same keys.
    by, method
        Columns: what tells the rows of a table apart, and what tells methods apart.

    Returns
    -------
    list of str
        Keys, in the order of ``cells``.
    """
    shuffled = cells.sort_values("key").sample(frac=1, random_state=np.random.default_rng(seed))
    groups = shuffled.groupby(list(by), sort=False, dropna=False)
    order = pd.DataFrame({"method": shuffled[method], "within": groups.cumcount(), "row": groups.ngroup()})
    # of a method's rows of the table, the first, the second, …; of each of them the first cell, the second, …
    first = order[order["within"] == 0].assign(place=lambda frame: frame.groupby("method", sort=False).cumcount())
    order["place"] = order["row"].map(first.set_index("row")["place"])
    chosen = set(shuffled.loc[order.sort_values(["within", "place"], kind="stable").index[:count], "key"])
    return [key for key in cells["key"] if key in chosen]


class Recomputation:
    """Computes published rows again, in a folder of its own.

    Parameters
    ----------
    published
        The rows.
    folder
        Holds the new results in ``verify.sqlite``, and what cells share in ``cache``; those that are there already are
        taken, so that an interrupted check goes on.
    cache
        The cache of a run, whose trainings on auxiliary images are taken in place of new ones; None: train.
    tolerance
        Largest difference of AUCs that other versions or another processor may make.
    """

    def __init__(self, published: Rows, folder: Path, cache: Path | None, tolerance: float) -> None:
        self._published = published
        self._rows = {row["key"]: row for row in published.cells.to_dict("records")}
        self._folder, self._cache, self._tolerance = folder, cache, tolerance
        self._datasets: dict[str, data.Dataset | str] = {}
        self._methods: dict[Hashable, MethodSpec | str] = {}
        #: Trainings that were taken from ``cache``: key and name.
        self.taken: dict[str, str] = {}
        #: Trainings that were computed here.
        self.trained: dict[str, str] = {}

    def run(
        self,
        keys: Sequence[str],
        data_root: str | os.PathLike[str],
        device: str,
        workers: int | None,
        report: Callable[[Comparison], None],
    ) -> None:
        """Compute the rows with these keys, and hand each comparison to ``report`` as soon as it is known.

        Parameters
        ----------
        keys
            Of the rows.
        data_root
            The folder that holds the datasets.
        device
            "auto": what a row was computed on, if it is here, and otherwise the CPU.
        workers
            Processes; None: as many as the cores have room for, by the threads of the rows.
        """
        ready: dict[tuple[str, int], list[Cell]] = {}
        for key in keys:
            row = self._rows[key]
            cell = Cell.from_row(row)
            reason = self._obstacle(cell, data_root)
            if reason:
                report(Comparison(cell, UNCHECKED, json.loads(row["aucs"]), detail=reason))
                continue
            if contradiction := self._contradiction(cell):
                report(Comparison(cell, DIFFERENT, json.loads(row["aucs"]), detail=contradiction))
                continue
            on = device
            if device == "auto":
                on = "cuda" if row["device"].startswith("cuda") and torch.cuda.is_available() else "cpu"
            ready.setdefault((on, int(row["threads"])), []).append(cell)
        with Store(self._folder / "verify.sqlite", "python -m bench.verify") as store:
            for (on, threads), cells in ready.items():
                datasets = {name: value for name, value in self._datasets.items() if isinstance(value, data.Dataset)}
                self._place_trainings(cells)
                parallel = workers or (1 if on == "cuda" else max(1, available_cores() // threads))
                done = set(store.finished(cell.key for cell in cells)["key"])
                for cell in cells:
                    if cell.key in done:
                        report(self._compare(cell, store))
                options = Options(self._folder / "cache", on, threads, parallel)
                execute(cells, datasets, store, options, on_cell=lambda cell: report(self._compare(cell, store)))
                self._note_trainings(cells)

    def _obstacle(self, cell: Cell, data_root: str | os.PathLike[str]) -> str:
        """Why a row cannot be computed here; empty if it can."""
        for name, fingerprint in (
            (cell.dataset, cell.dataset_fingerprint), (cell.auxiliary, cell.auxiliary_fingerprint),
        ):  # fmt: skip
            if name is None:
                continue
            dataset = self._dataset(name, data_root)
            if isinstance(dataset, str):
                return dataset
            if dataset.fingerprint != fingerprint:
                return f"the data of {name} here is other data: its fingerprint is {dataset.fingerprint[:8]}…, not " + (
                    f"{str(fingerprint)[:8]}…"
                )
        return self._method_obstacle(cell.method)

    def _contradiction(self, cell: Cell) -> str:
        """What a row says wrongly of its data, although the fingerprint is right; empty if nothing."""
        dataset = self._datasets[cell.dataset]
        assert isinstance(dataset, data.Dataset)
        name = dict(enumerate(dataset.classes)).get(cell.class_index)
        found = (name, len(dataset.classes), len(dataset.test_labels))
        said = (cell.class_name, cell.classes, cell.test_size)
        if found == said:
            return ""
        return f"(name of the class, classes, test images) are {found} of this data, and {said} of the row"

    def _dataset(self, name: str, data_root: str | os.PathLike[str]) -> data.Dataset | str:
        if name not in self._datasets:
            try:
                self._datasets[name] = data.load(name, data_root=data_root)
            except (OSError, ValueError) as error:
                self._datasets[name] = f"the data of {name} is not here: {' '.join(str(error).split())}"
        return self._datasets[name]

    def _method_obstacle(self, wanted: MethodSpec) -> str:
        settings = canonical_json(wanted.settings)
        known = (wanted.name, wanted.profile, settings)
        if known not in self._methods:
            try:
                self._methods[known] = method_spec(wanted.name, wanted.profile, wanted.settings)
            except (ValueError, TypeError, ImportError) as error:
                self._methods[known] = f"its method is not here: {' '.join(str(error).split())}"
        found = self._methods[known]
        if isinstance(found, str):
            return found
        if found.source != wanted.source:
            return "the code of its method has changed: its source has another digest"
        if found.version != wanted.version:
            return f"its method has version {found.version} here, and had {wanted.version}"
        if (found.identity, canonical_json(found.settings)) != (wanted.identity, settings):
            return "its method has other settings or another name here"
        if canonical_json(found.auxiliary_settings) != canonical_json(wanted.auxiliary_settings):
            return "its method learns from auxiliary images by other settings here"
        return ""

    def _place_trainings(self, cells: Sequence[Cell]) -> None:
        """Copy trainings of ``cache`` to where the engine looks for them, each with a note that it is a copy."""
        if self._cache is None:
            return
        for key in {cell.auxiliary_key for cell in cells if cell.method.needs_auxiliary}:
            path, kept = self._training(key), self._cache / "auxiliary" / key
            if path.exists() or not kept.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(kept.with_name(f"{key}.json"), path.with_name(f"{key}.json"))
            unfinished = path.with_name(f".{key}.copy")
            shutil.copy2(kept, unfinished)
            _copy_note(path).write_text(str(file_identity(unfinished)))  # a rename keeps the identity
            unfinished.replace(path)

    def _note_trainings(self, cells: Sequence[Cell]) -> None:
        """Sort trainings into copied and computed ones, whether by this command or by an earlier one."""
        for cell in cells:
            key, path = cell.auxiliary_key, self._training(cell.auxiliary_key)
            if not cell.method.needs_auxiliary or not path.exists():
                continue
            note = _copy_note(path)
            copied = note.is_file() and note.read_text() == str(file_identity(path))
            (self.taken if copied else self.trained)[key] = f"{cell.method.label} on {cell.auxiliary}"

    def _training(self, key: str) -> Path:
        return self._folder / "cache" / "auxiliary" / key

    def _compare(self, cell: Cell, store: Store) -> Comparison:
        row = self._rows[cell.key]
        published = json.loads(row["aucs"])
        finished = store.finished([cell.key])
        if finished.empty:
            error = store.failed([cell.key])["error"].iloc[0]
            return Comparison(cell, DIFFERENT, published, detail=f"it fails here: {error}")
        again = finished.to_dict("records")[0]
        aucs = json.loads(again["aucs"])
        if aucs == published:
            return Comparison(cell, EXACT, published, aucs)
        if set(aucs) != set(published):
            return Comparison(cell, DIFFERENT, published, detail=f"its scores are {', '.join(map(repr, aucs))} here")
        here, there = (
            self._conditions(row, self._published.auxiliaries),
            self._conditions(again, store.rows().auxiliaries),
        )
        others = [name for name in here if here[name] != there[name]]
        on_gpu = here["device"].startswith("cuda")
        found = Comparison(cell, CLOSE, published, aucs)
        detail = f"differs by {found.difference:.2g}; " + (
            f"other {', '.join(others)}" if others else "on a GPU" if on_gpu else "by the same versions and processor"
        )
        close = found.difference <= self._tolerance and (others or on_gpu)
        return dataclasses.replace(found, verdict=CLOSE if close else DIFFERENT, detail=detail)

    @staticmethod
    def _conditions(row: Mapping[str, Any], auxiliaries: pd.DataFrame) -> dict[str, str]:
        """Device, threads, versions and commit of a row: with others its AUC may be rounded differently."""
        names = {"device": "device", "threads": "threads", "versions": "versions", "git_commit": "commit"}
        found = {label: str(row[name]) for name, label in names.items()}
        training = auxiliaries[auxiliaries["key"] == row["auxiliary_key"]].to_dict("records")
        if row["auxiliary_key"] is not None:
            found |= {f"{label} of the training": str(training[0][name]) if training else "unknown"
                      for name, label in names.items()}  # fmt: skip
        if found["commit"].endswith("-dirty"):
            found["commit"] += f" {row['finished']}"  # uncommitted changes are unknown: never the same twice
        return found


def _copy_note(path: Path) -> Path:
    """The file that says that a training is a copy, and of which file."""
    return path.with_name(f"{path.name}.copied")
