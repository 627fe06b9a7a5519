"""Runs cells: in this process, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engine.command_line import loading

if TYPE_CHECKING:
    from bench.data import Dataset
    from bench.engine.cells import Cell
    from bench.engine.cluster import Cluster
    from bench.engine.store import Store
    from bench.engine.tasks import Outcome, Preparation, Prepared, Task


@dataclasses.dataclass(frozen=True)
class Options:
    """How cells are run. Nothing here is part of a cell's key; device and ``threads`` are kept in its row.

    ``workers`` are processes of this machine; 1 stands for this process. With ``scheduler``, the address of a Dask
    scheduler, cells run on its cluster; "auto" as ``device`` then means GPUs if its workers declare any.
    After ``deadline``, a time of ``time.monotonic()``, nothing more is started.
    """

    cache: Path
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    scheduler: str | None = None
    progress: bool = True
    deadline: float | None = None


class _InProcess:
    """Runs tasks in this process, one at a time: :meth:`start` only remembers a task, :meth:`wait` runs it."""

    parallel = False

    def __init__(self, device: str) -> None:
        self.device = device

    def slots(self) -> int:
        return 1

    def start(self, function: Callable[[Any], Any], argument: Any) -> object:
        self._task = functools.partial(function, argument)
        return self._task

    def wait(self) -> tuple[object, Any]:
        return self._task, self._task()


@contextlib.contextmanager
def _engine(options: Options, tasks: int) -> Iterator[_InProcess | Cluster]:
    """Yield the engine that runs the tasks; it has no more workers than there are tasks."""
    from corel._device import resolve_device

    workers = min(options.workers, tasks)
    if options.scheduler is None and workers == 1:
        yield _InProcess(str(resolve_device(options.device)))
        return
    with loading():
        from bench.engine.cluster import cluster_at, local_cluster
    if options.scheduler is not None:
        with cluster_at(options.scheduler, options.device) as engine:
            yield engine
    else:
        with local_cluster(workers, str(resolve_device(options.device))) as engine:
            yield engine


class _Group:
    """Cells that share their prepared splits."""

    def __init__(self, preparation: Preparation, labels: dict[str, Any]) -> None:
        self.preparation = preparation
        self.labels = labels
        self.cells: list[Cell] = []
        self.started = False
        self.prepared: Prepared | None = None

    @property
    def training(self) -> str | None:
        """Key of the training on auxiliary images that the group needs; None without one.

        Groups that need the same training are prepared one after the other.
        """
        cell = self.preparation.cell
        return cell.auxiliary_key if cell.method.needs_auxiliary else None

    def task(self, cell: Cell) -> Task:
        from bench.engine.tasks import Task

        assert self.prepared is not None
        assert self.prepared.train is not None
        assert self.prepared.test is not None
        shared = {"method": self.preparation.method, "conditions": self.preparation.conditions, **self.labels}
        return Task(cell, train=self.prepared.train, test=self.prepared.test, **shared)


def execute(
    cells: Sequence[Cell],
    datasets: Mapping[str, Dataset],
    store: Store,
    options: Options,
    on_cell: Callable[[Cell], None] | None = None,
) -> tuple[int, int]:
    """Run the cells that the store does not hold and keep each as it ends.

    What cells share is computed once, before the first of them, beside cells that do not need it. The cell of a worker
    process that dies is tried again: three times in all on this machine, on a cluster as often as its scheduler allows.

    Parameters
    ----------
    cells
        What is wanted. They are started in this order, as far as what they share is there.
    datasets
        By name: every dataset and auxiliary dataset that the cells name.
    store
        Holds the finished cells, and receives the new ones.
    options
        How to run.
    on_cell
        Called in this process each time a cell has been stored or has failed.

    Returns
    -------
    tuple of int
        How many cells were run, and how many of these ended in an error.

    Raises
    ------
    ValueError
        If there is no such device or scheduler, or a worker cannot run cells.
    OSError
        If the scheduler goes, or there are no workers.
    """
    done = set(store.finished(cell.key for cell in cells)["key"])
    pending = {cell.key: cell for cell in cells if cell.key not in done}
    if not pending:
        return 0, 0
    with loading():
        from tqdm.auto import tqdm

        from bench.engine import tasks
        from methods.base import one_line
    ran = failures = 0
    with (
        _engine(options, len(pending)) as engine,
        tqdm(
            total=len(cells),
            initial=len(cells) - len(pending),
            unit="cell",
            disable=not options.progress,
            file=sys.stderr,
            dynamic_ncols=True,
        ) as bar,
    ):

        def keep(cell: Cell, outcome: Outcome) -> bool:
            """Store the outcome of a cell; returns whether it counts as failed."""
            nonlocal ran
            ran += 1
            failed = False
            if outcome.error:
                failed = store.add_failure(cell, outcome.error)
                if failed:
                    bar.write(f"{cell}: {outcome.error}", file=sys.stderr)
            else:
                store.add(
                    cell,
                    aucs=outcome.aucs,
                    fit_seconds=outcome.fit_seconds,
                    score_seconds=outcome.score_seconds,
                    parameters=outcome.parameters,
                    device=outcome.device,
                    threads=options.threads,
                    versions=outcome.versions,
                    git_commit=outcome.git_commit,
                )
            bar.set_description(f"{cell.method.name} on {cell.dataset}", refresh=False)
            bar.update()
            if on_cell is not None:
                on_cell(cell)
            return failed

        groups = _groups(list(pending.values()), datasets, options, engine)
        running: dict[Any, _Group | Cell] = {}

        def late() -> bool:
            return options.deadline is not None and time.monotonic() >= options.deadline

        def fill() -> None:
            free = engine.slots() - len(running)
            while (
                free > 0 and not late() and (job := _next(groups if engine.parallel else groups[:1], running.values()))
            ):
                what, function, argument = job
                running[engine.start(function, argument)] = what
                free -= 1

        while groups or running:
            fill()
            if late() and not running:
                break
            ended = engine.wait()
            if ended is None:
                continue
            what, result = running.pop(ended[0]), ended[1]
            error = one_line(result) if isinstance(result, Exception) else result.error
            if isinstance(what, _Group):
                what.prepared = tasks.Prepared(error=error) if error else result
                first = what.preparation.cell
                if error:
                    bar.write(f"{first.method.name} on {first.dataset}: {error}", file=sys.stderr)
                    failures += sum(keep(cell, tasks.Outcome(error=error)) for cell in what.cells)
                    what.cells.clear()
                elif result.training is not None and store.auxiliaries([first.auxiliary_key]).empty:
                    store.add_auxiliary(first, **result.training)
            else:
                try:
                    fill()  # the worker gets its next task before its last cell is stored
                finally:  # this cell is finished, whatever happened to the cluster
                    failures += keep(what, tasks.Outcome(error=error) if error else result)
            groups = [group for group in groups if group.cells or group.prepared is None]
    return ran, failures


def _next(groups: Sequence[_Group], running: Any) -> tuple[_Group | Cell, Callable[[Any], Any], Any] | None:
    """What to start next, with function and argument: preparations first, then cells, both in the planned order."""
    from bench.engine import tasks

    under_way = {what.training for what in running if isinstance(what, _Group)} - {None}
    for group in groups:
        if not group.started and group.training not in under_way:
            group.started = True
            return group, tasks.prepare, group.preparation
    for group in groups:
        if group.prepared is not None and group.cells:
            cell = group.cells.pop(0)
            return cell, tasks.run_task, group.task(cell)
    return None


def _groups(
    cells: Sequence[Cell], datasets: Mapping[str, Dataset], options: Options, engine: _InProcess | Cluster
) -> list[_Group]:
    """Cells by what they share, in the order of the first of each; every path in them is absolute."""
    from bench.engine import tasks

    conditions = tasks.Conditions(
        options.cache.absolute(), engine.device, options.threads, progress=options.progress and not engine.parallel
    )
    groups: dict[tuple[str, str], _Group] = {}
    for cell in cells:
        shared = (cell.dataset, cell.features_key)
        if shared not in groups:
            dataset = datasets[cell.dataset]
            groups[shared] = _Group(
                tasks.Preparation(
                    cell,
                    dataclasses.replace(cell.method, name=_absolute(cell.method.name)),
                    train=tasks.mapped_file(dataset.train_images),
                    test=tasks.mapped_file(dataset.test_images),
                    auxiliary=(
                        None if cell.auxiliary is None else tasks.mapped_file(datasets[cell.auxiliary].train_images)
                    ),
                    conditions=conditions,
                ),
                {
                    "train_labels": tasks.mapped_file(dataset.train_labels),
                    "test_labels": tasks.mapped_file(dataset.test_labels),
                },
            )
        groups[shared].cells.append(cell)
    return list(groups.values())


def _absolute(name: str) -> str:
    """The name of a method, with the path in it, if it has one, absolute: other processes work in other folders."""
    from methods import detectors, own

    location = own.parse(name)
    if detectors.parse(name) is not None:
        detector, at, encoder = name.partition("@")
        return f"{detector}{at}{_absolute(encoder)}" if at else name
    if location is None:
        return name
    path, class_name = location
    return str(path.absolute()) + ("" if class_name is None else f":{class_name}")
