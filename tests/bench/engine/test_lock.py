"""Locks: one holder at a time, nothing left behind, and an answer where there are none."""

from __future__ import annotations

import errno
import threading

import pytest

from bench.engine import lock
from bench.engine.lock import locked


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "new" / "a.lock"
    with locked(path) as first, locked(path, wait=False) as second:
        assert (first, second) == (True, False)
        assert path.exists()
    assert list(path.parent.iterdir()) == []
    with locked(path, wait=False) as again:
        assert again is True


def test_waiting_ends_with_a_lock_on_the_file_that_is_there(tmp_path):
    path = tmp_path / "a.lock"
    waiting, held, leave = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        waiting.set()
        with locked(path):
            held.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    with locked(path):
        thread.start()
        waiting.wait(20)
        assert not held.wait(0.1)
    assert held.wait(20)
    with locked(path, wait=False) as third:
        assert third is False
    leave.set()
    thread.join()
    assert not path.exists()


def test_systems_and_file_systems_without_locks(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path / "a.lock") as held:
        assert held is None
    monkeypatch.setattr(_lock, "fcntl", None)
    with locked(tmp_path / "a.lock") as held:
        assert held is None


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), locked(tmp_path / "file" / "a.lock"):
        pass
