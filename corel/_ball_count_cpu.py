"""Numba kernels that count stored points in balls."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Stored points in a tile, one to a lane of a vector, and tiles whose sums are in registers at a time.
LANES, GROUP = 16, 2


def tiled(columns: np.ndarray) -> np.ndarray:
    """(branches, dim, m) → (branches, tiles, dim, LANES), filled up with NaN, which is in no ball."""
    branches, dim, m = columns.shape
    count = -(-m // (GROUP * LANES)) * GROUP
    padded = np.full((branches, dim, count * LANES), np.nan, columns.dtype)
    padded[:, :, :m] = columns
    return np.ascontiguousarray(padded.reshape(branches, dim, count, LANES).transpose(0, 2, 1, 3))


@intrinsic
def _within_l1(typingctx, tiles, branch, z, row, radius):  # type: ignore[no-untyped-def]
    """Count the points of one branch of ``tiles`` within L1 distance ≤ radius of its part of a row of z.

    Each distance is summed in the order of the coordinates, with nothing fused.
    """
    scalar = z.dtype

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        real, integer = context.get_value_type(scalar), arguments[1].type
        vector, align = ir.VectorType(real, LANES), scalar.bitwidth // 8
        arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2)]
        _, count, dim, _ = cgutils.unpack_tuple(builder, arrays[0].shape)
        columns = cgutils.unpack_tuple(builder, arrays[1].shape)[1]
        branch, row, size = arguments[1], arguments[3], builder.mul(dim, integer(LANES))
        stored = builder.gep(arrays[0].data, [builder.mul(builder.mul(branch, count), size)])
        point = builder.gep(arrays[1].data, [builder.add(builder.mul(row, columns), builder.mul(branch, dim))])

        def splat(value):  # type: ignore[no-untyped-def]
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(undefined, value, ir.IntType(32)(0))
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(one, undefined, everywhere)

        name = f"v{LANES}f{scalar.bitwidth}"
        fabs = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), f"llvm.fabs.{name}")
        limit, found = splat(arguments[4]), cgutils.alloca_once(builder, integer)
        builder.store(integer(0), found)
        sums = [cgutils.alloca_once(builder, vector) for _ in range(GROUP)]
        with cgutils.for_range(builder, builder.udiv(count, integer(GROUP))) as group:
            first = builder.mul(group.index, integer(GROUP))
            for total in sums:
                builder.store(ir.Constant(vector, [0.0] * LANES), total)
            with cgutils.for_range(builder, dim) as coordinate:
                value = splat(builder.load(builder.gep(point, [coordinate.index])))
                for tile, total in enumerate(sums):
                    at = builder.mul(builder.add(first, integer(tile)), size)
                    at = builder.add(at, builder.mul(coordinate.index, integer(LANES)))
                    other = builder.load(builder.bitcast(builder.gep(stored, [at]), vector.as_pointer()))
                    other.align = align
                    length = builder.call(fabs, [builder.fsub(value, other)])
                    builder.store(builder.fadd(builder.load(total), length), total)
            for total in sums:
                inside = builder.bitcast(builder.fcmp_ordered("<=", builder.load(total), limit), ir.IntType(LANES))
                number = builder.zext(builder.ctpop(inside), integer)
                builder.store(builder.add(builder.load(found), number), found)
        return builder.load(found)

    return types.intp(tiles, types.intp, z, types.intp, scalar), generate


@numba.njit(nogil=True, cache=True, error_model="numpy")
def count_l1(z: Any, stored: Any, radius: Any, out: Any) -> None:
    """Count, for each row of z, the stored points within L1 distance ≤ radius, summed over branches.

    z (n, branches·dim), stored as :func:`tiled` has them, radius of their dtype, out (n,) int64.
    """
    out[:] = 0
    for branch in range(stored.shape[0]):  # its stored points stay in the cache for all rows
        for row in range(z.shape[0]):
            out[row] += _within_l1(stored, branch, z, row, radius)  # type: ignore[call-arg]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def count_l2(z: Any, stored: Any, radius: Any, out: Any) -> None:
    """Count, for each row of z, the stored points within Euclidean distance ≤ radius, summed over branches.

    z (n, branches·dim), stored (branches, dim, m), radius > 0 of their dtype, out (n,) int64. Counting over stored
    points is the inner loop, over contiguous memory: LLVM makes vector instructions of it without reordering a sum.
    """
    n = z.shape[0]
    branches, dim, m = stored.shape
    total = np.empty(m, z.dtype)
    # lengths are measured in a power of two near the radius: it rounds nothing, and squares neither vanish nor overflow
    largest = 100 if z.itemsize == 4 else 900  # so that the dtype holds the scale
    exponent = min(max(math.frexp(radius)[1], -largest), largest)
    scale = z.dtype.type(math.ldexp(1.0, -exponent))
    scaled_radius = radius * scale
    for i in range(n):
        count = 0
        for b in range(branches):
            total[:] = 0
            for k in range(dim):
                zk = z[i, b * dim + k]
                sk = stored[b, k]
                for j in range(m):
                    u = (zk - sk[j]) * scale
                    total[j] += u * u
            within = 0
            for j in range(m):
                within += math.sqrt(total[j]) <= scaled_radius
            count += within
        out[i] = count


@numba.njit(nogil=True, cache=True, error_model="numpy")
def count_max(z: Any, stored: Any, radius: Any, out: Any) -> None:
    """As :func:`count_l2`, under the maximum distance; radius ≥ 0."""
    n = z.shape[0]
    branches, dim, m = stored.shape
    total = np.empty(m, z.dtype)
    for i in range(n):
        count = 0
        for b in range(branches):
            total[:] = 0
            for k in range(dim):
                zk = z[i, b * dim + k]
                sk = stored[b, k]
                for j in range(m):
                    u = abs(zk - sk[j])
                    total[j] = u if u > total[j] else total[j]
            within = 0
            for j in range(m):
                within += total[j] <= radius
            count += within
        out[i] = count
