"""Runs cells: in this process, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

import methods
from bench.engine import protocol, provenance
from bench.engine.lock import locked
from bench.engine.workers import WorkerPool
from bench.engine.cells import Cell
from bench.data import Dataset
from bench.engine.store import Store
from corel._device import resolve_device
from corel._memory import reuse_freed_memory
from corel.checkpoint import write_atomically

#: So long a Dask scheduler may take to say that it is one.
ANSWER_SECONDS = 8.0


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """An array in a file, cheap to send to another process and mapped there, not read."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def open(self) -> np.ndarray:
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=self.shape, offset=self.offset)


def as_file(array: np.ndarray, path: Path) -> ArrayFile:
    """Return the file that ``array`` is mapped from, or write it to ``path`` first."""
    if isinstance(array, np.memmap) and array.filename and array.flags.c_contiguous:
        mapped: np.memmap = array
    else:
        write_atomically(path, lambda stream: np.save(stream, np.ascontiguousarray(array)))
        mapped = np.load(path, mmap_mode="r")
    # A view of a map keeps the whole map's offset, so its start is measured from the addresses.
    whole = mapped
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    start = mapped.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    file = str(Path(str(mapped.filename)).resolve())
    return ArrayFile(file, mapped.dtype.str, mapped.shape, whole.offset + start)


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell with all that a process needs to compute it."""

    cell: Cell
    train: ArrayFile
    train_labels: ArrayFile
    test: ArrayFile
    test_labels: ArrayFile
    device: str
    threads: int
    checkpoint_dir: str
    progress: bool


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a task: ``error`` is empty if it went well."""

    aucs: dict[str, float]
    fit_seconds: float
    score_seconds: float
    error: str = ""


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads; results depend on their number, so it is the same for every executor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


def run_task(task: Task) -> Outcome:
    """Draw, fit, score and measure one cell. An error of the method is returned, not raised."""
    cell = task.cell
    folder = Path(task.checkpoint_dir)
    try:
        if methods.source_digest(cell.method.name) != cell.method.source:
            raise RuntimeError("the method's file has changed since the run was started")
        with (
            _threads(task.threads),
            reuse_freed_memory(),
            locked(folder.with_name(f"{folder.name}.lock"), wait=False) as held,
        ):
            chosen = protocol.draw(
                task.train_labels.open(),
                cell.class_index,
                cell.train_per_class,
                dataset=cell.draw_name,
                run=cell.run,
                base_seed=cell.base_seed,
            )
            method = cell.method.create(seed=cell.method_seed, device=task.device)
            alone = held is not False
            # Another run may be at the same cell: both compute the same, but only one keeps its state.
            method.checkpoint_dir = folder if alone else None
            method.progress = task.progress
            started = time.perf_counter()
            method.fit(np.asarray(task.train.open()[chosen]))
            fitted = time.perf_counter()
            test, test_labels = task.test.open(), task.test_labels.open()
            if cell.test_images is not None:
                subset = protocol.test_subset(
                    test_labels, cell.test_images, dataset=cell.draw_name, base_seed=cell.base_seed
                )
                test, test_labels = np.asarray(test[subset]), test_labels[subset]
            variants = _checked_variants(method.score_variants(test))
            scored = time.perf_counter()
            in_class = test_labels == cell.class_index
            aucs = {name: _best_auc(in_class, scores) for name, scores in variants.items()}
            if alone:
                shutil.rmtree(folder, ignore_errors=True)
    except (Exception, SystemExit) as error:  # whatever a method does wrong must cost its own cell only
        return Outcome({}, 0.0, 0.0, error=_one_line(error))
    return Outcome(aucs, fitted - started, scored - fitted)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _checked_variants(variants: Any) -> Mapping[str, np.ndarray]:
    """Return the scores of a method if they are as :meth:`methods.OneClassMethod.score_variants` says."""
    if not isinstance(variants, Mapping) or not variants or not all(isinstance(name, str) for name in variants):
        shown = f"names {list(variants)!r}" if isinstance(variants, Mapping) else f"{type(variants).__name__}"
        raise TypeError(f"score_variants: gave {shown}; accepted is a dictionary with texts as names, one at least")
    return variants


def _best_auc(in_class: np.ndarray, scores: np.ndarray) -> float:
    """AUC of a score; of a (k, n) family the best one's, which only an oracle could have picked."""
    return max(protocol.auc(in_class, row) for row in np.atleast_2d(scores))


