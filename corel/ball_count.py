"""The one-class model of Eq. 6: how many stored points lie in a ball around the new one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from corel import _checks
from corel._threads import run
from corel.persistence.metric import check_p, norm

#: Fewest rows that a thread is given at a time: with fewer, handing them over would cost more than it saves.
_ROWS = 256
#: Elements of the largest temporary tensor where counting is done in torch operations.
_TORCH_ELEMENTS = 2**25


class BallCount(BaseEstimator):
    """One-class model that counts stored points in balls (Eq. 6), a kernel density estimate with a uniform kernel.

    Parameters
    ----------
    radius : float, default=2.0
        Radius of the closed balls; the η that the codes were learned with.
    branches : int, default=1
        Number of branches k: columns are split into k equal consecutive parts, each with balls of its own.
    p : float, default=1.0
        Norm ‖·‖p of the balls, 1 ≤ p ≤ ∞.

    Notes
    -----
    A parameter that is changed after ``fit`` takes effect with the next ``fit``. ``predict`` is meant for new samples:
    each point that the model was fitted with lies in its own balls, and is never an outlier.

    Attributes
    ----------
    stored_ : numpy.ndarray or torch.Tensor of shape (m, n_features), float32 or float64
        The points of the class, a copy.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : numpy.ndarray of shape (``n_features_in_``,)
        Names of the columns, where ``fit`` was given a DataFrame whose names are all strings.
    offset_ : float
        Subtracted from scores by ``decision_function``: 0.5, so that a sample is an outlier where no stored point is
        in any of its balls.

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
            (m, n) real numbers, finite, m ≥ 1 and n ≥ 1: a dense array or tensor, a DataFrame, or what numpy makes an
            array of. float16 and bfloat16 are converted to float32, other types than float32 to float64. Of a tensor on
            a GPU, the model is kept there.
        y
            Ignored.

        Raises
        ------
        ValueError, TypeError
            If ``Z`` or a parameter of the constructor is not as described.
        """
        radius = float(_checks.non_negative("radius", self.radius))
        branches = _checks.count("branches", self.branches)
        p = check_p(self.p)
        stored = self._check(Z, reset=True)
        if stored.shape[1] % branches:
            raise ValueError(f"branches: got {branches}, which does not divide the {stored.shape[1]} columns of Z")
        # a copy: what the caller does to Z afterwards must not change the model
        self.stored_ = stored.clone() if isinstance(stored, Tensor) else stored.copy()
        self.offset_ = 0.5
        # scores are computed with the parameters as they are now, even if set_params changes them before the next fit
        self._radius, self._branches, self._norm = radius, branches, p
        if isinstance(self.stored_, np.ndarray):
            dim = stored.shape[1] // branches
            self._columns = np.ascontiguousarray(self.stored_.reshape(-1, branches, dim).transpose(1, 2, 0))
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
        points = self._check(Z, reset=False)
        if isinstance(points, np.ndarray) and isinstance(self.stored_, np.ndarray) and self._norm in _KERNELS:
            return self._count_on_cpu(points)
        return self._count_in_torch(_tensor(points), _tensor(self.stored_))

    def decision_function(self, Z: np.ndarray | Tensor) -> np.ndarray:
        """``score_samples`` minus ``offset_``, (n,) float64: negative where no stored point is in any ball.

        Parameters and errors are those of :meth:`score_samples`.
        """
        return self.score_samples(Z) - self.offset_

    def predict(self, Z: np.ndarray | Tensor) -> np.ndarray:
        """1 for samples with a stored point in any of their balls, −1 for the others, (n,) int64.

        Parameters and errors are those of :meth:`score_samples`.
        """
        return np.where(self.decision_function(Z) > 0, 1, -1)

    def _check(self, Z: Any, reset: bool) -> np.ndarray | Tensor:
        """Points (n, n_features), finite, in float32 or float64: an array, or a tensor if it is not on the CPU.

        Remembers names and number of the columns if ``reset``, else compares them with those of ``fit``.
        """
        points = _numbers(Z)
        if points.ndim != 2:
            raise ValueError(
                f"Z: got shape {tuple(points.shape)}; accepted is (n, n_features). Reshape your data, with "
                "reshape(1, -1) if it is a single sample"
            )
        if reset and points.shape[0] == 0:
            raise ValueError("Z: got no points; at least one is needed")
        if reset and points.shape[1] == 0:  # in the words that scikit-learn asks for
            raise ValueError(f"Z: got 0 feature(s) (shape={tuple(points.shape)}) while a minimum of 1 is required.")
        validate_data(self, points if isinstance(Z, Tensor) else Z, reset=reset, skip_check_array=True)
        if not bool(torch.isfinite(points).all() if isinstance(points, Tensor) else np.isfinite(points).all()):
            raise _checks.non_finite("Z")
        return points

    def _count_on_cpu(self, points: np.ndarray) -> np.ndarray:
        from corel import _ball_count_cpu

        dtype = np.promote_types(points.dtype, self._columns.dtype)
        with np.errstate(over="ignore"):
            radius = dtype.type(self._radius)
        # At radius 0 only equal points count, under every norm. The maximum norm finds these; squares could vanish.
        kernel = getattr(_ball_count_cpu, _KERNELS[self._norm if radius > 0 else math.inf])
        points = np.ascontiguousarray(points, dtype)
        columns = self._columns.astype(dtype, copy=False)
        if kernel is _ball_count_cpu.count_l1:
            columns = _ball_count_cpu.tiled(columns)
        counts = np.empty(len(points), np.int64)
        threads = torch.get_num_threads()
        rows = max(_ROWS, -(-len(points) // (4 * threads)))

        def count(start: int) -> None:
            part = slice(start, start + rows)
            kernel(points[part], columns, radius, counts[part])

        run([partial(count, start) for start in range(0, len(points), rows)], threads)
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


def _numbers(Z: Any) -> np.ndarray | Tensor:
    """``Z`` of any shape in float32 or float64: an array, or a tensor if it is not on the CPU."""
    if isinstance(Z, Tensor):
        Z = _checks.check_dense("Z", Z.detach())
        Z = _checks.check_floating("Z", Z.double() if Z.dtype in _INTEGERS else Z)
        return _checks.numbers("Z", Z) if Z.device.type == "cpu" else Z
    if issparse(Z):
        raise TypeError(f"Z: got {type(Z).__name__}, which is sparse; accepted are dense arrays (toarray() makes one)")
    try:
        array = np.asarray(Z)
    except ValueError:  # rows of different lengths
        raise ValueError(f"Z: got a ragged {type(Z).__name__}; accepted is (n, n_features)") from None
    kind = array.dtype.kind
    if kind == "O" and array.ndim:
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            kind_of_error = TypeError if isinstance(error, TypeError) else ValueError
            raise kind_of_error(f"Z: got dtype object with an element that is no number ({error})") from None
    if kind == "c":  # in the words that scikit-learn asks for
        raise ValueError(f"Z: got dtype {array.dtype}. Complex data not supported; accepted are real numbers")
    if kind not in "fiub":
        given = f"dtype {array.dtype}" if array.ndim else type(Z).__name__
        raise TypeError(f"Z: got {given}; accepted are dense arrays and tensors of real numbers")
    if kind != "f":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize == 2 else _checks.native(array)


def _tensor(points: np.ndarray | Tensor) -> Tensor:
    return points if isinstance(points, Tensor) else _checks.as_tensor(points)
