"""Numba kernels that count stored points in balls, for :class:`corel.BallCount` on the CPU."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from corel.persistence.kernels.compiled import compiled
from corel.persistence.kernels.vectors import LANES, constant, splat, unary, vector_pointer

#: Tiles of stored points whose sums are kept in registers at a time.
GROUP = 2


def tiled(columns: np.ndarray) -> np.ndarray:
    """Stored points in tiles: (branches, dim, m) → (branches, tiles, dim, LANES), filled up with NaN, in no ball."""
    branches, dim, m = columns.shape
    count = -(-m // (GROUP * LANES)) * GROUP
    padded = np.full((branches, dim, count * LANES), np.nan, columns.dtype)
    padded[:, :, :m] = columns
    return np.ascontiguousarray(padded.reshape(branches, dim, count, LANES).transpose(0, 2, 1, 3))


@intrinsic
def _within_l1(typingctx, tiles, branch, z, row, radius):
    """Count the points of one branch of ``tiles`` within L1 distance ≤ radius of the same branch of a row of z.

    Each distance is summed in the order of the coordinates, with nothing fused.
    """
    scalar = z.dtype

    def codegen(context, builder, signature, args):
        real, integer = context.get_value_type(scalar), args[1].type
        arrays = [context.make_array(signature.args[index])(context, builder, args[index]) for index in (0, 2)]
        _, count, dim, _ = cgutils.unpack_tuple(builder, arrays[0].shape)
        columns = cgutils.unpack_tuple(builder, arrays[1].shape)[1]
        branch, row, size = args[1], args[3], builder.mul(dim, integer(LANES))
        stored = builder.gep(arrays[0].data, [builder.mul(builder.mul(branch, count), size)])
        point = builder.gep(arrays[1].data, [builder.add(builder.mul(row, columns), builder.mul(branch, dim))])
        limit, found = splat(builder, args[4]), cgutils.alloca_once(builder, integer)
        builder.store(integer(0), found)
        sums = [cgutils.alloca_once(builder, ir.VectorType(real, LANES)) for _ in range(GROUP)]
        with cgutils.for_range(builder, builder.udiv(count, integer(GROUP))) as group:
            first = builder.mul(group.index, integer(GROUP))
            for total in sums:
                builder.store(constant(real, 0.0), total)
            with cgutils.for_range(builder, dim) as coordinate:
                value = splat(builder, builder.load(builder.gep(point, [coordinate.index])))
                for tile, total in enumerate(sums):
                    start = builder.mul(builder.add(first, integer(tile)), size)
                    start = builder.add(start, builder.mul(coordinate.index, integer(LANES)))
                    other = builder.load(vector_pointer(builder, stored, start, real), align=scalar.bitwidth // 8)
                    distance = unary(builder, "fabs", builder.fsub(value, other))
                    builder.store(builder.fadd(builder.load(total), distance), total)
            for total in sums:
                inside = builder.bitcast(builder.fcmp_ordered("<=", builder.load(total), limit), ir.IntType(LANES))
                number = builder.zext(builder.ctpop(inside), integer)
                builder.store(builder.add(builder.load(found), number), found)
        return builder.load(found)

    return types.intp(tiles, types.intp, z, types.intp, scalar), codegen


@compiled(error_model="numpy")
def count_l1(z, stored, radius, out):
    """Count, for each row of z, the stored points within L1 distance ≤ radius, summed over branches.

    z (n, branches·dim), stored as :func:`tiled` has them, radius of their dtype, out (n,) int64.
    """
    out[:] = 0
    for branch in range(stored.shape[0]):  # its stored points stay in the cache for all rows
        for row in range(z.shape[0]):
            out[row] += _within_l1(stored, branch, z, row, radius)


@compiled(error_model="numpy")
def count_l2(z, stored, radius, out):
    """Count, for each row of z, the stored points within Euclidean distance ≤ radius, summed over branches.

    z (n, branches·dim), stored (branches, dim, m), radius > 0 of their dtype, out (n,) int64. The inner loop is over
    stored points, which are contiguous in memory: LLVM vectorises it without reordering a sum.
    """
    n = z.shape[0]
    branches, dim, m = stored.shape
    total = np.empty(m, z.dtype)
    # Lengths are scaled by a power of two near 1 / radius: that rounds nothing, and squares of lengths near the radius
    # neither vanish nor overflow.
    largest = 100 if z.itemsize == 4 else 900  # the scale itself must not overflow
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


@compiled(error_model="numpy")
def count_max(z, stored, radius, out):
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
