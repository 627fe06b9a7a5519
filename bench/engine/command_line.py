"""Parsers of arguments, error messages, signals and exit statuses of all commands.

An error is one line and status 2. A signal that asks a command to stop is one line and status 128 + its number: 130
after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.data.text import escaped_controls

#: The signals that ask a program to stop, as far as this system has them.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

#: Exit status after the reader of the output has closed the pipe, as in a shell: 128 + SIGPIPE.
_NO_READER = 141


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {escaped_controls(message)} (--help lists the options)\n")


def integer(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``, both included; None: without a bound."""
    accepted = "whole numbers"
    if least is not None:
        accepted += f" of at least {least}" if most is None else f" from {least} to {most}"

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            value = int(text)
            if (least is None or least <= value) and (most is None or value <= most):
                return value
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are {accepted}")

    return parse


def number(accepted: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """A parser of the numbers for which ``holds`` is true, which must be false for NaN; ``accepted`` names them."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if holds(value := float(text)):
                return value
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are {accepted}")

    return parse


def torch_device(text: str) -> str:
    """Parse the name of a device. Whether it is here is not asked: a cluster has its own."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are auto, cpu, cuda and cuda:N")
    return text


whole_number = integer()
non_negative_int = integer(0)
positive_int = integer(1)
#: A process cannot sensibly have more threads than this.
thread_count = integer(1, 1024)
#: All cells are planned before the first is computed: with many more runs they would not fit into memory.
run_count = integer(1, 10_000)


def train_per_class(text: str) -> int | str:
    """Parse a number of training images per class: an integer of at least 1, or ``all``."""
    if text == "all":
        return text
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are whole numbers of at least 1, and 'all'") from None


def writable_directory(path: str | os.PathLike[str], files: Sequence[str] = (), *, argument: str = "--out") -> Path:
    """Create the folder ``path`` where there is none and make sure that files can be written there.

    Parameters
    ----------
    files
        Names of the files that will be: nothing but a file may stand in their place.
    argument
        The argument that gave the path, for errors.

    Raises
    ------
    ValueError
        If it cannot be created or written to.
    """
    if not os.fspath(path):
        raise ValueError(f"{argument}: got ''; accepted is the path of a folder")
    directory = Path(path)
    probe = directory / f".write-test-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{argument}: cannot write to {str(directory)!r} ({error.strerror})") from None
    for name in files:
        if (directory / name).is_dir():
            raise ValueError(f"{argument}: cannot write {str(directory / name)!r}: it is a folder; move it away")
    return directory


def _leave(number: int, frame: object = None) -> NoReturn:
    """End this process at once, with one line; worker processes end by themselves."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{_program()}: {_how(number)}\n".encode())
    os._exit(128 + number)


def _program() -> str:
    return _running[-1] if _running else f"bench.{Path(sys.argv[0]).stem}"


def _how(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


# Names of the commands that run in this process; each one but the first was called by the one before it.
_running: list[str] = []


def _handle(handler: Callable[[int, Any], object]) -> dict[int, Any]:
    """Let ``handler`` answer the signals that ask a program to stop; returns what answered them before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    # signals that are ignored stay ignored, as under nohup and for background jobs of a shell
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in heard}


def leave_quietly_while_loading() -> None:
    """Answer signals with one line and a status, at once, until :func:`run` begins."""
    _handle(_leave)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within the block, answer signals with one line and a status, at once.

    For the import of large libraries: there is nothing to clean up yet, and a KeyboardInterrupt during an import may
    surface as another exception.
    """
    before = _handle(_leave) if _running else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_interrupt(program: str) -> Iterator[list[int]]:
    """Within the block the first of :data:`STOP_SIGNALS` raises KeyboardInterrupt; yields a list that then holds it.

    A second one, at least a second later, ends the process at once, without waiting for clean-up.
    """
    came: list[int] = []
    ignored_until = 0.0

    def interrupt(number: int, frame: object) -> None:
        nonlocal ignored_until
        if not came:
            came.append(number)
            ignored_until = time.monotonic() + 1.0  # terminals and timeout(1) send the same signal twice
            raise KeyboardInterrupt
        if time.monotonic() > ignored_until:
            _leave(number)

    _running.append(program)
    before = _handle(interrupt)
    try:
        yield came
    finally:
        _running.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_streams() -> None:
    """Open os.devnull for each standard stream that the process was started without.

    Otherwise the next file that is opened would get the file descriptor of one of them, and receive its output.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free file descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(program: str, main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run ``main`` and turn what a user can cause into one line on standard error and an exit status.

    Set ``COREL_DEBUG=1`` to see the traceback instead.
    """
    _open_streams()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # seconds between progress bars: ten a second fill a log
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the terminal cannot show, such as '–', becomes '?'
    with _signals_interrupt(program) as came:
        try:
            status = main(arguments)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt as interrupt:
            return _stopped(program, came, str(interrupt))
        except Exception as error:
            if came:  # an interrupted import, or output to a closed terminal, may raise another error
                return _stopped(program, came, "")
            _give_up_broken_output()
            if isinstance(error, BrokenPipeError):
                return _NO_READER
            if os.environ.get("COREL_DEBUG") or not _users_cause(error):
                raise
            _say(f"{program}: error: {_one_line(error)}")
            return 2


def _stopped(program: str, came: Sequence[int], detail: str) -> int:
    number = came[0] if came else signal.SIGINT
    _say(f"\n{program}: {_how(number)}" + (f"; {detail}" if detail else ""))
    return 128 + number


def _users_cause(error: Exception) -> bool:
    """Whether a user can cause ``error``; of RuntimeErrors, this holds for PyTorch's out-of-memory errors alone."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, ValueError | TypeError | OSError | ImportError | MemoryError | FloatingPointError)
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def _one_line(error: Exception) -> str:
    text = escaped_controls(" ".join(str(error).split()))
    if isinstance(error, RuntimeError | MemoryError):
        return f"out of memory ({text})" if text else "out of memory"
    return text or type(error).__name__


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
        print(text, file=sys.stderr, flush=True)


def _give_up_broken_output() -> None:
    """If standard output is closed, discard what is in its buffer: flushing it at exit would raise the error again."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
