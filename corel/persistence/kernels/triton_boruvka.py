"""Borůvka's algorithm on a GPU: the spanning tree of one large cloud, in six Triton kernels a round."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.triton_lengths import FEW_COORDINATES, lengths_between

# Triton compiles a kernel anew for integers that are 1 or divisible by 16: the number of a round must not do that.
_jit_of_rounds = triton.jit(do_not_specialize=["turn"])


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
            to_j = lengths_between(
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
