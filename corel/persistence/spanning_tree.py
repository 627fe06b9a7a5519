"""0-dimensional Rips persistence as a minimum spanning tree.

Under a filtration by length, the components of a cloud merge along the edges of its minimum spanning tree: they are
the pairing of dimension 0, and their lengths are the death times (all births are 0, one class lives for ever).
Edges are ordered by (length, i, j), i < j. This order is total, so the tree is unique: every algorithm gives the same
edges, and so does every device where it rounds lengths in the same way (:mod:`corel.persistence.metric`).
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from corel import _checks
from corel.persistence.metric import (
    check_distances,
    check_p,
    edge_lengths,
    is_plain_cpu,
    is_plain_cuda,
    symmetric_lengths,
)
from corel.persistence.reference import reference_merge_edges, reference_merge_edges_of_distances

_COMPUTED, _STRIDED = _checks.COMPUTED, _checks.STRIDED


def merge_edges(points: Tensor | None = None, p: float = 1.0, *, distances: Tensor | None = None) -> Tensor:
    """Edges along which the components of a cloud merge, in the order in which they do.

    Parameters
    ----------
    points
        (…, n, d) floating point, n ≥ 1, d ≥ 1; leading dimensions are a batch of clouds. float16 and bfloat16 are
        computed in float32.
    p
        Norm of ``points``, 1 ≤ p ≤ ∞.
    distances
        In place of ``points``: (…, n, n) floating point, n ≥ 1, of any metric; each matrix as
        :func:`corel.vr_persistence` accepts it: non-negative above the diagonal; symmetric and 0 on it, up to
        rounding. Lengths are those above the diagonal, (i, j) with i < j; ∞ joins points only where nothing else does.

    Returns
    -------
    Tensor
        (…, n − 1, 2) int64 pairs of indices i < j: the minimum spanning tree, sorted by (length, i, j).

    Raises
    ------
    TypeError
        If ``points`` or ``distances`` is no floating-point tensor, or sparse, or on the meta device, or if not exactly
        one of them is given.
    ValueError
        If ``points`` has fewer than two dimensions, no point or no coordinate, or a coordinate that is NaN or
        infinite (looked for on the CPU only: on a GPU it would cost a synchronisation, and NaN comes out). If
        ``distances`` is not as described (looked for on every device).
    """
    if points is None or distances is not None:
        check_p(p)
        return _edges_of_distances(points, distances)
    points, p = check_points(points), check_p(p)
    if is_plain_cpu(points):
        return torch.from_numpy(cpu_kernels().spanning_trees(points, p)[0])
    return _merge_edges(points.detach(), p)


def death_times(points: Tensor | None = None, p: float = 1.0, *, distances: Tensor | None = None) -> Tensor:
    """Death times of the 0-dimensional Rips persistence of a cloud, essential class left out.

    Parameters
    ----------
    points, p, distances
        As for :func:`merge_edges`.

    Returns
    -------
    Tensor
        (…, n − 1), non-decreasing, full distances ε (not radii), of the dtype of the input (float32 for float16 and
        bfloat16). Differentiable: the gradient of a death is that of the length of its edge (paper, Theorem 2). Where
        a length has none, a subgradient is taken: 0 at equal points, sign(0) = 0 for a coordinate under p = 1, and
        shared by coordinates that tie for the maximum under p = ∞. That of ``distances`` goes to the entry (i, j),
        i < j, alone.

    Raises
    ------
    TypeError, ValueError
        As for :func:`merge_edges`.
    """
    if points is None or distances is not None:
        i, j = merge_edges(points, p, distances=distances).unbind(-1)
        assert distances is not None
        lengths = check_distances(distances)
        return lengths.flatten(-2).gather(-1, i * lengths.shape[-1] + j)
    points, p = check_points(points), check_p(p)
    if is_plain_cpu(points):
        if points.requires_grad and torch.is_grad_enabled():
            return _DeathTimes.apply(points, p)
        return torch.from_numpy(cpu_kernels().death_times(points, p))
    if takes_gpu_kernels(points, points.shape[-2], points.shape[-1], p):
        return _DeathTimes.apply(points, p)
    lengths = edge_lengths(points, _merge_edges(points.detach(), p), p)
    # large clouds on a GPU, transforms and other p: the lengths that gave the order may have been rounded otherwise
    return lengths if p in (1.0, math.inf) else lengths.sort(-1).values


class _DeathTimes(torch.autograd.Function):
    """Death times with their gradient in one kernel; second derivatives and batches of gradients are left to torch."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, p: float) -> Tensor:
        if points.is_cpu:
            edges, lengths = map(torch.from_numpy, cpu_kernels().spanning_trees(points, p))
        else:
            edges, lengths = gpu_kernels().spanning_trees(points, p)
        ctx.save_for_backward(points, edges, lengths)
        ctx.p = p
        return lengths

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        points, edges, lengths = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient itself may be differentiated
        plain = is_plain_cpu(gradient) or is_plain_cuda(gradient)
        if again or not plain or torch._C._functorch.is_legacy_batchedtensor(gradient):
            with torch.enable_grad():
                lengths = edge_lengths(points, edges, ctx.p)
            return torch.autograd.grad(lengths, points, gradient, create_graph=again)[0], None
        kernels = cpu_kernels() if points.is_cpu else gpu_kernels()
        return kernels.lengths_backward(points, edges, lengths, gradient, ctx.p), None


