"""Freed memory is reused from step to step of a training."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import torch
from corel._memory import keep_freed_memory

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
State = type("State", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in FIELDS.split()]})
allocator = ctypes.CDLL(None)
allocator.mallinfo2.restype = State

def mapped(block_megabytes):
    before = allocator.mallinfo2().hblks
    return torch.empty(block_megabytes * 2**18), allocator.mallinfo2().hblks - before

first, separately = mapped(25)  # alive to the end: freeing it is what the function does
keep_freed_memory()
second, afterwards = mapped(25)
del second
print(separately, afterwards, allocator.mallinfo2().fordblks // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_blocks_are_mapped_one_by_one_before_and_kept_afterwards() -> None:
    # glibc's own account: whether page faults follow depends on what happens to lie at the end of the heap
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("glibc before 2.33 has no mallinfo2")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    mapped_before, mapped_afterwards, free_megabytes = map(int, run.stdout.split())
    assert (mapped_before, mapped_afterwards) == (1, 0)
    assert free_megabytes >= 20
