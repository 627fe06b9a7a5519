"""Vector instructions for Numba functions, as LLVM intrinsics.

A vector has ``LANES`` elements, unless a function is told otherwise. LLVM maps it to the vector registers of the
processor, whatever their width. Points are stored in tiles of ``LANES`` points, coordinate by coordinate within a tile,
so that a vector holds one coordinate of every point of a tile, and each point has a lane of its own. Within a lane,
operations are neither reordered nor fused: results do not depend on the processor.

The first part of this file emits instructions and is called by the code generators of intrinsics; the second part are
intrinsics, called by compiled functions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Elements of a vector, and points in a tile.
LANES = 16
#: Bytes of a line of the cache.
LINE = 64


def array_data(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, index: int) -> ir.Value:
    """The pointer to the data of an intrinsic's array argument."""
    return context.make_array(signature.args[index])(context, builder, args[index]).data


def vector_pointer(
    builder: ir.IRBuilder, data: ir.Value, index: ir.Value, element: ir.Type, lanes: int = LANES
) -> ir.Value:
    """The address of a vector that begins at an element of an array."""
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(element, lanes).as_pointer())


def splat(builder: ir.IRBuilder, value: ir.Value, lanes: int = LANES) -> ir.Value:
    """A vector with ``value`` in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, undefined, constant(ir.IntType(32), 0, lanes))


def constant(element: ir.Type, value: float, lanes: int = LANES) -> ir.Constant:
    """A vector with a constant in every lane."""
    return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)


def unary(builder: ir.IRBuilder, name: str, vector: ir.Value) -> ir.Value:
    """LLVM's function ``name``, such as ``"fabs"`` or ``"sqrt"``, of each element."""
    function = ir.FunctionType(vector.type, [vector.type])
    function = cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{_suffix(vector)}")
    return builder.call(function, [vector])


def least_element(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The least element of a vector without NaN."""
    reduce = ir.FunctionType(vector.type.element, [vector.type])
    reduce = cgutils.get_or_insert_function(builder.module, reduce, f"llvm.vector.reduce.fmin.{_suffix(vector)}")
    return builder.call(reduce, [vector], fastmath=("nnan",))


def any_true(builder: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    """Whether any element of a vector of booleans is true."""
    bits = builder.bitcast(mask, ir.IntType(mask.type.count))
    return builder.icmp_unsigned("!=", bits, bits.type(0))


def _suffix(vector: ir.Value) -> str:
    """The suffix by which LLVM names its functions for vectors of this floating type."""
    return f"v{vector.type.count}f{32 if isinstance(vector.type.element, ir.FloatType) else 64}"


@intrinsic
def least(typingctx, keys, count):
    """The least number in the first ``count`` tiles of the array ``keys``; infinity if ``count`` is 0."""
    scalar = keys.dtype

    def codegen(context, builder, signature, args):
        element = context.get_value_type(scalar)
        data = array_data(context, builder, signature, args, 0)
        least = cgutils.alloca_once_value(builder, constant(element, math.inf))
        with cgutils.for_range(builder, args[1]) as loop:
            start = builder.mul(loop.index, args[1].type(LANES))
            tile = builder.load(vector_pointer(builder, data, start, element), align=scalar.bitwidth // 8)
            best = builder.load(least)
            builder.store(builder.select(builder.fcmp_ordered("<", tile, best), tile, best), least)
        return least_element(builder, builder.load(least))

    return scalar(keys, types.intp), codegen


@intrinsic
def equal_lanes(typingctx, keys, slot, value):
    """Which lanes of the tile of ``keys`` that begins at index ``slot`` equal ``value``: bit k stands for lane k."""
    scalar = keys.dtype

    def codegen(context, builder, signature, args):
        data = array_data(context, builder, signature, args, 0)
        start = vector_pointer(builder, data, args[1], context.get_value_type(scalar))
        tile = builder.load(start, align=scalar.bitwidth // 8)
        bits = builder.bitcast(builder.fcmp_ordered("==", tile, splat(builder, args[2])), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.intp(keys, types.intp, scalar), codegen


@intrinsic
def pointer(typingctx, address, like):
    """The address of memory, an integer, as a pointer to elements of the type of the array ``like``."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.intp, like), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """The index of the lowest bit that is set in ``bits`` ≠ 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.intp(types.intp), codegen
