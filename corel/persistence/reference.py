"""Prim's algorithm in torch operations: the reference for all kernels, and what runs where none of them can."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from corel.persistence.metric import norm


def reference_merge_edges(points: Tensor, p: float) -> Tensor:
    """Prim's algorithm for a batch of clouds in torch operations: slow, but easy to verify.

    Parameters
    ----------
    points
        (B, n, d) float32 or float64, on any device.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    Tensor
        (B, n − 1, 2) int64, sorted by (length, i, j), i < j.
    """
    return _prim(points, lambda cloud, newest: norm(points - points[cloud, newest, None], p))


def reference_merge_edges_of_distances(distances: Tensor) -> Tensor:
    """:func:`reference_merge_edges` for matrices of distances.

    Parameters
    ----------
    distances
        (B, n, n) float32 or float64, on any device, non-negative and symmetric.
    """
    return _prim(distances, lambda cloud, newest: distances[cloud, newest])


def _prim(source: Tensor, lengths_to: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Prim's algorithm for a batch of clouds (B, n, …), given the lengths (B, n) to one vertex (B,) of each."""
    batch, n = source.shape[:2]
    cloud = torch.arange(batch, dtype=torch.int64, device=source.device)
    vertex = torch.arange(n, dtype=torch.int64, device=source.device)
    newest = torch.zeros(batch, dtype=torch.int64, device=source.device)
    inside = torch.zeros(batch, n, dtype=torch.bool, device=source.device)
    # for each vertex outside the tree, its least edge into the tree
    nearest = torch.zeros(batch, n, dtype=torch.int64, device=source.device)
    length = torch.full((batch, n), math.inf, dtype=source.dtype, device=source.device)
    edges, lengths = [], []
    for _ in range(n - 1):
        inside[cloud, newest] = True
        to_newest = lengths_to(cloud, newest)
        # of two edges of equal length at one vertex, the one with the lower other end comes first
        closer = (to_newest < length) | ((to_newest == length) & (newest[:, None] < nearest))
        length = torch.where(closer, to_newest, length)
        nearest = torch.where(closer, newest[:, None], nearest)
        shortest = length.masked_fill(inside, math.inf).amin(-1, keepdim=True)
        rank = torch.minimum(vertex, nearest) * n + torch.maximum(vertex, nearest)
        newest = rank.masked_fill(inside | (length > shortest), n * n).argmin(-1)
        edges.append(rank[cloud, newest])
        lengths.append(length[cloud, newest])
    if not edges:
        return torch.empty(batch, 0, 2, dtype=torch.int64, device=source.device)
    rank, by_rank = torch.stack(edges, -1).sort(-1)
    by_length = torch.stack(lengths, -1).gather(-1, by_rank).sort(dim=-1, stable=True).indices
    rank = rank.gather(-1, by_length)
    return torch.stack((rank // n, rank % n), -1)
