"""Lists of edges in Numba: sorting, and Kruskal's algorithm.

An edge (i, j), i < j, is one integer, i · 2³² + j: the order of these integers is the order of the pairs.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from corel.persistence.kernels.compiled import compiled

#: An integer that is greater than every edge.
AFTER_ALL_EDGES = 2**63 - 1
#: Up to so many edges are sorted by counting, which vector instructions do, in a time that is quadratic.
_FEW = 128


def _as_integers(lengths):
    """An array of numbers ≥ 0 as one of unsigned integers, in the same memory and of the same order.

    For compiled code alone, where the overload below stands in for it.
    """
    raise NotImplementedError


@overload(_as_integers)
def _(lengths):
    if lengths.dtype == types.float32:
        return lambda lengths: lengths.view(np.uint32)
    return lambda lengths: lengths.view(np.uint64)


@njit(nogil=True)
def sort_edges(edges, lengths, spare_edges, spare_lengths):
    """Sort edges by (length, edge), in place.

    All arguments are arrays of one size, lengths ≥ 0; what the spare ones hold is overwritten.
    """
    if edges.size <= _FEW:
        _sort_few(edges, lengths, spare_edges, spare_lengths)
    else:
        _sort_by_bytes(edges, lengths, spare_edges, spare_lengths)
        first = 0
        for e in range(1, edges.size + 1):
            if e == edges.size or lengths[e] != lengths[first]:
                if e - first > 1:
                    edges[first:e].sort()
                first = e


@njit(nogil=True, error_model="numpy")
def _sort_few(edges, lengths, spare_edges, spare_lengths):
    """The place of an edge is how many come before it. Edges themselves are compared only if lengths are equal."""
    n, total = edges.size, 0
    for e in range(n):
        length, place = lengths[e], np.int32(0)
        for other in range(n):
            place = np.int32(place + np.int32(lengths[other] < length))
        spare_edges[place], spare_lengths[place] = edges[e], length
        total += place
    if total != n * (n - 1) // 2:
        for e in range(n):
            edge, length, place = edges[e], lengths[e], 0
            for other in range(n):
                place += (lengths[other] < length) | ((lengths[other] == length) & (edges[other] < edge))
            spare_edges[place], spare_lengths[place] = edge, length
    for e in range(n):
        edges[e], lengths[e] = spare_edges[e], spare_lengths[e]


@njit(nogil=True)
def _sort_by_bytes(edges, lengths, spare_edges, spare_lengths):
    """Sort edges by length alone, by one byte of it after the other, from the last to the first."""
    lengths += lengths.dtype.type(0)  # there is no −0 after this, which as an integer would come last
    counts, moved = np.zeros((lengths.itemsize, 256), np.int64), False
    for key in _as_integers(lengths):
        for byte in range(len(counts)):
            counts[byte, (key >> (8 * byte)) & 255] += 1
    for byte in range(len(counts)):
        keys, starts, place = _as_integers(lengths), counts[byte], 0
        if starts[(keys[0] >> (8 * byte)) & 255] == edges.size:
            continue  # all have the same byte
        for value in range(256):
            starts[value], place = place, place + starts[value]
        for e in range(edges.size):
            value = (keys[e] >> (8 * byte)) & 255
            place = starts[value]
            spare_edges[place], spare_lengths[place] = edges[e], lengths[e]
            starts[value] = place + 1
        edges, spare_edges, lengths, spare_lengths = spare_edges, edges, spare_lengths, lengths
        moved = not moved
    if moved:
        spare_edges[:], spare_lengths[:] = edges, lengths


@njit(nogil=True)
def root(parent, vertex):
    """The vertex that a component is named by; paths to it are halved on the way."""
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@compiled()
def kruskal(edges, lengths, pairs, chosen):
    """The minimum spanning tree of a connected graph on n vertices.

    Parameters
    ----------
    edges, lengths
        (m,) int64 and floating, in any order; sorted afterwards.
    pairs, chosen
        (n − 1, 2) int64 and (n − 1,), of the dtype of ``lengths``: the edges of the tree and their lengths, sorted by
        (length, i, j), are written to these.
    """
    n = len(pairs) + 1
    sort_edges(edges, lengths, np.empty_like(edges), np.empty_like(lengths))
    parent = np.arange(n)
    found = 0
    for e in range(edges.size):
        i, j = edges[e] >> 32, edges[e] & 0xFFFFFFFF
        a, b = root(parent, i), root(parent, j)
        if a != b:
            parent[max(a, b)] = min(a, b)
            pairs[found, 0], pairs[found, 1], chosen[found] = i, j, lengths[e]
            found += 1


@compiled()
def sort_tree(edges, lengths, pairs, chosen):
    """Sort the edges of a tree on n vertices.

    Parameters
    ----------
    edges, lengths
        (n − 1,) int64 and floating, in any order; overwritten.
    pairs, chosen
        As for :func:`kruskal`.
    """
    sort_edges(edges, lengths, np.empty_like(edges), np.empty_like(lengths))
    for e in range(edges.size):
        pairs[e, 0], pairs[e, 1], chosen[e] = edges[e] >> 32, edges[e] & 0xFFFFFFFF, lengths[e]


@compiled()
def merge(n, edges):
    """The components of a graph on n vertices, and the edges along which they merge.

    Each component is named by its least vertex; of two that merge, the one with the greater name dies.

    Parameters
    ----------
    n
        Number of vertices.
    edges
        (m, 2) int64, in the order of the filtration.

    Returns
    -------
    died, merging
        (k,) and (k, 2) int64: the components that die, and the edges along which they do.
    left
        (n − k,) int64: the components that do not.
    """
    parent = np.arange(n)
    died, merging, k = np.empty(n - 1, np.int64), np.empty((n - 1, 2), np.int64), 0
    for e in range(len(edges)):
        a, b = root(parent, edges[e, 0]), root(parent, edges[e, 1])
        if a != b:
            died[k], merging[k] = max(a, b), edges[e]
            parent[max(a, b)] = min(a, b)
            k += 1
            if k == n - 1:
                break
    return died[:k], merging[:k], np.flatnonzero(parent == np.arange(n))
