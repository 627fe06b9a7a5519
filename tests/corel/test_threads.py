"""The pool of threads at the end of a process."""

import subprocess
import sys

PROGRAM = """
import atexit, threading, time
import torch
from corel import death_times

torch.set_num_threads(2)
clouds = torch.randn(16, 300, 10, generator=torch.Generator().manual_seed(0))
expected = death_times(clouds)

def check(name):
    print(name, torch.equal(death_times(clouds), expected))

def later():
    threading.main_thread().join()
    check("thread")

atexit.register(check, "exit")
threading.Thread(target=later).start()
"""


def test_threads_outlive_the_main_thread() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300)
    assert run.stderr == ""
    assert run.stdout.split("\n")[:2] == ["thread True", "exit True"]
