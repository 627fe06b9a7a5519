"""What one process computes: the preparation that cells share, and a cell."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from threadpoolctl import ThreadpoolController

import methods
from bench.engine import protocol, provenance
from bench.engine.cells import Cell, MethodSpec
from bench.engine.isolation import process_unchanged
from corel.checkpoint import resumed_seconds, write_atomically
from methods.base import one_line

#: Keys and types of the JSON file that is stored next to a training on auxiliary images.
_TRAINING = {"seconds": float, "threads": int, "device": str, "versions": dict, "git_commit": str}
# Errors of a file system that does not support locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


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
        return mapped_file(array)
    write_atomically(path, lambda stream: np.save(stream, np.ascontiguousarray(array)))
    return mapped_file(np.load(path, mmap_mode="r"))


def mapped_file(mapped: np.memmap) -> ArrayFile:
    """The file that a C-contiguous array is mapped from."""
    # A view of a map keeps the whole map's offset, so its start is measured from the addresses.
    whole = mapped
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    start = mapped.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    file = str(Path(str(mapped.filename)).resolve())
    return ArrayFile(file, mapped.dtype.str, mapped.shape, whole.offset + start)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What the tasks of a run have in common. ``cache`` is absolute: other processes work in other folders."""

    cache: Path
    device: str
    threads: int
    progress: bool


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A cell for those that share its prepared splits, with the images that these are made of.

    ``method`` is the cell's, by a name that means the same in every process; seeds come from the cell's own.
    """

    cell: Cell
    method: MethodSpec
    train: ArrayFile
    test: ArrayFile
    auxiliary: ArrayFile | None
    conditions: Conditions


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Both splits as features. ``training``: seconds, device, threads, versions and commit of the shared training."""

    train: ArrayFile | None = None
    test: ArrayFile | None = None
    training: dict[str, Any] | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell with all that a process needs to compute it; ``method`` as in :class:`Preparation`."""

    cell: Cell
    method: MethodSpec
    train: ArrayFile
    train_labels: ArrayFile
    test: ArrayFile
    test_labels: ArrayFile
    conditions: Conditions


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a task, and where it was computed; ``error`` is empty on success."""

    aucs: dict[str, float] = dataclasses.field(default_factory=dict)
    fit_seconds: float = 0.0
    score_seconds: float = 0.0
    parameters: int | None = None
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    git_commit: str = ""
    error: str = ""


def source() -> tuple[str, str]:
    """Version and commit of the package in this process, as far as they are known.

    Changes that are not committed do not count: a file may be edited while a run goes on.
    """
    commit = provenance.git_commit().removesuffix("-dirty")
    return provenance.versions().get("corel", ""), "" if commit.startswith("version ") else commit


# A task sets the number of threads and the random generators of the whole process: a worker runs one at a time.
_one_at_a_time = threading.Lock()


def call(function: Callable[[Any], Any], argument: Any, expected: tuple[str, str] | None) -> Any:
    """Call ``function`` in a worker.

    Parameters
    ----------
    expected
        The :func:`source` that this process is to have; None: whichever it has.

    Raises
    ------
    ImportError
        If it has another one.
    """
    if expected is not None:
        version, commit = source()
        if version != expected[0] or (commit and expected[1] and commit != expected[1]):
            raise ImportError(f"it has corel {version} {commit}, and the run corel {' '.join(expected)}")
    with _one_at_a_time:
        return function(argument)


def run_task(task: Task) -> Outcome:
    """Draw, fit, score and measure one cell. An error of the method is returned, not raised."""
    cell, conditions = task.cell, task.conditions
    folder = conditions.cache / "checkpoints" / cell.key
    try:
        _check_source(task.method)
        with (
            process_unchanged(cell.method_seed),
            _threads(conditions.threads),
            _locked(folder.with_name(f"{folder.name}.lock"), wait=False) as alone,
        ):
            chosen = protocol.draw(
                task.train_labels.open(),
                cell.class_index,
                cell.train_per_class,
                dataset=cell.draw_name,
                run=cell.run,
                base_seed=cell.base_seed,
            )
            test, labels = task.test.open(), task.test_labels.open()
            if cell.test_images is not None:
                subset = protocol.test_subset(
                    labels, cell.test_images, dataset=cell.draw_name, base_seed=cell.base_seed
                )
                test, labels = test[subset], labels[subset]
            method = _create(task.method, cell.method_seed, conditions)
            # Another run may compute the same cell at the same time: only one of them writes checkpoints.
            method.checkpoint_dir = folder if alone else None
            started = _clock()
            method.fit(np.asarray(task.train.open()[chosen]))
            fitted = _clock()
            variants = _checked_variants(method.score_variants(test), len(labels))
            scored = _clock()
            parameters = _parameters(method)
            aucs = {name: _best_auc(labels == cell.class_index, scores) for name, scores in variants.items()}
            if alone:
                shutil.rmtree(folder, ignore_errors=True)
    except (Exception, SystemExit) as error:  # whatever a method raises fails its own cell only
        return Outcome(error=one_line(error))
    return Outcome(aucs, fitted - started, scored - fitted, parameters, **_provenance(conditions))


