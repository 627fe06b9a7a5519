"""Worker processes that leave signals to their parent, end with it however it ends, and do not outlive an error."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from bench.engine.command_line import STOP_SIGNALS

# Sent to a whole group of processes: by Ctrl-C, and by a terminal that is closed. SIGTERM stays: a pool ends with it.
_LEFT_TO_PARENT = tuple(number for number in STOP_SIGNALS if number != signal.SIGTERM)


def _start_worker() -> None:
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_PARENT)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back the signals that would stop this process, and let a process that is started within begin so.

    Otherwise Ctrl-C ends a worker with a traceback while it imports what it needs, and one that is started halfway
    with another.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    before: dict[int, Any] = {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    try:
        # the mask alone does not hold: another thread of this process may receive what is sent to it
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not None:
                before[number] = signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class WorkerPool(concurrent.futures.ProcessPoolExecutor):
    """Worker processes.

    Left by an exception, it does not wait for what they are at, which may take hours.
    """

    def __init__(self, workers: int) -> None:
        with _signals_held():  # a helper process of multiprocessing is started here
            super().__init__(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        with _signals_held():  # workers are started here, one by one
            try:
                return super().submit(fn, *args, **kwargs)
            except BrokenPipeError:  # elsewhere that is a reader of our output who has gone
                raise concurrent.futures.BrokenExecutor("a worker process did not start") from None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            for process in list((self._processes or {}).values()):
                process.kill()
        self.shutdown(cancel_futures=kind is not None)
