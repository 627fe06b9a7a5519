"""Lengths under ‖·‖p in Numba, rounded as :mod:`corel.persistence.metric` defines them.

:func:`advance`, the inner loop of Prim's algorithm, takes nearly all of the time of a spanning tree. For p = 1, 2 and ∞
it is written in vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.rounding import EUCLIDEAN_RANGE
from corel.persistence.kernels.vectors import (
    LANES,
    any_true,
    array_data,
    constant,
    least_element,
    splat,
    unary,
    vector_pointer,
)

EUCLIDEAN_RANGE_32, EUCLIDEAN_RANGE_64 = EUCLIDEAN_RANGE[torch.float32], EUCLIDEAN_RANGE[torch.float64]


def add_magnitude(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    """Emit total + |u|."""
    return builder.fadd(total, unary(builder, "fabs", u))


def add_square(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    """Emit total + u², two roundings."""
    return builder.fadd(total, builder.fmul(u, u))


def maximum(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    """Emit max(total, |u|)."""
    magnitude = unary(builder, "fabs", u)
    return builder.select(builder.fcmp_ordered("<", total, magnitude), magnitude, total)


_ACCUMULATE = {1.0: add_magnitude, 2.0: add_square, math.inf: maximum}


def emit_lengths(
    builder: ir.IRBuilder,
    p: float,
    vector: ir.VectorType,
    d: ir.Value,
    emit_difference: Callable[[ir.Value], ir.Value],
    occupied: ir.Value | None = None,
) -> ir.Value:
    """Emit the lengths, p ∈ {1, 2, ∞}, of one difference of two points in each lane of a vector.

    Parameters
    ----------
    builder, p
        The builder to emit with; the norm: 1, 2 or ∞.
    vector, d
        The type of a vector of coordinates, and how many there are of a point.
    emit_difference
        Called with an index k: emits the difference in coordinate k, in each lane.
    occupied
        Lanes whose length matters; all, if this is not given.
    """
    accumulate = _ACCUMULATE[p]
    fill = partial(constant, vector.element, lanes=vector.count)

    def accumulated(scale: ir.Value | None = None) -> ir.Value:
        total = cgutils.alloca_once_value(builder, fill(0.0))
        with cgutils.for_range(builder, d) as loop:
            u = emit_difference(loop.index)
            if scale is not None:
                u = builder.fmul(u, scale)
            builder.store(accumulate(builder, builder.load(total), u), total)
        return builder.load(total)

    total = accumulated()
    if p != 2.0:
        return total
    smallest, down, up = EUCLIDEAN_RANGE_32 if isinstance(vector.element, ir.FloatType) else EUCLIDEAN_RANGE_64
    length = cgutils.alloca_once_value(builder, unary(builder, "sqrt", total))
    low = builder.fcmp_ordered("<", total, fill(smallest))
    high = builder.fcmp_ordered("==", total, fill(math.inf))
    rescale = builder.or_(low, high)
    if occupied is not None:
        rescale = builder.and_(rescale, occupied)
    with builder.if_then(any_true(builder, rescale), likely=False):

        def choose(a: int, b: int) -> ir.Value:
            rest = builder.select(high, fill(2.0**b), fill(1.0))
            return builder.select(low, fill(2.0**a), rest)

        scaled = unary(builder, "sqrt", accumulated(choose(up, down)))
        builder.store(builder.fmul(scaled, choose(-up, -down)), length)
    return builder.load(length)


def _make_advance(p: float) -> Any:
    """:func:`advance` for p ∈ {1, 2, ∞}."""

    @intrinsic
    def advance(typingctx, tiles, vertex, key, near, count, newest):
        scalar = key.dtype

        def codegen(context, builder, signature, args):
            tiles, vertex, key, near = (array_data(context, builder, signature, args, index) for index in range(4))
            d, count, newest = context.make_array(signature.args[1])(context, builder, args[1]), args[4], args[5]
            d = builder.extract_value(d.shape, 0)
            real, integer = context.get_value_type(scalar), ir.IntType(scalar.bitwidth)
            align = scalar.bitwidth // 8

            least = cgutils.alloca_once_value(builder, constant(real, math.inf))
            if scalar.bitwidth == 32:
                newest = builder.trunc(newest, integer)
            names = splat(builder, newest)
            with cgutils.for_range(builder, count) as loop:
                start = builder.mul(loop.index, builder.mul(d, d.type(LANES)))

                def difference(k: ir.Value, start: ir.Value = start) -> ir.Value:
                    offset = builder.add(start, builder.mul(k, d.type(LANES)))
                    x = builder.load(vector_pointer(builder, tiles, offset, real), align=align)
                    return builder.fsub(x, splat(builder, builder.load(builder.gep(vertex, [k]))))

                slot = builder.mul(loop.index, d.type(LANES))
                key_address = vector_pointer(builder, key, slot, real)
                near_address = vector_pointer(builder, near, slot, integer)
                old, other = builder.load(key_address, align=align), builder.load(near_address, align=align)
                occupied = builder.icmp_signed(">=", other, constant(integer, 0))
                new = emit_lengths(builder, p, ir.VectorType(real, LANES), d, difference, occupied)
                # of two edges of equal length at one point, the one with the lower other end comes first
                tie = builder.and_(builder.fcmp_ordered("==", new, old), builder.icmp_signed("<", names, other))
                closer = builder.or_(builder.fcmp_ordered("<", new, old), tie)
                new = builder.select(closer, new, old)
                builder.store(new, key_address, align=align)
                builder.store(builder.select(closer, names, other), near_address, align=align)
                best = builder.load(least)
                builder.store(builder.select(builder.fcmp_ordered("<", new, best), new, best), least)
            return least_element(builder, builder.load(least))

        return scalar(tiles, vertex, key, near, types.intp, types.intp), codegen

    return advance


advance_1, _advance_2, _advance_inf = _make_advance(1.0), _make_advance(2.0), _make_advance(math.inf)


@njit(nogil=True, error_model="numpy")
def lower_bound_factor(points, d, p):
    """A factor f such that f · ‖u‖₁ ≤ ‖u‖p for u (d,), rounding included, and what f · ‖u‖₁ has to exceed.

    Below that, near the subnormal numbers, relative errors are not bounded.
    """
    epsilon = np.finfo(points.dtype).eps
    # ‖u‖₁ ≤ d^(1 − 1/p) ‖u‖p; the last factor allows for rounding
    factor = points.dtype.type(d ** (1.0 / p - 1.0) * max(0.0, 1.0 - 8.0 * (d + 8) * epsilon))
    return factor, np.finfo(points.dtype).tiny / points.dtype.type(epsilon)


@njit(nogil=True, error_model="numpy")
def _advance_p(tiles, vertex, key, near, count, newest, p):
    """:func:`advance` for any other p. Powers are slow, and computed only where no lower bound excludes an edge."""
    real = key.dtype.type
    d = vertex.size
    total, largest = np.empty(LANES, key.dtype), np.empty(LANES, key.dtype)
    factor, normal = lower_bound_factor(key, d, p)
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
                if length < old or (length == old and newest < near[slot]):
                    key[slot], near[slot] = length, newest
            least = min(least, key[slot])
    return least


@njit(nogil=True)
def advance(tiles, vertex, key, near, count, newest, p):
    """Replace the shortest known edges of points by edges to a vertex where these are shorter.

    Parameters
    ----------
    tiles
        (tiles, d, LANES) coordinates of the points.
    vertex
        (d,) coordinates of the vertex.
    key
        (tiles · LANES,) length of the shortest known edge of each point.
    near
        (tiles · LANES,) integers as wide as ``key``: the other end of that edge; −1 in slots without a point.
    count
        How many tiles are looked at.
    newest
        The number of the vertex.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    float
        The least of the keys in these tiles.
    """
    if p == 1.0:
        return advance_1(tiles, vertex, key, near, count, newest)
    if p == 2.0:
        return _advance_2(tiles, vertex, key, near, count, newest)
    if p == np.inf:
        return _advance_inf(tiles, vertex, key, near, count, newest)
    return _advance_p(tiles, vertex, key, near, count, newest, p)


@njit(nogil=True, error_model="numpy")
def _power(magnitude, largest, p):
    """(magnitude / largest)ᵖ, 0 where both are."""
    real = type(magnitude)
    if largest == 0:
        return real(0)
    # where a difference overflows to infinity, so does the length
    return (magnitude / largest) ** real(p) if largest < np.inf else real(1)


@njit(nogil=True, error_model="numpy")
def _root(total, largest, p):
    """largest · total^(1/p)."""
    real = type(total)
    return largest * total ** real(1.0 / p)


@njit(nogil=True, error_model="numpy")
def norm(u, p):
    """‖u‖p of a vector (d,)."""
    real = u.dtype.type
    total, largest = real(0), real(0)
    if p == 1.0:
        for x in u:
            total += abs(x)
        return total
    if p == 2.0:
        smallest, down, up = EUCLIDEAN_RANGE_32 if u.itemsize == 4 else EUCLIDEAN_RANGE_64
        for x in u:
            total += x * x
        scale, back = real(1), real(1)
        if total < smallest:
            scale, back = real(2.0**up), real(2.0**-up)
        elif total == np.inf:
            scale, back = real(2.0**down), real(2.0**-down)
        if scale != 1:
            total = real(0)
            for x in u:
                x *= scale
                total += x * x
        return np.sqrt(total) * back
    for x in u:
        largest = max(largest, abs(x))
    if p == np.inf:
        return largest
    for x in u:
        total += _power(abs(x), largest, p)
    return _root(total, largest, p)


@compiled(error_model="numpy")
def norms(rows, p, out):
    """‖row‖p of each row: rows (m, d) and out (m,) of one floating dtype."""
    for i in range(len(rows)):
        out[i] = norm(rows[i], p)


@compiled()
def are_finite(points):
    """Whether all coordinates of points, contiguous, are finite."""
    flat, infinity, finite = points.reshape(-1), points.dtype.type(np.inf), True
    for i in range(flat.size):
        finite &= abs(flat[i]) < infinity
    return finite
