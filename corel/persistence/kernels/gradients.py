"""Gradients of the lengths of given edges in Numba, and the connectivity loss with its gradient.

Subgradients are those of :mod:`corel.persistence.metric`.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from corel.persistence.kernels.compiled import compiled


@njit(nogil=True)
def _add_gradient(points, i, j, length, weight, p, gradient, to_i, to_j):
    """Add weight · ∂‖xᵢ − xⱼ‖p / ∂x to the rows ``to_i`` and ``to_j`` of a gradient.

    Points and gradient are rows of d coordinates, contiguous: views of single clouds would take longer to make than the
    gradient of an edge.
    """
    real = points.dtype.type
    if weight == 0 or length == 0:
        return
    d = points.shape[1]
    if p == np.inf:
        ties = 0
        for k in range(d):
            ties += abs(points[i, k] - points[j, k]) == length
        weight /= real(ties)
    for k in range(d):
        u = points[i, k] - points[j, k]
        if u == 0:
            continue
        if p == 2.0:
            g = weight * (u / length)
        elif p == 1.0 or (p == np.inf and abs(u) == length):
            g = weight if u > 0 else -weight
        elif p == np.inf:
            continue
        else:
            g = (abs(u) / length) ** real(p - 1.0) * (weight if u > 0 else -weight)
        gradient[to_i, k] += g
        gradient[to_j, k] -= g


@compiled(error_model="numpy")
def lengths_backward(points, edges, lengths, weights, p, gradient):
    """The gradient of Σ weights · lengths.

    Parameters
    ----------
    points, edges, lengths, weights
        (B, n, d), (B, m, 2) int64, (B, m) and (B, m), of one floating dtype but for the edges.
    p
        1 ≤ p ≤ ∞, a float.
    gradient
        (B, n, d), overwritten.
    """
    gradient[:] = 0
    _, n, d = points.shape
    rows, gradient = points.reshape(-1, d), gradient.reshape(-1, d)
    for c in range(len(points)):
        for e in range(lengths.shape[1]):
            i, j = c * n + edges[c, e, 0], c * n + edges[c, e, 1]
            _add_gradient(rows, i, j, lengths[c, e], weights[c, e], p, gradient, i, j)


@compiled(error_model="numpy")
def connectivity(points, edges, lengths, eta, factor, p, with_gradient, loss, gradient):
    """factor · Σ |η − ε| over the lengths ε of all edges, and its gradient.

    Parameters
    ----------
    points, edges, lengths
        (B, n, d), (B, m, 2) int64 and (B, m).
    eta, factor, p
        Floats.
    with_gradient
        Whether the gradient is computed.
    loss
        (), overwritten.
    gradient
        (n, B, d), the order of the codes that the clouds are branches of; overwritten if ``with_gradient``.
    """
    real = points.dtype.type
    total = 0.0
    for length in lengths.flat:
        total += abs(real(eta) - length)
    loss[()] = factor * total
    if with_gradient:
        gradient[:] = 0
        clouds, n, d = points.shape
        rows, gradient = points.reshape(-1, d), gradient.reshape(-1, d)
        for c in range(clouds):
            for e in range(lengths.shape[1]):
                i, j = edges[c, e, 0], edges[c, e, 1]
                weight = np.sign(lengths[c, e] - real(eta)) * real(factor)
                to_i, to_j = i * clouds + c, j * clouds + c
                _add_gradient(rows, c * n + i, c * n + j, lengths[c, e], weight, p, gradient, to_i, to_j)
