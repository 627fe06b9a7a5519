"""Triton kernels for clouds on a GPU: Prim for batches of small clouds, Borůvka for single large ones.

Both compare edges by (length, i, j) and round lengths as :mod:`corel.persistence.metric` defines, so that they give the
same edges as the CPU; gradients are summed in the CPU's order. Nothing here waits for the device, and all sizes are
known in advance: a call can be captured in a CUDA graph.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.rounding import EUCLIDEAN_RANGE
from corel.persistence.reference import reference_merge_edges

#: Trees of up to ``PRIM_LIMIT`` points are grown by Prim's algorithm, one program each; but fewer than ``FEW_CLOUDS``
#: of more than ``PRIM_ALWAYS`` points, which would leave most of the GPU idle, by Borůvka's, as are all larger ones.
PRIM_ALWAYS, PRIM_LIMIT, FEW_CLOUDS = 1024, 4096, 4
#: Clouds of up to so many coordinates are kept in registers while their trees grow, and code is compiled for each
#: number of them; of more coordinates, all lengths are computed before, in up to so many bytes at a time.
FEW_COORDINATES, MATRIX_BYTES = 16, 2**28
#: Clouds of fewer numbers than this are taken: places in a cloud are counted in 32 bits.
_TOO_MANY_NUMBERS = 2**31
#: Gradients are computed here for clouds of up to so many coordinates.
GRADIENT_COORDINATES = 1024

Result = TypeVar("Result")

# The norms of the kernels, and the value of KIND for each.
_KINDS = {1.0: 1, 2.0: 2, math.inf: 0}
# KIND where lengths are given in place of points.
_GIVEN = tl.constexpr(3)


# Code for all rounds: without this, it would be compiled again for a number that is 1 or a multiple of 16.
_jit_of_rounds = triton.jit(do_not_specialize=["turn"])


@triton.jit
def _add(total, largest, a, b, KIND: tl.constexpr, scale):  # type: ignore[no-untyped-def]
    """Take one more coordinate of two points into the sum and into the largest difference."""
    u = tl.abs(a - b)
    if KIND == 1:
        total = total + u
    if KIND == 2:
        total = total + (u * scale) * (u * scale)
    if KIND == 0:
        return total, tl.where((u <= largest) | (largest != largest), largest, u)  # NaN stays
    return total, tl.maximum(largest, u)


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    a, b, step_a, step_b, d, a_mask, b_mask, total, scale, KIND: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Sum over the coordinates, and largest difference, of the points that begin at ``a`` and at ``b``."""
    largest = total
    if DIM > 0:
        for k in tl.static_range(DIM):
            x, y = tl.load(a + k * step_a, mask=a_mask, other=0.0), tl.load(b + k * step_b, mask=b_mask, other=0.0)
            total, largest = _add(total, largest, x, y, KIND, scale)
    else:
        for start in range(0, d, 8):  # of points of a multiple of 8 coordinates, so that loads need not wait for sums
            for place in tl.static_range(8):
                k = start + place
                x, y = tl.load(a + k * step_a, mask=a_mask, other=0.0), tl.load(b + k * step_b, mask=b_mask, other=0.0)
                total, largest = _add(total, largest, x, y, KIND, scale)
    return total, largest


