"""Threads for kernels that release the GIL: Numba's own may neither be entered from several threads nor be forked."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a child inherits the object, but not its threads


def all_true(tasks: Sequence[Callable[[], int]], threads: int) -> bool:
    """Run tasks on the calling thread and up to ``threads`` − 1 others. Returns whether all returned something true.

    Each thread takes the next task as soon as it has finished one.
    """
    global _pool
    counter = itertools.count()  # next() is atomic: no two threads get the same number

    def work() -> bool:
        fine = True
        while (i := next(counter)) < len(tasks):
            fine &= bool(tasks[i]())
        return fine

    helpers: list[Future[bool]] = []
    if min(threads, len(tasks)) > 1:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="corel")
        with contextlib.suppress(RuntimeError):  # the main thread has ended, which ends pools: this thread does it all
            for _ in range(min(threads, len(tasks)) - 1):
                helpers.append(_pool.submit(work))
    fine = work()
    # all tasks are taken by now: a helper that is still waiting for a thread of the pool has nothing left to do
    return all([fine, *(helper.result() for helper in helpers if not helper.cancel())])
