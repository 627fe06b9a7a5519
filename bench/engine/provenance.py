"""Where a number comes from: command, versions, commit, processor."""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("corel", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "numba", "pandas", "pillow")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str:
    """Commit of the source tree, with ``-dirty`` where tracked Python files differ from it; empty outside of git."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


@functools.cache
def processor() -> str:
    """The processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def command(program: str, arguments: Sequence[str] | None) -> str:
    """The command line that runs ``program``; its arguments are this process's own where they are None."""
    return shlex.join(["python", "-m", program, *(sys.argv[1:] if arguments is None else arguments)])