class _InProcess(concurrent.futures.Executor):
    """An executor that computes at once, here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[concurrent.futures.Executor]:
    if scheduler is not None:
        try:
            from distributed import Client
        except ImportError:
            raise ImportError("--scheduler needs the package distributed: pip install 'corel[cluster]'") from None
        try:
            # what answers there may be anything: a Client waits for ever for one that is no scheduler
            asyncio.run(asyncio.wait_for(_identity(scheduler), ANSWER_SECONDS))
            client = Client(scheduler, timeout=5)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()) or "what answers there is none"
            raise ValueError(f"--scheduler: no Dask scheduler answers at {scheduler!r} ({reason})") from None
        with client:
            yield client.get_executor(pure=False)
    elif workers == 1:
        yield _InProcess()
    else:
        try:
            with WorkerPool(workers) as pool:
                yield pool
        except concurrent.futures.BrokenExecutor:
            raise ChildProcessError(
                "a worker process ended unexpectedly (out of memory?); finished cells are kept; try fewer --workers"
            ) from None


async def _identity(scheduler: str) -> object:
    """What the scheduler says of itself."""
    from distributed import rpc

    async with rpc(scheduler, timeout=5) as connection:
        return await connection.identity()


def default_threads(profile: str) -> int:
    """CPU threads that a cell computes with: one in the quick profile, where cells are many, else every core."""
    return 1 if profile == "quick" else available_cores()


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Options:
    """How cells are run. Nothing here is part of a cell's key; ``device`` and ``threads`` are kept in its row."""

    cache: Path
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    scheduler: str | None = None
    progress: bool = True
    deadline: float | None = None


def execute(
    cells: Sequence[Cell],
    datasets: Mapping[str, Dataset],
    store: Store,
    options: Options,
    on_cell: Callable[[Cell], object] | None = None,
) -> tuple[int, int]:
    """Run the cells that the store does not hold and keep each as it ends.

    Parameters
    ----------
    cells
        What is wanted.
    datasets
        By name: every dataset and auxiliary dataset that the cells name.
    store
        Holds the finished cells, and receives the new ones.
    options
        How to run. After ``deadline``, a time of ``time.monotonic()``, no cell is started.
    on_cell
        Is told of every cell that was run, when its row is kept.

    Returns
    -------
    tuple of int
        How many cells were run, and how many of these ended in an error.
    """
    done = set(store.finished(cell.key for cell in cells)["key"])
    pending = {cell.key: cell for cell in cells if cell.key not in done}
    if not pending:
        return 0, 0
    device = str(resolve_device(options.device))
    ran = failures = 0

    def in_time() -> bool:
        return options.deadline is None or time.monotonic() < options.deadline

    def told(cells: Sequence[Cell]) -> int:
        for cell in cells:
            if on_cell is not None:
                on_cell(cell)
        return len(cells)

    with (
        tqdm(
            total=len(cells),
            initial=len(cells) - len(pending),
            unit="cell",
            disable=not options.progress,
            file=sys.stderr,
            dynamic_ncols=True,
        ) as bar,
        _executor(min(options.workers, len(pending)), options.scheduler) as executor,
    ):
        in_process = isinstance(executor, _InProcess)
        futures: dict[concurrent.futures.Future[Outcome], Cell] = {}
        prepared: dict[tuple[str, str], dict[str, ArrayFile] | str] = {}
        # A shared training has every core to itself: cells run beside it would slow it more than they gain.
        for cell in pending.values():
            group = (cell.dataset, cell.features_key)
            if group not in prepared and in_time():
                bar.set_description(f"{cell.method.name} on {cell.dataset}")
                try:
                    prepared[group] = _prepare(cell, datasets, store, options, device)
                except (Exception, SystemExit) as error:  # as in a cell: it costs those that need it, and no others
                    prepared[group] = _one_line(error)
                    bar.write(f"{cell.method.name} on {cell.dataset}: {prepared[group]}", file=sys.stderr)
        for cell in pending.values():
            features = prepared.get((cell.dataset, cell.features_key))
            if features is None or not in_time():
                continue
            if isinstance(features, str):
                failures += store.add_failure(cell, features)
                ran += told([cell])
                bar.update()
                continue
            task = Task(
                cell=cell,
                **features,
                device=device,
                threads=options.threads,
                checkpoint_dir=str((options.cache / "checkpoints" / cell.key).resolve()),
                progress=options.progress and in_process,
            )
            futures[executor.submit(run_task, task)] = cell
            if in_process:
                failures += _collect(list(futures), futures, store, options, device, bar)
                ran += told([cell])
        while futures:
            left = None if options.deadline is None else max(0.0, options.deadline - time.monotonic())
            finished, _ = concurrent.futures.wait(futures, left, return_when=concurrent.futures.FIRST_COMPLETED)
            if not in_time():
                for future in [future for future in futures if future.cancel()]:
                    del futures[future]
                finished = {future for future in finished if not future.cancelled()}
                if not finished and futures:
                    finished, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
            ended = [futures[future] for future in finished]
            failures += _collect(finished, futures, store, options, device, bar)
            ran += told(ended)
    return ran, failures