@triton.jit
def _lengths(  # type: ignore[no-untyped-def]
    a, b, step_a, step_b, d, a_mask, b_mask, zero,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, DIM: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """Lengths between the points that begin at ``a`` and at ``b``, pointers whose shapes broadcast to that of ``zero``.

    ``DIM`` is the number of coordinates where it is known at compile time, else 0.
    """
    total, largest = _sums(a, b, step_a, step_b, d, a_mask, b_mask, zero, 1.0, KIND, DIM)
    if KIND == 0:
        total = largest
    if KIND == 2:
        # as in metric.py: sums of squares that overflow or vanish are computed again from scaled coordinates
        scale = tl.where(total < smallest, up, tl.where(total == float("inf"), down, 1.0)).to(total.dtype)
        again = (scale != 1.0) & (largest > 0)
        if BRANCH:
            if tl.max(tl.ravel(again).to(tl.int32), 0) > 0:
                scaled, _ = _sums(a, b, step_a, step_b, d, a_mask, b_mask, zero, scale, KIND, DIM)
                total = tl.where(again, scaled, total)
        else:  # to ask all threads would take longer than to compute it for all
            scaled, _ = _sums(a, b, step_a, step_b, d, a_mask, b_mask, zero, scale, KIND, DIM)
            total = tl.where(again, scaled, total)
        if DOUBLE:
            total = tl.sqrt(total) / tl.where(again, scale, 1.0)
        else:
            total = tl.div_rn(tl.sqrt_rn(total), tl.where(again, scale, 1.0).to(tl.float32))
    return total


@triton.jit
def _matrix_kernel(  # type: ignore[no-untyped-def]
    columns, matrix, n, d,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All lengths in each cloud."""
    cloud = tl.program_id(0).to(tl.int64)
    columns += cloud * d * n
    i, j = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    zero = tl.zeros([ROWS, COLUMNS], columns.dtype.element_ty)
    lengths = _lengths(
        columns + i[:, None], columns + j[None, :], n, n, d, (i < n)[:, None], (j < n)[None, :], zero,
        smallest, down, up, KIND, DOUBLE, 0, True,
    )  # fmt: skip
    place = cloud * n * n + i.to(tl.int64)[:, None] * n + j[None, :]
    tl.store(matrix + place, lengths, mask=(i < n)[:, None] & (j < n)[None, :])


@triton.jit
def _prim_kernel(  # type: ignore[no-untyped-def]
    source, edges, lengths, unsorted, ranks, n, d,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grow the spanning tree of one cloud per program, then put its edges in order.

    ``source`` holds the coordinates of each cloud, (d, n), or all its lengths, (n, n), where ``KIND`` is ``_GIVEN``.
    """
    cloud = tl.program_id(0).to(tl.int64)
    source += cloud * n * d
    edges += cloud * (n - 1) * 2
    lengths += cloud * (n - 1)
    unsorted += cloud * (n - 1)
    ranks += cloud * (n - 1)
    v = tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], source.dtype.element_ty)
    inside = v >= n
    length = zero + float("inf")
    nearest = tl.full([BLOCK], BLOCK, tl.int32)
    newest = tl.full([], 0, tl.int32)
    own_length, own_rank = length, nearest
    for step in range(n - 1):
        inside = inside | (v == newest)
        if KIND == _GIVEN:
            to_newest = tl.load(source + newest.to(tl.int64) * n + v, mask=v < n, other=0.0)
        else:
            to_newest = _lengths(
                source + newest, source + v, n, n, d, newest < n, v < n, zero,
                smallest, down, up, KIND, DOUBLE, DIM, False,
            )  # fmt: skip
        # as infinity, a length that is NaN leaves every point in the tree and every index in range
        to_newest = tl.where(to_newest == to_newest, to_newest, float("inf"))
        closer = (to_newest < length) | ((to_newest == length) & (newest < nearest))
        length = tl.where(closer, to_newest, length)
        nearest = tl.where(closer, newest, nearest)
        # the pair (i, j), and which of them is the point outside
        rank = (tl.minimum(v, nearest) * BLOCK + tl.maximum(v, nearest)) * 2 + (v > nearest).to(tl.int32)
        if DOUBLE:
            shortest = tl.min(tl.where(inside, float("inf"), length), 0)
            least = tl.min(tl.where(inside | (length > shortest), 2147483647, rank), 0)
        else:  # the bits of lengths, which are not negative, have their order
            key = (length.to(tl.int32, bitcast=True).to(tl.int64) << 32) | rank.to(tl.int64)
            first = tl.min(tl.where(inside, 9223372036854775807, key), 0)
            shortest = (first >> 32).to(tl.int32).to(tl.float32, bitcast=True)
            least = (first & 0xFFFFFFFF).to(tl.int32)
        own_length = tl.where(v == step, shortest, own_length)
        own_rank = tl.where(v == step, least >> 1, own_rank)
        newest = tl.where((least & 1) == 1, (least >> 1) % BLOCK, (least >> 1) // BLOCK)
    there = v < n - 1
    tl.store(unsorted + v, own_length, mask=there)
    tl.store(ranks + v, own_rank, mask=there)
    tl.debug_barrier()  # each thread reads what the others have written
    place = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n - 1, 8):
        for more in tl.static_range(8):
            other = start + more
            other_length = tl.load(unsorted + other, mask=other < n - 1, other=float("inf"))
            other_rank = tl.load(ranks + other, mask=other < n - 1, other=2147483647)
            before = (other_length < own_length) | ((other_length == own_length) & (other_rank < own_rank))
            place += before.to(tl.int32)
    i, j = own_rank // BLOCK, own_rank % BLOCK
    tl.store(edges + place * 2, i.to(tl.int64), mask=there)
    tl.store(edges + place * 2 + 1, j.to(tl.int64), mask=there)
    # computed again, a length that is NaN is NaN
    if KIND == _GIVEN:
        own_length = tl.load(source + i.to(tl.int64) * n + j, mask=there, other=0.0)
    else:
        own_length = _lengths(
            source + i, source + j, n, n, d, there, there, zero, smallest, down, up, KIND, DOUBLE, DIM, False
        )
    tl.store(lengths + place, own_length, mask=there)


