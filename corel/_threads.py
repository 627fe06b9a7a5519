"""Python threads for kernels that release the GIL.

Numba's own threads are not used: they must not be started from several threads at a time, nor after a fork.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The pool of a process, by its id: a forked child inherits this cache, but not the threads of its parent."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="corel")


def run(tasks: Sequence[Callable[[], _Result]], threads: int) -> list[_Result]:
    """Run tasks on the calling thread and up to ``threads`` − 1 others. Returns their results, in no particular order.

    Each thread takes the next task as soon as it has finished one.
    """
    remaining = iter(list(tasks))  # shared by all threads: next() of a list's iterator is atomic

    def work() -> list[_Result]:
        return [task() for task in remaining]

    helpers: list[Future[list[_Result]]] = []
    with contextlib.suppress(RuntimeError):  # while Python shuts down, a pool takes no work: this thread does it all
        for _ in range(min(threads, len(tasks)) - 1):
            helpers.append(_pool(os.getpid()).submit(work))
    results = work()
    # all tasks are taken by now: a helper that still waits for a thread of the pool has nothing left to do
    for helper in helpers:
        if not helper.cancel():
            results += helper.result()
    return results
