"""The scripts beside this file, each with a small number: they are run by hand with a large one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = {
    "kill_driver.py": ("2",),
    "kill_workers.py": ("1",),
    "two_drivers.py": ("2",),
    "limits.py": ("1",),
    "full_disk.py": ("1",),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the scripts read /proc")
@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_lost(name, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "uninterrupted"
    shared.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name)), *SCRIPTS[name]],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SURVIVAL_WHOLE": str(shared)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout)
    assert "nothing lost, tables equal" in done.stdout
