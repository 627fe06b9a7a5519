"""Lengths under ‖·‖p in Numba, rounded as :mod:`corel.persistence.metric` defines them.

:func:`advance`, the inner loop of Prim's algorithm, takes nearly all of the time of a spanning tree. For p = 1, 2 and ∞
it is written in vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.compiled import compiled
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
from corel.persistence.rounding import EUCLIDEAN_RANGE

EUCLIDEAN_RANGE_32, EUCLIDEAN_RANGE_64 = EUCLIDEAN_RANGE[torch.float32], EUCLIDEAN_RANGE[torch.float64]


def add_magnitude(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    return builder.fadd(total, unary(builder, "fabs", u))


def add_square(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    return builder.fadd(total, builder.fmul(u, u))


def maximum(builder: ir.IRBuilder, total: ir.Value, u: ir.Value) -> ir.Value:
    magnitude = unary(builder, "fabs", u)
    return builder.select(builder.fcmp_ordered("<", total, magnitude), magnitude, total)


def _make_advance(accumulate: Any, euclidean: bool = False) -> Any:
    """:func:`advance` for a norm that adds up coordinate by coordinate, by ``accumulate``."""

    @intrinsic
    def advance(typingctx, tiles, vertex, key, near, count, name):
        scalar = key.dtype

        def codegen(context, builder, signature, args):
            tiles, vertex, key, near = (array_data(context, builder, signature, args, index) for index in range(4))
            d, count, name = context.make_array(signature.args[1])(context, builder, args[1]), args[4], args[5]
            d = builder.extract_value(d.shape, 0)
            real, integer = context.get_value_type(scalar), ir.IntType(scalar.bitwidth)
            align = scalar.bitwidth // 8

            def accumulated(tile: ir.Value, scale: ir.Value | None = None) -> ir.Value:
                total = cgutils.alloca_once_value(builder, constant(real, 0.0))
                start = builder.mul(tile, builder.mul(d, d.type(LANES)))
                with cgutils.for_range(builder, d) as loop:
                    offset = builder.add(start, builder.mul(loop.index, d.type(LANES)))
                    x = builder.load(vector_pointer(builder, tiles, offset, real), align=align)
                    u = builder.fsub(x, splat(builder, builder.load(builder.gep(vertex, [loop.index]))))
                    if scale is not None:
                        u = builder.fmul(u, scale)
                    builder.store(accumulate(builder, builder.load(total), u), total)
                return builder.load(total)

            least = cgutils.alloca_once_value(builder, constant(real, math.inf))
            if scalar.bitwidth == 32:
                name = builder.trunc(name, integer)
            names = splat(builder, name)
            with cgutils.for_range(builder, count) as loop:
                slot = builder.mul(loop.index, d.type(LANES))
                key_address = vector_pointer(builder, key, slot, real)
                near_address = vector_pointer(builder, near, slot, integer)
                old, other = builder.load(key_address, align=align), builder.load(near_address, align=align)
                new = accumulated(loop.index)
                if euclidean:
                    smallest, down, up = EUCLIDEAN_RANGE_32 if scalar.bitwidth == 32 else EUCLIDEAN_RANGE_64
                    length = cgutils.alloca_once_value(builder, unary(builder, "sqrt", new))
                    low = builder.fcmp_ordered("<", new, constant(real, smallest))
                    high = builder.fcmp_ordered("==", new, constant(real, math.inf))
                    occupied = builder.icmp_signed(">=", other, constant(integer, 0))
                    rescale = any_true(builder, builder.and_(builder.or_(low, high), occupied))
                    with builder.if_then(rescale, likely=False):

                        def choose(a: int, b: int, low: ir.Value = low, high: ir.Value = high) -> ir.Value:
                            rest = builder.select(high, constant(real, 2.0**b), constant(real, 1.0))
                            return builder.select(low, constant(real, 2.0**a), rest)

                        scaled = unary(builder, "sqrt", accumulated(loop.index, choose(up, down)))
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
            return least_element(builder, builder.load(least))

        return scalar(tiles, vertex, key, near, types.intp, types.intp), codegen

    return advance


advance_1 = _make_advance(add_magnitude)
_advance_2 = _make_advance(add_square, euclidean=True)
_advance_inf = _make_advance(maximum)


@njit(nogil=True, error_model="numpy")
def screen(points, d, p):
    """By what to multiply ‖u‖₁ to get a lower bound of ‖u‖p, u (d,), which is one if it is above the second number."""
    epsilon = np.finfo(points.dtype).eps
    # ‖u‖₁ ≤ d^(1 − 1/p) ‖u‖p; the last factor allows for rounding
    factor = points.dtype.type(d ** (1.0 / p - 1.0) * max(0.0, 1.0 - 8.0 * (d + 8) * epsilon))
    return factor, np.finfo(points.dtype).tiny / points.dtype.type(epsilon)


@njit(nogil=True, error_model="numpy")
def _advance_p(tiles, vertex, key, near, count, name, p):
    """:func:`advance` for any other p. Powers are slow, and computed only where no lower bound excludes an edge."""
    real = key.dtype.type
    d = vertex.size
    total, largest = np.empty(LANES, key.dtype), np.empty(LANES, key.dtype)
    factor, normal = screen(key, d, p)
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
def advance(tiles, vertex, key, near, count, name, p):
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
    name
        The number of the vertex.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    float
        The least of the keys in these tiles.
    """
    if p == 1.0:
        return advance_1(tiles, vertex, key, near, count, name)
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
    # where a difference overflows to infinity, so does the length
    return (magnitude / largest) ** real(p) if largest < np.inf else real(1)


@njit(nogil=True, error_model="numpy")
def _root(total, largest, p):
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
