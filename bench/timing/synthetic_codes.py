"""A synthetic dataset of codes and the ball count on it, run by the engine: what a table of many classes costs."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import psutil
from scipy.optimize import nnls

from bench.data import Dataset
from bench.engine.cells import method_spec, plan
from bench.engine.execute import Options, execute
from bench.engine.store import STORE_FILE, Store
from corel import BallCount
from corel.checkpoint import write_atomically
from methods import OneClassMethod

#: Columns of a code: 16 branches of 10 dimensions, as the paper's.
BRANCHES, DIM = 16, 160
#: How far the mean of a class lies from that of all, in standard deviations of its codes.
_SPREAD = 0.1
_GIB = 2**30
#: Seconds that a process gets to end after it was asked to.
_PATIENCE_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Size:
    """A dataset: ``m`` codes of each class are drawn from twice as many."""

    classes: int
    test: int
    m: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run took. ``gib``: the most memory that all its processes held at once, mapped files included."""

    seconds: float
    cpu_seconds: float
    gib: float
    auc: float


@dataclasses.dataclass(frozen=True)
class CodesSettings:
    """The radius is about the median distance of two codes in a branch, so that counts are neither all 0 nor all m."""

    radius: float = 11.0
    branches: int = BRANCHES


class BallCountOfCodes(OneClassMethod):
    """The ball count of Eq. 6 on features that are codes already."""

    name = "ball-count-of-codes"
    profiles: ClassVar = {"paper": CodesSettings()}

    def fit(self, features: np.ndarray) -> Self:
        """Store (m, 160) codes."""
        self._model = BallCount(radius=self.settings.radius, branches=self.settings.branches).fit(features)
        return self

    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Count, (n, 160) → (n,) float64."""
        return self._model.score_samples(features)


def make_codes(folder: Path, size: Size, seed: int) -> Dataset:
    """Write Gaussian codes, float32, whose mean depends on the class: a dataset with codes in place of images."""
    generator = np.random.default_rng(seed)
    means = _SPREAD * generator.normal(size=(size.classes, DIM)).astype(np.float32)
    counts = {"train": 2 * size.m * size.classes, "test": size.test}
    for split, count in counts.items():
        labels = np.arange(count, dtype=np.int64) % size.classes
        codes = np.lib.format.open_memmap(folder / f"{split}-images.npy", "w+", np.float32, (count, DIM))
        for start in range(0, count, 10_000):  # in parts: what is measured afterwards is the run, not this
            part = labels[start : start + 10_000]
            codes[start : start + 10_000] = means[part] + generator.normal(size=(len(part), DIM))
        codes.flush()
        write_atomically(folder / f"{split}-labels.npy", lambda stream, labels=labels: np.save(stream, labels))  # type: ignore[misc]
    names = tuple(str(index) for index in range(size.classes))
    return Dataset("codes", "synthetic codes", names, f"synthetic {size} {seed}", folder)


def run(size: Size, folder: Path, *, seed: int, workers: int, threads: int, progress: bool) -> Cost:
    """Draw, fit, score, measure and store every class of a synthetic dataset by the engine.

    Parameters
    ----------
    folder
        An empty one, for codes and store.

    Raises
    ------
    RuntimeError
        If a cell fails.
    """
    warm = np.zeros((BRANCHES, DIM), np.float32)
    BallCount(branches=BRANCHES).fit(warm).score_samples(warm)  # compiles, once for all runs of this machine
    dataset = make_codes(folder, size, seed)
    spec = method_spec(f"{Path(__file__).resolve()}:{BallCountOfCodes.__name__}", "paper")
    options = Options(folder / "cache", "cpu", threads, workers, progress=progress)
    with _peak_memory() as peak, Store(folder / STORE_FILE) as store:
        started, before = time.perf_counter(), _cpu_seconds()
        classes = range(size.classes)
        cells = plan(dataset, [spec], auxiliary=None, train_per_class=[size.m], runs=1, classes=classes, base_seed=seed)
        _, failures = execute(cells, {dataset.name: dataset}, store, options)
        rows = store.finished(cell.key for cell in cells)
        seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - before
    if failures or len(rows) != size.classes:
        raise RuntimeError(f"{failures} of {size.classes} cells failed")
    return Cost(seconds, cpu_seconds, peak[0] / _GIB, float(rows["auc"].mean()))


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def _peak_memory(interval: float = 0.2) -> Iterator[list[int]]:
    """Sample the bytes that this process and those that it started hold; the list holds the most at the end.

    Of memory that several share, where the system says so, each counts its part.
    """
    peak, ended, this = [0], threading.Event(), psutil.Process()

    def sample() -> None:
        held = 0
        for process in [this, *this.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has just ended
                memory = process.memory_full_info()
                held += getattr(memory, "pss", memory.rss)
        peak[0] = max(peak[0], held)

    def watch() -> None:
        while not ended.wait(interval):
            sample()

    sampler = threading.Thread(target=watch, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        sample()
        ended.set()
        sampler.join()


def run_alone(size: Size, **how: Any) -> Cost:
    """:func:`run` in a process and a temporary folder of its own, so that memory is that of this size alone.

    Raises
    ------
    RuntimeError
        If a cell fails, or that process ends.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="corel-scale-") as folder:
        process = context.Process(target=_answer, args=(there, size, Path(folder), how))
        # a terminal sends Ctrl-C to that process too: it is to ignore it from the start, and end by another signal
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        there.close()
        try:
            answer = here.recv()
        except EOFError:
            raise RuntimeError(f"the process of {size} ended: could not allocate memory?") from None
        except BaseException:
            process.terminate()
            process.join(_PATIENCE_SECONDS)
            process.kill()  # what it leaves lies in the folder, which goes
            raise
        finally:
            process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(connection: Connection, size: Size, folder: Path, how: dict[str, Any]) -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt  # which no cell takes for an error of its method

    signal.signal(signal.SIGTERM, stop)
    try:
        connection.send(run(size, folder, **how))
    except Exception as error:
        connection.send(error)
    except KeyboardInterrupt:
        return


