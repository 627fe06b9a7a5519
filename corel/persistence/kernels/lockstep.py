"""Prim's algorithm in Numba for batches of small clouds of one size: several at a time, each in a lane of its own.

After each step equally many points remain in every cloud, and a vector holds one slot of each. Nothing is spent on the
least element of a vector, and on finding where that is, as in :mod:`.small_clouds`.

A vector is as long as a line of the cache, whatever the dtype: with that, what each lane has to remember from slot to
slot stays in registers. What remains of the clouds is called a group: a tuple (tiles, key, edge, indices).

======= =========================================================================================================
tiles   (n, d | 1, lanes) coordinates; the points that remain occupy the first slots, in another order in each lane
key     (n, lanes) length of each point's shortest edge into the tree, ∞ before there is one
edge    (n, lanes) that edge, the largest integer before there is one
indices (n, lanes) the number of each point
======= =========================================================================================================

An edge (i, j), i < j, is one integer, i in its upper and j in its lower half, as wide as a coordinate: the order of
these integers is the order of the pairs. For float32 that leaves 16 bits for a number.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.lengths import are_finite, emit_lengths
from corel.persistence.kernels.small_clouds import integers
from corel.persistence.kernels.vectors import LINE, array_data, constant, splat, vector_pointer


def _emit_before(builder: ir.IRBuilder, x: ir.Value, x_edge: ir.Value, y: ir.Value, y_edge: ir.Value) -> ir.Value:
    """Emit in which lanes (x, x_edge) < (y, y_edge)."""
    tie = builder.and_(builder.fcmp_ordered("==", x, y), builder.icmp_signed("<", x_edge, y_edge))
    return builder.or_(builder.fcmp_ordered("<", x, y), tie)


def _make_advance(p: float) -> Any:
    """:func:`_advance` for p ∈ {1, 2, ∞}."""

    @intrinsic
    def advance(typingctx, tiles, key, edge, indices, vertex, newest, count, length, chosen, slot):
        scalar, integer_type = key.dtype, edge.dtype

        def codegen(context, builder, signature, args):
            data = [array_data(context, builder, signature, args, index) for index in (0, 1, 2, 3, 4, 5, 7, 8, 9)]
            tiles, key, edge, indices, vertex, newest, length, chosen, slot = data
            d = builder.extract_value(context.make_array(signature.args[4])(context, builder, args[4]).shape, 0)
            rows = builder.extract_value(context.make_array(signature.args[0])(context, builder, args[0]).shape, 1)
            real, integer = context.get_value_type(scalar), context.get_value_type(integer_type)
            lanes = 8 * LINE // scalar.bitwidth

            def pointer(data: ir.Value, index: ir.Value) -> ir.Value:
                return vector_pointer(builder, data, builder.mul(index, d.type(lanes)), data.type.pointee, lanes)

            def load(data: ir.Value, index: ir.Value) -> ir.Value:
                return builder.load(pointer(data, index), align=scalar.bitwidth // 8)

            def store(value: ir.Value, data: ir.Value, index: ir.Value) -> None:
                builder.store(value, pointer(data, index), align=scalar.bitwidth // 8)

            zero = d.type(0)
            newest = load(newest, zero)
            least = cgutils.alloca_once_value(builder, constant(real, math.inf, lanes))
            first = cgutils.alloca_once_value(builder, constant(integer, integer_type.maxval, lanes))
            place = cgutils.alloca_once_value(builder, constant(integer, 0, lanes))
            with cgutils.for_range(builder, args[6]) as loop:
                index, start = loop.index, builder.mul(loop.index, rows)

                def difference(k: ir.Value, start: ir.Value = start) -> ir.Value:
                    return builder.fsub(load(tiles, builder.add(start, k)), load(vertex, k))

                x = emit_lengths(builder, p, ir.VectorType(real, lanes), d, difference)
                other = load(indices, index)
                lower = builder.icmp_signed("<", newest, other)
                i, j = builder.select(lower, newest, other), builder.select(lower, other, newest)
                e = builder.or_(builder.shl(i, constant(integer, integer.width // 2, lanes)), j)
                old, old_edge = load(key, index), load(edge, index)
                closer = _emit_before(builder, x, e, old, old_edge)
                x, e = builder.select(closer, x, old), builder.select(closer, e, old_edge)
                store(x, key, index)
                store(e, edge, index)
                closer = _emit_before(builder, x, e, builder.load(least), builder.load(first))
                index = splat(builder, builder.trunc(index, integer) if integer.width < 64 else index, lanes)
                for value, kept in ((x, least), (e, first), (index, place)):
                    builder.store(builder.select(closer, value, builder.load(kept)), kept)
            store(builder.load(least), length, zero)
            store(builder.load(first), chosen, zero)
            store(builder.load(place), slot, zero)
            return context.get_dummy_value()

        arrays = tiles, key, edge, indices, vertex, newest
        return types.void(*arrays, types.intp, length, chosen, slot), codegen

    return advance


_advance_1, _advance_2, _advance_inf = _make_advance(1.0), _make_advance(2.0), _make_advance(math.inf)


@njit(nogil=True)
def _advance(p, group, vertex, newest, count, length, chosen, slot):
    """Replace the shortest known edges of points by edges to the newest vertices, and find the first of all edges.

    Parameters
    ----------
    p
        1, 2 or ∞.
    group
        See the top of this file.
    vertex, newest
        (d, lanes) coordinates and (lanes,) number of the newest vertex of each cloud.
    count
        How many slots are looked at.
    length, chosen, slot
        (lanes,) the first edge of each cloud by (length, i, j): its length, it, and the slot that it is kept in are
        written to these.
    """
    tiles, key, edge, indices = group
    if p == 1.0:
        _advance_1(tiles, key, edge, indices, vertex, newest, count, length, chosen, slot)
    elif p == 2.0:
        _advance_2(tiles, key, edge, indices, vertex, newest, count, length, chosen, slot)
    else:
        _advance_inf(tiles, key, edge, indices, vertex, newest, count, length, chosen, slot)


@intrinsic
def _exchange(typingctx, lengths, edges, i, j):
    """In each lane, swap the edges in rows i and j unless they are in order; lengths and edges (m, lanes)."""
    scalar = lengths.dtype

    def codegen(context, builder, signature, args):
        lanes = 8 * LINE // scalar.bitwidth

        def addresses(index: int) -> list[ir.Value]:
            data = array_data(context, builder, signature, args, index)
            starts = (builder.mul(row, row.type(lanes)) for row in args[2:])
            return [vector_pointer(builder, data, start, data.type.pointee, lanes) for start in starts]

        align = scalar.bitwidth // 8
        reals, integers = addresses(0), addresses(1)
        (x, y), (x_edge, y_edge) = ([builder.load(each, align=align) for each in both] for both in (reals, integers))
        swap = _emit_before(builder, y, y_edge, x, x_edge)
        for (a, b), (first, second) in (((x, y), reals), ((x_edge, y_edge), integers)):
            builder.store(builder.select(swap, b, a), first, align=align)
            builder.store(builder.select(swap, a, b), second, align=align)
        return context.get_dummy_value()

    return types.void(lengths, edges, types.intp, types.intp), codegen


@njit(nogil=True)
def _sort(lengths, edges):
    """Sort the edges of each lane: lengths and edges (m, lanes).

    Which rows are compared does not depend on what is in them: Batcher's merge exchange (Knuth, The Art of Computer
    Programming 3, algorithm 5.2.2 M).
    """
    m = len(lengths)
    top = 1
    while 2 * top < m:
        top *= 2
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            for start in range(r, m - distance, 2 * p):  # i & p == r
                for i in range(start, min(start + p, m - distance)):
                    _exchange(lengths, edges, i, i + distance)
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2


@njit(nogil=True)
def _fill(group, points, first, stop):
    """Put clouds ``first`` to before ``stop`` into a group, the last of them into all lanes that are left."""
    tiles, key, edge, indices = group
    key[:], edge[:] = np.inf, np.iinfo(edge.dtype).max
    for i in range(len(tiles)):
        indices[i] = i
        for lane in range(tiles.shape[2]):
            cloud = min(first + lane, stop - 1)
            for k in range(points.shape[2]):
                tiles[i, k, lane] = points[cloud, i, k]


@njit(nogil=True)
def _remove_points(group, slot, last, vertex, newest):
    """Remove the point in ``slot``, (lanes,), of each lane, and move the one in slot ``last`` there.

    Coordinates and numbers of the removed points are written to ``vertex``, (d, lanes), and ``newest``, (lanes,).
    """
    tiles, key, edge, indices = group
    # for an unsigned index Numba has no check whether it is negative
    for lane in range(tiles.shape[2]):
        at = np.uint64(slot[lane])
        newest[lane] = indices[at, lane]
        key[at, lane], edge[at, lane], indices[at, lane] = key[last, lane], edge[last, lane], indices[last, lane]
    for k in range(len(vertex)):
        for lane in range(tiles.shape[2]):
            at = np.uint64(slot[lane])
            vertex[k, lane], tiles[at, k, lane] = tiles[at, k, lane], tiles[last, k, lane]


@compiled()
def spanning_trees(p, points, first, stop, pairs, lengths):
    """:func:`corel.persistence.kernels.small_clouds.spanning_trees` for p ∈ {1, 2, ∞} and n < 2¹⁵, many at a time."""
    if not are_finite(points[first:stop]):
        return False
    n, d = points.shape[1:]
    lanes = LINE // points.itemsize
    rows, half = (n, lanes), 4 * points.itemsize
    # with an even number of lines per slot, and most of all with 64, slots would compete for the same sets of the cache
    tiles, key = np.empty((n, d | 1, lanes), points.dtype), np.empty(rows, points.dtype)
    group = tiles, key, integers(rows, points), integers(rows, points)
    vertex, newest, slot = np.empty((d, lanes), points.dtype), integers(lanes, points), integers(lanes, points)
    grown, chosen = np.empty((n - 1, lanes), points.dtype), integers((n - 1, lanes), points)
    for start in range(first, stop, lanes):
        end = min(start + lanes, stop)
        _fill(group, points, start, end)
        slot[:] = 0
        for step in range(n - 1):
            left = n - 1 - step
            _remove_points(group, slot, left, vertex, newest)
            _advance(p, group, vertex, newest, left, grown[step], chosen[step], slot)
        _sort(grown, chosen)
        for cloud in range(start, end):
            for e in range(n - 1):
                lengths[cloud, e] = grown[e, cloud - start]
                pairs[cloud, e, 0] = chosen[e, cloud - start] >> half
                pairs[cloud, e, 1] = chosen[e, cloud - start] & ((1 << half) - 1)
    return True
