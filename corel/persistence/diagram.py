"""Persistence diagrams with their pairing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
        (k, 2) births and deaths, full lengths (not radii); ∞ for the death of an essential class. Differentiable
        with respect to what :func:`corel.vr_persistence` was given.
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
