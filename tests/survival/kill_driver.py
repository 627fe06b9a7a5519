"""``python tests/survival/kill_driver.py 25 [1|2]``: SIGKILL at so many random moments, and started again each time.

The second number is that of the workers. Whenever a run comes to its end in spite of it, its tables are compared with
those of an uninterrupted one, and another is begun.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import runs


def main(kills: int, workers: int, seed: int = 0) -> None:
    """Kill so often; raises where anything is lost."""
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, seconds = runs.uninterrupted(Path(folder))
        round_number, killed = 0, 0
        out = Path(folder) / "killed-0"
        while killed < kills:
            before = runs.finished(out)
            process = runs.start(out, workers=workers)
            moment = generator.uniform(0.2, 1.0) * seconds
            while process.poll() is None and runs.processor_seconds(process.pid) < moment:
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                after = runs.finished(out)
                print(f"kill {killed} after {moment:.1f} s: {len(before)} → {len(after)} cells", flush=True)
            else:
                after = runs.finished(out)
            runs.check_kept(before, after)
            text = runs.check_said(out)
            if process.returncode == -signal.SIGKILL:
                continue
            if process.returncode != 0:
                raise runs.LostError(f"status {process.returncode}:\n{text}")
            runs.check_same(out, whole)
            round_number += 1
            out = Path(folder) / f"killed-{round_number}"
        runs.complete(out, workers=workers)
        runs.check_same(out, whole)
        left = runs.left_behind(out)
        print(
            f"{killed} kills with {workers} worker{'s' * (workers > 1)} in {round_number + 1} runs of "
            f"{len(runs.finished(whole))} cells ({seconds:.0f} s of processor time uninterrupted): nothing lost, "
            f"tables equal; left behind by killed processes: {len(left)} files"
        )


if __name__ == "__main__":
    main(runs.number(sys.argv[1:2], 25), runs.number(sys.argv[2:3], 1))
