"""Triton kernels for clouds on a GPU: Prim for batches of small clouds, Borůvka for single large ones.

Both compare edges by (length, i, j) and round lengths as :mod:`corel.persistence.metric` defines, so that they give the
same edges as the CPU. Nothing here waits for the device, and all sizes are known in advance: a call can be captured in
a CUDA graph.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.rounding import EUCLIDEAN_RANGE
from corel.persistence.reference import reference_merge_edges

#: The trees of clouds of up to this many points are grown by one program each.
SMALL = 1024

# The norms of the kernels, and the value of KIND for each.
_KINDS = {1.0: 1, 2.0: 2, math.inf: 0}


@triton.jit
def _lengths(  # type: ignore[no-untyped-def]
    a, b, step_a, step_b, d, a_mask, b_mask,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr, KIND: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """Lengths between the points that begin at ``a`` and at ``b``, pointers whose shapes broadcast."""
    total = tl.abs(tl.load(a, mask=a_mask, other=0.0) - tl.load(b, mask=b_mask, other=0.0))
    largest = total
    if KIND == 2:
        total = total * total
    for k in range(1, d):
        u = tl.abs(tl.load(a + k * step_a, mask=a_mask, other=0.0) - tl.load(b + k * step_b, mask=b_mask, other=0.0))
        largest = tl.maximum(largest, u)
        if KIND == 1:
            total = total + u
        if KIND == 2:
            total = total + u * u
    if KIND == 0:
        total = largest
    if KIND == 2:
        # as in metric.py: sums of squares that overflow or vanish are computed again from scaled coordinates
        scale = tl.where(total < smallest, up, tl.where(total == float("inf"), down, 1.0)).to(total.dtype)
        again = (scale != 1.0) & (largest > 0)
        if tl.max(tl.ravel(again).to(tl.int32), 0) > 0:
            u = tl.load(a, mask=a_mask, other=0.0) - tl.load(b, mask=b_mask, other=0.0)
            scaled = (u * scale) * (u * scale)
            for k in range(1, d):
                u = tl.load(a + k * step_a, mask=a_mask, other=0.0) - tl.load(b + k * step_b, mask=b_mask, other=0.0)
                scaled = scaled + (u * scale) * (u * scale)
            total = tl.where(again, scaled, total)
        if DOUBLE:
            total = tl.sqrt(total) / tl.where(again, scale, 1.0)
        else:
            total = tl.div_rn(tl.sqrt_rn(total), tl.where(again, scale, 1.0).to(tl.float32))
    return total


@triton.jit
def _prim_kernel(  # type: ignore[no-untyped-def]
    points, edges, lengths, ranks, n, d,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grow the spanning tree of one cloud per program, then put its edges in order."""
    cloud = tl.program_id(0).to(tl.int64)
    points += cloud * n * d
    edges += cloud * (n - 1) * 2
    lengths += cloud * (n - 1)
    ranks += cloud * (n - 1)
    v = tl.arange(0, BLOCK)
    inside = v >= n
    length = tl.full([BLOCK], float("inf"), points.dtype.element_ty)
    nearest = tl.full([BLOCK], BLOCK, tl.int32)
    newest = tl.full([], 0, tl.int32)
    own_length = tl.full([BLOCK], float("inf"), points.dtype.element_ty)
    own_rank = tl.full([BLOCK], BLOCK * BLOCK, tl.int32)
    for step in range(n - 1):
        inside = inside | (v == newest)
        to_newest = _lengths(
            points + newest * d, points + v * d, 1, 1, d, newest < n, v < n, smallest, down, up, KIND, DOUBLE
        )
        # as infinity, a length that is NaN leaves every point in the tree and every index in range
        to_newest = tl.where(to_newest == to_newest, to_newest, float("inf"))
        closer = (to_newest < length) | ((to_newest == length) & (newest < nearest))
        length = tl.where(closer, to_newest, length)
        nearest = tl.where(closer, newest, nearest)
        shortest = tl.min(tl.where(inside, float("inf"), length), 0)
        rank = tl.minimum(v, nearest) * BLOCK + tl.maximum(v, nearest)
        rank = tl.where(inside | (length > shortest), BLOCK * BLOCK, rank)
        least = tl.min(rank, 0)
        newest = tl.min(tl.where(rank == least, v, BLOCK), 0)
        own_length = tl.where(v == step, shortest, own_length)
        own_rank = tl.where(v == step, least, own_rank)
    tl.store(lengths + v, own_length, mask=v < n - 1)
    tl.store(ranks + v, own_rank, mask=v < n - 1)
    tl.debug_barrier()  # each thread reads what the others have written
    place = tl.zeros([BLOCK], tl.int32)
    for other in range(n - 1):
        other_length = tl.load(lengths + other)
        other_rank = tl.load(ranks + other)
        before = (other_length < own_length) | ((other_length == own_length) & (other_rank < own_rank))
        place += before.to(tl.int32)
    tl.store(edges + place * 2, (own_rank // BLOCK).to(tl.int64), mask=v < n - 1)
    tl.store(edges + place * 2 + 1, (own_rank % BLOCK).to(tl.int64), mask=v < n - 1)


@triton.jit
def _nearest_outside_kernel(  # type: ignore[no-untyped-def]
    columns, component, rows, count, best_length, best_vertex, n, d,
    smallest: tl.constexpr, down: tl.constexpr, up: tl.constexpr,
    KIND: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """For each of the first ``count`` of ``rows``: its nearest point of another component, of these the first."""
    first = tl.program_id(0) * ROWS
    wanted = tl.load(count)
    if first < wanted:
        place = first + tl.arange(0, ROWS)
        here = place < wanted
        i = tl.load(rows + place, mask=here, other=0)
        own = tl.load(component + i, mask=here, other=-1)
        length = tl.full([ROWS], float("inf"), columns.dtype.element_ty)
        vertex = tl.full([ROWS], 0, tl.int64) + n
        for start in range(0, n, COLUMNS):
            j = start + tl.arange(0, COLUMNS)
            there = j < n
            to_j = _lengths(
                columns + i[:, None], columns + j[None, :], n, n, d, here[:, None], there[None, :],
                smallest, down, up, KIND, DOUBLE,
            )  # fmt: skip
            other = tl.load(component + j, mask=there, other=-1)
            outside = (other[None, :] != own[:, None]) & there[None, :]
            to_j = tl.where(outside & (to_j == to_j), to_j, float("inf"))  # NaN becomes infinity
            least = tl.min(to_j, 1)
            # a length may overflow to infinity, and so equal that of a point inside: only those outside count
            at_least = tl.where(outside & (to_j == least[:, None]), j[None, :].to(tl.int64), n)
            candidate = tl.min(at_least, 1)
            closer = (least < length) | ((vertex == n) & (candidate < n))
            length = tl.where(closer, least, length)
            vertex = tl.where(closer, candidate, vertex)
        tl.store(best_length + i, length, mask=here)
        tl.store(best_vertex + i, vertex, mask=here)


def merge_edges(points: Tensor, p: float) -> Tensor:
    """Edges of the spanning trees of a batch of clouds.

    Parameters
    ----------
    points
        (B, n, d) float32 or float64, contiguous, on a GPU.
    p
        1 ≤ p ≤ ∞. There are kernels for 1, 2 and ∞; other norms are computed by the reference algorithm.

    Returns
    -------
    Tensor
        (B, n − 1, 2) int64, sorted by (length, i, j), i < j.
    """
    if p not in _KINDS:
        return reference_merge_edges(points, p)
    batch, n, _ = points.shape
    if n == 1 or batch == 0:
        return points.new_empty((batch, n - 1, 2), dtype=torch.int64)
    if n <= SMALL:
        return prim(points, p)
    return torch.stack([boruvka(cloud, p) for cloud in points])


def _constants(points: Tensor, p: float) -> dict[str, object]:
    smallest, down, up = EUCLIDEAN_RANGE[points.dtype]
    return {
        "smallest": smallest, "down": 2.0**down, "up": 2.0**up,
        "KIND": _KINDS[p], "DOUBLE": points.dtype == torch.float64,
        # a fused multiply-add would round once where the definition of lengths rounds twice
        "enable_fp_fusion": False,
    }  # fmt: skip


def prim(points: Tensor, p: float) -> Tensor:
    """Spanning trees of a batch of clouds of up to about a thousand points each, in one launch."""
    batch, n, d = points.shape
    edges = torch.empty((batch, n - 1, 2), dtype=torch.int64, device=points.device)
    lengths = torch.empty((batch, n - 1), dtype=points.dtype, device=points.device)
    ranks = torch.empty((batch, n - 1), dtype=torch.int32, device=points.device)
    block = max(16, triton.next_power_of_2(n))
    _prim_kernel[(batch,)](
        points, edges, lengths, ranks, n, d, BLOCK=block, num_warps=max(1, min(8, block // 64)), **_constants(points, p)
    )
    return edges


def boruvka(points: Tensor, p: float, rows_per_program: int = 32, columns_per_step: int = 128) -> Tensor:
    """Spanning tree of one cloud, (n, d) → (n − 1, 2) int64, in O(n) memory, by Borůvka's algorithm.

    In each round, every component takes its shortest edge to another component. For each point, the nearest point
    outside of its component is remembered, and searched again only once that point has joined the component.
    """
    n, d = points.shape
    device = points.device
    columns = points.T.contiguous()
    vertex = torch.arange(n, dtype=torch.int64, device=device)
    component = vertex.clone()
    best_length = torch.empty(n, dtype=points.dtype, device=device)
    best_vertex = vertex.clone()  # a point is inside its own component: in the first round, all points search
    found = torch.full((n, 2), -1, dtype=torch.int64, device=device)  # the last row is written to instead of an edge
    found_length = torch.full((n,), math.inf, dtype=points.dtype, device=device)
    number = torch.zeros((), dtype=torch.int64, device=device)
    constants = _constants(points, p)
    doublings = max(1, (n - 1).bit_length())
    for _ in range(doublings):
        looks = (component[best_vertex] == component) & (number < n - 1)
        rows = looks.logical_not().to(torch.int8).argsort(stable=True)
        _nearest_outside_kernel[(triton.cdiv(n, rows_per_program),)](
            columns, component, rows, looks.sum(), best_length, best_vertex, n, d,
            ROWS=rows_per_program, COLUMNS=columns_per_step, num_warps=4, **constants,
        )  # fmt: skip
        # the least edge of each component, by length, then by (i, j)
        shortest = torch.full_like(best_length, math.inf).scatter_reduce_(0, component, best_length, "amin")
        rank = torch.minimum(vertex, best_vertex) * n + torch.maximum(vertex, best_vertex)
        rank = torch.where(best_length == shortest[component], rank, n * n)
        least = torch.full_like(rank, n * n).scatter_reduce_(0, component, rank, "amin")
        active = (least < n * n) & (number < n - 1)  # one entry for each component, at its representative
        i, j = torch.where(active, least // n, 0), torch.where(active, least % n, 0)
        partner = torch.where(component[i] == vertex, component[j], component[i])
        parent = torch.where(active, partner, vertex)
        # of two components that take the same edge, the one with the higher number joins the other
        mutual = active & (parent[parent] == vertex) & (least[parent] == least) & (vertex < parent)
        parent = torch.where(mutual, vertex, parent)
        new = active & ~mutual
        place = torch.where(new, number + new.cumsum(0) - 1, n - 1)
        found[place] = torch.where(new[:, None], torch.stack([i, j], 1), -1)
        found_length[place] = torch.where(new, shortest, math.inf)
        number = number + new.sum()
        for _ in range(doublings):
            parent = parent[parent]
        component = parent[component]
    edges, lengths = found[:-1], found_length[:-1]
    by_rank = (edges[:, 0] * n + edges[:, 1]).argsort()
    by_length = lengths[by_rank].argsort(stable=True)
    return edges[by_rank[by_length]]
