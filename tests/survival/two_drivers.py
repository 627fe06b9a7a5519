"""``python tests/survival/two_drivers.py 2``: so many runs of the same cells at once, on one ``--out``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import runs


def main(drivers: int) -> None:
    """Run so many at once; raises where anything is lost."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shared" / "out"
        whole, _ = runs.uninterrupted(Path(folder))
        processes = []
        for index in range(drivers):
            # each says what it has to say in a place of its own
            place = Path(folder) / f"driver-{index}"
            processes.append((place, runs.start(place, "--out", str(out))))
        for place, process in processes:
            status = process.wait()
            text = runs.check_said(place)
            if status != 0:
                raise runs.LostError(f"status {status}:\n{text}")
        runs.check_same(out, whole)
        if left := runs.left_behind(out):
            raise runs.LostError(f"left behind: {left}")
        print(f"{drivers} drivers of {len(runs.finished(out))} cells on one folder: nothing lost, tables equal")


if __name__ == "__main__":
    main(runs.number(sys.argv[1:2], 2))
