"""``python tests/survival/limits.py 3``: so many runs with ``--limit-hours``, and ``--retry-failed`` after failures."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

import runs

FAILS = """
from pathlib import Path
from methods import OneClassMethod


class Fails(OneClassMethod):
    name = "fails"

    def fit(self, features):
        if Path(__file__).with_name("broken").exists():
            raise ValueError("it is broken")
        return self

    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))
"""


def main(times: int) -> None:
    """Stop so often; raises where anything is lost."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "limited"
        whole, seconds = runs.uninterrupted(Path(folder))
        before: dict[str, str] = {}
        for number in range(times):
            limit = seconds * (number + 1) / (times + 1)
            started = time.monotonic()
            runs.complete(out, "--limit-hours", str(limit / 3600))
            took, after = time.monotonic() - started, runs.finished(out)
            runs.check_kept(before, after)
            text = runs.check_said(out)
            if f"{9 - len(after)} of 9 cells are left" not in text and len(after) < 9:
                raise runs.LostError(f"what is left is not said:\n{text}")
            print(f"limit {limit:.1f} s, took {took:.1f} s: {len(before)} → {len(after)} cells", flush=True)
            before = after
        runs.complete(out)
        runs.check_same(out, whole)

        (Path(folder) / "fails.py").write_text(FAILS)
        (Path(folder) / "broken").touch()
        words = ["--methods", "fails.py", "--classes", "0", "1"]
        failed = Path(folder) / "failed"
        for more, status, said in (
            ([], 1, "2 cells run (2 failed)"),
            ([], 1, "0 cells run (0 failed)"),
            (["--retry-failed"], 1, "2 cells run (2 failed)"),
            (["--retry-failed"], 0, "2 cells run (0 failed)"),
        ):
            if status == 0:
                (Path(folder) / "broken").unlink(missing_ok=True)
            process = runs.start(failed, *more, words=words)
            process.wait()
            text = runs.check_said(failed)
            if process.returncode != status or said not in text:
                raise runs.LostError(f"status {process.returncode}:\n{text}")
            if status and not re.search("failed: fails.py on digits, class '0'.*ValueError: it is broken", text):
                raise runs.LostError(f"what failed is not said:\n{text}")
        print(f"--limit-hours {times} times, --retry-failed twice: nothing lost, tables equal")


if __name__ == "__main__":
    main(runs.number(sys.argv[1:2], 3))
