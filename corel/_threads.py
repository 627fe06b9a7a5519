"""Python threads for kernels that release the GIL.

Numba's own threads are not used: they must not be started from several threads at a time, nor after a fork.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The pool of a process, by its id: a forked child inherits this cache, but not the threads of its parent."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="corel")


def all_true(tasks: Sequence[Callable[[], int]], threads: int) -> bool:
    """Run tasks on the calling thread and up to ``threads`` − 1 others. Returns whether all returned something true.

    Each thread takes the next task as soon as it has finished one.
    """
    remaining = iter(list(tasks))  # shared by all threads: next() of a list's iterator is atomic

    def work() -> bool:
        results = [task() for task in remaining]  # all of them, also after one that is false
        return all(results)

    helpers: list[Future[bool]] = []
    with contextlib.suppress(RuntimeError):  # while Python shuts down, a pool takes no work: this thread does it all
        for _ in range(min(threads, len(tasks)) - 1):
            helpers.append(_pool(os.getpid()).submit(work))
    fine = work()
    # all tasks are taken by now: a helper that still waits for a thread of the pool has nothing left to do
    return all([fine, *(helper.result() for helper in helpers if not helper.cancel())])
