"""A small run of the benchmark for the scripts beside this file: how it is started, what it leaves, what is the same.

Its cells are of handwritten digits by three methods: one whose cells are short, one whose trainings keep a checkpoint
per epoch, and one whose cells share a training and what it made of the images.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "--datasets", "digits", "--methods", "sklearn:IsolationForest", "deep-svdd", "corel",
    "--set", "corel.epochs=3", "--classes", "0", "1", "2", "--train-per-class", "60", "--test-images", "100",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class LostError(AssertionError):
    """Something was lost, or said in another way than in a line."""


def start(
    out: Path, *more: str, runs: int = 1, workers: int = 1, words: Sequence[str] = WORDS
) -> subprocess.Popen[bytes]:
    """Start the run, or go on with it. What it says goes to files beside ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [*words, "--runs", str(runs), "--workers", str(workers), "--out", str(out)]
    words += ["--data-root", str(out.parent / "data"), *more]
    with open(said(out, "output"), "wb") as output, open(said(out, "error"), "wb") as error:
        return subprocess.Popen(
            [sys.executable, "-m", "bench.table1", *words],
            env=ENVIRONMENT,
            cwd=out.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
        )


def said(out: Path, stream: str) -> Path:
    """The file with what the last run said on a stream, "output" or "error"."""
    return out.with_name(f"{out.name}.{stream}")


def check_said(out: Path) -> str:
    """What was said on both streams; raises where it is a traceback."""
    text = "".join(said(out, stream).read_text(encoding="utf-8") for stream in ("output", "error"))
    if "Traceback" in text:
        raise LostError(f"a traceback:\n{text}")
    return text


def complete(out: Path, *more: str, runs: int = 1, workers: int = 1) -> float:
    """Let the run come to its end; returns the seconds of processor time that it took."""
    process, used = start(out, *more, runs=runs, workers=workers), 0.0
    while process.poll() is None:
        used = max(used, processor_seconds(process.pid))
        time.sleep(0.05)
    text = check_said(out)
    if process.returncode != 0:
        raise LostError(f"status {process.returncode}:\n{text}")
    return used


def uninterrupted(folder: Path, runs: int = 1) -> tuple[Path, float]:
    """A run in ``folder`` that nothing disturbs, and the seconds of processor time that it took.

    Where the environment names a folder ``SURVIVAL_WHOLE``, a run with ``runs=1`` is there, for all scripts to compare
    with.
    """
    shared = os.environ.get("SURVIVAL_WHOLE")
    if shared is None or runs > 1:
        return folder / "whole", complete(folder / "whole", runs=runs)
    whole = Path(shared) / "whole"
    took = whole.with_name("seconds")
    with FileLock(whole.with_name("lock")):
        if not took.exists():
            took.write_text(str(complete(whole)))
    return whole, float(took.read_text())


def processes() -> dict[int, tuple[int, float, bytes]]:
    """Parent, seconds of processor time and command line of every process, by its number."""
    found, tick = {}, os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            found[int(folder.name)] = (
                int(fields[1]),
                sum(map(int, fields[11:15])) / tick,
                (folder / "cmdline").read_bytes(),
            )
        except (OSError, ValueError, IndexError):  # it has ended
            continue
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return sorted(child for child, (parent, _, _) in processes().items() if parent == pid)


def processor_seconds(pid: int) -> float:
    """Seconds of processor time of a process and its children: unlike time, they do not depend on what else runs."""
    there = processes()
    return sum(seconds for child, (parent, seconds, _) in there.items() if pid in (child, parent))


def finished(out: Path) -> dict[str, str]:
    """The AUCs of the finished cells by key, as another process sees them."""
    path = out / "cells.sqlite"
    if not path.exists():
        return {}
    connection = sqlite3.connect(path, timeout=60)
    try:
        return dict(connection.execute("SELECT key, aucs FROM cells"))
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # killed before it was made
            return {}
        raise
    finally:
        connection.close()


def check_kept(before: dict[str, str], after: dict[str, str]) -> None:
    """Raise where a finished cell is gone, or has become another."""
    if not before.items() <= after.items():
        raise LostError(f"{len(before.keys() - after.keys())} of {len(before)} finished cells are gone")


def without_times(out: Path) -> dict[str, bytes]:
    """The tables of a run byte for byte, but for times."""
    found = {}
    for name in ("table1.csv", "cells.csv"):
        frame = pd.read_csv(io.StringIO((out / name).read_text(encoding="utf-8")), dtype=str, keep_default_na=False)
        found[name] = frame[[column for column in frame if not column.endswith("seconds")]].to_csv().encode()
    text = (out / "table1.md").read_text(encoding="utf-8")
    text = re.sub(r"(\|[^|\n]*){2}\|$", "", text, flags=re.M)  # the columns fit s and score s are the last two
    found["table1.md"] = re.sub(r": \d+ s, ", ": … s, ", text).encode()
    return found


def check_same(out: Path, whole: Path) -> None:
    """Raise where the tables of two runs differ in anything but times."""
    one, other = without_times(out), without_times(whole)
    different = [name for name in one if one[name] != other[name]]
    if different:
        texts = (tables[different[0]].decode().splitlines() for tables in (other, one))
        lines = "\n".join(list(difflib.unified_diff(*texts, str(whole), str(out), n=0))[:20])
        raise LostError(f"{', '.join(different)} of {out} and {whole} differ:\n{lines}")


def number(arguments: Sequence[str], default: int) -> int:
    """The number that a script is given."""
    return int(arguments[0]) if arguments else default


def left_behind(out: Path) -> list[str]:
    """Files that no finished run needs: locks, states of trainings, half-written files."""
    files = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    return [
        name for name in files if re.search(r"\.lock$|\.tmp$|-journal$|\.write-test-|/checkpoints/|\.checkpoint$", name)
    ]
