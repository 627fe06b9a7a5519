"""A k-d tree in Numba whose leaves are tiles of ``LANES`` points, so that vector instructions work on a whole leaf.

Node i has the children 2 i + 1 and 2 i + 2, one half of its tiles each. All leaves are full but the last one, and are
on two levels at most: some nodes of the last level do not exist, and have no tiles. A tree is a tuple:

======= ============================================================================================
indices (n,) int32: the points' own numbers, in the order of the tree
tiles   (tiles, d, LANES): the points in that order, coordinate by coordinate; 0 behind the last one
nodes   (nodes, 2) int32: the first tile of each node, and that after its last
boxes   (nodes, 2, d): the least and the greatest coordinates in each node
======= ============================================================================================
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.vectors import LANES

#: Levels of a tree of 2³¹ points, and more.
DEPTH = 64
#: Sample sizes: to choose the coordinate in which a node is split, and to estimate the median.
_SPREAD, _MEDIAN = 16, 9
#: Ranges of up to so many values are sorted.
_SHORT = 32


@njit(nogil=True)
def _partition(arrays, first, stop, pivot):
    """Bring the values of a range that are below the pivot to its front. Returns where the others begin."""
    # ranges of their own, so that the compiler knows that no index is negative
    values, indices, spare_values, spare_indices = _range(arrays, first, stop)
    low, high = 0, len(values) - 1
    for i in range(len(values)):  # without a branch: which way it would go cannot be foreseen
        value, name = values[i], indices[i]
        spare_values[low], spare_indices[low] = value, name
        spare_values[high], spare_indices[high] = value, name
        below = np.int64(value < pivot)
        low += below
        high += below - 1
    for i in range(len(values)):
        values[i], indices[i] = spare_values[i], spare_indices[i]
    return first + low


@njit(nogil=True)
def _sort(arrays, first, stop):
    """Sort a few values, and indices with them: a value's place is how many come before it, which vectors count."""
    values, indices, spare_values, spare_indices = _range(arrays, first, stop)
    for i in range(len(values)):
        value, place = values[i], np.int32(0)
        for x in values[:i]:
            place += np.int32(x <= value)
        for x in values[i:]:
            place += np.int32(x < value)
        spare_values[place], spare_indices[place] = value, indices[i]
    for i in range(len(values)):
        values[i], indices[i] = spare_values[i], spare_indices[i]


@njit(nogil=True)
def _range(arrays, first, stop):
    values, indices, spare_values, spare_indices = arrays
    return values[first:stop], indices[first:stop], spare_values[first:stop], spare_indices[first:stop]


@njit(nogil=True)
def _select(arrays, first, stop, middle, sample):
    """Reorder a range of values, and indices with them: none before ``middle`` is above one from there on."""
    values = arrays[0]
    while stop - first > _SHORT:
        for s in range(_MEDIAN):
            value, place = values[first + s * (stop - first) // _MEDIAN], s
            while place > 0 and sample[place - 1] > value:
                sample[place] = sample[place - 1]
                place -= 1
            sample[place] = value
        pivot = sample[(middle - first) * _MEDIAN // (stop - first)]
        split = _partition(arrays, first, stop, pivot)
        if split == first:  # the pivot is the least value, of which there may be many
            split = _partition(arrays, first, stop, np.nextafter(pivot, values.dtype.type(np.inf)))
            if middle <= split or split == first:  # the latter only of values that are not finite
                return
        if middle < split:
            stop = split
        else:
            first = split
    _sort(arrays, first, stop)


@njit(nogil=True)
def _widest(points, indices, first, stop):
    """The coordinate in which some points of a range differ most."""
    widest, most = 0, points.dtype.type(-1)
    step = max(1, (stop - first) // _SPREAD)
    for k in range(points.shape[1]):
        low = high = points[indices[first], k]
        for i in range(first + step, stop, step):
            x = points[indices[i], k]
            low = x if x < low else low
            high = x if x > high else high
        if high - low > most:
            widest, most = k, high - low
    return widest


@njit(nogil=True)
def _fill(points, indices, tiles, tile, box):
    """Store the points of a leaf, and their box."""
    first = tile * LANES
    for k in range(points.shape[1]):
        low = high = points[indices[first], k]
        for lane in range(LANES):
            x = points.dtype.type(0)
            if first + lane < len(indices):
                x = points[indices[first + lane], k]
                low = x if x < low else low
                high = x if x > high else high
            tiles[tile, k, lane] = x
        box[0, k], box[1, k] = low, high


@compiled()
def grow(points, tree, spare, root, levels):
    """Divide a node of a tree and what is below it, ``levels`` levels in all. Nodes of one level may grow at a time.

    Parameters
    ----------
    points
        (n, d) float32 or float64, finite.
    tree
        See the head of this file: indices and tiles of the node are filled in, boxes of leaves only.
    spare
        Three arrays (n,) to overwrite, of the dtype of ``points`` twice, and int32.
    root, levels
        The node, whose place in ``nodes`` is filled in, and how many levels.
    """
    indices, tiles, nodes, boxes = tree
    values, spare_values, spare_indices = spare
    arrays = values, indices, spare_values, spare_indices
    sample = np.empty(_MEDIAN, points.dtype)
    before, count = root, 1
    for _ in range(levels):
        for node in range(before, before + count):
            first, stop = nodes[node]
            if stop - first == 1:
                _fill(points, indices, tiles, first, boxes[node])
            elif stop > first:
                half = (first + stop) // 2
                left, middle, right = first * LANES, half * LANES, min(stop * LANES, len(indices))
                widest = _widest(points, indices, left, right)
                for i in range(left, right):
                    values[i] = points[indices[i], widest]
                _select(arrays, left, right, middle, sample)
                nodes[2 * node + 1, 0], nodes[2 * node + 1, 1] = first, half
                nodes[2 * node + 2, 0], nodes[2 * node + 2, 1] = half, stop
        before, count = 2 * before + 1, 2 * count


@compiled()
def enclose(tree):
    """Fill in the boxes of all nodes that are no leaves."""
    _, _, nodes, boxes = tree
    for node in range(len(nodes) // 2 - 1, -1, -1):
        if nodes[node, 1] - nodes[node, 0] > 1:
            for k in range(boxes.shape[2]):
                boxes[node, 0, k] = min(boxes[2 * node + 1, 0, k], boxes[2 * node + 2, 0, k])
                boxes[node, 1, k] = max(boxes[2 * node + 1, 1, k], boxes[2 * node + 2, 1, k])
