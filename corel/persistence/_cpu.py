"""Minimum spanning trees on the CPU: Prim's algorithm in Numba, with explicit vector instructions in its inner loop.

Prim's algorithm keeps, for each point outside the tree, its least edge into the tree. Each step takes the point with
the least such edge and compares its lengths to all points that remain. Nothing but that inner loop matters, so:

- The points that remain lie dense in memory, in tiles of ``LANES`` points, coordinate by coordinate within a tile, and
  the loop works on whole tiles, one lane per point, as wide vectors in LLVM's terms, which it maps to the processor's.
  The order of operations within a lane is the one of :mod:`corel.persistence.metric`, with nothing fused.
- A slot without a point has an infinite coordinate and −1 for its nearest point: no comparison ever takes it.
- A large cloud is cut into blocks that fit the cache. The tree of the whole cloud lies in the union of the trees of
  the blocks and the trees of the bipartite graphs between two blocks, every pair of points occurs in exactly one of
  these, and all of them are tasks for threads.

Kernels release the GIL, and threads are plain Python threads: Numba's own threading layers may neither be entered from
several threads nor be forked.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from corel._threads import all_true
from corel.persistence.metric import EUCLIDEAN_RANGE

#: Points in a tile.
LANES = 16
#: In place of a nearest point: none yet.
_NONE = 2**31 - 1
#: After every edge.
_LAST = 2**63 - 1


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's ``njit`` for functions called from Python, kept on disk where there is a place to keep them."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            return njit(nogil=True, **options)(function)

    return decorate


# ---------------------------------------------------------------------------------------------- the inner loop


def _sum_of_magnitudes(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    return builder.fadd(total, builder.call(_unary(builder, "fabs", u.type), [u]))


def _sum_of_squares(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    return builder.fadd(total, builder.fmul(u, u))


def _maximum(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    magnitude = builder.call(_unary(builder, "fabs", u.type), [u])
    return builder.select(builder.fcmp_ordered("<", total, magnitude), magnitude, total)


def _unary(builder: ir.IRBuilder, name: str, vector: ir.VectorType) -> ir.Function:
    suffix = f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), f"llvm.{name}.{suffix}")


def _minimum(builder: ir.IRBuilder, values: ir.Value) -> ir.Value:
    vector = values.type
    suffix = f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    reduce = ir.FunctionType(vector.element, [vector])
    reduce = cgutils.get_or_insert_function(builder.module, reduce, f"llvm.vector.reduce.fmin.{suffix}")
    return builder.call(reduce, [values], fastmath=("nnan",))


def _splat(builder: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _any(builder: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    bits = builder.bitcast(mask, ir.IntType(mask.type.count))
    return builder.icmp_unsigned("!=", bits, bits.type(0))


def _make_advance(accumulate: Any, euclidean: bool = False) -> Any:
    @intrinsic
    def advance(typingctx, tiles, vertex, key, near, count, name):
        """Compare the lengths from ``vertex``, called ``name``, to the points of ``count`` tiles with their keys.

        tiles: (count, d, LANES); vertex: (d,); key: (count · LANES,), least length so far; near: the same in integers
        as wide, its other end. Returns the least of all keys.
        """
        scalar = key.dtype

        def codegen(context, builder, signature, args):
            def data(index: int) -> ir.Value:
                return context.make_array(signature.args[index])(context, builder, args[index]).data

            tiles, vertex, key, near = data(0), data(1), data(2), data(3)
            d, count, name = context.make_array(signature.args[1])(context, builder, args[1]), args[4], args[5]
            d = builder.extract_value(d.shape, 0)
            real = context.get_value_type(scalar)
            floats, integers = ir.VectorType(real, LANES), ir.VectorType(ir.IntType(scalar.bitwidth), LANES)
            align = scalar.bitwidth // 8

            def constant(value: float) -> ir.Constant:
                return ir.Constant(floats, [value] * LANES)

            def address(base: ir.Value, index: ir.Value, vector: ir.VectorType) -> ir.Value:
                return builder.bitcast(builder.gep(base, [index]), vector.as_pointer())

            def accumulated(tile: ir.Value, scale: ir.Value | None = None) -> ir.Value:
                total = cgutils.alloca_once_value(builder, constant(0.0))
                start = builder.mul(tile, builder.mul(d, d.type(LANES)))
                with cgutils.for_range(builder, d) as loop:
                    offset = builder.add(start, builder.mul(loop.index, d.type(LANES)))
                    x = builder.load(address(tiles, offset, floats), align=align)
                    u = builder.fsub(x, _splat(builder, builder.load(builder.gep(vertex, [loop.index])), floats))
                    if scale is not None:
                        u = builder.fmul(u, scale)
                    builder.store(accumulate(builder, builder.load(total), u), total)
                return builder.load(total)

            least = cgutils.alloca_once_value(builder, constant(math.inf))
            if scalar.bitwidth == 32:
                name = builder.trunc(name, integers.element)
            names = _splat(builder, name, integers)
            with cgutils.for_range(builder, count) as loop:
                lane = builder.mul(loop.index, d.type(LANES))
                key_address, near_address = address(key, lane, floats), address(near, lane, integers)
                old, other = builder.load(key_address, align=align), builder.load(near_address, align=align)
                new = accumulated(loop.index)
                if euclidean:
                    smallest, down, up = _EUCLIDEAN_RANGE_32 if scalar.bitwidth == 32 else _EUCLIDEAN_RANGE_64
                    root = _unary(builder, "sqrt", floats)
                    length = cgutils.alloca_once_value(builder, builder.call(root, [new]))
                    low = builder.fcmp_ordered("<", new, constant(smallest))
                    high = builder.fcmp_ordered("==", new, constant(math.inf))
                    real_slot = builder.icmp_signed(">=", other, ir.Constant(integers, [0] * LANES))
                    with builder.if_then(_any(builder, builder.and_(builder.or_(low, high), real_slot)), likely=False):

                        def choose(a: int, b: int, low: ir.Value = low, high: ir.Value = high) -> ir.Value:
                            rest = builder.select(high, constant(2.0**b), constant(1.0))
                            return builder.select(low, constant(2.0**a), rest)

                        scaled = builder.call(root, [accumulated(loop.index, choose(up, down))])
                        builder.store(builder.fmul(scaled, choose(-up, -down)), length)
                    new = builder.load(length)
                # of two edges of equal length at one point, the one with the lower other end comes first
                tie = builder.and_(builder.fcmp_ordered("==", new, old), builder.icmp_signed("<", names, other))
                closer = builder.or_(builder.fcmp_ordered("<", new, old), tie)
                new = builder.select(closer, new, old)
                builder.store(new, key_address, align=align)
                builder.store(builder.select(closer, names, other), near_address, align=align)
                best = builder.load(least)
                builder.store(builder.select(builder.fcmp_ordered("<", new, best), new, best), least)
            return _minimum(builder, builder.load(least))

        return scalar(tiles, vertex, key, near, types.intp, types.intp), codegen

    return advance


_EUCLIDEAN_RANGE_32, _EUCLIDEAN_RANGE_64 = EUCLIDEAN_RANGE[torch.float32], EUCLIDEAN_RANGE[torch.float64]
_advance_1 = _make_advance(_sum_of_magnitudes)
_advance_2 = _make_advance(_sum_of_squares, euclidean=True)
_advance_inf = _make_advance(_maximum)


@njit(nogil=True, error_model="numpy")
def _advance_p(tiles, vertex, key, near, count, name, p):
    """The same for any p: powers are dear, so they are taken only where bounds from below do not rule an edge out."""
    real = key.dtype.type
    d = vertex.size
    total, largest = np.empty(LANES, key.dtype), np.empty(LANES, key.dtype)
    epsilon = np.finfo(key.dtype).eps
    # ‖u‖₁ ≤ d^(1 − 1/p) ‖u‖p, less what rounding may do
    factor = real(d ** (1.0 / p - 1.0) * max(0.0, 1.0 - 8.0 * (d + 8) * epsilon))
    normal = np.finfo(key.dtype).tiny / real(epsilon)
    least = real(np.inf)
    for tile in range(count):
        total[:] = 0
        largest[:] = 0
        for k in range(d):
            for lane in range(LANES):
                u = abs(tiles[tile, k, lane] - vertex[k])
                total[lane] += u
                largest[lane] = u if u > largest[lane] else largest[lane]
        for lane in range(LANES):
            slot = tile * LANES + lane
            old, bound = key[slot], factor * total[lane]
            if near[slot] >= 0 and largest[lane] <= old and not (old < bound < np.inf and bound > normal):
                length = real(0)
                for k in range(d):
                    length += _power(abs(tiles[tile, k, lane] - vertex[k]), largest[lane], p)
                length = _root(length, largest[lane], p)
                if length < old or (length == old and name < near[slot]):
                    key[slot], near[slot] = length, name
            least = min(least, key[slot])
    return least


@njit(nogil=True)
def _advance(tiles, vertex, key, near, count, name, p):
    if p == 1.0:
        return _advance_1(tiles, vertex, key, near, count, name)
    if p == 2.0:
        return _advance_2(tiles, vertex, key, near, count, name)
    if p == np.inf:
        return _advance_inf(tiles, vertex, key, near, count, name)
    return _advance_p(tiles, vertex, key, near, count, name, p)


@njit(nogil=True, error_model="numpy")
def _power(magnitude, largest, p):
    real = type(magnitude)
    if largest == 0:
        return real(0)
    # differences may overflow; so then does the length
    return (magnitude / largest) ** real(p) if largest < np.inf else real(1)


@njit(nogil=True, error_model="numpy")
def _root(total, largest, p):
    real = type(total)
    return largest * total ** real(1.0 / p)


@intrinsic
def _screen(typingctx, shadow, vertex, bound, shift, count, hits):
    """Note the tiles, of ``count``, with a point for which Σ max(xₖ, vₖ) ≤ bound + shift. Returns their number.

    All in int16; bound + shift saturates. shadow: (count, d, LANES); vertex:
    (d, LANES), each coordinate in all lanes; bound: (count · LANES,). hits: (count,) int64.
    """

    def codegen(context, builder, signature, args):
        def data(index: int) -> ir.Value:
            return context.make_array(signature.args[index])(context, builder, args[index]).data

        shadow, vertex, bound, hits = data(0), data(1), data(2), data(5)
        count = args[4]
        d = builder.extract_value(context.make_array(signature.args[1])(context, builder, args[1]).shape, 0)
        shorts = ir.VectorType(ir.IntType(16), LANES)

        def load(base: ir.Value, index: ir.Value) -> ir.Value:
            start = builder.gep(base, [builder.mul(index, d.type(LANES))])
            return builder.load(builder.bitcast(start, shorts.as_pointer()), align=2)

        saturating = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(shorts, [shorts, shorts]), f"llvm.sadd.sat.v{LANES}i16"
        )
        shift = _splat(builder, args[3], shorts)
        found = cgutils.alloca_once_value(builder, d.type(0))
        with cgutils.for_range(builder, count) as loop:
            total = cgutils.alloca_once_value(builder, ir.Constant(shorts, [0] * LANES))
            start = builder.mul(loop.index, d)
            with cgutils.for_range(builder, d) as inner:
                x, v = load(shadow, builder.add(start, inner.index)), load(vertex, inner.index)
                larger = builder.select(builder.icmp_signed(">", x, v), x, v)
                builder.store(builder.add(builder.load(total), larger), total)
            limit = builder.call(saturating, [load(bound, loop.index), shift])
            passes = _any(builder, builder.icmp_signed("<=", builder.load(total), limit))
            number = builder.load(found)
            builder.store(loop.index, builder.gep(hits, [number]))
            builder.store(builder.add(number, builder.zext(passes, number.type)), found)
        return builder.load(found)

    return types.intp(shadow, vertex, bound, types.int16, types.intp, hits), codegen


@intrinsic
def _set_bounds(typingctx, key, near, sums, bound, tile, factor, offset):
    """Set bound = key · factor + sums / 2 + offset for one tile: int16, from above clipped, the least if empty."""
    scalar = key.dtype

    def codegen(context, builder, signature, args):
        integer = ir.IntType(scalar.bitwidth)

        def load(index: int, element: ir.Type, align: int) -> ir.Value:
            return builder.load(address(index, element), align=align)

        def address(index: int, element: ir.Type) -> ir.Value:
            base = context.make_array(signature.args[index])(context, builder, args[index]).data
            start = builder.gep(base, [builder.mul(args[4], args[4].type(LANES))])
            return builder.bitcast(start, ir.VectorType(element, LANES).as_pointer())

        doubles, shorts = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(16), LANES)
        keys = load(0, context.get_value_type(scalar), scalar.bitwidth // 8)
        if scalar.bitwidth == 32:
            keys = builder.fpext(keys, doubles)
        half = ir.Constant(doubles, [0.5] * LANES)
        halves = builder.fmul(builder.sitofp(load(2, ir.IntType(32), 4), doubles), half)
        x = builder.fadd(builder.fmul(keys, _splat(builder, args[5], doubles)), halves)
        x = builder.fadd(x, _splat(builder, args[6], doubles))
        most = ir.Constant(doubles, [32767.0] * LANES)
        x = builder.select(builder.fcmp_ordered("<", x, most), x, most)
        x = builder.trunc(builder.fptosi(x, ir.VectorType(ir.IntType(32), LANES)), shorts)
        others = load(1, integer, scalar.bitwidth // 8)
        full = builder.icmp_signed(">=", others, ir.Constant(others.type, [0] * LANES))
        x = builder.select(full, x, ir.Constant(shorts, [-32768] * LANES))
        builder.store(x, address(3, ir.IntType(16)), align=2)
        return context.get_dummy_value()

    return types.void(key, near, sums, bound, types.intp, types.float64, types.float64), codegen


@intrinsic
def _least(typingctx, key, count):
    """The least of ``count`` tiles of keys."""
    scalar = key.dtype

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(context.get_value_type(scalar), LANES)
        base = context.make_array(signature.args[0])(context, builder, args[0]).data
        least = cgutils.alloca_once_value(builder, ir.Constant(vector, [math.inf] * LANES))
        with cgutils.for_range(builder, args[1]) as loop:
            start = builder.gep(base, [builder.mul(loop.index, args[1].type(LANES))])
            keys = builder.load(builder.bitcast(start, vector.as_pointer()), align=scalar.bitwidth // 8)
            best = builder.load(least)
            builder.store(builder.select(builder.fcmp_ordered("<", keys, best), keys, best), least)
        return _minimum(builder, builder.load(least))

    return scalar(key, types.intp), codegen


@intrinsic
def _equal(typingctx, key, slot, value):
    """The lanes of the tile of ``key`` that begins at ``slot`` and equal ``value``, as bits."""
    scalar = key.dtype

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(context.get_value_type(scalar), LANES)
        base = context.make_array(signature.args[0])(context, builder, args[0]).data
        start = builder.bitcast(builder.gep(base, [args[1]]), vector.as_pointer())
        keys = builder.load(start, align=scalar.bitwidth // 8)
        values = _splat(builder, args[2], vector)
        bits = builder.bitcast(builder.fcmp_ordered("==", keys, values), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.intp(key, types.intp, scalar), codegen


@intrinsic
def _lowest_bit(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.intp(types.intp), codegen


# ---------------------------------------------------------------------------------------------- Prim's algorithm
#
# A side is what remains of one set of points: (tiles, key, near, names), its points in the first slots. An edge is
# one integer, i · 2³² + j with i < j, so that the order of these integers is the order of the pairs.


def _integers(size, real):
    """Room for ``size`` integers as wide as the floating-point numbers of the array ``real``."""
    raise NotImplementedError


@overload(_integers)
def _(size, real):
    if real.dtype == types.float32:
        return lambda size, real: np.empty(size, np.int32)
    return lambda size, real: np.empty(size, np.int64)


@njit(nogil=True)
def _side(points, size):
    d = points.shape[1]
    tiles = (size + LANES - 1) // LANES
    slots = tiles * LANES
    tiles = np.empty((tiles, d, LANES), points.dtype)
    return tiles, np.empty(slots, points.dtype), _integers(slots, points), np.empty(slots, np.int64)


@njit(nogil=True)
def _fill(side, points, first, stop):
    """Put points[first:stop] into the slots of a side, none with an edge yet. Returns whether all are finite."""
    tiles, key, near, names = side
    d = points.shape[1]
    infinity = points.dtype.type(np.inf)
    finite = True
    for slot in range(key.size):
        tile, lane = slot // LANES, slot % LANES
        key[slot] = infinity
        if slot < stop - first:
            near[slot] = _NONE
            names[slot] = first + slot
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
def _first_edge(side, tile, stop, length):
    """Of the edges of this length kept in tiles ``tile`` to ``stop`` of a side, the first: (edge, its slot)."""
    _, key, near, names = side
    first, chosen = _LAST, -1
    for start in range(tile * LANES, stop * LANES, LANES):
        bits = _equal(key, start, length)
        while bits:
            slot = start + _lowest_bit(bits)
            bits &= bits - 1
            a, b = names[slot], np.int64(near[slot])
            # under lengths that overflow to infinity, empty slots and points without an edge are equal to them too
            if 0 <= b < _NONE:
                edge = (a << 32) + b if a < b else (b << 32) + a
                if edge < first:
                    first, chosen = edge, slot
    return first, chosen


@njit(nogil=True)
def _remove(side, slot, last, points):
    """Put the point of a side's last slot into the place of another one. Returns the name of the point that left."""
    tiles, key, near, names = side
    tile, lane, name = slot // LANES, slot % LANES, names[slot]
    for k in range(points.shape[1]):
        tiles[tile, k, lane] = points[names[last], k]
    key[slot], near[slot], names[slot] = key[last], near[last], names[last]
    key[last], near[last] = np.inf, -1
    tiles[last // LANES, 0, last % LANES] = np.inf
    return name


@njit(nogil=True, error_model="numpy")
def _grow(p, points, first, stop, side, edges, lengths):
    """Minimum spanning tree of points[first:stop], in the order of growth. Returns whether all points are finite."""
    if not _fill(side, points, first, stop):
        return False
    tiles, key, near, _ = side
    name = _remove(side, 0, stop - first - 1, points)
    for step in range(stop - first - 1):
        left = stop - first - 1 - step
        count = (left + LANES - 1) // LANES
        lengths[step] = _advance(tiles, points[name], key, near, count, name, p)
        edges[step], slot = _first_edge(side, 0, count, lengths[step])
        name = _remove(side, slot, left - 1, points)
    return True


# A large cloud spends nearly all of its time on points that are too far to matter. Under p = 1 these can be told at a
# fraction of the cost: ‖x − v‖₁ = 2 Σ max(xₖ, vₖ) − Σ xₖ − Σ vₖ, in 16-bit integers, with an allowance for rounding, so
# that an edge is ruled out only if its length as defined is above the key. Tiles with a point that is not ruled out
# are then computed as defined. A screen is (shadow, sums, bound, low): the coordinates x in units of a step; Σ xₖ;
# (key + Σ xₖ) / 2 and the allowance; and, which has nothing to do with p, the least key of each tile.


# |Σ xₖ| ≤ u := 20000. A length is at most 2u, so (length + Σ xₖ) / 2 ≤ 3u/2 needs no clipping to int16; a key of
# infinity is clipped, and with Σ vₖ / 2 ≥ −u/2 added it is still above all Σ max(xₖ, vₖ) ≤ u. With Σ vₖ / 2 ≤ u/2
# added, the bound −2¹⁵ of an empty slot is still below all Σ max(xₖ, vₖ) ≥ −u.
_UNITS = 20000


@njit(nogil=True)
def _screen_of(side, step):
    tiles, key, near, _ = side
    count, d, _ = tiles.shape
    shadow, low = np.empty(tiles.shape, np.int16), np.full((count // LANES + 1) * LANES, np.inf, key.dtype)
    sums, bound = np.zeros(key.size, np.int32), np.empty(key.size, np.int16)
    for slot in range(key.size):
        tile, lane = slot // LANES, slot % LANES
        for k in range(d):
            x = np.rint(tiles[tile, k, lane] / step) if near[slot] >= 0 else 0.0
            shadow[tile, k, lane] = np.int16(x)
            sums[slot] += np.int32(x)
    screen = shadow, sums, bound, low
    for tile in range(count):
        _update_bounds(side, screen, tile, step)
    return screen


@njit(nogil=True, error_model="numpy")
def _update_bounds(side, screen, tile, step):
    tiles, key, near, _ = side
    _, sums, bound, _ = screen
    # each coordinate of either point is within half a unit, and the length itself is rounded
    allowance = 1.01 * tiles.shape[1] + 3.0
    _set_bounds(key, near, sums, bound, tile, 0.5 / step, 0.5 * allowance + 1.0)


@njit(nogil=True)
def _remove_large(side, screen, slot, last, points):
    shadow, sums, bound, low = screen
    for k in range(shadow.shape[1]):
        shadow[slot // LANES, k, slot % LANES] = shadow[last // LANES, k, last % LANES]
    sums[slot], bound[slot] = sums[last], bound[last]
    bound[last] = -32768
    name = _remove(side, slot, last, points)
    for tile in (slot // LANES, last // LANES):
        low[tile] = _least(side[1][tile * LANES :], 1)
    return name


@njit(nogil=True)
def _first_edge_large(side, low, count, length):
    first, chosen = _LAST, -1
    for start in range(0, count, LANES):
        bits = _equal(low, start, length)
        while bits:
            tile = start + _lowest_bit(bits)
            bits &= bits - 1
            if tile < count:
                edge, slot = _first_edge(side, tile, tile + 1, length)
                if edge < first:
                    first, chosen = edge, slot
    return first, chosen


@_compiled(error_model="numpy")
def _grow_large(p, points, a, a_stop, b, b_stop, edges, lengths):
    """The tree of points[a:a_stop], or if a ≠ b that of the complete bipartite graph of these and points[b:b_stop]."""
    between, d = a != b, points.shape[1]
    here, there = _side(points, a_stop - a if between else 0), _side(points, b_stop - b)
    if not (_fill(here, points, a, a_stop if between else a) & _fill(there, points, b, b_stop)):
        return False
    largest = np.float64(max(np.abs(points[a:a_stop]).max(), np.abs(points[b:b_stop]).max()))
    units = _UNITS // d - 1  # one to spare for rounding
    screening = p == 1.0 and units >= 16 and 1e-250 < largest < 1e250
    step = largest / units if screening else 1.0
    here_screen, there_screen = _screen_of(here, step), _screen_of(there, step)
    vertex, hits = np.empty((d, LANES), np.int16), np.empty(max(len(here[0]), len(there[0])) + 1, np.int64)
    seen, hit = 0, 0
    left, opposite = a_stop - a if between else 0, b_stop - b
    # the newest vertex was taken from `here`, so its edges lead there; without a second set, `here` stays empty
    if between:
        left -= 1
        name = _remove_large(here, here_screen, 0, left, points)
    else:
        opposite -= 1
        name = _remove_large(there, there_screen, 0, opposite, points)
    for i in range(lengths.size):
        tiles, key, near, _ = there
        shadow, _, bound, low = there_screen
        count, opposite_count = (left + LANES - 1) // LANES, (opposite + LANES - 1) // LANES
        if screening:
            total = 0
            for k in range(d):
                x = np.int16(np.rint(points[name, k] / step))
                total += x
                vertex[k] = x
            found = _screen(shadow, vertex, bound, np.int16((total >> 1) + 1), opposite_count, hits)
            for h in range(found):
                tile, slot = hits[h], hits[h] * LANES
                low[tile] = _advance_1(tiles[tile:], points[name], key[slot:], near[slot:], 1, name)
                _update_bounds(there, there_screen, tile, step)
            seen += opposite_count
            hit += found
            screening = i < 256 or 2 * hit < seen  # where it rules out little, do without
        else:
            _advance(tiles, points[name], key, near, opposite_count, name, p)
            for tile in range(opposite_count):
                low[tile] = _least(key[tile * LANES :], 1)
        near_least = _least(here_screen[3], (count + LANES - 1) // LANES)
        far_least = _least(low, (opposite_count + LANES - 1) // LANES)
        length = min(near_least, far_least)
        edge, slot = _first_edge_large(here, here_screen[3], count, length) if near_least == length else (_LAST, -1)
        far_edge, far_slot = (
            _first_edge_large(there, low, opposite_count, length) if far_least == length else (_LAST, -1)
        )
        edges[i], lengths[i] = min(edge, far_edge), length
        if edge < far_edge:
            left -= 1
            name = _remove_large(here, here_screen, slot, left, points)
        else:
            opposite -= 1
            name = _remove_large(there, there_screen, far_slot, opposite, points)
            if between:
                here, there, here_screen, there_screen = there, here, there_screen, here_screen
                left, opposite = opposite, left
    return True


@njit(nogil=True, error_model="numpy")
def _sort(edges, lengths, spare_edges, spare_lengths):
    """Sort edges by (length, edge), in place: runs by insertion, then bottom-up merges."""
    n, run = edges.size, 8
    for start in range(0, n, run):
        for i in range(start + 1, min(start + run, n)):
            edge, length, j = edges[i], lengths[i], i
            while j > start and (lengths[j - 1] > length or (lengths[j - 1] == length and edges[j - 1] > edge)):
                edges[j], lengths[j] = edges[j - 1], lengths[j - 1]
                j -= 1
            edges[j], lengths[j] = edge, length
    while run < n:
        # in twos, to end where it began; to merge the whole with nothing copies it
        _merge(edges, lengths, spare_edges, spare_lengths, run)
        _merge(spare_edges, spare_lengths, edges, lengths, 2 * run)
        run *= 4


@njit(nogil=True)
def _merge(edges, lengths, merged_edges, merged_lengths, run):
    """Merge sorted runs of edges, two by two."""
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


# ---------------------------------------------------------------------------------------------- entry points


@_compiled()
def _trees(p, points, first, stop, pairs, lengths):
    """Spanning trees of clouds first to stop of points (B, n, d), into (B, n − 1, 2) and (B, n − 1)."""
    n = points.shape[1]
    side = _side(points[0], n)
    edges, spare_edges = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64)
    spare_lengths = np.empty(n - 1, points.dtype)
    for cloud in range(first, stop):
        if not _grow(p, points[cloud], 0, n, side, edges, lengths[cloud]):
            return False
        _sort(edges, lengths[cloud], spare_edges, spare_lengths)
        for i in range(n - 1):
            pairs[cloud, i, 0], pairs[cloud, i, 1] = edges[i] >> 32, edges[i] & 0xFFFFFFFF
    return True


@_compiled()
def _join(edges, lengths, pairs, chosen):
    """Kruskal's algorithm on candidate edges of one cloud of n points, into (n − 1, 2) and (n − 1,)."""
    n = len(pairs) + 1
    _sort(edges, lengths, np.empty_like(edges), np.empty_like(lengths))
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


@_compiled(error_model="numpy")
def norms(rows, p, out):
    """‖row‖p for p other than 1 and ∞: rows (m, d), out (m,)."""
    real = rows.dtype.type
    smallest, down, up = _EUCLIDEAN_RANGE_32 if rows.itemsize == 4 else _EUCLIDEAN_RANGE_64
    for i in range(rows.shape[0]):
        total = real(0)
        if p == 2.0:
            for x in rows[i]:
                total += x * x
            scale, back = real(1), real(1)
            if total < smallest:
                scale, back = real(2.0**up), real(2.0**-up)
            elif total == np.inf:
                scale, back = real(2.0**down), real(2.0**-down)
            if scale != 1:
                total = real(0)
                for x in rows[i]:
                    x *= scale
                    total += x * x
            out[i] = np.sqrt(total) * back
        else:
            largest = real(0)
            for x in rows[i]:
                largest = max(largest, abs(x))
            for x in rows[i]:
                total += _power(abs(x), largest, p)
            out[i] = _root(total, largest, p)


# ---------------------------------------------------------------------------------------------- gradients


@njit(nogil=True)
def _add_gradient(points, i, j, length, weight, p, gradient):
    """Add weight · ∂‖xᵢ − xⱼ‖p / ∂x to the rows i and j of a gradient (n, d)."""
    real = points.dtype.type
    if weight == 0 or length == 0:
        return
    d = points.shape[1]
    if p == np.inf:
        ties = 0
        for k in range(d):
            ties += abs(points[i, k] - points[j, k]) == length
        weight /= real(ties)
    for k in range(d):
        u = points[i, k] - points[j, k]
        if u == 0:
            continue
        if p == 2.0:
            g = weight * (u / length)
        elif p == 1.0 or (p == np.inf and abs(u) == length):
            g = weight if u > 0 else -weight
        elif p == np.inf:
            continue
        else:
            g = (abs(u) / length) ** real(p - 1.0) * (weight if u > 0 else -weight)
        gradient[i, k] += g
        gradient[j, k] -= g


@_compiled(error_model="numpy")
def _lengths_backward(points, edges, lengths, weights, p, gradient):
    gradient[:] = 0
    for c in range(len(points)):
        for e in range(lengths.shape[1]):
            _add_gradient(points[c], edges[c, e, 0], edges[c, e, 1], lengths[c, e], weights[c, e], p, gradient[c])


@_compiled(error_model="numpy")
def _connectivity(points, edges, lengths, eta, factor, p, with_gradient, loss, gradient):
    """factor · Σ |η − ε| over all clouds (B, n, d), and its gradient, (n, B, d) as the codes lie."""
    real = points.dtype.type
    total = 0.0
    for length in lengths.flat:
        total += abs(real(eta) - length)
    loss[()] = factor * total
    if with_gradient:
        gradient[:] = 0
        for c in range(len(points)):
            for e in range(lengths.shape[1]):
                weight = np.sign(lengths[c, e] - real(eta)) * real(factor)
                _add_gradient(points[c], edges[c, e, 0], edges[c, e, 1], lengths[c, e], weight, p, gradient[:, c])


# ---------------------------------------------------------------------------------------------- threads

#: Work, in pairs of points times coordinates, below which threads cost more than they bring.
_WORTH_THREADS = 500_000
#: Points from which a cloud is large, and from which threads pay within it.
_LARGE, _LARGE_FOR_THREADS = 1500, 4000
#: Coordinates in a block of a large cloud, and the least number of points.
_BLOCK, _SMALLEST_BLOCK = 2**17, 256


def spanning_trees(points: torch.Tensor, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimum spanning trees of a batch of clouds.

    Parameters
    ----------
    points
        (…, n, d) float32 or float64 on the CPU, n < 2³¹ − 1.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    tuple of ndarray
        Edges (…, n − 1, 2) int64 and their lengths (…, n − 1), sorted by (length, i, j), i < j.

    Raises
    ------
    ValueError
        If a coordinate is NaN or infinite.
    """
    clouds = _array(points)
    if clouds.ndim == 2:
        edges, lengths = _grow_forest(clouds[None], p)
        return edges[0], lengths[0]
    shape = clouds.shape
    edges, lengths = _grow_forest(clouds if len(shape) == 3 else clouds.reshape(-1, *shape[-2:]), p)
    if len(shape) != 3:
        trees = *shape[:-2], shape[-2] - 1
        edges, lengths = edges.reshape(*trees, 2), lengths.reshape(trees)
    return edges, lengths


def _array(x: torch.Tensor) -> np.ndarray:
    # each of these calls costs half a microsecond, which a small cloud would notice
    if not x.is_contiguous():
        x = x.contiguous()
    return x.detach().numpy() if x.requires_grad else x.numpy()


def _grow_forest(clouds: np.ndarray, p: float, name: str = "points") -> tuple[np.ndarray, np.ndarray]:
    batch, n, d = clouds.shape
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), clouds.dtype)
    work = batch * n * n * d // 2
    threads = torch.get_num_threads() if work > _WORTH_THREADS else 1
    if n > _LARGE and (p == 1.0 or n * d > _BLOCK):
        finite = all(_blocked(*each, p, threads) for each in zip(clouds, edges, lengths, strict=True))
    elif batch <= 1 or threads == 1:
        finite = _trees(p, clouds, 0, batch, edges, lengths)
    else:
        share = -(-batch // (4 * threads))
        tasks = [
            partial(_trees, p, clouds, first, min(first + share, batch), edges, lengths)
            for first in range(0, batch, share)
        ]
        finite = all_true(tasks, threads)
    if not finite:
        raise ValueError(f"{name}: got NaN or infinity; all coordinates must be finite")
    return edges, lengths


def lengths_backward(
    points: torch.Tensor, edges: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor, p: float
) -> torch.Tensor:
    """Gradient (…, n, d) of Σ weights · lengths of the trees that :func:`spanning_trees` gave for ``points``."""
    gradient = np.empty(points.shape, lengths.numpy().dtype)
    *lead, n, d = points.shape
    clouds, trees = (math.prod(lead), n, d), (math.prod(lead), n - 1)
    _lengths_backward(
        _array(points).reshape(clouds),
        edges.numpy().reshape(*trees, 2),
        lengths.numpy().reshape(trees),
        _array(weights).reshape(trees),
        p,
        gradient.reshape(clouds),
    )
    return torch.from_numpy(gradient)


def connectivity(
    z: torch.Tensor, branches: int, eta: float, factor: float, p: float, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``factor`` · Σ |η − ε| over the deaths ε of all branches of codes z (b, n), its gradient, and the edges."""
    codes = _array(z)
    b, n = codes.shape
    clouds = np.ascontiguousarray(codes.reshape(b, branches, n // branches).swapaxes(0, 1))
    edges, lengths = _grow_forest(clouds, p, "z")
    loss, gradient = np.empty((), codes.dtype), np.empty((b, n) if with_gradient else (0, n), codes.dtype)
    by_branch = gradient.reshape(len(gradient), branches, n // branches)
    _connectivity(clouds, edges, lengths, eta, factor, p, with_gradient, loss, by_branch)
    return torch.from_numpy(loss), torch.from_numpy(gradient), torch.from_numpy(edges)


def _blocked(cloud: np.ndarray, tree: np.ndarray, lengths: np.ndarray, p: float, threads: int) -> bool:
    n = len(cloud)
    if n < _LARGE_FOR_THREADS:
        threads = 1
    blocks = max(-(-cloud.size // _BLOCK), 1 if threads == 1 else 2 * math.ceil(math.sqrt(threads / 2)))
    blocks = min(blocks, n // _SMALLEST_BLOCK)
    bounds = [n * block // blocks for block in range(blocks + 1)]
    pieces = [(a, b) for a in range(blocks) for b in range(a, blocks)]
    pieces.sort(key=lambda piece: piece[0] == piece[1])  # bipartite graphs have twice the pairs: begin with them
    sizes = [bounds[a + 1] - bounds[a] - 1 + (bounds[b + 1] - bounds[b] if a != b else 0) for a, b in pieces]
    starts = list(itertools.accumulate(sizes, initial=0))
    candidates, keys = np.empty(starts[-1], np.int64), np.empty(starts[-1], cloud.dtype)

    tasks = []
    for (a, b), start, stop in zip(pieces, starts, starts[1:], strict=False):
        blocks_of_piece = bounds[a], bounds[a + 1], bounds[b], bounds[b + 1]
        tasks.append(partial(_grow_large, p, cloud, *blocks_of_piece, candidates[start:stop], keys[start:stop]))
    if not all_true(tasks, threads):
        return False
    _join(candidates, keys, tree, lengths)
    return True
