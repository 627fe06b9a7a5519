"""``python tests/survival/kill_workers.py 10``: SIGKILL to so many worker processes, at random moments of one run.

A cell whose worker died three times counts as failed: where that happened, the run is started again with
``--retry-failed``. The tables are compared with those of an uninterrupted run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import runs


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The worker processes of a run, those that are just starting included."""
    there = runs.processes()
    return [child for child in runs.children(process.pid) if child in there and b"spawn_main" in there[child][2]]


def main(kills: int, seed: int = 0) -> None:
    """Kill so many workers; raises where anything is lost."""
    generator = random.Random(seed)
    count = 2 + kills // 2  # enough to do
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "killed"
        whole, _ = runs.uninterrupted(Path(folder), runs=count)
        process = runs.start(out, runs=count, workers=2)
        killed, before = 0, -1
        while killed < kills and process.poll() is None:
            done = len(runs.finished(out))
            if done <= before:  # at most one for each cell that ends: three deaths would end it
                time.sleep(0.05)
                continue
            time.sleep(generator.uniform(0, 1))
            if (there := workers_of(process)) and process.poll() is None:
                os.kill(generator.choice(there), signal.SIGKILL)
                killed, before = killed + 1, done
                print(f"kill {killed} after {done} cells", flush=True)
        status = process.wait()
        text = runs.check_said(out)
        if killed < kills:
            raise runs.LostError(f"the run was over after {killed} kills:\n{text}")
        if status not in (0, 1):
            raise runs.LostError(f"status {status}:\n{text}")
        failed = text.count("\nfailed: ")
        if failed:
            runs.complete(out, "--retry-failed", runs=count, workers=2)
        runs.check_same(out, whole)
        print(
            f"{killed} workers killed in a run of {len(runs.finished(whole))} cells: nothing lost, tables equal; "
            f"{failed} cells failed after three deaths and succeeded when tried again"
        )


if __name__ == "__main__":
    main(runs.number(sys.argv[1:2], 10))