def terms(sizes: Sequence[Size]) -> tuple[np.ndarray, np.ndarray]:
    """What time and memory are made of, a column each with no negative factor.

    Time: a start, and for each class a constant, a part per test code, one per pair of test and stored code, and one
    per label that the draw looks at. Memory: what is always there, the training codes, and the test codes.
    """
    time_terms = [[1, s.classes, s.classes * s.test, s.classes * s.test * s.m, s.classes**2 * s.m] for s in sizes]
    memory_terms = [[1, s.classes * s.m, s.test] for s in sizes]
    return np.array(time_terms, float), np.array(memory_terms, float)


def extrapolate(measured: pd.DataFrame, size: Size) -> dict[str, float]:
    """Seconds, CPU seconds and GiB of another size, by non-negative least squares of relative errors.

    Parameters
    ----------
    measured
        Columns ``classes``, ``test``, ``m``, ``seconds``, ``cpu_seconds`` and ``gib``, a row a run.
    """
    sizes = [Size(*row) for row in measured[["classes", "test", "m"]].itertuples(index=False, name=None)]
    time_terms, memory_terms = terms(sizes)
    time_wanted, memory_wanted = terms([size])
    found = {}
    for name, design, wanted in (
        ("seconds", time_terms, time_wanted),
        ("cpu_seconds", time_terms, time_wanted),
        ("gib", memory_terms, memory_wanted),
    ):
        values = measured[name].to_numpy(float)
        scale = design.max(axis=0)  # the solver wants columns of like size
        factors, _ = nnls(design / scale / values[:, None], np.ones(len(values)))
        found[name] = float((wanted[0] / scale) @ factors)
    return found


def growth(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent k of values ~ sizesᵏ, least squares in logarithms."""
    return float(np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float)), 1)[0])
