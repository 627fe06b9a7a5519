"""How many processor cores there are to compute with."""

from __future__ import annotations


def available_cores() -> int:
    """Processor cores that this process may use, by its affinity and the quota of its container."""
    # imported here, because it imports NumPy: arguments are checked before anything large is imported
    from joblib import cpu_count

    return cpu_count()


def default_threads(profile: str) -> int:
    """CPU threads that a cell computes with: one in the quick profile, where cells are many, else every core."""
    return 1 if profile == "quick" else available_cores()
