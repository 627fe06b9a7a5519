"""What α-β-connectedness of batches says about larger samples (§4)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from corel import _checks
from corel.persistence.metric import check_p
from corel.persistence.spanning_tree import check_points, death_times


def alpha_beta(points: np.ndarray | Tensor, p: float = 1.0) -> tuple[float, float]:
    """Least and largest death time of a set: the α and β for which it is α-β-connected (Definition 4).

    Parameters
    ----------
    points
        (…, n, d) floating point and finite, n ≥ 2. Leading dimensions are a batch of sets, such as the codes of the
        batches of an epoch: α and β are then the least and the largest death of them all, as §4 estimates them.
    p
        Norm ‖·‖p, 1 ≤ p ≤ ∞.

    Returns
    -------
    tuple of float
        α and β, full distances.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> alpha_beta(np.array([[0.0], [1.0], [4.0], [4.5]]))
    (0.5, 3.0)
    """
    deaths = death_times(_finite(points), p)
    if deaths.numel() == 0:
        raise ValueError(f"points: got shape {tuple(points.shape)}; at least two points are needed for a death time")
    return deaths.min().item(), deaths.max().item()


def density_degree(points: np.ndarray | Tensor, epsilon: float, p: float = 1.0) -> int:
    """Largest d for which a set is d-ε-dense: every point has d others within ε (Definition 5).

    Corollary 1 promises at least m − b + 1 for m points, if all of their subsets of b points are α-β-connected and
    ``epsilon`` is β.

    Parameters
    ----------
    points
        (n, d) floating point and finite, n ≥ 1.
    epsilon
        Radius ε > 0 of the closed balls.
    p
        Norm ‖·‖p, 1 ≤ p ≤ ∞.

    Returns
    -------
    int
        From 0 (not ε-dense) to n − 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> density_degree(np.array([[0.0], [1.0], [2.0]]), epsilon=1.0)
    1
    """
    from corel.ball_count import BallCount

    cloud = _finite(points)
    if cloud.dim() != 2:
        raise ValueError(f"points: got shape {tuple(points.shape)}; accepted is (n, d)")
    epsilon = float(_checks.positive("epsilon", epsilon))
    counts = BallCount(epsilon, p=check_p(p)).fit(cloud).score_samples(cloud)
    return int(counts.min()) - 1  # a point lies in its own ball


def annulus_entropy_bound(alpha: float, beta: float, epsilon: float, n: int) -> float:
    """Upper bound of the ε-metric entropy of the annulus α ≤ ‖z‖₁ ≤ β in Rⁿ (Lemma 2).

    At most (2β/ε + 1)ⁿ − (2α/ε − 1)ⁿ points of the annulus are at distance ε or more from each other.

    Parameters
    ----------
    alpha, beta
        Radii of the annulus, 0 < α < β.
    epsilon
        Separation, 0 < ε < 2α.
    n
        Dimension, at least 1.

    Returns
    -------
    float
        The bound, correctly rounded; infinity where it is larger than any float.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> annulus_entropy_bound(alpha=1.0, beta=2.0, epsilon=1.0, n=2)
    24.0
    """
    bound = _entropy_bound(alpha, beta, epsilon, n)
    try:
        return float(bound)
    except OverflowError:
        return math.inf


def required_sample_size(alpha: float, beta: float, eta: float, n: int, b: int) -> int:
    """Smallest number m of points that can no longer be η-separated (Eq. 5).

    If all subsets of b points of a set of m are α-β-connected and m − b + 1 > (2β/η + 1)ⁿ − (2α/η − 1)ⁿ, two of its
    points are at an L1 distance below η.

    Parameters
    ----------
    alpha, beta
        Least and largest death of the subsets, 0 < α < β (see :func:`alpha_beta`).
    eta
        Separation, 0 < η < 2α.
    n
        Dimension of the codes, of one branch where there are branches; at least 1.
    b
        Size of the subsets, the batch size; at least 2.

    Returns
    -------
    int
        m, exact however large.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> required_sample_size(alpha=1.0, beta=2.0, eta=1.0, n=2, b=10)
    34
    """
    bound = _entropy_bound(alpha, beta, eta, n, "eta")
    return math.floor(bound) + _checks.at_least(2)("b", b)


def max_batch_size(alpha: float, beta: float, n: int) -> int:
    """Largest batch size b that Remark 2 leaves possible: b ≤ (2β/α + 1)ⁿ − 1.

    With a larger b, no set of 2b − 1 points in (Rⁿ, ‖·‖₁) has all of its subsets of b points α-β-connected.

    Parameters
    ----------
    alpha, beta
        Least and largest death, 0 < α < β.
    n
        Dimension of the codes, of one branch where there are branches; at least 1.

    Returns
    -------
    int
        b, exact however large.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> max_batch_size(alpha=1.0, beta=2.0, n=2)
    24
    """
    return math.floor(_entropy_bound(alpha, beta, alpha, n, "alpha"))


def _entropy_bound(alpha: float, beta: float, epsilon: float, n: int, name: str = "epsilon") -> Fraction:
    """The bound of Lemma 2 for exactly the given numbers: floats cannot hold it where n is in the hundreds."""
    alpha, beta = _checks.positive("alpha", alpha), _checks.positive("beta", beta)
    epsilon, n = _checks.positive(name, epsilon), _checks.count("n", n)
    if not alpha < beta:
        raise ValueError(f"beta: got {beta!r}; accepted are numbers above alpha = {alpha!r}")
    if not epsilon < 2 * alpha:
        raise ValueError(f"{name}: got {epsilon!r}; accepted are numbers below 2 · alpha = {2 * alpha!r}")
    a, b, e = (Fraction(float(value)) for value in (alpha, beta, epsilon))
    return (2 * b / e + 1) ** n - (2 * a / e - 1) ** n


def _finite(points: np.ndarray | Tensor) -> Tensor:
    if isinstance(points, np.ndarray):
        if points.dtype.kind != "f":
            raise TypeError(f"points: got dtype {points.dtype}; accepted are floating-point numbers")
        points = _checks.as_tensor(_checks.native(points))
    elif not isinstance(points, Tensor):
        raise TypeError(f"points: got {type(points).__name__}; accepted are numpy arrays and torch tensors")
    cloud = check_points(points.detach())
    if not bool(torch.isfinite(cloud).all()):
        raise _checks.non_finite("points")
    return cloud
