"""The state of a training on disk, so that a killed training goes on where it stopped."""

from __future__ import annotations

import copy
import errno
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from corel import _checks


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimisers, schedulers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    Whenever the process is killed, ``path`` is either the old file or the new one, and complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    # unique for each call: other threads, and other machines, may write the same file at the same time
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.tmp")


def check_path(name: str, path: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of a file, or None for None; a TypeError or ValueError under ``name`` for anything else."""
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise TypeError(_checks.got(name, path, "paths of files, and None"))
    if not os.fspath(path):
        raise ValueError(_checks.got(name, path, "paths of files, and None"))
    return Path(path)


_resumed_seconds = 0.0


def resumed_seconds() -> float:
    """Seconds that trainings had taken in earlier processes before this one loaded their checkpoints, all together.

    What a training takes is the difference of this before and after it, added to the time that passed.
    """
    return _resumed_seconds


class Checkpoint:
    """State after the last finished epoch of one training, and how long it has taken until then.

    Parameters
    ----------
    path
        The file, or None: then nothing is ever read or written, and every training starts at epoch 0.
    key
        A text made of everything that the result of the training depends on (settings, seed, data fingerprint).
        A file with another key belongs to another training and is ignored.

    Examples
    --------
    >>> module = torch.nn.Linear(2, 1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> checkpoint = Checkpoint(None)
    >>> start, extra = checkpoint.load(module=module, generator=generator)
    >>> start, extra
    (0, None)
    """

    def __init__(self, path: str | os.PathLike[str] | None, key: str = "") -> None:
        self.path = check_path("path", path)
        self.key = key
        self._seconds, self._began = 0.0, time.perf_counter()

    def load(self, **parts: Stateful | torch.Generator) -> tuple[int, Any]:
        """Restore ``parts`` in place and return (finished epochs, the ``extra`` given to :meth:`save`).

        Returns (0, None), with ``parts`` untouched, if there is no file, if it has another key, or if it cannot be
        read, for instance after a disk error; the training then starts again.
        The global random states of torch, of the CPU and of GPUs that this process uses, are restored too, and
        :func:`resumed_seconds` grows.
        """
        global _resumed_seconds
        if self.path is None:
            return 0, None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["key"] != self.key or set(state["parts"]) != set(parts):
                return 0, None
        except Exception:  # no file, or any damage to it: there is no usable checkpoint
            return 0, None
        before = copy.deepcopy(_states(parts))
        try:
            epoch, extra, seconds = int(state["epoch"]), state["extra"], float(state.get("seconds", 0.0))
            _restore(parts, state["parts"])
            torch.set_rng_state(state["rng"])
            if torch.cuda.is_initialized():
                # the file may come from a machine with another number of GPUs
                for device, rng in zip(range(torch.cuda.device_count()), state["cuda_rng"], strict=False):
                    torch.cuda.set_rng_state(rng, device)
            self._seconds, self._began = seconds, time.perf_counter()
            _resumed_seconds += seconds
            return epoch, extra
        except Exception:  # under the right key, but nothing that save() wrote
            _restore(parts, before)
            return 0, None

    def save(self, epoch: int, *, extra: Any = None, **parts: Stateful | torch.Generator) -> None:
        """Write ``parts`` as they are after ``epoch`` finished epochs.

        ``extra`` may hold numbers, strings, tensors, and lists and dictionaries of these.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        if self.path is None:
            return
        state = {
            "key": self.key,
            "epoch": epoch,
            "extra": extra,
            "seconds": self._seconds + time.perf_counter() - self._began,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "parts": _states(parts),
        }
        write_atomically(self.path, lambda stream: torch.save(state, stream))

    def check_writable(self) -> None:
        """Make the file's folder and try to write there, so that a training fails at its start rather than at its end.

        Raises
        ------
        ValueError
            If nothing can be written there, or the path is a folder.
        """
        if self.path is None:
            return
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _temporary(self.path)
            temporary.touch()
            temporary.unlink()
        except (OSError, ValueError) as error:  # ValueError: a character that no path can have
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"checkpoint: cannot write to {str(self.path)!r} ({reason})") from None

    def remove(self) -> None:
        """Delete the file, if there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _states(parts: Mapping[str, Stateful | torch.Generator]) -> dict[str, Any]:
    return {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts.items()
    }


def _restore(parts: Mapping[str, Stateful | torch.Generator], states: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(states[name])
        else:
            part.load_state_dict(states[name])