def _clock() -> float:
    """Seconds, with those of earlier processes whose trainings go on in this one: a difference is of all the work."""
    return time.perf_counter() + resumed_seconds()


def _parameters(method: methods.OneClassMethod) -> int | None:
    """How many parameters a fitted method says that it has.

    Raises
    ------
    TypeError
        If that is not a whole number.
    """
    given = method.parameters()
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"parameters: the method returned {given!r}; accepted are whole numbers and None")
    return int(given)


def prepare(preparation: Preparation) -> Prepared:
    """Learn from the auxiliary images, once for all, and turn both splits into features, once for all classes.

    An error of the method is returned, not raised.
    """
    cell, conditions = preparation.cell, preparation.conditions
    shared = "auxiliary" if cell.method.needs_auxiliary else "features"
    key = cell.auxiliary_key if cell.method.needs_auxiliary else cell.features_key
    lock = conditions.cache / shared / f"{key}.lock"
    try:
        _check_source(preparation.method)
        # A process that waited for the lock finds the results of the other one in the cache.
        with process_unchanged(cell.auxiliary_seed), _threads(conditions.threads), _locked(lock, wait=True):
            return _prepare(preparation)
    except (Exception, SystemExit) as error:  # fails the cells that need this preparation, and no others
        return Prepared(error=one_line(error))


def _prepare(preparation: Preparation) -> Prepared:
    cell, conditions = preparation.cell, preparation.conditions
    images = {"train": preparation.train, "test": preparation.test}
    paths = {split: conditions.cache / "features" / f"{cell.features_key}-{split}.npy" for split in images}
    trained = conditions.cache / "auxiliary" / cell.auxiliary_key
    arrays = {split: _kept_features(paths[split], file.shape[0]) for split, file in images.items()}
    if any(array is None for array in arrays.values()):
        method = _create(preparation.method, cell.auxiliary_seed, conditions)
        if preparation.auxiliary is not None:
            _learn(method, preparation.auxiliary.open(), trained, conditions)
        arrays = {split: _features(method, file.open()) for split, file in images.items()}
    # Images that ``prepare`` returns unchanged are not copied: they stay in the file that they are mapped from.
    files = {split: as_file(array, paths[split]) for split, array in arrays.items() if array is not None}
    training = _training(trained) if cell.method.needs_auxiliary else None
    return Prepared(files["train"], files["test"], training)


def _learn(method: methods.OneClassMethod, images: np.ndarray, path: Path, conditions: Conditions) -> None:
    """Train on auxiliary images, or load an earlier training; of a new one, store time and provenance next to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before, started = file_identity(path), _clock()
    method.fit_auxiliary(images, path=path)
    if file_identity(path) != before:
        took = {"seconds": _clock() - started, "threads": conditions.threads, **_provenance(conditions)}
        write_atomically(_beside(path), lambda stream: stream.write(json.dumps(took, sort_keys=True).encode()))


def _training(path: Path) -> dict[str, Any] | None:
    """Time and provenance of the training stored at ``path``; None if they are not known."""
    try:
        took = json.loads(_beside(path).read_bytes())
    except (OSError, ValueError):
        return None
    return took if _is_training(took) else None


def _is_training(took: Any) -> bool:
    """Whether ``took`` has the form that :func:`_learn` writes: the file may have been edited."""
    if not isinstance(took, dict) or {name: type(value) for name, value in took.items()} != _TRAINING:
        return False
    return 0 <= took["seconds"] < math.inf and all(isinstance(version, str) for version in took["versions"].values())


def _beside(path: Path) -> Path:
    """The file with time and provenance of the training stored at ``path``."""
    return path.with_name(f"{path.name}.json")


def file_identity(path: Path) -> tuple[int, int] | None:
    """Inode and modification time, which change when a file is replaced; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _kept_features(path: Path, rows: int) -> np.ndarray | None:
    """Features that an earlier run has cached; None if there are none, or not ``rows`` of them."""
    try:
        array = np.load(path, mmap_mode="r")
    except Exception:  # missing, truncated or damaged in any way
        return None
    return array if array.ndim and len(array) == rows else None


