"""Persistence diagrams with their pairing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class PersistenceDiagram:
    """Homology classes of one dimension: birth and death of each, and the simplices that cause them.

    Finite classes come first, in the order in which their death simplices enter the filtration; essential ones
    follow, in the order of their birth simplices.

    Attributes
    ----------
    dim
        Dimension of the classes.
    points
        (k, 2) float32 or float64: births and deaths, full lengths (not radii); ∞ for the death of an essential class.
        Differentiable with respect to what :func:`corel.vr_persistence` was given.
    birth_simplices
        (k, dim + 1) int64: vertices, ascending, of the simplex that creates each class.
    death_simplices
        (k, dim + 2) int64: vertices, ascending, of the simplex that fills each class; −1 for an essential class.
    """

    dim: int
    points: Tensor
    birth_simplices: Tensor
    death_simplices: Tensor

    def __len__(self) -> int:
        return len(self.points)

    def numpy(self) -> np.ndarray:
        """Births and deaths, (k, 2), of the dtype of ``points``: what ``persim`` and most other libraries take."""
        return self.points.detach().cpu().numpy()

    def to_gudhi(self) -> list[tuple[int, tuple[float, float]]]:
        """Each class as (dim, (birth, death)): what the functions of ``gudhi`` that plot persistence take."""
        return [(self.dim, (birth, death)) for birth, death in self.points.tolist()]

    def plot(self, ax: Axes | None = None, **style: Any) -> Axes:
        """Draw the diagram; see :func:`corel.plot_diagram`, which also draws several together."""
        from corel.plotting import plot_diagram

        return plot_diagram(self, ax, **style)

    def plot_barcode(self, ax: Axes | None = None, **style: Any) -> Axes:
        """Draw the barcode; see :func:`corel.plot_barcode`, which also draws several together."""
        from corel.plotting import plot_barcode

        return plot_barcode(self, ax, **style)