def check_points(points: Tensor, name: str = "points", shape: str = "(…, n, d)") -> Tensor:
    """Return ``points`` in float32 or float64, or raise what :func:`merge_edges` says.

    Parameters
    ----------
    points
        As for :func:`merge_edges`.
    name, shape
        What errors call the argument, and the shape that they say is accepted.
    """
    # the usual case is recognised here, since calling check_floating would cost noticeable time where clouds are small
    usual = isinstance(points, Tensor) and points.dtype in _COMPUTED and points.layout is _STRIDED
    if not usual or points.is_meta or points.is_nested:
        points = _checks.check_floating(name, points)
    if points.dim() < 2:
        raise ValueError(f"{name}: got shape {tuple(points.shape)}; accepted is {shape}")
    if points.numel() == 0 and 0 in points.shape[-2:]:
        raise ValueError(f"{name}: got shape {tuple(points.shape)}; at least one point and one coordinate are needed")
    return points


@cache
def cpu_kernels() -> ModuleType:
    """The kernels of the CPU; imported when first needed, since importing Numba takes long."""
    from corel.persistence.kernels import cpu

    return cpu


def takes_gpu_kernels(points: Tensor, n: int, d: int, p: float) -> bool:
    """Whether kernels of a GPU compute death times and their gradient for clouds of n ``points`` of d coordinates."""
    return is_plain_cuda(points) and has_triton() and bool(gpu_kernels().has_gradient(n, d, p))


@cache
def has_triton() -> bool:
    """Whether there are kernels for a GPU."""
    return find_spec("triton") is not None


@cache
def gpu_kernels() -> ModuleType:
    """The kernels of a GPU; imported when first needed, since importing Triton takes long."""
    from corel.persistence.kernels import triton_kernels

    return triton_kernels


@torch.library.custom_op("corel::merge_edges", mutates_args=())
def _merge_edges(points: Tensor, p: float) -> Tensor:
    if points.is_cpu:
        return torch.from_numpy(cpu_kernels().spanning_trees(points, p)[0])
    *lead, n, d = points.shape
    clouds = points.reshape(math.prod(lead), n, d)
    if points.is_cuda and has_triton():
        return gpu_kernels().merge_edges(clouds, p).reshape(*lead, n - 1, 2)
    return reference_merge_edges(clouds, p).reshape(*lead, n - 1, 2)


@_merge_edges.register_fake
def _(points: Tensor, p: float) -> Tensor:
    *lead, n, _ = points.shape
    return points.new_empty((*lead, n - 1, 2), dtype=torch.int64)


@_merge_edges.register_vmap
def _(info: object, in_dims: tuple[int | None, ...], points: Tensor, p: float) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return _merge_edges(points.movedim(in_dims[0], 0), p), 0


def _edges_of_distances(points: Tensor | None, distances: Tensor | None) -> Tensor:
    """:func:`merge_edges` of matrices of distances, where ``points`` are not given too."""
    if points is not None or distances is None:
        given = "neither" if distances is None else "both"
        raise TypeError(f"points, distances: got {given}; accepted is exactly one of them")
    check_distances(distances)
    find = _find_edges_of_distances if is_plain_cpu(distances) else _merge_edges_of_distances
    return find(distances.detach())


def _find_edges_of_distances(distances: Tensor) -> Tensor:
    if distances.is_cpu:
        edges = cpu_kernels().trees_of_distances(distances) if distances.dtype in _COMPUTED else None
        if edges is None:  # not exactly symmetric, or half precision: rounding is evened out, anything more an error
            edges = cpu_kernels().trees_of_distances(symmetric_lengths(distances))
        return torch.from_numpy(edges)
    *lead, n, _ = distances.shape
    matrices = symmetric_lengths(distances).reshape(math.prod(lead), n, n)
    if distances.is_cuda and has_triton() and n <= gpu_kernels().PRIM_LIMIT:
        return gpu_kernels().trees_of_distances(matrices).reshape(*lead, n - 1, 2)
    return reference_merge_edges_of_distances(matrices).reshape(*lead, n - 1, 2)


_merge_edges_of_distances = torch.library.custom_op("corel::merge_edges_of_distances", mutates_args=())(
    _find_edges_of_distances
)


@_merge_edges_of_distances.register_fake
def _(distances: Tensor) -> Tensor:
    *lead, n, _ = distances.shape
    return distances.new_empty((*lead, n - 1, 2), dtype=torch.int64)


@_merge_edges_of_distances.register_vmap
def _(info: object, in_dims: tuple[int | None, ...], distances: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return _merge_edges_of_distances(distances.movedim(in_dims[0], 0)), 0
