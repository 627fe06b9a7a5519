"""The one decorator under which Numba functions that Python calls are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on its first call, without the GIL, and keep the machine code on disk where that is possible.

    Where neither the package's folder nor the user's cache folder can be written to, nothing is kept, and every process
    compiles anew.

    Parameters
    ----------
    **options
        Passed on to :func:`numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        # Numba takes its stored code for current if the function's own file is unchanged, but the code of functions
        # from other files of this folder is part of it: the name under which it is stored depends on all of them.
        function.__qualname__ += f"_{_digest()}"
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # Numba found no folder to write to
            return njit(nogil=True, **options)(function)

    return decorate


@cache
def _digest() -> str:
    """A short digest of the sources in this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
