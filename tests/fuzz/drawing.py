"""What the fuzz tests of this folder share: how many examples they draw, and what a clear error is."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

#: Examples of each test by hand; 0: the few, always the same, of a usual test run.
BY_HAND = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(usual: int) -> settings:
    """Settings that draw ``usual`` examples, or :data:`BY_HAND`, others every time."""
    return settings(
        max_examples=BY_HAND or usual,
        derandomize=not BY_HAND,
        database=None,
        phases=[Phase.generate],  # to make an example smaller takes longer than to read it
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def one_clear_line(text: str) -> str:
    """``text``, if any terminal and any file can take it as one line."""
    assert len(text.splitlines()) == 1, text
    text.encode()  # no half characters
    assert all(ord(character) >= 32 for character in text), repr(text)
    return text
