"""``python tests/survival/full_disk.py 3``: so many runs on a small disk (tmpfs) that fills up, each with more room.

Needs root, or a system that lets others mount in a namespace of their own (``unshare -rm``). Each run ends in one line;
what it had finished is there when the next one goes on, which ends as an uninterrupted one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import runs


def mount(folder: Path, kibibytes: int, *more: str) -> bool:
    """Mount a small disk on a folder; whether that is allowed here."""
    options = ",".join([f"size={kibibytes}k", *more])
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    return done.returncode == 0


def main(times: int) -> bool:
    """Fill the disk so often; raises where anything is lost. Returns whether a disk can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        if not mount(disk, 64):
            print("skipped: no disk can be mounted here")
            return False
        try:
            whole, _ = runs.uninterrupted(Path(folder))
            # images are kept elsewhere: it is the results that are to find no room
            more = ["--data-root", str(whole.parent / "data")]
            needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 1024
            out, before = disk / "out", {}
            for time in range(times):
                mount(disk, 64 + needed * time // times, "remount")
                process = runs.start(out, *more)
                process.wait()
                text = "".join(runs.said(out, stream).read_text("utf-8", "replace") for stream in ("output", "error"))
                after = runs.finished(out)
                runs.check_kept(before, after)
                before = after
                lines = [line for line in re.split(r"[\r\n]+", text) if "error: " in line or "Traceback" in line]
                print(
                    f"{64 + needed * time // times} KiB: status {process.returncode}, {len(after)} cells: {lines[-1:]}"
                )
                if "Traceback" in text or (process.returncode not in (0, 1) and not lines):
                    raise runs.LostError(text)
            mount(disk, 64 + 4 * needed, "remount")
            runs.complete(out, *more, "--retry-failed")
            runs.check_same(out, whole)
        finally:
            subprocess.run(["umount", str(disk)], check=False)
        print(f"a full disk {times} times: nothing lost, tables equal")
        return True


if __name__ == "__main__":
    main(runs.number(sys.argv[1:2], 3))
