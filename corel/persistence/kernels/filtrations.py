"""Lengths, enclosing radius and order of edges of a filtration in Numba.

They are what :mod:`corel.persistence.metric` and :mod:`corel.persistence.filtration` compute in torch operations. For
few points, the fixed cost of each torch operation would exceed the computation.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import sort_edges
from corel.persistence.kernels.lengths import norm


@compiled()
def pairwise_lengths(points, p, lengths):
    """Write all lengths in a cloud (n, d) under ‖·‖p to ``lengths`` (n, n), which is of the same dtype."""
    n, d = points.shape
    difference = np.empty(d, points.dtype)
    for i in range(n):
        lengths[i, i] = 0
        for j in range(i):
            for k in range(d):
                difference[k] = points[j, k] - points[i, k]
            lengths[i, j] = lengths[j, i] = norm(difference, p)


@compiled()
def enclosing_radius(lengths):
    """:func:`corel.persistence.filtration.enclosing_radius`."""
    n, radius = len(lengths), np.inf
    for i in range(n):
        farthest = 0.0
        for j in range(n):
            farthest = max(farthest, lengths[i, j])
        radius = min(radius, farthest)
    return radius


@compiled()
def edge_order(lengths, max_length):
    """Sort the finite edges up to a length.

    Parameters
    ----------
    lengths
        (n, n) float32 or float64, symmetric.
    max_length
        Edges of this length are included.

    Returns
    -------
    edges, place, level, own_level, levels
        As the attributes of :class:`corel.persistence.filtration.EdgeOrder`, in arrays of int64.
    """
    n, m, longest = len(lengths), 0, lengths.dtype.type(max_length)  # rounded as torch does it
    numbers, sorted_lengths = np.empty(n * (n - 1) // 2, np.int64), np.empty(n * (n - 1) // 2, lengths.dtype)
    for i in range(n):
        for j in range(i + 1, n):
            if lengths[i, j] <= longest and lengths[i, j] < np.inf:
                numbers[m], sorted_lengths[m] = i << 32 | j, lengths[i, j]
                m += 1
    numbers, sorted_lengths = numbers[:m], sorted_lengths[:m]
    sort_edges(numbers, sorted_lengths, np.empty_like(numbers), np.empty_like(sorted_lengths))
    edges, own_level = np.empty((m, 2), np.int64), np.empty(m, np.int64)
    place, level = np.full((n, n), m), np.empty((n, n), np.int64)
    rank, before = 0, lengths.dtype.type(0)
    for e in range(m):
        i, j = numbers[e] >> 32, numbers[e] & 0xFFFFFFFF
        rank += sorted_lengths[e] > before
        before = sorted_lengths[e]
        edges[e, 0], edges[e, 1] = i, j
        place[i, j] = place[j, i] = e
        level[i, j] = level[j, i] = own_level[e] = rank
    for i in range(n):
        for j in range(n):
            if place[i, j] == m:
                level[i, j] = rank + 1
        place[i, i] = -1
        level[i, i] = 0
    return edges, place, level, own_level, rank + 1


@compiled()
def longest_edges(edges, place, simplices):
    """The last of the edges of each simplex of dimension ≥ 1: (m, 2), (n, n), (k, size) → (k, 2), all int64."""
    k, size = simplices.shape
    longest = np.empty((k, 2), np.int64)
    for s in range(k):
        last = -1
        for a in range(size):
            for b in range(a):
                last = max(last, place[simplices[s, a], simplices[s, b]])
        longest[s, 0], longest[s, 1] = edges[last]
    return longest
