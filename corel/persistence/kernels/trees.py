"""Borůvka's algorithm in Numba on a k-d tree, for points that lie in few dimensions: most pairs are never looked at.

In each round every component finds its least edge to another one, by searches for the nearest point of another
component, and all these edges are added. What a search needs not look at, it knows from bounds (:mod:`.leaves`).

The first search of a point lists several neighbours: most of what later rounds ask for is there. Points are in the
order of the tree here, so that those of a node are neighbours; edges have the points' own numbers. A forest that grows
is a tuple (component, near, length, following, low, last, bound, least):

========= ==========================================================================================
component (n,) int32: which component a point is in
near      (n, NEAR) int32: points near a point, by (length, edge); −1 behind the last
length    (n, NEAR) the lengths to them
following (n,) int32: no place in ``near`` before this has a point of another component; NEAR if none has
low       (n,) no point of another component is nearer; exact where a round found it to be the least edge
last      (n,) no point of another component that is not in ``near`` is nearer
bound     (components,) no edge of a component that is longer than this can be its least one
least     (components,) int32: the point whose edge to ``near[following]`` is the least known of a component, or −1
========= ==========================================================================================
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import AFTER_ALL_EDGES, root
from corel.persistence.kernels.kd_trees import DEPTH
from corel.persistence.kernels.leaves import NEAR, nearest, offer_one, reach, within
from corel.persistence.kernels.lengths import EUCLIDEAN_RANGE_32, EUCLIDEAN_RANGE_64, lower_bound_factor, norm
from corel.persistence.kernels.vectors import LANES, lowest_bit

#: From this many points of a leaf on, these are searched for at once.
_SEVERAL = 4


@njit(nogil=True)
def _limit(length, p, smallest):
    """No total (:mod:`.leaves`) above this is that of a length up to ``length``."""
    return max(length * length * type(length)(1.000001), smallest) if p == 2.0 else length


@njit(nogil=True)
def _edge(indices, i, j):
    a, b = np.int64(indices[i]), np.int64(indices[j])
    return min(a, b) << 32 | max(a, b)


@njit(nogil=True)
def _to_box(point, box, p):
    """The total from a point to the nearest place of a box."""
    zero = type(point[0])(0)
    total = zero
    for k in range(len(point)):
        difference = max(box[0, k] - point[k], point[k] - box[1, k], zero)
        if p == 2.0:
            total += difference * difference
        elif p == 1.0:
            total += difference
        else:
            total = max(total, difference)
    return total


@njit(nogil=True, error_model="numpy")
def _length(tiles, i, j, total, difference, p, smallest):
    """The length between two points at a total."""
    if p == 1.0 or p == np.inf:
        return total
    if p == 2.0 and smallest <= total < np.inf:
        return np.sqrt(total)
    for k in range(len(difference)):
        difference[k] = tiles[i // LANES, k, i % LANES] - tiles[j // LANES, k, j % LANES]
    return norm(difference, p)


@njit(nogil=True)
def _smallest(tiles):
    """Sums of squares below this are not exact enough to compare with."""
    return tiles.dtype.type(EUCLIDEAN_RANGE_32[0] if tiles.itemsize == 4 else EUCLIDEAN_RANGE_64[0])


@njit(nogil=True)
def _spare(tiles):
    """Memory for searches."""
    dtype, d = tiles.dtype, tiles.shape[1]
    stack, above = np.empty(DEPTH, np.int64), np.empty(DEPTH, dtype)
    return stack, above, np.empty(d, dtype), np.empty(d, dtype), np.empty(LANES, dtype)


@njit(nogil=True, error_model="numpy")
def _search(i, wanted, tree, node_component, forest, spare, p):
    """List the ``wanted`` nearest points of other components to point i, or the nearest within the bound of its own.

    Returns how many points were visited.
    """
    indices, tiles, nodes, boxes = tree
    component, near, length, following, low, last, bound, _ = forest
    stack, above, point, difference, totals = spare
    own, smallest = component[i], _smallest(tiles)
    powers = p != 1.0 and p != 2.0 and p != np.inf
    factor, normal = lower_bound_factor(tiles, len(point), p)
    for k in range(len(point)):
        point[k] = tiles[i // LANES, k, i % LANES]
    near[i, 0] = -1
    best, found, worst = (bound[own] if wanted == 1 else type(bound[own])(np.inf)), 0, AFTER_ALL_EDGES
    limit, visited = _limit(best, p, smallest), 0
    stack[0], above[0], height = 0, 0, 1
    while height > 0:
        height -= 1
        node = stack[height]
        if above[height] > limit:
            continue
        tile = nodes[node, 0]
        if nodes[node, 1] - tile > 1:
            left, right = 2 * node + 1, 2 * node + 2
            to_left = _to_box(point, boxes[left], p)
            to_right = _to_box(point, boxes[right], p)
            if to_left < to_right:  # the nearer one is visited first
                left, right, to_left, to_right = right, left, to_right, to_left
            if to_left <= limit and node_component[left] != own:
                stack[height], above[height] = left, to_left
                height += 1
            if to_right <= limit and node_component[right] != own:
                stack[height], above[height] = right, to_right
                height += 1
            continue
        count = min(len(indices) - tile * LANES, LANES)
        visited += count
        bits = within(tiles, tile, point, limit, totals, p) & ((1 << count) - 1)
        while bits:
            lane = lowest_bit(bits)
            bits &= bits - 1
            j = tile * LANES + lane
            if component[j] == own:
                continue
            if powers:  # they are slow
                least = type(best)(0)
                for k in range(len(point)):
                    least += abs(point[k] - tiles[tile, k, lane])
                if normal < factor * least < np.inf and factor * least > best:
                    continue
            length_ij, pair = _length(tiles, i, j, totals[lane], difference, p, smallest), _edge(indices, i, j)
            if length_ij > best or (length_ij == best and pair > worst):
                continue
            _insert(indices, near, length, i, min(found, wanted - 1), j, length_ij, pair)
            found = min(found + 1, wanted)
            if found == wanted:  # only what comes before the last one matters
                best, worst = length[i, wanted - 1], _edge(indices, i, near[i, wanted - 1])
                limit = _limit(best, p, smallest)
    if found < wanted:
        near[i, found] = -1
    following[i] = 0 if found > 0 else NEAR
    low[i], last[i] = length[i, 0] if found > 0 else best, best
    if found > 0:
        bound[own] = min(bound[own], length[i, 0])
    return visited


@njit(nogil=True)
def _insert(indices, near, length, i, place, j, length_ij, pair):
    """Insert point j into the list of point i, of which ``place`` are kept."""
    while place > 0 and (
        length[i, place - 1] > length_ij
        or (length[i, place - 1] == length_ij and _edge(indices, i, near[i, place - 1]) > pair)
    ):
        near[i, place], length[i, place] = near[i, place - 1], length[i, place - 1]
        place -= 1
    near[i, place], length[i, place] = j, length_ij


@compiled(error_model="numpy")
def search_leaves(tree, node_component, forest, p, first, stop, step):
    """List neighbours of the points in every ``step``-th of the leaves from the tile ``first`` to before ``stop``.

    Each point is a component of its own. Several threads may do so at once, each for its own leaves.

    Parameters
    ----------
    tree
        See :mod:`.kd_trees`.
    node_component
        (nodes,) int32: the component that all points of a node are in, −1 if there are several.
    forest
        See the head of this file.
    p
        1 ≤ p ≤ ∞, a float.

    Returns
    -------
    tuple of int
        How many points were offered to leaves, and how many were visited for single points, or will be, where some
        of the nearest are at one length.
    """
    indices, tiles, nodes, _ = tree
    _, near, length, following, low, last, bound, _ = forest
    spare = _spare(tiles)
    stack, _, _, difference, _ = spare
    smallest = _smallest(tiles)
    # where totals are below this, their order may not be that of the lengths
    inexact = smallest * type(smallest)(1.0001) if p == 2.0 else type(smallest)(-1)
    best, places = np.empty((NEAR + 1, LANES), tiles.dtype), np.zeros((NEAR + 1, LANES), np.int32)
    by_leaves = p == 1.0 or p == 2.0 or p == np.inf
    roots = np.empty_like(best)
    offered, visited = 0, 0
    for tile in range(first, stop, step):
        if by_leaves:
            offered += nearest(_leaf(nodes, tile), tree, best, places, stack, p)
            if p == 2.0:
                for row in range(NEAR + 1):
                    for lane in range(LANES):
                        roots[row, lane] = np.sqrt(best[row, lane])
            else:
                roots[:] = best
        for lane in range(min(len(indices) - tile * LANES, LANES)):
            i, found = tile * LANES + lane, 0
            if by_leaves and inexact < best[NEAR, lane] < np.inf:
                # points that were not listed are not nearer than the last one, whose edge need not be before theirs
                plain = best[0, lane] > inexact
                for row in range(NEAR):
                    near[i, row], length[i, row] = places[row, lane], roots[row, lane]
                    plain &= roots[row, lane] < roots[row + 1, lane]
                if plain:
                    found = NEAR
                else:
                    for row in range(NEAR):
                        j = places[row, lane]
                        length_ij = _length(tiles, i, j, best[row, lane], difference, p, smallest)
                        if length_ij < roots[NEAR, lane]:
                            _insert(indices, near, length, i, found, j, length_ij, _edge(indices, i, j))
                            found += 1
                    if found < NEAR:
                        near[i, found] = -1
                        visited += 2 * LANES  # a later search, about: this list will not do
                following[i], low[i], last[i], bound[i] = 0, length[i, 0], roots[NEAR, lane], length[i, 0]
            if found == 0:
                visited += _search(i, NEAR, tree, node_component, forest, spare, p)
    return offered, visited


@njit(nogil=True)
def _leaf(nodes, tile):
    """The leaf that a tile is."""
    node = 0
    while nodes[node, 1] - nodes[node, 0] > 1:
        node = 2 * node + 1
        node += nodes[node, 1] <= tile
    return node


@njit(nogil=True, error_model="numpy")
def _bound_leaf(leaf, tree, node_component, forest, spare, best, near, p):
    """Tighten the upper bound of a component's least edge, and the lower bounds of the points of a leaf within it.

    Points whose lower bound exceeds the upper one need no search. The edge itself is found by the searches, which
    choose the first of edges of equal length.
    """
    indices, tiles, nodes, boxes = tree
    component, _, _, _, low, last, bound, _ = forest
    stack, _, _, difference, _ = spare
    own, here, smallest = node_component[leaf], nodes[leaf, 0], _smallest(tiles)
    lanes, a_little_more = min(len(indices) - here * LANES, LANES), type(smallest)(1.000001)
    best[0, :lanes], best[0, lanes:], near[:] = _limit(bound[own], p, smallest) * a_little_more, -np.inf, -1
    top, height = leaf, 0
    while height > 0 or top > 0:
        if height == 0:  # what is beside the leaf, beside its parent, and so on
            stack[0], height = (top + 1 if top % 2 == 1 else top - 1), 1
            top = (top - 1) // 2
        height -= 1
        node = stack[height]
        if node_component[node] == own or not reach(tiles, here, boxes, node, best, p):
            continue
        there, stop = nodes[node]
        if stop - there > 1:
            nearer = there > here  # the child on the side of the leaf, which is visited first
            stack[height], stack[height + 1] = 2 * node + 1 + nearer, 2 * node + 2 - nearer
            height += 2
            continue
        count = min(len(indices) - there * LANES, LANES)
        if node_component[node] >= 0:
            offer_one(tiles, here, there, 0, count, best, near, p)
        else:
            for lane in range(count):
                if component[there * LANES + lane] != own:
                    offer_one(tiles, here, there, lane, lane + 1, best, near, p)
        nearest_lane = 0
        for lane in range(1, lanes):
            if best[0, lane] < best[0, nearest_lane]:
                nearest_lane = lane
        j, total = near[0, nearest_lane], best[0, nearest_lane]
        if j >= 0:
            length_ij = _length(tiles, here * LANES + nearest_lane, j, total, difference, p, smallest)
            if length_ij < bound[own]:
                bound[own] = length_ij
                # what is further away than that is of no interest to any of the points
                limit = _limit(length_ij, p, smallest) * a_little_more
                for lane in range(lanes):
                    best[0, lane] = min(best[0, lane], limit)
    for lane in range(lanes):
        i, total = here * LANES + lane, best[0, lane]
        if p != 2.0 or smallest * type(smallest)(1.0001) < total < np.inf:
            low[i] = last[i] = max(low[i], np.sqrt(total) if p == 2.0 else total)


@compiled(error_model="numpy")
def search(tree, node_component, forest, p, points):
    """Find the nearest point of another component to points that are given, where that may be the least edge.

    Several threads may do so at once, each for its own points. They share ``low``, ``last`` and ``bound`` without
    locks: if an update is lost, an older bound stays, which still holds and excludes less.

    Parameters
    ----------
    tree, node_component, forest, p
        As for :func:`search_leaves`.
    points
        (m,) int32.
    """
    component, _, _, _, low, _, bound, _ = forest
    nodes, spare = tree[2], _spare(tree[1])
    best, near = np.empty((1, LANES), tree[1].dtype), np.empty((1, LANES), np.int32)
    first = 0
    for stop in range(1, len(points) + 1):
        tile = points[first] // LANES
        if stop == len(points) or points[stop] // LANES != tile:
            if stop - first >= _SEVERAL:
                leaf = _leaf(nodes, tile)
                if node_component[leaf] >= 0:
                    _bound_leaf(leaf, tree, node_component, forest, spare, best, near, p)
            first = stop
    for i in points:
        if low[i] <= bound[component[i]]:
            _search(i, 1, tree, node_component, forest, spare, p)


@njit(nogil=True)
def _comes_before(indices, near, length, following, i, j):
    """Whether the edge from point i to ``near[following]`` comes before that of point j, by (length, edge)."""
    a, b = following[i], following[j]
    if length[i, a] != length[j, b]:
        return length[i, a] < length[j, b]
    return _edge(indices, i, near[i, a]) < _edge(indices, j, near[j, b])


@compiled()
def begin(tree, node_component, forest, points):
    """Begin a round: find the least edges that are listed, and whose neighbours have to be searched for.

    Parameters
    ----------
    tree, node_component, forest
        As for :func:`search_leaves`; ``node_component`` is brought up to date if there is something to search for.
    points
        (n,) int32: the points whose nearest point of another component is not listed are written to this.

    Returns
    -------
    int
        How many these are.
    """
    indices, _, nodes, _ = tree
    component, near, length, following, low, last, bound, least = forest
    bound[:] = np.inf
    least[:] = -1
    count = 0
    for i in range(len(component)):
        own = component[i]
        if low[i] > bound[own]:
            continue
        place = following[i]
        while place < NEAR and near[i, place] >= 0 and component[near[i, place]] == own:
            place += 1
        if place < NEAR and near[i, place] >= 0:
            following[i], low[i] = place, length[i, place]
            if least[own] < 0 or _comes_before(indices, near, length, following, i, least[own]):
                bound[own], least[own] = low[i], i
        else:
            following[i], low[i] = NEAR, last[i]
            points[count] = i
            count += 1
    wanted = 0
    for i in points[:count]:
        if low[i] <= bound[component[i]]:
            points[wanted] = i
            wanted += 1
    if wanted > 0:
        _update_node_components(len(indices), nodes, component, node_component)
    return wanted


@njit(nogil=True)
def _update_node_components(n, nodes, component, node_component):
    for node in range(len(nodes) - 1, -1, -1):
        first, stop = nodes[node]
        if stop - first > 1:
            left, right = node_component[2 * node + 1], node_component[2 * node + 2]
            node_component[node] = left if left == right else -1
        elif stop > first:
            own = component[first * LANES]
            node_component[node] = own
            for i in range(first * LANES + 1, min(stop * LANES, n)):
                if component[i] != own:
                    node_component[node] = -1
                    break


@compiled()
def merge(indices, forest, points, components, edges, lengths, found):
    """End a round: add the least edge of each component to ``edges`` and ``lengths`` from the place ``found`` on.

    ``points`` are those that were searched for. Returns the next place and how many components are left, which are
    numbered anew.
    """
    component, near, length, following, _, _, _, least = forest
    for i in points:
        if following[i] < NEAR:
            own = component[i]
            if least[own] < 0 or _comes_before(indices, near, length, following, i, least[own]):
                least[own] = i
    parent = np.arange(components)
    for c in range(components):
        i = least[c]
        j, length_ij = near[i, following[i]], length[i, following[i]]
        a, b = root(parent, c), root(parent, np.int64(component[j]))
        if a != b:  # the other component may have added the same edge
            parent[max(a, b)] = min(a, b)
            edges[found], lengths[found] = _edge(indices, i, j), length_ij
            found += 1
    number, left = np.empty(components, np.int32), 0
    for c in range(components):  # a parent comes first
        if parent[c] == c:
            number[c] = left
            left += 1
        else:
            number[c] = number[parent[c]]
    for i in range(len(component)):
        component[i] = number[component[i]]
    return found, left
