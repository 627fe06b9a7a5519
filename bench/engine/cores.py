"""How many processor cores there are to compute with."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads(profile: str) -> int:
    """CPU threads that a cell computes with: one in the quick profile, where cells are many, else every core."""
    return 1 if profile == "quick" else available_cores()
