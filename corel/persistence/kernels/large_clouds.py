"""Prim's algorithm in Numba for large clouds: in blocks that fit into the cache, and with a screen of integers.

The minimum spanning tree of a cloud is part of the union of the trees of its blocks and of the trees of the complete
bipartite graphs between any two blocks. Every pair of points is in exactly one of these graphs. Their trees are found
independently of each other, on several threads, and Kruskal's algorithm chooses from their edges.

Most distances to a new vertex are far too long to matter. For p = 1 these are recognised at a fraction of the cost, by
‖x − v‖₁ = 2 Σ max(xₖ, vₖ) − Σ xₖ − Σ vₖ in 16-bit integers, with an allowance for rounding: a point is skipped only if
its length, as defined, is above its key. Tiles with a point that is not skipped are computed as defined. A screen
belongs to a side (see :mod:`.small_clouds`) and is a tuple (quantised, sums, bound, low):

========= =============================================================================
quantised (tiles, d, LANES) int16: coordinates x in units of a step, rounded
sums      (slots,) int32: Σ xₖ of each point
bound     (slots,) int16: (key + Σ xₖ) / 2 plus the allowance, in units of a step
low       (tiles, rounded up to a multiple of LANES): the least key of each tile, any p
========= =============================================================================
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.edges import AFTER_ALL_EDGES
from corel.persistence.kernels.lengths import advance, advance_1
from corel.persistence.kernels.small_clouds import fill_side, first_edge, make_side
from corel.persistence.kernels.vectors import (
    LANES,
    any_true,
    array_data,
    constant,
    equal_lanes,
    least,
    lowest_bit,
    splat,
    vector_pointer,
)

# The largest |Σ xₖ| in units of a step, u := 20000. A length is at most 2u, so (length + Σ xₖ) / 2 ≤ 3u/2 fits into
# int16; a key of infinity is clipped, and with Σ vₖ / 2 ≥ −u/2 added it is still above all Σ max(xₖ, vₖ) ≤ u. With
# Σ vₖ / 2 ≤ u/2 added, the bound −2¹⁵ of an empty slot is still below all Σ max(xₖ, vₖ) ≥ −u.
_UNITS = 20000


@intrinsic
def _screen(typingctx, quantised, vertex, bound, shift, count, hits):
    """Find the tiles, of the first ``count``, with a point for which Σ max(xₖ, vₖ) ≤ bound + shift.

    All numbers are int16, and bound + shift saturates. quantised: (tiles, d, LANES); vertex: (d, LANES), each
    coordinate in all lanes; bound: (slots,). Writes the tiles' indices to ``hits``, (count + 1,) int64, and returns
    how many.
    """

    def codegen(context, builder, signature, args):
        quantised, vertex, bound, hits = (
            array_data(context, builder, signature, args, index) for index in (0, 1, 2, 5)
        )
        count = args[4]
        d = builder.extract_value(context.make_array(signature.args[1])(context, builder, args[1]).shape, 0)
        short = ir.IntType(16)
        shorts = ir.VectorType(short, LANES)

        def load(data: ir.Value, tile: ir.Value) -> ir.Value:
            start = builder.mul(tile, d.type(LANES))
            return builder.load(vector_pointer(builder, data, start, short), align=2)

        saturating = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(shorts, [shorts, shorts]), f"llvm.sadd.sat.v{LANES}i16"
        )
        shift = splat(builder, args[3])
        found = cgutils.alloca_once_value(builder, d.type(0))
        with cgutils.for_range(builder, count) as loop:
            total = cgutils.alloca_once_value(builder, constant(short, 0))
            start = builder.mul(loop.index, d)
            with cgutils.for_range(builder, d) as inner:
                x, v = load(quantised, builder.add(start, inner.index)), load(vertex, inner.index)
                larger = builder.select(builder.icmp_signed(">", x, v), x, v)
                builder.store(builder.add(builder.load(total), larger), total)
            limit = builder.call(saturating, [load(bound, loop.index), shift])
            passes = any_true(builder, builder.icmp_signed("<=", builder.load(total), limit))
            # without a branch: always written, and the counter advances only where the tile passes
            number = builder.load(found)
            builder.store(loop.index, builder.gep(hits, [number]))
            builder.store(builder.add(number, builder.zext(passes, number.type)), found)
        return builder.load(found)

    return types.intp(quantised, vertex, bound, types.int16, types.intp, hits), codegen


@intrinsic
def _set_bounds(typingctx, key, near, sums, bound, tile, factor, offset):
    """Set bound = key · factor + sums / 2 + offset for one tile, at most 32767; −32768 in slots without a point."""
    scalar = key.dtype

    def codegen(context, builder, signature, args):
        integer, double, short = ir.IntType(scalar.bitwidth), ir.DoubleType(), ir.IntType(16)
        start = builder.mul(args[4], args[4].type(LANES))

        def address(index: int, element: ir.Type) -> ir.Value:
            return vector_pointer(builder, array_data(context, builder, signature, args, index), start, element)

        keys = builder.load(address(0, context.get_value_type(scalar)), align=scalar.bitwidth // 8)
        if scalar.bitwidth == 32:
            keys = builder.fpext(keys, ir.VectorType(double, LANES))
        sums = builder.sitofp(builder.load(address(2, ir.IntType(32)), align=4), ir.VectorType(double, LANES))
        x = builder.fadd(builder.fmul(keys, splat(builder, args[5])), builder.fmul(sums, constant(double, 0.5)))
        x = builder.fadd(x, splat(builder, args[6]))
        most = constant(double, 32767.0)
        x = builder.select(builder.fcmp_ordered("<", x, most), x, most)
        x = builder.trunc(builder.fptosi(x, ir.VectorType(ir.IntType(32), LANES)), ir.VectorType(short, LANES))
        others = builder.load(address(1, integer), align=scalar.bitwidth // 8)
        occupied = builder.icmp_signed(">=", others, constant(integer, 0))
        builder.store(builder.select(occupied, x, constant(short, -32768)), address(3, short), align=2)
        return context.get_dummy_value()

    return types.void(key, near, sums, bound, types.intp, types.float64, types.float64), codegen


@njit(nogil=True)
def _make_screen(side, step):
    tiles, key, near, _ = side
    count, d, _ = tiles.shape
    quantised, low = np.empty(tiles.shape, np.int16), np.full((count // LANES + 1) * LANES, np.inf, key.dtype)
    sums, bound = np.zeros(key.size, np.int32), np.empty(key.size, np.int16)
    for slot in range(key.size):
        tile, lane = slot // LANES, slot % LANES
        for k in range(d):
            x = np.rint(tiles[tile, k, lane] / step) if near[slot] >= 0 else 0.0
            quantised[tile, k, lane] = np.int16(x)
            sums[slot] += np.int32(x)
    screen = quantised, sums, bound, low
    for tile in range(count):
        _update_bounds(side, screen, tile, step)
    return screen


@njit(nogil=True, error_model="numpy")
def _update_bounds(side, screen, tile, step):
    tiles, key, near, _ = side
    _, sums, bound, _ = screen
    # each coordinate of either point is rounded by up to half a unit, and the length as defined is rounded too
    allowance = 1.01 * tiles.shape[1] + 3.0
    _set_bounds(key, near, sums, bound, tile, 0.5 / step, 0.5 * allowance + 1.0)


@njit(nogil=True)
def _remove_point(side, screen, slot, last, points):
    """Remove the point in ``slot`` and move the one in slot ``last`` there. Returns the number of the removed point."""
    tiles, key, near, indices = side
    quantised, sums, bound, low = screen
    tile, lane, last_tile, last_lane = slot // LANES, slot % LANES, last // LANES, last % LANES
    newest = indices[slot]
    for k in range(points.shape[1]):
        tiles[tile, k, lane] = points[indices[last], k]
        quantised[tile, k, lane] = quantised[last_tile, k, last_lane]
    key[slot], near[slot], indices[slot] = key[last], near[last], indices[last]
    sums[slot], bound[slot] = sums[last], bound[last]
    key[last], near[last], bound[last] = np.inf, -1, -32768
    tiles[last_tile, 0, last_lane] = np.inf
    for changed in (tile, last_tile):
        low[changed] = least(key[changed * LANES :], 1)
    return newest


@njit(nogil=True)
def _first_edge(side, low, count, length):
    """:func:`first_edge` in the first ``count`` tiles, looking only at those whose least key is ``length``."""
    first, chosen = AFTER_ALL_EDGES, -1
    for start in range(0, count, LANES):
        bits = equal_lanes(low, start, length)
        while bits:
            tile = start + lowest_bit(bits)
            bits &= bits - 1
            if tile < count:
                edge, slot = first_edge(side, tile, tile + 1, length)
                if edge < first:
                    first, chosen = edge, slot
    return first, chosen


@compiled(error_model="numpy")
def tree_of_blocks(p, points, a, a_stop, b, b_stop, edges, lengths):
    """The minimum spanning tree of one block, or of the complete bipartite graph between two blocks.

    Parameters
    ----------
    p
        1 ≤ p ≤ ∞, a float.
    points
        (n, d) float32 or float64, contiguous.
    a, a_stop, b, b_stop
        The blocks points[a:a_stop] and points[b:b_stop], disjoint or the same.
    edges, lengths
        int64 and of the dtype of ``points``, of as many elements as the tree has edges, which are written to these in
        the order in which the tree grows.

    Returns
    -------
    bool
        Whether all coordinates are finite; if not, what was written is of no use.
    """
    between, d = a != b, points.shape[1]
    here, there = make_side(points, a_stop - a if between else 0), make_side(points, b_stop - b)
    if not (fill_side(here, points, a, a_stop if between else a) & fill_side(there, points, b, b_stop)):
        return False
    largest = np.float64(max(np.abs(points[a:a_stop]).max(), np.abs(points[b:b_stop]).max()))
    units = _UNITS // d - 1  # one less, to allow for rounding
    screening = p == 1.0 and units >= 16 and 1e-250 < largest < 1e250
    step = largest / units if screening else 1.0
    here_screen, there_screen = _make_screen(here, step), _make_screen(there, step)
    vertex, hits = np.empty((d, LANES), np.int16), np.empty(max(len(here[0]), len(there[0])) + 1, np.int64)
    seen, hit = 0, 0
    left, opposite = a_stop - a if between else 0, b_stop - b
    # The newest vertex was taken from `here`, and has edges to all of `there`. With one block, `here` stays empty.
    if between:
        left -= 1
        newest = _remove_point(here, here_screen, 0, left, points)
    else:
        opposite -= 1
        newest = _remove_point(there, there_screen, 0, opposite, points)
    for i in range(lengths.size):
        tiles, key, near, _ = there
        quantised, _, bound, low = there_screen
        count, opposite_count = (left + LANES - 1) // LANES, (opposite + LANES - 1) // LANES
        if screening:
            total = 0
            for k in range(d):
                x = np.int16(np.rint(points[newest, k] / step))
                total += x
                vertex[k] = x
            found = _screen(quantised, vertex, bound, np.int16((total >> 1) + 1), opposite_count, hits)
            for h in range(found):
                tile, slot = hits[h], hits[h] * LANES
                low[tile] = advance_1(tiles[tile:], points[newest], key[slot:], near[slot:], 1, newest)
                _update_bounds(there, there_screen, tile, step)
            seen += opposite_count
            hit += found
            screening = i < 256 or 2 * hit < seen  # a screen that lets most tiles pass costs more than it saves
        else:
            advance(tiles, points[newest], key, near, opposite_count, newest, p)
            for tile in range(opposite_count):
                low[tile] = least(key[tile * LANES :], 1)
        near_least = least(here_screen[3], (count + LANES - 1) // LANES)
        far_least = least(low, (opposite_count + LANES - 1) // LANES)
        length = min(near_least, far_least)
        edge, slot = AFTER_ALL_EDGES, -1
        if near_least == length:
            edge, slot = _first_edge(here, here_screen[3], count, length)
        far_edge, far_slot = AFTER_ALL_EDGES, -1
        if far_least == length:
            far_edge, far_slot = _first_edge(there, low, opposite_count, length)
        edges[i], lengths[i] = min(edge, far_edge), length
        if edge < far_edge:
            left -= 1
            newest = _remove_point(here, here_screen, slot, left, points)
        else:
            opposite -= 1
            newest = _remove_point(there, there_screen, far_slot, opposite, points)
            if between:
                here, there, here_screen, there_screen = there, here, there_screen, here_screen
                left, opposite = opposite, left
    return True
