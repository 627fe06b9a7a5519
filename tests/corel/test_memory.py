"""Freed memory is reused from step to step of a training."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from corel._memory import keep_freed_memory

def faults():
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(10 * 2**18) for _ in range(5)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
print(faults())
keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_page_faults_before_and_afterwards() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    before, afterwards = map(int, run.stdout.split())
    # each of 12,800 pages of 4 KB anew
    assert before > 1000
    assert afterwards < 100
