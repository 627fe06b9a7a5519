"""Reduction of a coboundary matrix in Numba, a column at a time.

The pairs are those of :mod:`corel.persistence.pairing`, which explains the numbers of simplices, clearing and apparent
pairs. Columns go from the latest simplex to the earliest; others are added to each until no earlier one has its lowest
one. The column in work is a heap.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.typed import Dict

from corel.persistence.kernels.compiled import compiled


@njit(nogil=True)
def _earliest_coface(level, levels, corners, own):
    """The vertex that completes a simplex to its earliest coface, and the level of that; −1 where it has none."""
    apex, least = -1, levels
    if len(corners) == 2:  # dimension 1, where most of the work is: without the inner loop
        i, j = corners[0], corners[1]
        a, b = level[i], level[j]
        for v in range(len(level)):
            longest = max(own, a[v], b[v])
            if longest < least and v != i and v != j:
                apex, least = v, longest
                if least == own:
                    break
        return apex, least
    for v in range(len(level)):
        longest = own
        for corner in corners:
            longest = max(longest, level[corner, v]) if corner != v else levels
        if longest < least:
            apex, least = v, longest
            if least == own:  # of equal levels the first vertex gives the earliest
                break
    return apex, least


@njit(nogil=True)
def _latest_face(level, corners):
    """Which vertex of a simplex of dimension ≥ 2 is opposite to its latest face."""
    size = len(corners)
    opposite, most = 0, -1
    for o in range(size):  # of faces of equal level, the latest is the one without the least vertex
        longest = -1
        for a in range(size):
            for b in range(a + 1, size):
                if o not in (a, b):
                    longest = max(longest, level[corners[a], corners[b]])
        if longest > most:
            opposite, most = o, longest
    return opposite


@njit(nogil=True)
def _insert(corners, apex, simplex):
    """Write the ascending vertices of a coface to ``simplex``; returns the place of the apex."""
    place = 0
    for corner in corners:
        if corner < apex:
            simplex[place] = corner
            place += 1
    simplex[place] = apex
    simplex[place + 1 :] = corners[place:]
    return place


@njit(nogil=True)
def _number(simplex, level, levels, n):
    number = np.int64(levels - level)
    for v in simplex:
        number = number * n + (n - 1 - v)
    return number


@njit(nogil=True)
def _column(level, levels, corners, own, lowest, simplex):
    """The numbers of all cofaces of a simplex but the earliest, ``lowest``."""
    n = len(level)
    column = np.empty(n, np.int64)
    size = 0
    for v in range(n):
        longest = own
        for corner in corners:
            longest = max(longest, level[corner, v]) if corner != v else levels
        if longest < levels:
            _insert(corners, v, simplex)
            column[size] = _number(simplex, longest, levels, n)
            size += column[size] != lowest
    return column[:size]


@njit(nogil=True)
def _push(heap, size, number):
    """Put a number on a heap whose greatest is first; returns the heap, which may have had to grow."""
    if size == len(heap):
        larger = np.empty(2 * size, np.int64)
        larger[:size] = heap
        heap = larger
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if heap[parent] >= number:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = number
    return heap


@njit(nogil=True)
def _pop(heap, size):
    """Take the greatest number from a heap, which then has one less."""
    greatest, last = heap[0], heap[size - 1]
    place, child, stop = 0, 1, size - 1
    while child < stop:
        if child + 1 < stop and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= last:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = last
    return greatest


@njit(nogil=True)
def _pop_lowest(heap, size):
    """Take the lowest one from a column, where what occurs twice cancels: the number or −1, and the new size."""
    while size > 0:
        lowest = _pop(heap, size)
        size -= 1
        if size == 0 or heap[0] != lowest:
            return lowest, size
        _pop(heap, size)
        size -= 1
    return np.int64(-1), size


@njit(nogil=True)
def _cancel(numbers):
    """Sort a column without its lowest one, and drop what occurs twice."""
    numbers.sort()
    size = 0
    for number in numbers:
        if size > 0 and numbers[size - 1] == number:
            size -= 1
        else:
            numbers[size] = number
            size += 1
    return numbers[:size].copy()


@compiled()
def reduce_coboundary(level, levels, vertices, own_levels, cleared):
    """Pair the simplices of one dimension d ≥ 1 with those one dimension above.

    Parameters
    ----------
    level
        (n, n) int32: level of each edge, 0 on the diagonal, ``levels`` where there is none.
    levels
        Number of levels.
    vertices, own_levels
        (k, d + 1) int64 and (k,) int64: all simplices of dimension d in filtration order.
    cleared
        (c,) int64, ascending: numbers of those that fill a class of dimension d − 1.

    Returns
    -------
    birth, death
        (m, d + 1) and (m, d + 2) int64: the simplices that create a class, and those that fill it, in filtration order
        of the latter. Classes of equal birth and death are left out.
    essential
        (e, d + 1) int64: the simplices whose class is never filled, in filtration order.
    filling
        (f,) int64, ascending: numbers of all simplices that fill a class, of equal birth and death or not.
    """
    n, (k, size) = len(level), vertices.shape
    birth, death = np.empty(k, np.int64), np.empty(k, np.int64)
    essential, filling = np.empty(k, np.int64), np.empty(k, np.int64)
    births = essentials = fillings = 0
    simplex, coface = np.empty(size, np.int64), np.empty(size + 1, np.int64)
    # Columns by the number of their lowest one, which they are kept without. Most are never needed: a column is built
    # from the simplex ``of``, and what occurs twice in it cancelled, before it is first added to another.
    owner = Dict.empty(types.int64, types.int64)
    # (empty lists: the comprehensions tell Numba the type of their elements)
    of = [np.int64(0) for _ in range(0)]
    columns = [np.empty(0, np.int64) for _ in range(0)]
    ready = [False for _ in range(0)]
    heap = np.empty(4 * n, np.int64)
    for index in range(k - 1, -1, -1):
        corners, own = vertices[index], own_levels[index]
        apex, least = _earliest_coface(level, levels, corners, own)
        lowest = np.int64(-1)
        if apex >= 0:
            place = _insert(corners, apex, coface)
            lowest = _number(coface, least, levels, n)
            if least == own and _latest_face(level, coface) == place:
                filling[fillings] = lowest
                fillings += 1
                continue
        number = _number(corners, own, levels, n)
        place = np.searchsorted(cleared, number)
        if place < len(cleared) and cleared[place] == number:
            continue
        built, length = False, 0
        while lowest >= 0:
            which = owner.get(lowest, -1)
            if which < 0:
                rest = lowest
                for place in range(size, -1, -1):
                    coface[place] = n - 1 - rest % n
                    rest //= n
                opposite = _latest_face(level, coface)
                simplex[:opposite], simplex[opposite:] = coface[:opposite], coface[opposite + 1 :]
                lowest_level = levels - rest
                which = len(columns)
                owner[lowest] = which
                of.append(index)
                if _earliest_coface(level, levels, simplex, lowest_level)[0] != coface[opposite]:
                    columns.append(heap[:length].copy())
                    ready.append(built and length == 0)
                    filling[fillings] = lowest
                    fillings += 1
                    if lowest_level > own:
                        birth[births], death[births] = index, lowest
                        births += 1
                    break
                columns.append(_column(level, levels, simplex, lowest_level, lowest, coface))
                ready.append(True)
            if not ready[which]:
                if len(columns[which]) == 0:
                    columns[which] = _column(level, levels, vertices[of[which]], own_levels[of[which]], lowest, coface)
                else:
                    columns[which] = _cancel(columns[which])
                ready[which] = True
            if not built:
                built = True
                for number in _column(level, levels, corners, own, lowest, coface):
                    heap = _push(heap, length, number)
                    length += 1
            for number in columns[which]:
                heap = _push(heap, length, number)
                length += 1
            lowest, length = _pop_lowest(heap, length)
        if lowest < 0:
            essential[essentials] = index
            essentials += 1
    order = np.argsort(-death[:births])
    filled = np.empty((births, size + 1), np.int64)
    for m in range(births):
        rest = death[order[m]]
        for place in range(size, -1, -1):
            filled[m, place] = n - 1 - rest % n
            rest //= n
    return vertices[birth[order]], filled, vertices[essential[:essentials][::-1]], np.sort(filling[:fillings])


@compiled()
def numbers(level, levels, simplices):
    """The numbers of simplices of dimension ≥ 1, ascending; (n, n) levels and (k, size) → (k,) int64."""
    found = np.empty(len(simplices), np.int64)
    for s, simplex in enumerate(simplices):
        longest = 0
        for a in simplex:
            for b in simplex:
                longest = max(longest, level[a, b])
        found[s] = _number(simplex, longest, levels, len(level))
    return np.sort(found)
