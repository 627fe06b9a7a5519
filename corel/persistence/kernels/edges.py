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
#: Bits of a digit by which many edges are sorted at a time.
_DIGIT = 11


@njit(nogil=True, error_model="numpy")
def sort_edges(edges, lengths, spare_edges, spare_lengths):
    """Sort edges by (length, edge), in place: insertion sort of short runs, then merges of runs.

    All arguments are arrays of one size; what the spare ones hold is overwritten.
    """
    n, run = edges.size, 8
    for start in range(0, n, run):
        for i in range(start + 1, min(start + run, n)):
            edge, length, j = edges[i], lengths[i], i
            while j > start and (lengths[j - 1] > length or (lengths[j - 1] == length and edges[j - 1] > edge)):
                edges[j], lengths[j] = edges[j - 1], lengths[j - 1]
                j -= 1
            edges[j], lengths[j] = edge, length
    while run < n:
        # two merges at a time, so that the result is in the arrays that were given; where the first of them has merged
        # everything, the second only copies
        _merge(edges, lengths, spare_edges, spare_lengths, run)
        _merge(spare_edges, spare_lengths, edges, lengths, 2 * run)
        run *= 4


@njit(nogil=True)
def _merge(edges, lengths, merged_edges, merged_lengths, run):
    """Merge sorted runs of ``run`` edges in pairs."""
    n = edges.size
    for start in range(0, n, 2 * run):
        i, middle = start, min(start + run, n)
        j, stop = middle, min(start + 2 * run, n)
        for k in range(start, stop):
            take_second = i == middle
            if not take_second and j < stop:
                x, y = lengths[i], lengths[j]
                take_second = y < x or (y == x and edges[j] < edges[i])
            if take_second:
                merged_edges[k], merged_lengths[k] = edges[j], lengths[j]
                j += 1
            else:
                merged_edges[k], merged_lengths[k] = edges[i], lengths[i]
                i += 1


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
        a, b = i, j
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b:
            parent[max(a, b)] = min(a, b)
            pairs[found, 0], pairs[found, 1], chosen[found] = i, j, lengths[e]
            found += 1


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


@compiled()
def sort_tree(edges, lengths, pairs, chosen):
    """Sort the edges of a tree on n vertices: by one digit of their lengths after the other, equal lengths by merges.

    Parameters
    ----------
    edges, lengths
        (n − 1,) int64 and floating, in any order; overwritten.
    pairs, chosen
        As for :func:`kruskal`.
    """
    n, digits, mask = edges.size, -(-8 * lengths.itemsize // _DIGIT), 2**_DIGIT - 1
    spare_edges, spare_lengths = np.empty_like(edges), np.empty_like(lengths)
    counts = np.zeros((digits, 2**_DIGIT), np.int64)
    for key in _as_integers(lengths):
        for digit in range(digits):
            counts[digit, (key >> (_DIGIT * digit)) & mask] += 1
    for digit in range(digits):
        keys, place, starts = _as_integers(lengths), 0, counts[digit]
        if n > 0 and starts[(keys[0] >> (_DIGIT * digit)) & mask] == n:
            continue  # all have the same digit
        for value in range(2**_DIGIT):
            starts[value], place = place, place + starts[value]
        for e in range(n):
            value = (keys[e] >> (_DIGIT * digit)) & mask
            place = starts[value]
            spare_edges[place], spare_lengths[place] = edges[e], lengths[e]
            starts[value] = place + 1
        edges, spare_edges, lengths, spare_lengths = spare_edges, edges, spare_lengths, lengths
    first = 0
    for e in range(n):
        if e + 1 == n or lengths[e + 1] != lengths[e]:
            if e > first:
                run = slice(first, e + 1)
                sort_edges(edges[run], lengths[run], spare_edges[run], spare_lengths[run])
            first = e + 1
    for e in range(n):
        pairs[e, 0], pairs[e, 1], chosen[e] = edges[e] >> 32, edges[e] & 0xFFFFFFFF, lengths[e]


@compiled()
def merge(n, edges):
    """The components that die along the edges of a forest on n vertices, (k, 2) int64, and those that are left.

    Each is named by its least vertex; of two that merge, the one with the greater name dies. Returns two arrays of
    int64.
    """
    parent = np.arange(n)
    died = np.empty(len(edges), np.int64)
    for e in range(len(edges)):
        a, b = edges[e]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        died[e] = max(a, b)
        parent[max(a, b)] = min(a, b)
    return died, np.flatnonzero(parent == np.arange(n))
