"""Borůvka's algorithm in Numba on a k-d tree, for points that lie in few dimensions: most pairs are never looked at.

In each round every component finds its least edge to another one, by searches for the nearest point of another
component, and all these edges are added. What a search needs not look at, it knows from bounds: the box of a node is
computed with by the same operations in the same order as a length, and rounding is monotone, so that the distance to a
box is never above the length to a point within, to the last bit.

The first search of a point lists several neighbours: most of what later rounds ask for is there. Points are in the
order of the tree here, so that those of a node are neighbours; edges have the points' own numbers. A forest that grows
is a tuple (component, near, length, following, low, bound):

========= ==========================================================================================
component (n,) int64: which component a point is in
near      (n, k) int64: points near a point, by (length, edge); −1 behind the last
length    (n, k) the lengths to them
following (n,) int64: place in ``near`` of the first that is in another component; k if there is none
low       (n,) no point of another component that is not in ``near`` is nearer
bound     (components,) no edge of a component that is longer than this can be its least one
========= ==========================================================================================
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import AFTER_ALL_EDGES
from corel.persistence.kernels.lengths import EUCLIDEAN_RANGE_32, EUCLIDEAN_RANGE_64, norm

#: Levels of a tree of 2³¹ points, and more.
_DEPTH = 64


@njit(nogil=True)
def _limit(length, p, smallest):
    """No total (:func:`_total`) above this is that of a length up to ``length``."""
    return max(length * length * type(length)(1.000001), smallest) if p == 2.0 else length


@njit(nogil=True)
def _total(total, difference, p):
    """Add a coordinate to what grows with the length: a sum for p = 1, one of squares for p = 2, else a maximum."""
    if p == 2.0:
        return total + difference * difference
    if p == 1.0:
        return total + abs(difference)
    return max(total, abs(difference))


@njit(nogil=True)
def _edge(names, i, j):
    return min(names[i], names[j]) << 32 | max(names[i], names[j])


@njit(nogil=True)
def _to_box(point, box, p):
    """The total from a point to the nearest place of a box."""
    zero = type(point[0])(0)
    total = zero
    for k in range(len(point)):
        total = _total(total, max(box[0, k] - point[k], point[k] - box[1, k], zero), p)
    return total


@njit(nogil=True, error_model="numpy")
def _search(i, wanted, points, names, nodes, boxes, same, forest, spare, p, smallest):
    """List the ``wanted`` nearest points of other components to point i, or the nearest within the bound of its own.

    Returns how many points were looked at.
    """
    component, near, length, following, low, bound = forest
    point, own = points[i], component[i]
    near[i], following[i] = -1, 0
    best, found, worst = (bound[own] if wanted == 1 else type(bound[own])(np.inf)), 0, AFTER_ALL_EDGES
    limit, looked = _limit(best, p, smallest), 0
    stack, above, difference = spare
    stack[0], above[0], height = 0, 0, 1
    while height > 0:
        height -= 1
        node = stack[height]
        if above[height] > limit:
            continue
        if 2 * node + 1 < len(nodes):
            left, right = 2 * node + 1, 2 * node + 2
            to_left = _to_box(point, boxes[left], p)
            to_right = _to_box(point, boxes[right], p)
            if to_left < to_right:  # the nearer one is looked at first
                left, right, to_left, to_right = right, left, to_right, to_left
            if to_left <= limit and same[left] != own:
                stack[height], above[height] = left, to_left
                height += 1
            if to_right <= limit and same[right] != own:
                stack[height], above[height] = right, to_right
                height += 1
            continue
        first, stop = nodes[node]
        looked += stop - first
        for j in range(first, stop):
            total = type(best)(0)
            if len(point) == 2:  # the most frequent numbers of coordinates, so that no loop is needed
                total = _total(_total(total, point[0] - points[j, 0], p), point[1] - points[j, 1], p)
            elif len(point) == 3:
                total = _total(_total(total, point[0] - points[j, 0], p), point[1] - points[j, 1], p)
                total = _total(total, point[2] - points[j, 2], p)
            else:
                for k in range(len(point)):
                    total = _total(total, point[k] - points[j, k], p)
            if total > limit or component[j] == own:
                continue
            long, pair = total, _edge(names, i, j)
            if p == 2.0 and smallest <= total < np.inf:
                long = np.sqrt(total)
            elif p != 1.0 and p != np.inf:
                for k in range(len(point)):
                    difference[k] = point[k] - points[j, k]
                long = norm(difference, p)
            if long > best or (long == best and pair > worst):
                continue
            place = min(found, wanted - 1)
            while place > 0 and (
                length[i, place - 1] > long
                or (length[i, place - 1] == long and _edge(names, i, near[i, place - 1]) > pair)
            ):
                near[i, place], length[i, place] = near[i, place - 1], length[i, place - 1]
                place -= 1
            near[i, place], length[i, place] = j, long
            found = min(found + 1, wanted)
            if found == wanted:  # only what comes before the last one matters
                best, worst = length[i, wanted - 1], _edge(names, i, near[i, wanted - 1])
                limit = _limit(best, p, smallest)
    low[i] = best
    if found > 0:
        bound[own] = min(bound[own], length[i, 0])
    else:
        following[i] = near.shape[1]
    return looked


@compiled(error_model="numpy")
def search(points, names, nodes, boxes, same, forest, p, wanted, first, stop, step):
    """List neighbours of every ``step``-th of the points from ``first`` to before ``stop``, where that is needed.

    Several threads may do so at once, each from its own points. A bound that one of them overwrites was true, and is
    only larger than it might be.

    Parameters
    ----------
    points
        (n, d) float32 or float64, in the order of the tree.
    names
        (n,) int64: the numbers of the points.
    nodes, boxes
        (nodes, 2) int64 and (nodes, 2, d): first point of each node of a binary tree and that after its last, and the
        least and greatest coordinates. Node i has the children 2 i + 1 and 2 i + 2.
    same
        (nodes,) int64: the component that all points of a node are in, −1 if there are several.
    forest
        See the head of this file.
    p
        1 ≤ p ≤ ∞, a float.
    wanted
        How many neighbours to list; if it is 1, one beyond the bound is of no interest.

    Returns
    -------
    int
        How many points were looked at.
    """
    component, _, length, following, low, bound = forest
    looked = 0
    spare = np.empty(_DEPTH, np.int64), np.empty(_DEPTH, points.dtype), np.empty(points.shape[1], points.dtype)
    # sums of squares below this are not exact enough to compare with
    smallest = points.dtype.type(EUCLIDEAN_RANGE_32[0] if points.itemsize == 4 else EUCLIDEAN_RANGE_64[0])
    for i in range(first, stop, step):
        if following[i] == length.shape[1] and low[i] <= bound[component[i]]:
            looked += _search(i, wanted, points, names, nodes, boxes, same, forest, spare, p, smallest)
    return looked


@compiled()
def begin(points, nodes, same, forest, p):
    """Begin a round: bring ``same`` up to date, and take as bounds what earlier rounds found and what is close by."""
    component, near, length, following, _, bound = forest
    bound[:] = np.inf
    k = near.shape[1]
    for i in range(len(component)):
        own, place = component[i], following[i]
        while place < k and near[i, place] >= 0 and component[near[i, place]] == own:
            place += 1
        if place < k and near[i, place] >= 0:
            bound[own] = min(bound[own], length[i, place])
        else:
            place = k
        following[i] = place
        if i > 0 and own != component[i - 1]:
            apart = norm(points[i] - points[i - 1], p)
            for c in (own, component[i - 1]):
                bound[c] = min(bound[c], apart)
    for node in range(len(nodes) - 1, -1, -1):
        if 2 * node + 1 < len(nodes):
            left, right = same[2 * node + 1], same[2 * node + 2]
            same[node] = left if left == right else -1
        else:
            first, stop = nodes[node]
            same[node] = component[first]
            for i in range(first + 1, stop):
                if component[i] != component[first]:
                    same[node] = -1


@compiled()
def merge(names, forest, components, edges, lengths, found):
    """End a round: add the least edge of each component to ``edges`` and ``lengths`` from the place ``found`` on.

    Returns the next place and how many components are left, which are numbered anew.
    """
    component, near, length, following, low, _ = forest
    least, edge = np.full(components, np.inf, low.dtype), np.full(components, AFTER_ALL_EDGES)
    other = np.full(components, -1)
    for i in range(len(component)):
        own, place = component[i], following[i]
        if place < near.shape[1] and length[i, place] <= least[own]:
            pair = _edge(names, i, near[i, place])
            if length[i, place] < least[own] or pair < edge[own]:
                least[own], edge[own], other[own] = length[i, place], pair, component[near[i, place]]
    parent = np.arange(components)
    for c in range(components):
        a, b = c, other[c]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b:  # the other component may have added the same edge
            parent[max(a, b)] = min(a, b)
            edges[found], lengths[found] = edge[c], least[c]
            found += 1
    number, left = np.empty(components, np.int64), 0
    for c in range(components):  # a parent comes first
        if parent[c] == c:
            number[c] = left
            left += 1
        else:
            number[c] = number[parent[c]]
    for i in range(len(component)):
        component[i] = number[component[i]]
    return found, left
