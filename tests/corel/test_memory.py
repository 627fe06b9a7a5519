"""Freed memory is reused within the block, and after it as a C library does that was left alone."""

import subprocess
import sys

import pytest

from corel._memory import _glibc

PROGRAM = """
import resource
import torch
from corel._memory import reuse_freed_memory

def faults(megabytes):
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(megabytes * 2**18) for _ in range(3)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
with reuse_freed_memory(), reuse_freed_memory():
    print(faults(48))
print(faults(8))
"""


@pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")
def test_page_faults_within_and_after_the_block() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    within, after = map(int, run.stdout.split())
    # Touching it anew would be a fault for every page, 36,864 and 6,144 of them.
    assert within < 100
    assert after < 100