@triton.jit
def _real(bits, DOUBLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A number given by the bits of its float64: numbers as arguments of a kernel are float32."""
    number = bits.to(tl.int64).to(tl.float64, bitcast=True)
    return number if DOUBLE else number.to(tl.float32)


@triton.jit
def _quotient(a, b, DOUBLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """a / b, rounded to nearest as on the CPU: Triton's own division of float32 is not."""
    return a / b if DOUBLE else tl.div_rn(a, b)


@triton.jit(do_not_specialize=["eta", "factor"])
def _gradient_kernel(  # type: ignore[no-untyped-def]
    columns, edges, lengths, weights, gradient, n, d, padded, of_cloud, of_point, eta, factor,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, LOSS: tl.constexpr, EDGES: tl.constexpr, COORDINATES: tl.constexpr,
):  # fmt: skip
    """Gradient of Σ weights · lengths, or of factor · Σ |η − lengths| where ``LOSS``, for one point of a cloud.

    ``of_cloud`` and ``of_point`` are strides of the gradient. Subgradients, and the order of sums, are those of
    :mod:`.gradients`. The ``columns`` hold ``padded`` coordinates, of which the first d are wanted.
    """
    cloud, v = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns += cloud * padded * n
    edges += cloud * (n - 1) * 2
    lengths += cloud * (n - 1)
    weights += cloud * (n - 1)
    e, k = tl.arange(0, EDGES), tl.arange(0, COORDINATES)
    i = tl.load(edges + 2 * e, mask=e < n - 1, other=-1)
    j = tl.load(edges + 2 * e + 1, mask=e < n - 1, other=-1)
    own = tl.where((i == v) | (j == v), e, EDGES)  # the edges at the point
    total = tl.zeros([COORDINATES], columns.dtype.element_ty)
    here = tl.min(own, 0)
    while here < EDGES:
        length = tl.load(lengths + here)
        if LOSS:
            over = length - _real(eta, DOUBLE)
            weight = tl.where(over > 0, 1.0, tl.where(over < 0, -1.0, over)).to(length.dtype) * _real(factor, DOUBLE)
        else:
            weight = tl.load(weights + here)
        if (weight != 0) & (length != 0):
            first, second = tl.load(edges + 2 * here), tl.load(edges + 2 * here + 1)
            u = tl.load(columns + k * n + first, mask=k < d, other=0.0)
            u = u - tl.load(columns + k * n + second, mask=k < d, other=0.0)
            one = tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, u)).to(u.dtype)
            if KIND == 0:
                longest = (tl.abs(u) == length) & (k < d)
                ties = tl.sum(longest.to(tl.int32), 0).to(u.dtype)
                g = tl.where(longest, one * _quotient(weight, ties, DOUBLE), 0.0)
                g = tl.where(length == length, g, length)
            elif KIND == 1:
                g = one * weight
            else:
                g = weight * _quotient(u, length, DOUBLE)
            g = tl.where(u == 0, 0.0, g)  # also where the weight is infinite
            total = total + tl.where(first == v, g, -g)
        here = tl.min(tl.where(own > here, own, EDGES), 0)
    place = cloud * of_cloud + v.to(tl.int64) * of_point + k
    tl.store(gradient + place, total, mask=k < d)


@triton.jit(do_not_specialize=["eta", "factor"])
def _loss_kernel(lengths, loss, number, eta, factor, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """factor · Σ |η − lengths|, summed in float64."""
    e = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, number, BLOCK):
        here = start + e < number
        over = tl.abs(tl.load(lengths + start + e, mask=here, other=0.0) - _real(eta, DOUBLE)).to(tl.float64)
        total += tl.where(here, over, 0.0)
    tl.store(loss, (_real(factor, True) * tl.sum(total, 0)).to(loss.dtype.element_ty))