def _collect(
    finished: Any,
    futures: dict[concurrent.futures.Future[Outcome], Cell],
    store: Store,
    options: Options,
    device: str,
    bar: Any,
) -> int:
    """Keep what has come of finished futures; returns the number of failures among them."""
    failures = 0
    for future in finished:
        cell = futures.pop(future)
        outcome = future.result()
        bar.set_description(f"{cell.method.name} on {cell.dataset}", refresh=False)
        if outcome.error:
            if store.add_failure(cell, outcome.error):
                failures += 1
                bar.write(f"{cell}: {outcome.error}", file=sys.stderr)
        else:
            store.add(
                cell,
                aucs=outcome.aucs,
                fit_seconds=outcome.fit_seconds,
                score_seconds=outcome.score_seconds,
                device=device_name(device),
                threads=options.threads,
                versions=provenance.versions(),
                git_commit=provenance.git_commit(),
            )
        bar.update()
    return failures


@functools.cache
def device_name(device: str) -> str:
    """The device with the name of its hardware."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return f"{device} ({provenance.processor()})"


def _prepare(
    cell: Cell, datasets: Mapping[str, Dataset], store: Store, options: Options, device: str
) -> dict[str, ArrayFile]:
    """Learn from the auxiliary images, once for all, and turn both splits into features, once for all classes."""
    dataset = datasets[cell.dataset]
    folder = options.cache / "features"
    features = {"train": folder / f"{cell.features_key}-train.npy", "test": folder / f"{cell.features_key}-test.npy"}
    images = {"train": dataset.train_images, "test": dataset.test_images}
    method = cell.method.create(seed=cell.auxiliary_seed, device=device)
    method.progress = options.progress
    kept = {split: _kept_features(path, len(images[split])) for split, path in features.items()}
    arrays = {split: array for split, array in kept.items() if array is not None}
    if len(arrays) < len(kept):
        if cell.method.needs_auxiliary:
            _learn_auxiliary(method, cell, datasets, store, options, device)
        arrays = {split: method.prepare(images[split]) for split in images}
    for split, array in arrays.items():
        if len(array) != len(images[split]):
            raise ValueError(
                f"method {cell.method.name!r}: prepare turned {len(images[split])} images into {len(array)} rows"
            )
    raw = options.cache / "images"
    files = {
        split: as_file(
            array,
            raw / f"{cell.dataset_fingerprint[:32]}-{split}.npy" if array is images[split] else features[split],
        )
        for split, array in arrays.items()
    }
    labels = {
        f"{split}_labels": as_file(values, raw / f"{cell.dataset_fingerprint[:32]}-{split}-labels.npy")
        for split, values in (("train", dataset.train_labels), ("test", dataset.test_labels))
    }
    return {**files, **labels}


def _kept_features(path: Path, rows: int) -> np.ndarray | None:
    """The features that an earlier run left, or None where there are none, or something else than ``rows`` of them."""
    try:
        array = np.load(path, mmap_mode="r")
    except Exception:  # not there, cut short or damaged, whatever the damage
        return None
    return array if array.ndim and len(array) == rows else None


def _learn_auxiliary(
    method: methods.OneClassMethod,
    cell: Cell,
    datasets: Mapping[str, Dataset],
    store: Store,
    options: Options,
    device: str,
) -> None:
    assert cell.auxiliary is not None
    path = options.cache / "auxiliary" / cell.auxiliary_key
    known = len(store.auxiliaries([cell.auxiliary_key])) > 0 and path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    method.fit_auxiliary(datasets[cell.auxiliary].train_images, path=path)
    if not known:
        store.add_auxiliary(
            cell, seconds=time.perf_counter() - started, device=device_name(device), threads=torch.get_num_threads()
        )
