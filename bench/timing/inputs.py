"""The clouds of points that the runtime study and the check of pairings are given, as numpy arrays in float64.

numpy is imported where it is needed: a command reads the names of :data:`KINDS` before it knows that it will run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator

#: Draws one cloud: generator, n, d → (n, d).
Draw = Callable[["Generator", int, int], "np.ndarray"]


def gaussian(generator: Generator, n: int, dim: int) -> np.ndarray:
    """Independent standard normal coordinates, as in the paper's Appendix C."""
    return generator.normal(size=(n, dim))


def sheet(generator: Generator, n: int, dim: int) -> np.ndarray:
    """A curved sheet: the unit square under a smooth random map, intrinsic dimension 2 at most."""
    import numpy as np

    square, frequencies = generator.random((n, 2)), generator.normal(scale=3.0, size=(2, dim))
    return np.sin(square @ frequencies + generator.uniform(0, 2 * np.pi, dim))


def clusters(generator: Generator, n: int, dim: int) -> np.ndarray:
    """Ten standard normal clusters whose centres are normal with a standard deviation of 10."""
    centres = generator.normal(scale=10.0, size=(10, dim))
    return centres[generator.integers(len(centres), size=n)] + generator.normal(size=(n, dim))


#: The kinds of points by name; a new kind is a new entry.
KINDS: dict[str, Draw] = {"gaussian": gaussian, "sheet": sheet, "clusters": clusters}


#: Of points from a file, which are timed in float32 too.
LARGEST_COORDINATE = 1e15


def from_file(path: str, largest: int) -> tuple[Draw, int]:
    """Rows of the (N, d) array in a ``.npy`` file, drawn without replacement.

    Returns
    -------
    tuple
        The function that draws, and d.

    Raises
    ------
    ValueError
        If the file holds no two-dimensional array of finite real numbers, up to ±``LARGEST_COORDINATE``, or fewer rows
        than ``largest``.
    """
    import numpy as np

    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--points: cannot read {path!r} ({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] == 0 or rows.dtype.kind not in "fiu":
        raise ValueError(f"--points: {path!r} holds no (N, d) array of real numbers")
    if len(rows) < largest:
        raise ValueError(f"--sizes: got {largest}, but {path!r} has {len(rows)} rows")
    if not np.isfinite(rows).all():
        raise ValueError(f"--points: {path!r} has a coordinate that is NaN or infinite")
    if rows.size and max(float(rows.max()), -float(rows.min())) > LARGEST_COORDINATE:
        raise ValueError(
            f"--points: {path!r} has coordinates beyond ±{LARGEST_COORDINATE:g}, whose squares float32 cannot add up"
        )

    def draw(generator: Generator, n: int, dim: int) -> np.ndarray:
        return rows[generator.choice(len(rows), n, replace=False)].astype(np.float64)

    return draw, rows.shape[1]
