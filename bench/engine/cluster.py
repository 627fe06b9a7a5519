"""A Dask cluster to run tasks on: worker processes of this machine, or one that is there already."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import time
from collections.abc import Callable, Collection, Iterator
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Status, rpc
from distributed.system import MEMORY_LIMIT

from bench.engine import tasks
from bench.engine.command_line import STOP_SIGNALS
from methods.base import one_line

#: Seconds in which a Dask scheduler must identify itself.
ANSWER_SECONDS = 8.0
#: Seconds that a cluster may be without any worker.
WORKER_SECONDS = 120.0
#: Seconds between attempts to replace workers of this machine that ended for good.
REFILL_SECONDS = 5.0
#: How often a task is tried again whose worker died.
RETRIES = 2

_CONFIGURATION = {
    # Workers get the environment of this process. By default Dask sets MALLOC_TRIM_THRESHOLD_, with which the C library
    # returns freed memory to the system at once: that slows down every training step.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.daemon": False,  # a method may start processes of its own
    "distributed.worker.profile.enabled": False,
    # A worker that is short of memory must not be paused, and one that is silent for long, in compiled code, not be
    # given up: both have a cell to finish.
    "distributed.worker.memory.pause": False,
    "distributed.scheduler.worker-ttl": None,
    # A nanny restarts a worker that died. If that took longer than this, Dask would close both.
    "distributed.deploy.lost-worker-timeout": "1 day",
}
# Signals that the terminal sends to the whole process group; this process alone handles them.
_FOR_DRIVER = [number for number in STOP_SIGNALS if number != signal.SIGTERM]
# The loggers that Dask configures, and asyncio's, which reports unfinished tasks of Dask's event loop.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "bokeh", "asyncio")
_SILENT = logging.CRITICAL + 1


class DeadWorkerError(RuntimeError):
    """A task ended with its worker process each time that it was tried."""


@dataclasses.dataclass(eq=False)
class _Call:
    """A pickled function with its argument, and how many workers died while they ran it."""

    packed: bytes
    deaths: int = 0


class Cluster:
    """Runs tasks on workers, one at a time on each, and runs a task again if its worker dies.

    No task is queued at a busy worker, because Dask counts the death of a worker against every task that is there. For
    the same reason Dask does not retry tasks on the workers of this machine (``allowed_failures`` is 0): this class
    submits them again, once a worker is free.

    Parameters
    ----------
    client
        Of the cluster.
    address
        Of its scheduler; None for workers of this machine.
    device
        Where tasks compute.
    refill
        Starts workers for those that ended for good; None where somebody else starts them.
    """

    #: Several tasks may run at the same time.
    parallel = True

    def __init__(
        self, client: Client, address: str | None, device: str, refill: Callable[[], object] | None = None
    ) -> None:
        self._client = client
        self._refill, self._refilled = refill, time.monotonic()
        self._address = address
        self._source = None if address is None else tasks.source()
        self._seen = time.monotonic()
        self._at_workers = 0
        self._again: collections.deque[_Call] = collections.deque()
        self._finished: queue.SimpleQueue[tuple[Future, _Call]] = queue.SimpleQueue()
        #: Where tasks compute: "auto" on a cluster means its GPUs if it declares any.
        self.device = device
        if address is not None and device == "auto":
            while not self.slots():
                time.sleep(0.1)
            self.device = "cuda" if any(_has_gpu(worker) for worker in self._workers()) else "cpu"

    def _workers(self) -> list[dict[str, Any]]:
        with self._lost_cluster():
            return list(self._client.scheduler_info(n_workers=-1)["workers"].values())

    def slots(self) -> int:
        """How many tasks can run at once.

        Raises
        ------
        ValueError
            If the tasks need a GPU and no worker declares one.
        TimeoutError
            If there has been no worker for :data:`WORKER_SECONDS`.
        """
        workers = self._workers()
        if self._refill is not None and time.monotonic() - self._refilled > REFILL_SECONDS:
            self._refill()
            self._refilled = time.monotonic()
        if workers:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > WORKER_SECONDS:
            where = "none has started here" if self._address is None else f"the cluster at {self._address!r} has none"
            raise TimeoutError(f"no worker for {WORKER_SECONDS:.0f} s: {where}; finished cells are kept")
        able = [worker for worker in workers if not self._on_gpu or _has_gpu(worker)]
        if workers and not able:
            raise ValueError(
                f"--device: got {self.device!r}, but no worker of the cluster at {self._address!r} declares a GPU; "
                'start workers with --resources "GPU=1", or use --device cpu'
            )
        while self._again and self._at_workers < len(able):
            self._submit(self._again.popleft())
        return len(able)

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def start(self, function: Callable[[Any], Any], argument: Any) -> _Call:
        """Start ``function(argument)``; returns the object by which :meth:`wait` identifies it."""
        call = _Call(pickle.dumps((tasks.call, (function, argument, self._source))))
        self._submit(call)
        return call

    def _submit(self, call: _Call) -> None:
        # This function is pickled by value, and its argument is bytes: a scheduler can pass both on without importing
        # this package, which it may not have.
        def unpack(packed: bytes) -> Any:
            import pickle

            function, arguments = pickle.loads(packed)
            return function(*arguments)

        resources = {"GPU": 1} if self._on_gpu else None
        with self._lost_cluster():
            future = self._client.submit(unpack, call.packed, pure=False, resources=resources)
        self._at_workers += 1
        future.add_done_callback(lambda ended: self._finished.put((ended, call)))

    def wait(self) -> tuple[Any, Any] | None:
        """Wait for a task to end, but not for long: the number of workers may change.

        Returns
        -------
        tuple or None
            What :meth:`start` returned and the task's result, a :class:`DeadWorkerError` in its place if it killed
            its workers.

        Raises
        ------
        ConnectionError
            If the scheduler has gone.
        ValueError
            If a worker cannot run tasks.
        """
        try:
            future, call = self._finished.get(timeout=0.2)
        except queue.Empty:
            return None
        self._at_workers -= 1
        with self._lost_cluster():
            if future.status == "finished":
                return call, future.result()
            error = future.exception()
        if isinstance(error, KilledWorker):
            call.deaths += error.allowed_failures + 1
            if call.deaths <= RETRIES:
                self._again.append(call)
                return None
            return call, DeadWorkerError(f"its worker process ended {call.deaths} times while it ran (out of memory?)")
        if self._address is None:
            raise error
        raise ValueError(
            f"--scheduler: a worker of the cluster at {self._address!r} cannot run cells ({one_line(error)}); "
            f"install corel {tasks.source()[0]} there; finished cells are kept"
        )

    @contextlib.contextmanager
    def _lost_cluster(self) -> Iterator[None]:
        """Raise ConnectionError for any of the errors by which Dask reports that the scheduler has gone."""
        try:
            if running := self._client.status == "running":
                yield
        except (OSError, asyncio.CancelledError, concurrent.futures.CancelledError, RuntimeError, AttributeError):
            running = False
        if not running:
            where = "of the workers here" if self._address is None else f"at {self._address!r}"
            raise ConnectionError(
                f"the Dask scheduler {where} has gone; finished cells are kept; run the command again"
            )


def _has_gpu(worker: dict[str, Any]) -> bool:
    return bool(worker["resources"].get("GPU", 0) >= 1)


@contextlib.contextmanager
def local_cluster(workers: int, device: str) -> Iterator[Cluster]:
    """Worker processes of this machine, which end with the block, and with this process however it ends.

    Left by an exception, it does not wait for what they are at, which may take hours.
    """
    _quiet()
    with dask.config.set(_CONFIGURATION):
        others = multiprocessing.active_children()
        with _signals_blocked():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                memory_limit=MEMORY_LIMIT,  # per worker: mapped files count too, and cells differ in need
                resources={"GPU": 1} if device.startswith("cuda") else None,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"allowed_failures": 0, "dashboard": False},
                silence_logs=_SILENT,
            )
        try:
            with Client(cluster, set_as_default=False) as client:
                try:
                    cluster.scale(workers)  # does not wait for them
                    yield Cluster(client, None, device, lambda: cluster.loop.add_callback(_refill, cluster, workers))  # type: ignore[union-attr]
                except BaseException:
                    _kill_workers(cluster, others)
                    raise
        finally:
            with contextlib.suppress(Exception):
                cluster.close(timeout=20)


@contextlib.contextmanager
def cluster_at(address: str, device: str) -> Iterator[Cluster]:
    """The cluster of the scheduler at ``address``.

    Raises
    ------
    ValueError
        If no Dask scheduler answers there.
    """
    _quiet()
    try:
        # asked first, because a Client would wait for ever for a server that is no scheduler
        asyncio.run(asyncio.wait_for(_identity(address), ANSWER_SECONDS))
        client = Client(address, timeout=5, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or "what answers there is none"
        raise ValueError(f"--scheduler: no Dask scheduler answers at {address!r} ({reason})") from None
    with client:
        yield Cluster(client, address, device)


async def _identity(address: str) -> object:
    """What the scheduler says of itself."""
    async with rpc(address, timeout=5) as connection:
        return await connection.identity()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGHUP in the threads that are started within, and in all processes that these start later.

    The main process handles these signals for all: a worker would end with a traceback in the middle of its task.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_DRIVER)
    try:
        resource_tracker.ensure_running()  # which unblocks them in this thread: hence the second call
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_DRIVER)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _refill(cluster: LocalCluster, workers: int) -> None:
    """Replace workers whose nannies have ended; called in the cluster's event loop.

    A nanny restarts a worker that dies, but not one that dies during its first start.
    """
    for name, nanny in list(cluster.workers.items()):
        if nanny.status in (Status.closed, Status.failed):
            del cluster.workers[name]
    cluster.scale(workers)


def _kill_workers(cluster: LocalCluster, others: Collection[multiprocessing.process.BaseProcess]) -> None:
    """Kill the workers, also those that are just starting; ``others`` are child processes that are not workers."""
    for nanny in list(cluster.workers.values()):
        nanny.close_gracefully()  # else it would restart its worker
    for process in multiprocessing.active_children():
        if process not in others:
            process.kill()


def _quiet() -> None:
    """Silence Dask's loggers, also while Python exits: users get messages of one line from this program instead."""
    if not os.environ.get("COREL_DEBUG"):
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(_SILENT)
