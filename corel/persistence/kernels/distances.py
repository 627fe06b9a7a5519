"""Prim's algorithm in Numba for matrices of distances: each step reads one row, and no list of all edges is sorted."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import sort_edges
from corel.persistence.kernels.small_clouds import NO_EDGE, first_edge
from corel.persistence.kernels.vectors import LANES, least

#: Rows and columns of a tile: it and its mirror image fit into the first level of the cache.
_TILE = 32


@njit(nogil=True)
def _is_exact(matrix):
    """Whether there are only lengths ≥ 0, symmetric to the last bit, with 0 on the diagonal."""
    n = len(matrix)
    exact = True
    for first in range(0, n, _TILE):
        for second in range(first, n, _TILE):
            for i in range(first, min(first + _TILE, n)):
                for j in range(max(second, i + 1), min(second + _TILE, n)):
                    exact &= (matrix[i, j] >= 0) & (matrix[i, j] == matrix[j, i])
        if not exact:
            return False
    for i in range(n):
        exact &= matrix[i, i] == 0
    return exact


@njit(nogil=True)
def _advance(row, key, near, newest):
    """Keep the edges to the newest vertex that come before those kept; where ``near`` is −1, none is wanted."""
    for w in range(len(row)):
        closer = (near[w] >= 0) & ((row[w] < key[w]) | ((row[w] == key[w]) & (newest < near[w])))
        key[w] = row[w] if closer else key[w]
        near[w] = newest if closer else near[w]


@compiled()
def spanning_trees(matrices, first, stop, pairs, lengths):
    """Minimum spanning trees of some of a batch of matrices of distances, one after the other.

    Parameters
    ----------
    matrices
        (B, n, n) float32 or float64, contiguous.
    first, stop
        The matrices from ``first`` to before ``stop`` are computed.
    pairs, lengths
        (B, n − 1, 2) int64 and (B, n − 1), of the dtype of ``matrices``: the edges and their lengths, sorted by
        (length, i, j), are written to these.

    Returns
    -------
    bool
        Whether all matrices have lengths ≥ 0, are symmetric to the last bit, and 0 on the diagonal; if not, what was
        written is of no use.
    """
    n = matrices.shape[1]
    tiles = (n + LANES - 1) // LANES
    key, near = np.empty(tiles * LANES, matrices.dtype), np.empty(tiles * LANES, np.int32)
    side = key, key, near, np.arange(tiles * LANES)
    edges, spare_edges, spare_lengths = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64), np.empty_like(key[1:n])
    for b in range(first, stop):
        if not _is_exact(matrices[b]):
            return False
        key[:], near[:n], near[n:] = np.inf, NO_EDGE, -1
        newest = 0
        for step in range(n - 1):
            key[newest], near[newest] = np.inf, -1
            _advance(matrices[b, newest], key, near, np.int32(newest))
            lengths[b, step] = least(key, tiles)
            edges[step], newest = first_edge(side, 0, tiles, lengths[b, step])
        sort_edges(edges, lengths[b], spare_edges, spare_lengths)
        for e in range(n - 1):
            pairs[b, e, 0], pairs[b, e, 1] = edges[e] >> 32, edges[e] & 0xFFFFFFFF
    return True
