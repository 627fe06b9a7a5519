"""Locks between processes, kept in files: a process that dies, however it dies, gives its locks back."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool | None]:
    """Hold the lock ``path``, a file beside what it protects; it is removed at the end.

    Parameters
    ----------
    wait
        Wait for another process that holds it; otherwise go on at once.

    Yields
    ------
    bool or None
        True if this process holds the lock, False if another one does, and None where the system or the file system
        has no locks.
    """
    descriptor = None
    held: bool | None = None
    try:
        if fcntl is not None:
            try:
                descriptor = _acquire(path, wait)
                held = True
            except BlockingIOError:
                held = False
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        yield held
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire(path: Path, wait: bool) -> int:
    """Open and lock ``path``; the open file holds the lock.

    Raises
    ------
    BlockingIOError
        If another process holds it and ``wait`` is False.
    OSError
        If it cannot be created or locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # whoever held it before has removed the file: then this is a lock on nothing
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
