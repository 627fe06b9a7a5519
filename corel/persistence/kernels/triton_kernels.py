"""Triton kernels for clouds on a GPU: Prim for batches of small clouds, Borůvka for single large ones.

Both compare edges by (length, i, j) and round lengths as :mod:`corel.persistence.metric` defines, so that they give the
same edges as the CPU; gradients are summed in the CPU's order. Nothing here waits for the device, and all sizes are
known in advance: a call can be captured in a CUDA graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.triton_boruvka import boruvka
from corel.persistence.kernels.triton_gradients import write_gradient, write_loss
from corel.persistence.kernels.triton_lengths import FEW_COORDINATES, KINDS, columns_of, constants_of, lengths_between
from corel.persistence.reference import reference_merge_edges

#: Trees of up to ``PRIM_LIMIT`` points are grown by Prim's algorithm, one program each; but fewer than ``FEW_CLOUDS``
#: of more than ``PRIM_ALWAYS`` points, which would leave most of the GPU idle, by Borůvka's, as are all larger ones.
PRIM_ALWAYS, PRIM_LIMIT, FEW_CLOUDS = 1024, 4096, 4
#: Of more than ``FEW_COORDINATES`` coordinates, all lengths are computed before the tree, in so many bytes at a time.
MATRIX_BYTES = 2**28
#: Clouds of fewer numbers than this are taken: places in a cloud are counted in 32 bits.
_TOO_MANY_NUMBERS = 2**31
#: Gradients are computed here for clouds of up to so many coordinates.
GRADIENT_COORDINATES = 1024

Result = TypeVar("Result")

# KIND where lengths are given in place of points.
_GIVEN = tl.constexpr(3)


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
    lengths = lengths_between(
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
            to_newest = lengths_between(
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
        own_length = lengths_between(
            source + i, source + j, n, n, d, there, there, zero, smallest, down, up, KIND, DOUBLE, DIM, False
        )
    tl.store(lengths + place, own_length, mask=there)


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
    if p not in KINDS or n * (d + 7) >= _TOO_MANY_NUMBERS:  # coordinates are filled up to a multiple of 8
        return reference_merge_edges(points, p)
    return _trees(columns_of(points), p)[0]


def has_gradient(n: int, d: int, p: float) -> bool:
    """Whether the gradients here take clouds of n points of d coordinates."""
    return p in KINDS and n <= PRIM_LIMIT and d <= GRADIENT_COORDINATES


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
    edges, lengths = _trees(columns_of(points), p)
    return edges.reshape(*lead, n - 1, 2), lengths.reshape(*lead, n - 1)


@_on_its_device
def trees_of_distances(matrices: Tensor) -> Tensor:
    """Edges of the spanning trees of symmetric matrices of lengths, (B, n, n) → (B, n − 1, 2), n ≤ ``PRIM_LIMIT``."""
    return _prim(matrices.contiguous(), 0, {**constants_of(matrices, 1.0), "KIND": _GIVEN.value})[0]


def _trees(columns: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """:func:`spanning_trees` of clouds that :func:`columns_of` gave."""
    constants = constants_of(columns, p)
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
    """The gradient of Σ weights · lengths that :func:`corel.persistence.kernels.cpu.lengths_backward` gives, on a GPU.

    For clouds that :func:`has_gradient` accepts.
    """
    gradient = torch.empty(points.shape, dtype=points.dtype, device=points.device)
    *_, n, d = points.shape
    write_gradient(columns_of(points), d, edges, lengths, weights.contiguous().resolve_neg(), gradient, (n * d, d), p)
    return gradient


@_on_its_device
def connectivity(
    z: Tensor, branches: int, eta: float, factor: float, p: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`corel.persistence.kernels.cpu.connectivity` gives, on a GPU.

    For branches that :func:`has_gradient` accepts.
    """
    b, n = z.shape
    d = n // branches
    columns = columns_of(z.unflatten(1, (branches, d)).transpose(0, 1))
    edges, lengths = _trees(columns, p)
    loss, gradient = z.new_empty(()), z.new_empty((b if with_gradient else 0, n))
    write_loss(lengths, loss, eta, factor)
    if with_gradient:
        write_gradient(columns, d, edges, lengths, lengths, gradient, (d, n), p, (eta, factor))
    return loss, gradient, edges
