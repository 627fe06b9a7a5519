"""Keeping the C library from giving freed memory back, where that costs more than it saves."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# What they are after a block. Whoever sets a parameter ends glibc's own adjustment of the two thresholds for good;
# these are the values at which it arrives in a program that frees large blocks.
_AFTERWARDS = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}

_lock = threading.Lock()
_depth = 0


@functools.cache
def _glibc() -> Any:
    """The C library, where it is one that has mallopt; else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextlib.contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Within the block, memory that is freed stays with the process; afterwards it is given back.

    PyTorch asks the C library anew for every activation of every training step. By default glibc maps large ones from
    the kernel and unmaps them again, so that each step pays for thousands of page faults: a fifth of a step of the
    autoencoder. Does nothing where the C library is another one. Blocks may be nested and in several threads.
    """
    global _depth
    library = _glibc()
    with _lock:
        _depth += 1
        if library is not None and _depth == 1:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if library is not None and _depth == 0:
                for parameter, value in _AFTERWARDS.items():
                    library.mallopt(parameter, value)
                library.malloc_trim(0)
