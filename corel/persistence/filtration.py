"""The Vietoris–Rips filtration of a matrix of lengths, in torch operations on the matrix's device.

A simplex enters with its longest edge. Simplices of one dimension are ordered by (length, vertices), which puts every
face before its cofaces and is the same on every run and device. Edges of equal length are ordered by (i, j), and the
last of a simplex's edges in that order is the one whose length it takes: this decides where gradients go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from corel.persistence.metric import is_plain_cpu

#: Most simplices of one dimension that are built: triangles then take about 2 GB.
MAX_SIMPLICES = 50_000_000
#: Most entries of a temporary tensor.
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class EdgeOrder:
    """The edges of a filtration in their order, which determines all other simplices.

    Attributes
    ----------
    edges
        (m, 2) int64, i < j, sorted by (length, i, j).
    place
        (n, n) int64: the index in ``edges`` of the edge between two vertices; m where there is none, −1 on the
        diagonal.
    level
        (n, n) int64: the rank of the length of each edge among all different lengths, where the length 0 has rank 0;
        ``levels`` where there is no edge.
    own_level
        (m,) int64: that of each of ``edges``.
    levels
        Number of different lengths, 0 included.
    """

    edges: Tensor
    place: Tensor
    level: Tensor
    own_level: Tensor
    levels: int


@dataclass(frozen=True, eq=False)
class Simplices:
    """All simplices of one dimension in filtration order.

    Attributes
    ----------
    vertices
        (k, dim + 1) int64, ascending in each row.
    level
        (k,) int64: rank of the length among all different lengths (:class:`EdgeOrder`).
    """

    vertices: Tensor
    level: Tensor


def enclosing_radius(lengths: Tensor) -> float:
    """The least length within which some vertex reaches all others; beyond it, homology is that of a point.

    Parameters
    ----------
    lengths
        (n, n) symmetric.
    """
    if is_plain_cpu(lengths):
        from corel.persistence.kernels.filtrations import enclosing_radius as enclosing_radius_on_cpu

        return enclosing_radius_on_cpu(lengths.detach().numpy())
    return float(lengths.amax(1).amin())


def edge_order(lengths: Tensor, max_length: float) -> EdgeOrder:
    """Sort the edges of finite length up to ``max_length``.

    Parameters
    ----------
    lengths
        (n, n) symmetric with a zero diagonal, n ≥ 1.
    max_length
        Edges of this length are included.

    Raises
    ------
    MemoryError
        If there could be more than ``MAX_SIMPLICES`` edges.
    """
    n = len(lengths)
    check_edges(n)
    if is_plain_cpu(lengths):
        from corel.persistence.kernels.filtrations import edge_order as edge_order_on_cpu  # importing Numba takes long

        *found, levels = edge_order_on_cpu(lengths.detach().numpy(), max_length)
        edges, place, level, own_level = map(torch.from_numpy, found)
        return EdgeOrder(edges, place, level, own_level, levels)
    i, j = torch.triu_indices(n, n, 1, dtype=torch.int64, device=lengths.device)
    value = lengths[i, j]
    # triu_indices gives edges sorted by (i, j); a stable sort keeps that order among edges of equal length
    value, order = value.sort(stable=True)
    m = int(((value <= max_length) & (value < math.inf)).sum())
    value, order = value[:m], order[:m]
    i, j = i[order], j[order]
    rises = value.diff(prepend=value.new_zeros(1)) > 0
    rank = rises.cumsum(0)
    levels = 1 + int(rank[-1]) if m else 1

    place = torch.full((n, n), m, dtype=torch.int64, device=lengths.device)
    level = torch.full((n, n), levels, dtype=torch.int64, device=lengths.device)
    place[i, j] = place[j, i] = torch.arange(m, dtype=torch.int64, device=lengths.device)
    level[i, j] = level[j, i] = rank
    place.fill_diagonal_(-1)
    level.fill_diagonal_(0)
    return EdgeOrder(torch.stack((i, j), 1), place, level, rank, levels)


def check_edges(n: int) -> None:
    """Raise the MemoryError of :func:`edge_order`, before anything of size n² is built."""
    if n * (n - 1) // 2 > MAX_SIMPLICES:
        raise MemoryError(
            f"a filtration of {n} points has {n * (n - 1) // 2} edges, more than the {MAX_SIMPLICES} that are built; "
            'in dimension 0, points with algorithm="spanning-tree" need no filtration'
        )


def vietoris_rips_filtration(order: EdgeOrder, max_dim: int) -> list[Simplices]:
    """All simplices of dimension 1 and higher over the given edges.

    Parameters
    ----------
    order
        The edges.
    max_dim
        Highest dimension of a simplex, ≥ 0.

    Returns
    -------
    list of Simplices
        For each dimension from 1 to ``max_dim``, even if it has no simplices.

    Raises
    ------
    MemoryError
        If a dimension has more than ``MAX_SIMPLICES`` simplices, before they are built.
    """
    filtration = [Simplices(order.edges, order.own_level)] if max_dim > 0 else []
    if max_dim > 1:
        # upward[u, v]: whether there is an edge (u, v), u < v
        upward = (order.place < len(order.edges)).triu(1)
        vertices, place = upward.nonzero(), order.place[upward]
    for dim in range(2, max_dim + 1):
        # Sorted lexicographically, as those that they are built from.
        vertices, place = _expand(vertices, place, order.place, upward, dim)
        level = order.own_level[place]
        by_level = level.argsort(stable=True)
        filtration.append(Simplices(vertices[by_level], level[by_level]))
    return filtration


def _expand(vertices: Tensor, place: Tensor, places: Tensor, upward: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Simplices of dimension ``dim``, with the places of their longest edges, from those one dimension below."""
    n = len(upward)
    rows = max(1, _CHUNK // n)

    def common(first: int) -> Tensor:
        # for each simplex: the vertices with a higher number than its own that have edges to all of its vertices
        some = vertices[first : first + rows]
        mask = upward[some[:, 0]]
        for corner in some.unbind(1)[1:]:
            mask = mask & upward[corner]
        return mask

    if math.comb(n, dim + 1) > MAX_SIMPLICES:
        count = sum(int(common(first).count_nonzero()) for first in range(0, len(vertices), rows))
        if count > MAX_SIMPLICES:
            raise MemoryError(
                f"the filtration has {count} simplices of dimension {dim}, more than the {MAX_SIMPLICES} that are "
                "built; choose a smaller max_length or max_dim"
            )
    new_vertices, new_place = [vertices.new_empty(0, dim + 1)], [place.new_empty(0)]
    for first in range(0, len(vertices), rows):
        face, apex = common(first).nonzero(as_tuple=True)
        face = face + first
        corners = vertices[face]
        longest = torch.maximum(place[face], places[corners, apex.unsqueeze(1)].amax(1))
        new_vertices.append(torch.cat((corners, apex.unsqueeze(1)), 1))
        new_place.append(longest)
    return torch.cat(new_vertices), torch.cat(new_place)
