"""A hint to the C library that pays off in trainings on the CPU."""

from __future__ import annotations

import torch


def keep_freed_memory() -> None:
    """Let the process keep memory that is freed, up to 64 MB, for its next allocations; call it before a training.

    PyTorch allocates the activations of every training step anew. At first, glibc gives freed memory back to the system
    at once, and each step then pays for thousands of page faults. Freeing one large block changes that: glibc raises
    the size from which it maps blocks one by one to that of the block (at most 32 MB), and the amount of free memory
    that it keeps to twice that. Other C libraries are not affected.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")
