"""Searches for neighbours in a k-d tree (:mod:`.kd_trees`) in vector instructions, a leaf at a time.

A lane of a vector is a point of a leaf. Points are compared by totals: Σ|uₖ| for p = 1, Σuₖ² for p = 2, and for every
other p max|uₖ|, a lower bound of the length. The total to a box is computed by the same operations in the same order;
as rounding is monotone, it is at most the total to any point inside, to the last bit.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.lengths import add_magnitude, add_square, maximum
from corel.persistence.kernels.vectors import LANES, array_data, constant, splat, vector_pointer

#: How many neighbours of a point are listed. One more is looked for: none that is not listed is nearer than that one.
NEAR = 8


def _total(builder: ir.IRBuilder, accumulate: Any, element: ir.Type, d: ir.Value, difference: Any) -> ir.Value:
    """Accumulate the vectors ``difference(k)`` over the coordinates k."""
    total = cgutils.alloca_once_value(builder, constant(element, 0.0))
    with cgutils.for_range(builder, d) as loop:
        builder.store(accumulate(builder, builder.load(total), difference(loop.index)), total)
    return builder.load(total)


def _bits(builder: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    """Bit k of the integer stands for lane k of a vector of booleans."""
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(64))


def _dimension(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    """d, of the argument ``tiles``, which comes first."""
    shape = context.make_array(signature.args[0])(context, builder, args[0]).shape
    return builder.extract_value(shape, 1)


def _make_offer(accumulate: Any, rows: int) -> Any:
    """For lists of ``rows`` neighbours."""

    @intrinsic
    def offer(typingctx, tiles, here, there, first, stop, best, near):
        """Offer the points in lanes ``first`` to before ``stop`` of a tile to each point of the tile ``here``."""
        scalar = tiles.dtype

        def codegen(context, builder, signature, args):
            element, integer = context.get_value_type(scalar), ir.IntType(32)
            align = scalar.bitwidth // 8
            tiles, best, near = (array_data(context, builder, signature, args, index) for index in (0, 5, 6))
            _, here, there, first, stop, _, _ = args
            d = _dimension(context, builder, signature, args)
            lanes = d.type(LANES)
            size = builder.mul(d, lanes)
            own, other = builder.mul(here, size), builder.mul(there, size)
            first_here, first_there = (builder.trunc(builder.mul(tile, lanes), integer) for tile in (here, there))
            steps = ir.Constant(ir.VectorType(integer, LANES), list(range(LANES)))
            places = builder.add(splat(builder, first_here), steps)

            totals, indices = [], []
            for row in range(rows):
                at = d.type(row * LANES)
                total = builder.load(vector_pointer(builder, best, at, element), align=align)
                totals.append(cgutils.alloca_once_value(builder, total))
                name = builder.load(vector_pointer(builder, near, at, integer), align=4)
                indices.append(cgutils.alloca_once_value(builder, name))

            with cgutils.for_range_slice(builder, first, stop, d.type(1)) as (index, _):

                def difference(k: ir.Value, lane: ir.Value = index) -> ir.Value:
                    at = builder.mul(k, lanes)
                    x = builder.load(vector_pointer(builder, tiles, builder.add(own, at), element), align=align)
                    y = builder.load(builder.gep(tiles, [builder.add(builder.add(other, at), lane)]))
                    return builder.fsub(x, splat(builder, y))

                total = _total(builder, accumulate, element, d, difference)
                name = splat(builder, builder.add(first_there, builder.trunc(index, integer)))
                closer = builder.fcmp_ordered("<", total, builder.load(totals[-1]))
                closer = builder.and_(closer, builder.icmp_signed("!=", name, places))
                bits = builder.bitcast(closer, ir.IntType(LANES))
                with builder.if_then(builder.icmp_unsigned("!=", bits, bits.type(0))):
                    # lanes that are not closer change nothing: their total comes after all that are listed
                    total = builder.select(closer, total, constant(element, float("inf")))
                    below = [builder.fcmp_ordered("<", total, builder.load(slot)) for slot in totals]
                    for row in range(rows - 1, -1, -1):
                        new, new_name = total, name
                        if row > 0:  # what was before moves on, if the new one comes before that
                            new = builder.select(below[row - 1], builder.load(totals[row - 1]), new)
                            new_name = builder.select(below[row - 1], builder.load(indices[row - 1]), new_name)
                        builder.store(builder.select(below[row], new, builder.load(totals[row])), totals[row])
                        builder.store(builder.select(below[row], new_name, builder.load(indices[row])), indices[row])

            for row in range(rows):
                at = d.type(row * LANES)
                builder.store(builder.load(totals[row]), vector_pointer(builder, best, at, element), align=align)
                builder.store(builder.load(indices[row]), vector_pointer(builder, near, at, integer), align=4)
            return context.get_dummy_value()

        return types.none(tiles, types.intp, types.intp, types.intp, types.intp, best, near), codegen

    return offer


def _make_reach(accumulate: Any) -> Any:
    @intrinsic
    def reach(typingctx, tiles, here, boxes, node, best):
        """Which points of the tile ``here`` a point in the box of a node may be nearer to than the last one listed."""
        scalar = tiles.dtype

        def codegen(context, builder, signature, args):
            element = context.get_value_type(scalar)
            align = scalar.bitwidth // 8
            tiles, boxes, best = (array_data(context, builder, signature, args, index) for index in (0, 2, 4))
            d = _dimension(context, builder, signature, args)
            lanes = d.type(LANES)
            own = builder.mul(args[1], builder.mul(d, lanes))
            low = builder.mul(args[3], builder.mul(d, d.type(2)))
            high = builder.add(low, d)

            def difference(k: ir.Value) -> ir.Value:
                at = builder.add(own, builder.mul(k, lanes))
                x = builder.load(vector_pointer(builder, tiles, at, element), align=align)
                a, b = (splat(builder, builder.load(builder.gep(boxes, [builder.add(end, k)]))) for end in (low, high))
                u, v, zero = builder.fsub(a, x), builder.fsub(x, b), constant(element, 0.0)
                u = builder.select(builder.fcmp_ordered(">", u, v), u, v)
                return builder.select(builder.fcmp_ordered(">", u, zero), u, zero)

            total = _total(builder, accumulate, element, d, difference)
            rows = builder.extract_value(context.make_array(signature.args[4])(context, builder, args[4]).shape, 0)
            last = builder.mul(builder.sub(rows, d.type(1)), lanes)
            last = builder.load(vector_pointer(builder, best, last, element), align=align)
            return _bits(builder, builder.fcmp_ordered("<", total, last))

        return types.intp(tiles, types.intp, boxes, types.intp, best), codegen

    return reach


def _make_within(accumulate: Any) -> Any:
    @intrinsic
    def within(typingctx, tiles, tile, point, limit, totals):
        """Which points of a tile are at a total up to ``limit`` from a point (d,). Totals are written to ``totals``."""
        scalar = tiles.dtype

        def codegen(context, builder, signature, args):
            element = context.get_value_type(scalar)
            align = scalar.bitwidth // 8
            tiles, point, totals = (array_data(context, builder, signature, args, index) for index in (0, 2, 4))
            d = _dimension(context, builder, signature, args)
            lanes = d.type(LANES)
            start = builder.mul(args[1], builder.mul(d, lanes))

            def difference(k: ir.Value) -> ir.Value:
                at = builder.add(start, builder.mul(k, lanes))
                x = builder.load(vector_pointer(builder, tiles, at, element), align=align)
                return builder.fsub(x, splat(builder, builder.load(builder.gep(point, [k]))))

            total = _total(builder, accumulate, element, d, difference)
            builder.store(total, vector_pointer(builder, totals, d.type(0), element), align=align)
            return _bits(builder, builder.fcmp_ordered("<=", total, splat(builder, args[3])))

        return types.intp(tiles, types.intp, point, scalar, totals), codegen

    return within


_offer_1, _offer_2, _offer_inf = (
    _make_offer(accumulate, NEAR + 1) for accumulate in (add_magnitude, add_square, maximum)
)
_offer_one_1, _offer_one_2, _offer_one_inf = (
    _make_offer(accumulate, 1) for accumulate in (add_magnitude, add_square, maximum)
)
_reach_1, _reach_2, _reach_inf = (_make_reach(accumulate) for accumulate in (add_magnitude, add_square, maximum))
_within_1, _within_2, _within_inf = (_make_within(accumulate) for accumulate in (add_magnitude, add_square, maximum))


@njit(nogil=True)
def _offer(tiles, here, there, count, best, near, p):
    if p == 1.0:
        _offer_1(tiles, here, there, 0, count, best, near)
    elif p == 2.0:
        _offer_2(tiles, here, there, 0, count, best, near)
    else:
        _offer_inf(tiles, here, there, 0, count, best, near)


@njit(nogil=True)
def offer_one(tiles, here, there, first, stop, best, near, p):
    """Offer the points in lanes ``first`` to before ``stop`` of a tile to each of a tile, which keeps the nearest.

    ``best`` and ``near`` are (1, LANES), and as for :func:`nearest`.
    """
    if p == 1.0:
        _offer_one_1(tiles, here, there, first, stop, best, near)
    elif p == 2.0:
        _offer_one_2(tiles, here, there, first, stop, best, near)
    else:
        _offer_one_inf(tiles, here, there, first, stop, best, near)


@njit(nogil=True)
def reach(tiles, here, boxes, node, best, p):
    """Which points of a tile a point in the box of a node may be nearer to than the last one listed, as bits."""
    if p == 1.0:
        return _reach_1(tiles, here, boxes, node, best)
    if p == 2.0:
        return _reach_2(tiles, here, boxes, node, best)
    return _reach_inf(tiles, here, boxes, node, best)


@njit(nogil=True)
def within(tiles, tile, point, limit, totals, p):
    """Which points of a tile are at a total up to ``limit`` from a point (d,), as bits. Totals go to (LANES,)."""
    if p == 1.0:
        return _within_1(tiles, tile, point, limit, totals)
    if p == 2.0:
        return _within_2(tiles, tile, point, limit, totals)
    return _within_inf(tiles, tile, point, limit, totals)


@njit(nogil=True)
def nearest(leaf, tree, best, near, stack, p):
    """List the ``NEAR`` + 1 points with the least totals to each of the points of a leaf, for p = 1, 2 or ∞.

    Returns how many points were offered to those of the leaf.

    Parameters
    ----------
    leaf
        The node.
    tree
        See :mod:`.kd_trees`.
    best, near
        (NEAR + 1, LANES), of the dtype of the points, and int32: totals, in order, and places in the tree, are written
        to these. Where there are too few points, and where totals overflow, totals are infinite.
    stack
        (:data:`DEPTH`,) int64, to overwrite.
    """
    indices, tiles, nodes, boxes = tree
    here = nodes[leaf, 0]
    best[:] = np.inf
    for lane in range(len(indices) - here * LANES, LANES):
        best[:, lane] = -np.inf  # no point here
    offered, top = 0, leaf
    stack[0], height = leaf, 1
    while height > 0:  # first the leaf itself, then what is beside it, beside its parent, and so on
        height -= 1
        node = stack[height]
        if node == leaf or reach(tiles, here, boxes, node, best, p):
            there, stop = nodes[node]
            if stop - there > 1:
                nearer = there > here  # the child on the side of the leaf, which is looked at first
                stack[height], stack[height + 1] = 2 * node + 1 + nearer, 2 * node + 2 - nearer
                height += 2
            else:
                count = min(len(indices) - there * LANES, LANES)
                _offer(tiles, here, there, count, best, near, p)
                offered += count
        if height == 0 and top > 0:
            stack[0], height = (top + 1 if top % 2 == 1 else top - 1), 1
            top = (top - 1) // 2
    return offered
