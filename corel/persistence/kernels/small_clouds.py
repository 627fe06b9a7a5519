"""Prim's algorithm in Numba, for clouds that fit into the cache.

For each point outside the tree, the shortest edge into the tree is kept. Each step takes the point whose edge is the
shortest of all, and compares its distances to the points that remain with the edges kept for these.

The points outside the tree are called a side, because :mod:`.large_clouds` has two, of a bipartite graph. It is a tuple
(tiles, key, near, indices):

======= ================================================================================================
tiles   (tiles, d, LANES) coordinates
key     (slots,) length of each point's shortest edge into the tree, ∞ before there is one
near    (slots,) the other end of that edge, ``NO_EDGE`` before there is one, −1 in a slot without a point
indices (slots,) the number of each point in the cloud
======= ================================================================================================

A slot without a point has an infinite first coordinate, and −1 for ``near``: no comparison ever chooses it.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import AFTER_ALL_EDGES, sort_edges
from corel.persistence.kernels.lengths import advance
from corel.persistence.kernels.vectors import LANES, equal_lanes, lowest_bit, pointer

#: In place of a point's other end: it has no edge yet.
NO_EDGE = 2**31 - 1


def integers(size, real):
    """An array of integers, of this size or shape, as wide as the floating-point numbers of the array ``real``.

    For compiled code alone, where the overload below stands in for it.
    """
    raise NotImplementedError


@overload(integers)
def _(size, real):
    if real.dtype == types.float32:
        return lambda size, real: np.empty(size, np.int32)
    return lambda size, real: np.empty(size, np.int64)


@njit(nogil=True)
def make_side(points, size):
    """Memory for a side of up to ``size`` of the points (n, d)."""
    d = points.shape[1]
    tiles = (size + LANES - 1) // LANES
    slots = tiles * LANES
    tiles = np.empty((tiles, d, LANES), points.dtype)
    return tiles, np.empty(slots, points.dtype), integers(slots, points), np.empty(slots, np.int64)


@njit(nogil=True)
def fill_side(side, points, first, stop):
    """Put points[first:stop] into a side, none with an edge yet. Returns whether all coordinates are finite."""
    tiles, key, near, indices = side
    d = points.shape[1]
    infinity = points.dtype.type(np.inf)
    finite = True
    for slot in range(key.size):
        tile, lane = slot // LANES, slot % LANES
        key[slot] = infinity
        if slot < stop - first:
            near[slot] = NO_EDGE
            indices[slot] = first + slot
            for k in range(d):
                x = points[first + slot, k]
                finite &= abs(x) < infinity
                tiles[tile, k, lane] = x
        else:
            near[slot] = -1
            tiles[tile, 0, lane] = infinity
            for k in range(1, d):
                tiles[tile, k, lane] = 0
    return finite


@njit(nogil=True)
def first_edge(side, tile, stop, length):
    """Of the edges of a given length kept in tiles ``tile`` to ``stop``, the first, and the slot that it is kept in."""
    _, key, near, indices = side
    first, chosen = AFTER_ALL_EDGES, -1
    for start in range(tile * LANES, stop * LANES, LANES):
        bits = equal_lanes(key, start, length)
        while bits:
            slot = start + lowest_bit(bits)
            bits &= bits - 1
            a, b = indices[slot], np.int64(near[slot])
            # where the length overflowed to infinity, empty slots and points without an edge have an equal key
            if 0 <= b < NO_EDGE:
                edge = (a << 32) + b if a < b else (b << 32) + a
                if edge < first:
                    first, chosen = edge, slot
    return first, chosen


@njit(nogil=True)
def _close_gaps(side, gaps, left, points):
    """Move the points from the tile that begins at slot ``left`` to those of the slots ``gaps`` that come before it."""
    tiles, key, near, indices = side
    used = 0
    for slot in range(left, left + LANES):
        if near[slot] >= 0:
            while gaps[used] >= left:
                used += 1
            gap = gaps[used]
            used += 1
            for k in range(points.shape[1]):
                tiles[gap // LANES, k, gap % LANES] = points[indices[slot], k]
            key[gap], near[gap], indices[gap] = key[slot], near[slot], indices[slot]


@njit(nogil=True, error_model="numpy")
def _grow_tree(p, points, side, edges, lengths):
    """The minimum spanning tree of points, in the order in which it grows. Returns whether all points are finite."""
    n = len(points)
    if not fill_side(side, points, 0, n):
        return False
    tiles, key, near, indices = side
    count, gaps, removed, slot = len(tiles), np.empty(LANES, np.int64), 0, 0
    for step in range(n - 1):
        newest = indices[slot]
        key[slot], near[slot], tiles[slot // LANES, 0, slot % LANES] = np.inf, -1, np.inf
        # Other points are moved once there are as many gaps as points in the last tile: reading a vector that was
        # written element by element just before takes long.
        gaps[removed] = slot
        removed += 1
        left = n - 1 - step
        if left == (count - 1) * LANES:
            _close_gaps(side, gaps, left, points)
            count, removed = count - 1, 0
        lengths[step] = advance(tiles, points[newest], key, near, count, newest, p)
        edges[step], slot = first_edge(side, 0, count, lengths[step])
    return True


@compiled()
def spanning_trees(p, points, first, stop, pairs, lengths):
    """Minimum spanning trees of some of a batch of clouds, one after the other.

    Parameters
    ----------
    p
        1 ≤ p ≤ ∞, a float.
    points
        (B, n, d) float32 or float64, contiguous.
    first, stop
        The clouds from ``first`` to before ``stop`` are computed.
    pairs, lengths
        (B, n − 1, 2) int64 and (B, n − 1), of the dtype of ``points``: the edges and their lengths, sorted by
        (length, i, j), are written to these.

    Returns
    -------
    bool
        Whether all coordinates are finite; if not, what was written is of no use.
    """
    n = points.shape[1]
    side = make_side(points[0], n)
    edges, spare_edges = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64)
    spare_lengths = np.empty(n - 1, points.dtype)
    for cloud in range(first, stop):
        if not _grow_tree(p, points[cloud], side, edges, lengths[cloud]):
            return False
        sort_edges(edges, lengths[cloud], spare_edges, spare_lengths)
        for i in range(n - 1):
            pairs[cloud, i, 0], pairs[cloud, i, 1] = edges[i] >> 32, edges[i] & 0xFFFFFFFF
    return True


@compiled()
def spanning_tree(p, address, d, pairs, lengths):
    """The minimum spanning tree of one cloud, in less time than :func:`spanning_trees` takes for it.

    Parameters
    ----------
    p
        1 ≤ p ≤ ∞, a float.
    address, d
        Where n points with ``d`` coordinates are, of the dtype of ``lengths``, contiguous.
    pairs, lengths
        (n − 1, 2) int64, or (0, 2) where they are not wanted, and (n − 1,) float32 or float64: as for
        :func:`spanning_trees`.

    Returns
    -------
    bool
        As for :func:`spanning_trees`.
    """
    n = len(lengths) + 1
    points = carray(pointer(address, lengths), (n, d))
    edges = np.empty(n - 1, np.int64)
    if not _grow_tree(p, points, make_side(points, n), edges, lengths):
        return False
    sort_edges(edges, lengths, np.empty_like(edges), np.empty_like(lengths))
    for i in range(len(pairs)):
        pairs[i, 0], pairs[i, 1] = edges[i] >> 32, edges[i] & 0xFFFFFFFF
    return True