def _check_source(method: MethodSpec) -> None:
    """Run the file of the method, if it has one, and make sure that it is the one that the cell was planned with."""
    with process_unchanged():
        if methods.source_digest(method.name) != method.source:
            raise RuntimeError("the method's file has changed since the run was started")


def _create(spec: MethodSpec, seed: int, conditions: Conditions) -> methods.OneClassMethod:
    method = spec.create(seed=seed, device=conditions.device)
    method.progress = conditions.progress
    return method


def _provenance(conditions: Conditions) -> dict[str, Any]:
    """Where this process computes, and with what."""
    return {
        "device": device_name(conditions.device),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
    }


def device_name(device: str) -> str:
    """The device with the name of its hardware."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return f"{device} ({provenance.processor()})"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads; results depend on their number, so it is the same wherever a task runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with _pools(len(sys.modules)).limit(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The thread pools of all libraries; the search takes milliseconds, and is repeated only for more ``modules``."""
    return ThreadpoolController()


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock between processes; without ``wait``, yield False where another process holds it.

    The operating system releases the locks of a process that dies. On a file system without locks, every process goes
    on as if it held the lock: files are replaced in one step, so at worst a value is computed twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # filelock notices this in waiting processes, and locks a new file
        lock.release()


def _as_array(what: str, given: Any) -> np.ndarray:
    """What a method returned as an array: NumPy's, a tensor on any device, or numbers in sequences.

    Raises
    ------
    TypeError
        If it is nothing of the kind.
    """
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    try:
        array = np.asanyarray(given)  # a memory-mapped array stays one
    except Exception:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        kind = f"an array of dtype {array.dtype}" if isinstance(given, np.ndarray) else f"{type(given).__name__}"
        raise TypeError(f"{what}: the method returned {kind}; accepted are real numbers in an array, tensor or list")
    return array


def _features(method: methods.OneClassMethod, images: np.ndarray) -> np.ndarray:
    """The features of ``images``.

    Raises
    ------
    TypeError, ValueError
        If ``prepare`` returns something else than numbers, a row an image.
    """
    features = _as_array("prepare", method.prepare(images))
    if not features.ndim or len(features) != len(images):
        raise ValueError(
            f"prepare: the method returned shape {features.shape}; accepted are {len(images)} rows, one an image"
        )
    return features


def _checked_variants(variants: Any, count: int) -> dict[str, np.ndarray]:
    """The scores of a method as :meth:`methods.OneClassMethod.score_variants` says.

    Raises
    ------
    TypeError, ValueError
        If they are not, naming what the method returned.
    """
    if not isinstance(variants, Mapping) or not variants or not all(isinstance(name, str) for name in variants):
        shown = f"names {list(variants)!r}" if isinstance(variants, Mapping) else f"{type(variants).__name__}"
        raise TypeError(
            f"score_variants: the method returned {shown}; accepted is a dictionary with strings as names, one at least"
        )
    checked = {}
    for name, given in variants.items():
        what = f"scores {name!r}" if name else "scores"
        scores = _as_array(what, given)
        if scores.ndim not in (1, 2) or scores.shape[-1] != count or not scores.size:
            raise ValueError(
                f"{what}: the method returned shape {scores.shape}; accepted are ({count},), one score an image, and "
                f"(k, {count}), a family of k scores, by the name 'oracle'"
            )
        if scores.ndim == 2 and name != "oracle":  # the best one by test AUC is reported: the name must say so
            raise ValueError(
                f"{what}: the method returned a family of scores, shape {scores.shape}, which is accepted by the name "
                f"'oracle' alone; by any other ({count},), one score an image"
            )
        checked[name] = scores
    return checked


def _best_auc(in_class: np.ndarray, scores: np.ndarray) -> float:
    """AUC of a score; of a (k, n) family the best one's, which only an oracle could have picked."""
    return max(protocol.auc(in_class, row) for row in np.atleast_2d(scores))
