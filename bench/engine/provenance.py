"""Where a number comes from: command, versions, commit, processor."""

from __future__ import annotations

import functools
import os
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


def package_version() -> str:
    """Version of this package, "unknown" where it runs without being installed."""
    try:
        return metadata.version("corel")
    except metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def git_commit() -> str:
    """Commit of this package's own source, with ``-dirty`` where tracked Python files differ from it.

    Without a commit of its own (an installed copy, also one that lies inside someone else's repository), "version"
    and the package's version.
    """
    here = Path(__file__).resolve()
    try:
        _git(here.parent, "ls-files", "--error-unmatch", "--", here.name)
        commit = _git(here.parent, "rev-parse", "HEAD")
        changed = _git(here.parents[2], "status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return f"version {package_version()}"
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    # Within a git hook, these variables point to the repository of the hook.
    hook = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in hook}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment)
    return done.stdout.strip()


@functools.cache
def processor() -> str:
    """The processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def command(program: str, arguments: Sequence[str] | None) -> str:
    """The command line that runs ``program``; its arguments are this process's own where they are None."""
    return shlex.join(["python", "-m", program, *(sys.argv[1:] if arguments is None else arguments)])