@_jit_of_rounds
def _begin_round_kernel(  # type: ignore[no-untyped-def]
    component, best_vertex, rows, shortest, least, total, count, turn, n, BLOCK: tl.constexpr
):  # fmt: skip
    """List the points to search for: those whose nearest point outside of their component has joined it."""
    if tl.load(total + turn) < n - 1:
        v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        here = v < n
        nearest = tl.load(best_vertex + v, mask=here, other=0)
        joined = tl.load(component + nearest, mask=here, other=0) == tl.load(component + v, mask=here, other=-1)
        place = tl.atomic_add(count + turn, tl.sum(joined.to(tl.int32), 0)) + tl.cumsum(joined.to(tl.int32), 0) - 1
        tl.store(rows + place, v, mask=joined)
        tl.store(shortest + v, tl.full([BLOCK], float("inf"), shortest.dtype.element_ty), mask=here)
        tl.store(least + v, tl.full([BLOCK], 9223372036854775807, tl.int64), mask=here)


@_jit_of_rounds
def _search_kernel(  # type: ignore[no-untyped-def]
    columns, component, rows, best_length, best_vertex, total, count, turn, n, d,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """For each of the points that are listed: its nearest point of another component, of these the first."""
    first = tl.program_id(0) * ROWS
    wanted = tl.load(count + turn)
    if (first < wanted) & (tl.load(total + turn) < n - 1):
        place = first + tl.arange(0, ROWS)
        here = place < wanted
        i = tl.load(rows + place, mask=here, other=0)
        own = tl.load(component + i, mask=here, other=-1)
        zero = tl.zeros([ROWS, COLUMNS], columns.dtype.element_ty)
        length, vertex = zero + float("inf"), tl.zeros([ROWS, COLUMNS], tl.int32) + n
        for start in range(0, n, COLUMNS):
            j = start + tl.arange(0, COLUMNS)
            there = j < n
            to_j = _lengths(
                columns + i[:, None], columns + j[None, :], n, n, d, here[:, None], there[None, :], zero,
                smallest, down, up, KIND, DOUBLE, DIM, True,
            )  # fmt: skip
            other = tl.load(component + j, mask=there, other=-1)
            # NaN is taken as infinity, which counts where nothing else is outside
            closer = (to_j < length) | (vertex == n)
            closer = closer & (other[None, :] != own[:, None]) & there[None, :]
            length = tl.where(closer, tl.where(to_j == to_j, to_j, float("inf")), length)
            vertex = tl.where(closer, j[None, :], vertex)
        least = tl.min(length, 1)
        nearest = tl.min(tl.where(length == least[:, None], vertex, n), 1)
        tl.store(best_length + i, least, mask=here)
        tl.store(best_vertex + i, nearest, mask=here)


@_jit_of_rounds
def _shortest_kernel(  # type: ignore[no-untyped-def]
    component, best_length, shortest, total, turn, n, BLOCK: tl.constexpr
):  # fmt: skip
    """The least length of an edge that leaves each component. Lengths are given as the integers of their bits."""
    if tl.load(total + turn) < n - 1:
        v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        here = v < n
        own = tl.load(component + v, mask=here, other=0)
        tl.atomic_min(shortest + own, tl.load(best_length + v, mask=here, other=0), mask=here)


@_jit_of_rounds
def _least_kernel(  # type: ignore[no-untyped-def]
    component, best_length, best_vertex, shortest, least, total, turn, n, BLOCK: tl.constexpr
):  # fmt: skip
    """Of each component's edges of that length the first, as i · n + j."""
    if tl.load(total + turn) < n - 1:
        v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        here = v < n
        own = tl.load(component + v, mask=here, other=0)
        other = tl.load(best_vertex + v, mask=here, other=0)
        rank = tl.minimum(v, other).to(tl.int64) * n + tl.maximum(v, other)
        wanted = here & (tl.load(best_length + v, mask=here, other=0) == tl.load(shortest + own, mask=here, other=0))
        tl.atomic_min(least + own, rank, mask=wanted)


@_jit_of_rounds
def _hook_kernel(  # type: ignore[no-untyped-def]
    component, shortest, least, parent, found, found_length, total, new, turn, n, BLOCK: tl.constexpr
):  # fmt: skip
    """Hang each component below the one that its edge leads to, and add the edge to those found."""
    before = tl.load(total + turn)
    if before < n - 1:
        v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        here = (v < n) & (tl.load(component + v, mask=v < n, other=-1) == v)
        edge = tl.load(least + v, mask=here, other=0)
        a = tl.load(component + edge // n, mask=here, other=0)
        b = tl.load(component + edge % n, mask=here, other=0)
        other = tl.where(a == v, b, a)
        # of two components that take the same edge, the one with the higher number joins the other
        stays = here & (tl.load(least + other, mask=here, other=-1) == edge) & (v < other)
        tl.store(parent + v, tl.where(stays, v, other), mask=here)
        joins = here & ~stays
        place = tl.atomic_add(new + turn, tl.sum(joins.to(tl.int32), 0)) + tl.cumsum(joins.to(tl.int32), 0) - 1
        tl.store(found + before + place, edge, mask=joins)
        tl.store(found_length + before + place, tl.load(shortest + v, mask=joins, other=0), mask=joins)


@_jit_of_rounds
def _end_round_kernel(  # type: ignore[no-untyped-def]
    component, parent, total, new, turn, n, BLOCK: tl.constexpr
):  # fmt: skip
    """Give each point the number of the component at the top."""
    before = tl.load(total + turn)
    if before < n - 1:
        v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        top = tl.load(component + v, mask=v < n, other=0)
        above = tl.load(parent + top, mask=v < n, other=0)
        while tl.max((above != top).to(tl.int32), 0) > 0:
            top = above
            above = tl.load(parent + top, mask=v < n, other=0)
        tl.store(component + v, top, mask=v < n)
    if tl.program_id(0) == 0:
        tl.store(total + turn + 1, before + tl.load(new + turn))


def _on_its_device(function: Callable[..., Result]) -> Callable[..., Result]:
    """Make the device of a function's first argument the current one, on which Triton starts its kernels."""

    @functools.wraps(function)
    def run(tensor: Tensor, *others: Any) -> Result:
        with torch.cuda.device_of(tensor):
            return function(tensor, *others)

    return run


@_on_its_device
def merge_edges(points: Tensor, p: float) -> Tensor:
    """Edges of the spanning trees of a batch of clouds.

    Parameters
    ----------
    points
        (B, n, d) float32 or float64, on a GPU.
    p
        1 ≤ p ≤ ∞. There are kernels for 1, 2 and ∞; other norms, and clouds of 2³¹ or more numbers, are left to the
        reference algorithm.

    Returns
    -------
    Tensor
        (B, n − 1, 2) int64, sorted by (length, i, j), i < j.
    """
    *_, n, d = points.shape
    if p not in _KINDS or n * (d + 7) >= _TOO_MANY_NUMBERS:  # coordinates are filled up to a multiple of 8
        return reference_merge_edges(points, p)
    return _trees(_columns(points), p)[0]


def has_gradient(n: int, d: int, p: float) -> bool:
    """Whether the gradients here take clouds of n points of d coordinates."""
    return p in _KINDS and n <= PRIM_LIMIT and d <= GRADIENT_COORDINATES


def _constants(points: Tensor, p: float) -> dict[str, object]:
    smallest, down, up = EUCLIDEAN_RANGE[points.dtype]
    return {
        "smallest": smallest, "down": 2.0**down, "up": 2.0**up,
        "KIND": _KINDS[p], "DOUBLE": points.dtype == torch.float64,
        # a fused multiply-add would round once where the definition of lengths rounds twice
        "enable_fp_fusion": False,
    }  # fmt: skip


@_on_its_device
def spanning_trees(points: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Minimum spanning trees of a batch of clouds.

    Parameters
    ----------
    points
        (…, n, d) float32 or float64.
    p
        1, 2 or ∞.

    Returns
    -------
    tuple of Tensor
        Edges (…, n − 1, 2) int64 and their lengths (…, n − 1), sorted by (length, i, j), i < j. A length is NaN where a
        point is; it counts as infinite.
    """
    *lead, n, _ = points.shape
    edges, lengths = _trees(_columns(points), p)
    return edges.reshape(*lead, n - 1, 2), lengths.reshape(*lead, n - 1)


@_on_its_device
def trees_of_distances(matrices: Tensor) -> Tensor:
    """Edges of the spanning trees of symmetric matrices of lengths, (B, n, n) → (B, n − 1, 2), n ≤ ``PRIM_LIMIT``."""
    return _prim(matrices.contiguous(), 0, {**_constants(matrices, 1.0), "KIND": _GIVEN.value})[0]


def _columns(points: Tensor) -> Tensor:
    """The coordinates of each cloud, (…, n, d) → (B, d, n): threads read those of neighbouring points together.

    Many coordinates are filled up with zeros, which change no length, to a multiple of 8.
    """
    *lead, n, d = points.shape
    columns = points.mT.reshape(math.prod(lead), d, n).contiguous().resolve_neg()
    return columns if d <= FEW_COORDINATES else torch.nn.functional.pad(columns, (0, 0, 0, -d % 8))


def _trees(columns: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """:func:`spanning_trees` of clouds that :func:`_columns` gave."""
    constants = _constants(columns, p)
    batch, d, n = columns.shape
    if batch > 0 and (n > PRIM_LIMIT or (n > PRIM_ALWAYS and batch < FEW_CLOUDS)):
        single = [boruvka(cloud, constants) for cloud in columns]
        return torch.stack([edges for edges, _ in single]), torch.stack([lengths for _, lengths in single])
    if d <= FEW_COORDINATES:
        return _prim(columns, d, constants)
    edges, lengths = _empty_trees(columns)
    at_once = max(1, MATRIX_BYTES // (n * n * columns.element_size()))
    for first in range(0, batch, at_once):
        some = columns[first : first + at_once]
        matrices = columns.new_empty((len(some), n, n))
        grid = len(some), triton.cdiv(n, 32), triton.cdiv(n, 32)
        _matrix_kernel[grid](some, matrices, n, d, ROWS=32, COLUMNS=32, num_warps=4, **constants)
        trees = edges[first : first + at_once], lengths[first : first + at_once]
        _prim(matrices, 0, {**constants, "KIND": _GIVEN.value}, trees)
    return edges, lengths


def _empty_trees(source: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, n = source.shape
    return source.new_empty((batch, n - 1, 2), dtype=torch.int64), source.new_empty((batch, n - 1))


def _prim(
    source: Tensor, dim: int, constants: dict[str, object], trees: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Spanning trees of clouds (B, d, n), or of their lengths (B, n, n), in one launch, written to ``trees``."""
    batch, d, n = source.shape
    edges, lengths = trees or _empty_trees(source)
    if n > 1 and batch > 0:
        unsorted, ranks = torch.empty_like(lengths), torch.empty_like(lengths, dtype=torch.int32)
        block = max(16, triton.next_power_of_2(n))
        warps = max(1, min(8, block // 64), block // 256)
        _prim_kernel[(batch,)](
            source, edges, lengths, unsorted, ranks, n, d, DIM=dim, BLOCK=block, num_warps=warps, **constants
        )
    return edges, lengths


@_on_its_device
def lengths_backward(points: Tensor, edges: Tensor, lengths: Tensor, weights: Tensor, p: float) -> Tensor:
    """Gradient of Σ weights · lengths with respect to the points.

    Parameters
    ----------
    points, p
        As for :func:`spanning_trees`; see :func:`has_gradient`.
    edges, lengths
        (…, n − 1, 2) and (…, n − 1): what :func:`spanning_trees` gave.
    weights
        (…, n − 1), of the dtype of ``points``.

    Returns
    -------
    Tensor
        (…, n, d), of the dtype of ``points``.
    """
    gradient = torch.empty(points.shape, dtype=points.dtype, device=points.device)
    *_, n, d = points.shape
    _gradient(_columns(points), d, edges, lengths, weights.contiguous().resolve_neg(), gradient, (n * d, d), p)
    return gradient


@_on_its_device
def connectivity(
    z: Tensor, branches: int, eta: float, factor: float, p: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The connectivity loss ``factor`` · Σ |η − ε| over the deaths ε of all branches of a batch of codes (Eq. 4).

    Parameters
    ----------
    z
        (b, n) float32 or float64; see :func:`has_gradient`.
    branches
        Divides n.
    eta, factor, p
        Numbers; p as for :func:`spanning_trees`.
    with_gradient
        Whether the gradient is wanted.

    Returns
    -------
    tuple of Tensor
        The loss, (); its gradient with respect to ``z``, (b, n), or (0, n) if it is not wanted; the merge edges,
        (branches, b − 1, 2) int64.
    """
    b, n = z.shape
    d = n // branches
    columns = _columns(z.unflatten(1, (branches, d)).transpose(0, 1))
    edges, lengths = _trees(columns, p)
    loss, gradient = z.new_empty(()), z.new_empty((b if with_gradient else 0, n))
    settings = _bits(eta), _bits(factor)
    _loss_kernel[(1,)](lengths, loss, lengths.numel(), *settings, DOUBLE=z.dtype == torch.float64, BLOCK=1024)
    if with_gradient:
        _gradient(columns, d, edges, lengths, lengths, gradient, (d, n), p, settings)
    return loss, gradient, edges


def _bits(number: float) -> int:
    """The bits of a float64 as an integer, which a kernel gets unchanged."""
    return int(struct.unpack("q", struct.pack("d", number))[0])


def _gradient(
    columns: Tensor, d: int, edges: Tensor, lengths: Tensor, weights: Tensor, gradient: Tensor,
    strides: tuple[int, int], p: float, loss: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Write a gradient whose strides by cloud and point are given; of the ``loss`` of an η and a factor."""
    batch, padded, n = columns.shape
    if batch == 0:
        return
    size = triton.next_power_of_2(n)
    _gradient_kernel[(batch, n)](
        columns, edges, lengths, weights, gradient, n, d, padded, *strides, *(loss or (0, 0)),
        KIND=_KINDS[p], DOUBLE=columns.dtype == torch.float64, LOSS=loss is not None, EDGES=size,
        COORDINATES=triton.next_power_of_2(d), num_warps=max(1, min(8, size // 256)), enable_fp_fusion=False,
    )  # fmt: skip


def boruvka(
    columns: Tensor, constants: dict[str, object], rows_per_program: int = 4, columns_per_step: int = 256
) -> tuple[Tensor, Tensor]:
    """Spanning tree of one cloud by Borůvka's algorithm, in O(n) memory: (d, n) → (n − 1, 2) int64, lengths (n − 1).

    In each round, every component takes its shortest edge to another component. For each point, the nearest point
    outside of its component is remembered, and searched again only once that point has joined the component.
    """
    d, n = columns.shape
    device = columns.device
    rounds = (n - 1).bit_length()
    component = torch.arange(n, dtype=torch.int32, device=device)
    best_vertex = component.clone()  # a point is inside its own component: the first round searches for all points
    rows, parent = torch.empty_like(component), torch.empty_like(component)
    best_length, shortest, found_length = (columns.new_empty(n) for _ in range(3))
    least, found = (torch.empty(n, dtype=torch.int64, device=device) for _ in range(2))
    # edges found before each round, and in it, and points listed in it
    total, new, count = torch.zeros((3, rounds + 1), dtype=torch.int32, device=device)
    # atomic minima are of integers
    integer = torch.int64 if columns.dtype == torch.float64 else torch.int32
    as_integers = best_length.view(integer), shortest.view(integer)
    block = 256
    grid = (triton.cdiv(n, block),)
    for turn in range(rounds):
        _begin_round_kernel[grid](component, best_vertex, rows, shortest, least, total, count, turn, n, BLOCK=block)
        _search_kernel[(triton.cdiv(n, rows_per_program),)](
            columns, component, rows, best_length, best_vertex, total, count, turn, n, d,
            DIM=d if d <= FEW_COORDINATES else 0, ROWS=rows_per_program, COLUMNS=columns_per_step, num_warps=4,
            **constants,
        )  # fmt: skip
        _shortest_kernel[grid](component, as_integers[0], as_integers[1], total, turn, n, BLOCK=block)
        _least_kernel[grid](component, best_length, best_vertex, shortest, least, total, turn, n, BLOCK=block)
        _hook_kernel[grid](component, shortest, least, parent, found, found_length, total, new, turn, n, BLOCK=block)
        _end_round_kernel[grid](component, parent, total, new, turn, n, BLOCK=block)
    by_rank = found[: n - 1].argsort()
    order = by_rank[found_length[by_rank].argsort(stable=True)]
    edges = torch.stack((found[order] // n, found[order] % n), 1)
    i, j = edges.unbind(1)
    without = (columns[:, i] - columns[:, j]).isnan().any(0)  # such a length was taken as infinite
    return edges, found_length[order].masked_fill(without, math.nan)
