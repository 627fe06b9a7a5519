"""The one-class model of Eq. 6: how many stored points lie in a ball around the new one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from corel import _checks
from corel._threads import all_true
from corel.persistence.metric import check_p, norm

#: Fewest rows of one piece of work: enough to make handing it to a thread cheap.
_ROWS = 256
#: Elements of the largest temporary of the torch path.
_TORCH_ELEMENTS = 2**25


class BallCount(OutlierMixin, BaseEstimator):
    """One-class model that counts stored points in balls (Eq. 6), a kernel density estimate with a uniform kernel.

    Parameters
    ----------
    radius : float, default=2.0
        Radius of the closed balls; the η that the codes were learned with.
    branches : int, default=1
        Number of branches k: columns are split into k equal consecutive parts, each with balls of its own.
    p : float, default=1.0
        Norm ‖·‖p of the balls, 1 ≤ p ≤ ∞.

    A parameter that is changed after ``fit`` counts from the next ``fit`` on.

    Attributes
    ----------
    stored_ : numpy.ndarray or torch.Tensor of shape (m, n_features)
        The points of the class.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    offset_ : float
        Added to scores by ``decision_function`` with its sign turned: half a point, so that a sample with an empty
        ball in every branch is an outlier.

    Examples
    --------
    >>> model = BallCount(radius=1.0).fit(np.array([[0.0], [1.0], [5.0]]))
    >>> model.score_samples(np.array([[0.5], [2.0], [9.0]]))
    array([2., 1., 0.])
    """

    stored_: np.ndarray | Tensor
    n_features_in_: int
    offset_: float
    _radius: float
    _branches: int
    _norm: float
    _columns: np.ndarray

    def __init__(self, radius: float = 2.0, branches: int = 1, p: float = 1.0) -> None:
        self.radius = radius
        self.branches = branches
        self.p = p

    def fit(self, Z: np.ndarray | Tensor, y: object = None) -> Self:
        """Store the points of the class.

        Parameters
        ----------
        Z
            (m, n) real numbers, finite, m ≥ 1 and n ≥ 1: a dense array or tensor, or what numpy makes an array of.
            Other types than float32 and float64 are converted to one of them. A tensor on a GPU keeps the model there.
        y
            Ignored.

        Raises
        ------
        ValueError, TypeError
            If ``Z`` or a parameter of the constructor is not as described.
        """
        radius = _checks.non_negative("radius", self.radius)
        branches = _checks.count("branches", self.branches)
        p = check_p(self.p)
        stored = _check(Z)
        if len(stored) == 0:
            raise ValueError("Z: got no points; at least one is needed")
        if stored.shape[1] == 0:
            raise ValueError(f"Z: got shape {tuple(stored.shape)}; at least one column is needed")
        if stored.shape[1] % branches:
            raise ValueError(f"branches: got {branches}, which does not divide the {stored.shape[1]} columns of Z")
        self.stored_ = stored
        self.n_features_in_ = stored.shape[1]
        self.offset_ = 0.5
        # as they are now: a model that is half of other parameters would be no model
        self._radius, self._branches, self._norm = radius, branches, p
        if isinstance(stored, np.ndarray):
            dim = stored.shape[1] // branches
            self._columns = np.ascontiguousarray(stored.reshape(-1, branches, dim).transpose(1, 2, 0))
        return self

    def score_samples(self, Z: np.ndarray | Tensor) -> np.ndarray:
        """Count the stored points within the ``radius`` of the last ``fit``, summed over branches.

        Distances are computed in the wider of the dtypes of ``Z`` and the stored points.

        Parameters
        ----------
        Z
            (n, n_features), as in ``fit``; n may be 0.

        Returns
        -------
        numpy.ndarray
            (n,) float64, whole numbers from 0 to m · branches; higher means more like the class.

        Raises
        ------
        ValueError, TypeError
            If ``Z`` is not as described, or has other columns than in ``fit``.
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self, "stored_")
        points = _check(Z)
        if points.shape[1] != self.n_features_in_:
            raise ValueError(f"Z: got {points.shape[1]} columns; the model was fitted with {self.n_features_in_}")
        if isinstance(points, np.ndarray) and isinstance(self.stored_, np.ndarray) and self._norm in _KERNELS:
            return self._count_on_cpu(points)
        return self._count_in_torch(torch.as_tensor(points), torch.as_tensor(self.stored_))

    def decision_function(self, Z: np.ndarray | Tensor) -> np.ndarray:
        """``score_samples`` less ``offset_``: negative for samples with no stored point in any ball."""
        return self.score_samples(Z) - self.offset_

    def predict(self, Z: np.ndarray | Tensor) -> np.ndarray:
        """1 for samples with a stored point in a ball, −1 for the others, (n,) int64."""
        return np.where(self.decision_function(Z) > 0, 1, -1)

    def _count_on_cpu(self, points: np.ndarray) -> np.ndarray:
        from corel import _ball_count_cpu

        dtype = np.promote_types(points.dtype, self._columns.dtype)
        with np.errstate(over="ignore"):
            radius = dtype.type(self._radius)
        # at radius 0 only equal points count, under every norm: a length must not vanish by being squared
        kernel = getattr(_ball_count_cpu, _KERNELS[self._norm if radius > 0 else math.inf])
        points = np.ascontiguousarray(points, dtype)
        columns = self._columns.astype(dtype, copy=False)
        if kernel is _ball_count_cpu.count_l1:
            columns = _ball_count_cpu.tiled(columns)
        counts = np.empty(len(points), np.int64)
        threads = torch.get_num_threads()
        rows = max(_ROWS, -(-len(points) // (4 * threads)))

        def count(start: int) -> bool:
            part = slice(start, start + rows)
            kernel(points[part], columns, radius, counts[part])
            return True

        all_true([partial(count, start) for start in range(0, len(points), rows)], threads)
        return counts.astype(np.float64)

    def _count_in_torch(self, points: Tensor, stored: Tensor) -> np.ndarray:
        dtype = torch.promote_types(points.dtype, stored.dtype)
        stored = stored.to(dtype=dtype)
        dim = stored.shape[1] // self._branches
        parts = stored.view(len(stored), self._branches, dim)
        rows = max(1, _TORCH_ELEMENTS // max(1, stored.numel()))
        counts = [
            (norm(chunk.view(len(chunk), 1, self._branches, dim) - parts, self._norm) <= self._radius).sum((1, 2))
            for chunk in points.to(stored).split(rows)
        ]
        return torch.cat(counts).double().cpu().numpy()


_KERNELS = {1.0: "count_l1", 2.0: "count_l2", math.inf: "count_max"}


_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _check(Z: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Two-dimensional, float32 or float64, finite: an array, or a tensor if it is not on the CPU."""
    if isinstance(Z, Tensor):
        Z = _checks.check_dense("Z", Z.detach())
        Z = _checks.check_floating("Z", Z.double() if Z.dtype in _INTEGERS else Z)
        if Z.device.type == "cpu":
            Z = Z.numpy()
    else:
        Z = _array(Z)
    if Z.ndim != 2:
        raise ValueError(f"Z: got shape {tuple(Z.shape)}; accepted is (n, n_features)")
    if not bool(torch.isfinite(Z).all() if isinstance(Z, Tensor) else np.isfinite(Z).all()):
        raise ValueError("Z: got NaN or infinity; all coordinates must be finite")
    return Z


def _array(values: Any) -> np.ndarray:
    """What numpy makes of ``values``, in float32 or float64."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise ValueError(f"Z: got a ragged {type(values).__name__}; accepted is (n, n_features)") from None
    if array.dtype.kind not in "fiub":
        # a matrix of scipy's sparse ones, say, is to numpy one object
        given = f"dtype {array.dtype}" if array.ndim else type(values).__name__
        raise TypeError(f"Z: got {given}; accepted are dense arrays and tensors of real numbers")
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize == 2 else _checks.native(array)
