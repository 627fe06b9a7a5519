"""Lengths under ‖·‖p, defined once for every algorithm and device.

Algorithms compare lengths, so all of them must round lengths in the same way: for p ∈ {1, 2, ∞} to the last bit on
every device; other powers may differ in the last bit between devices, and with them the order of edges that are almost
equal. This is the definition, for points x and y of one floating dtype; every operation is rounded to that dtype, and
none is fused or reordered:

====== ================================================================================================
p      length of x − y =: u
====== ================================================================================================
1      (((|u₁| + |u₂|) + |u₃|) + …), in the order of the coordinates
∞      max |uₖ|
2      √s of s = ((u₁² + u₂²) + …) if s is finite and at least 2⁻¹⁰⁰ (float32) or 2⁻⁹⁰⁰ (float64);
       else the same of 2ᵃ·u, times 2⁻ᵃ, where a = −80 or 100 (float32), −540 or 600 (float64) for s too
       large or too small: squares neither overflow nor vanish, and powers of two round nothing
other  m · (Σ (|uₖ| / m)ᵖ)^(1/p) with m = max |uₖ|, the sum in the order of the coordinates
====== ================================================================================================

Lengths are differentiable almost everywhere. Where they are not, a subgradient is taken: 0 where the points are
equal, and sign(0) = 0 for the single coordinate; under p = ∞, coordinates that tie for the maximum share it.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from corel import _checks
from corel.persistence.kernels.rounding import EUCLIDEAN_RANGE

_PLAIN = Tensor, torch.nn.Parameter

_at_least_one = _checks.real("numbers of at least 1, and infinity", lambda value: value >= 1)


def check_p(p: float) -> float:
    """Return ``p`` as a float.

    Raises
    ------
    TypeError
        If ``p`` is not a number.
    ValueError
        If ``p`` is below 1 or NaN: ‖·‖p is then no norm. Infinity is accepted.
    """
    if type(p) is float and p >= 1.0:  # the usual case, without another call: those cost time where clouds are small
        return p
    return float(_at_least_one("p", p))


def check_distances(distances: Tensor, batches: bool = True) -> Tensor:
    """Return matrices of distances in float32 or float64; numbers in them are left to :func:`symmetric_lengths`.

    Parameters
    ----------
    distances
        (…, n, n) floating point, n ≥ 1.
    batches
        Whether leading dimensions are accepted.

    Raises
    ------
    TypeError
        If ``distances`` is no floating-point tensor, or sparse, or on the meta device.
    ValueError
        If it has another shape.
    """
    distances = _checks.check_floating("distances", distances)
    shape = distances.shape
    if len(shape) < 2 or (len(shape) > 2 and not batches) or shape[-1] != shape[-2] or not shape[-1]:
        accepted = "(…, n, n)" if batches else "(n, n)"
        raise ValueError(f"distances: got shape {tuple(shape)}; accepted is {accepted}, n ≥ 1")
    return distances


def symmetric_lengths(distances: Tensor) -> Tensor:
    """The lengths above the diagonals of matrices of distances, mirrored, and 0 on the diagonals.

    Parameters
    ----------
    distances
        (…, n, n) of any floating dtype, each matrix as :func:`corel.vr_persistence` accepts it.

    Returns
    -------
    Tensor
        (…, n, n) float32 or float64, detached.

    Raises
    ------
    ValueError
        If a length is NaN, or negative above the diagonal, or a matrix not symmetric, or not 0 on its diagonal, up to
        rounding.
    """
    lengths = distances.detach()
    if lengths.dtype not in _checks.COMPUTED:
        lengths = lengths.float()
    for wrong, what in ((lengths.isnan(), "NaN"), (lengths.triu(1) < 0, "a negative length")):
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(f"distances: got {what} at {place}; accepted are lengths ≥ 0, and infinity")
    # torch.cdist takes roots of differences of squares: a squared length is wrong by a few ϵ times the largest square
    largest = torch.where(lengths < math.inf, lengths, 0.0).amax((-2, -1), keepdim=True)
    epsilon = max(4 * math.sqrt(torch.finfo(lengths.dtype).eps), torch.finfo(distances.dtype).eps)
    rounding = largest.double() * epsilon
    wrong = (lengths != lengths.mT) & ~((lengths - lengths.mT).abs() <= rounding)
    if wrong.any():
        *matrix, i, j = wrong.nonzero()[0].tolist()
        place, mirrored = (*matrix, i, j), (*matrix, j, i)
        raise ValueError(
            f"distances: got {lengths[place]:.9g} at {place} but {lengths[mirrored]:.9g} at {mirrored}, more than "
            f"rounding apart ({rounding[tuple(matrix)].item():.2g}); accepted are symmetric ones, such as "
            "(distances + distances.mT) / 2"
        )
    wrong = lengths.diagonal(dim1=-2, dim2=-1).abs() > rounding.squeeze(-1)
    if wrong.any():
        *matrix, i = wrong.nonzero()[0].tolist()
        place = (*matrix, i, i)
        raise ValueError(
            f"distances: got {lengths[place]:.9g} at {place}, more than rounding "
            f"({rounding[tuple(matrix)].item():.2g}); accepted is 0 on the diagonal, as after "
            "distances.diagonal(dim1=-2, dim2=-1).zero_()"
        )
    above = lengths.triu(1)
    return above + above.mT


def norm(u: Tensor, p: float = 1.0) -> Tensor:
    """Length of vectors under ‖·‖p, differentiable, on any device.

    Parameters
    ----------
    u
        (…, d) float32 or float64, d ≥ 1.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    Tensor
        (…), of the dtype of ``u``.
    """
    if p == math.inf:
        return u.abs().amax(-1)
    if p == 1.0:
        return _sum_in_order(u.abs())
    if only_backward(u):
        return _Norm.apply(u, p)
    return _norm_of_torch_operations(u, p)


def only_backward(x: Tensor) -> bool:
    """Whether ``x`` can only be differentiated by ``backward``, or by what torch.compile makes of it.

    Only then may an operation on it be a :class:`torch.autograd.Function`: in forward mode (dual tensors, jvp, jacfwd,
    hessian), such a function loses tangents, and without an error where modes are nested.
    """
    return torch.compiler.is_compiling() or _is_untouched(x)


def _is_untouched(x: Tensor) -> bool:
    # outside of forward_ad.dual_level(), no tensor has a tangent
    return forward_ad._current_level < 0 and not in_transform(x)


def in_transform(x: Tensor) -> bool:
    """Whether operations on ``x`` go through a transform of torch.func; within one all do, ``x`` wrapped or not."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x) or torch._C._are_functorch_transforms_active()


def is_plain_cpu(points: Tensor) -> bool:
    """Whether the kernels of the CPU may take ``points``: plain memory, and nothing to differentiate but backward.

    Tensors that a compiler traces, that torch.func has wrapped (vmap, jvp, …) or that may carry the tangents of forward
    mode go through torch operations. So does everything while a dispatch mode watches torch: a tracer such as make_fx
    does not see the kernels, and would take their result for a constant.
    """
    return points.is_cpu and _is_plain(points)


def is_plain_cuda(points: Tensor) -> bool:
    """The same of the kernels of a GPU."""
    return points.is_cuda and _is_plain(points)


def _is_plain(points: Tensor) -> bool:
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return not watched and type(points) in _PLAIN and _is_untouched(points)


def _sum_in_order(terms: Tensor) -> Tensor:
    # the order in which torch.sum adds is not specified
    return reduce(add, terms.unbind(-1))


# Roots and powers are a custom operator: on the CPU, torch's own are rounded in different ways for different memory
# layouts, and torch.compile could fuse products and sums.
@torch.library.custom_op("corel::norm", mutates_args=())
def _norm(u: Tensor, p: float) -> Tensor:
    if p == 2.0:
        smallest, down, up = EUCLIDEAN_RANGE[u.dtype]
        squares = _sum_in_order(u * u)
        scale = torch.ones_like(squares)
        scale = scale.masked_fill(squares < smallest, 2.0**up).masked_fill(squares == math.inf, 2.0**down)
        u = u * scale.unsqueeze(-1)
        return _sum_in_order(u * u).sqrt() / scale
    largest = u.abs().amax(-1, keepdim=True)
    ratio = torch.where(largest < math.inf, u.abs() / torch.where(largest > 0, largest, 1.0), 1.0)
    return largest.squeeze(-1) * _sum_in_order(ratio**p) ** (1.0 / p)


@_norm.register_kernel("cpu")
def _(u: Tensor, p: float) -> Tensor:
    from corel.persistence.kernels.lengths import norms

    rows = u.detach().reshape(-1, u.shape[-1]).contiguous()
    out = rows.new_empty(len(rows))
    norms(rows.numpy(), p, out.numpy())
    return out.view(u.shape[:-1])


@_norm.register_fake
def _(u: Tensor, p: float) -> Tensor:
    return u.new_empty(u.shape[:-1])


@_norm.register_vmap
def _(info: object, in_dims: tuple[int | None, ...], u: Tensor, p: float) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return _norm(u.movedim(in_dims[0], 0), p), 0


class _Norm(torch.autograd.Function):
    """The operator with its derivative for backward, in the form that torch.compile can trace too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, p: float) -> Tensor:
        return _norm(u, p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        u, ctx.p = inputs
        ctx.save_for_backward(u, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        u, length = ctx.saved_tensors
        return gradient.unsqueeze(-1) * direction(u, length.unsqueeze(-1), ctx.p), None


def _norm_of_torch_operations(u: Tensor, p: float) -> Tensor:
    """The norm for 1 < p < ∞ with derivatives of every order and mode; its value is the operator's, to the last bit."""
    exact = _norm(u.detach(), p)
    largest = u.detach().abs().amax(-1, keepdim=True)
    ratio = u / torch.where((largest > 0) & (largest < math.inf), largest, 1.0)
    if p == 2.0:
        total = _sum_in_order(ratio * ratio)
    else:  # torch.where differentiates both of its branches: the derivative of the power at 0 must not be computed
        nonzero = ratio != 0
        total = _sum_in_order(torch.where(nonzero, torch.where(nonzero, ratio, 1.0).abs() ** p, 0.0))
    positive = total > 0
    length = largest.squeeze(-1) * torch.where(positive, total, 1.0) ** (1.0 / p)
    return exact + torch.where(positive & (exact < math.inf), length - length.detach(), 0.0)


def direction(u: Tensor, length: Tensor, p: float) -> Tensor:
    """The (sub)gradient of ‖·‖p, 1 < p < ∞, at u (…, d) of a given length (…, 1): 0 at u = 0."""
    ratio = u / torch.where(length > 0, length, 1.0)
    if p == 2.0:
        return ratio
    # torch.where differentiates both of its branches: the derivative of the power at 0 must not be computed
    nonzero = ratio != 0
    power = torch.where(nonzero, ratio, 1.0).abs() ** (p - 1.0)
    return torch.where(nonzero, power, 0.0) * ratio.sign()


def edge_lengths(points: Tensor, edges: Tensor, p: float = 1.0) -> Tensor:
    """Lengths of given edges of a cloud, or of a batch of clouds.

    Parameters
    ----------
    points
        (…, n, d) float32 or float64.
    edges
        (…, m, 2) int64, pairs of indices of points, with the leading dimensions of ``points``.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    Tensor
        (…, m), differentiable with respect to ``points``; see the head of this file for values and subgradients.
    """
    *lead, n, d = points.shape
    m = edges.shape[-2]
    clouds = points.reshape(math.prod(lead) * n, d)
    offset = torch.arange(math.prod(lead), dtype=torch.int64, device=points.device).view(*lead, 1, 1) * n
    # Both ends are gathered at once, by indexing: its backward adds in a fixed order on every device.
    ends = clouds[(edges + offset).reshape(-1)].view(*lead, m, 2, d)
    lengths = norm(ends[..., 0, :] - ends[..., 1, :], p)
    # cut off where it is 0: an upstream gradient of infinity, as of a root, must not become NaN there
    return torch.where(lengths == 0, lengths.detach(), lengths)


def pairwise_lengths(points: Tensor, p: float = 1.0) -> Tensor:
    """All lengths in a cloud, or in each of a batch of clouds.

    Parameters
    ----------
    points
        (…, n, d) float32 or float64.
    p
        1 ≤ p ≤ ∞.

    Returns
    -------
    Tensor
        (…, n, n), symmetric to the last bit, 0 on the diagonal.
    """
    n = points.shape[-2]
    if points.requires_grad and torch.is_grad_enabled():
        return norm(points.unsqueeze(-2) - points.unsqueeze(-3), p)
    if points.dim() == 2 and is_plain_cpu(points):
        from corel.persistence.kernels.filtrations import pairwise_lengths as pairwise_lengths_on_cpu

        lengths = points.new_empty((n, n))
        pairwise_lengths_on_cpu(_checks.numbers("points", points), p, lengths.numpy())
        return lengths
    lengths = points.new_empty((*points.shape[:-1], n))
    rows = max(1, 2**21 // max(1, points.numel()))  # a few megabytes of differences at a time
    for first in range(0, n, rows):
        some = points[..., first : first + rows, None, :] - points.unsqueeze(-3)
        lengths[..., first : first + rows, :] = norm(some, p)
    return lengths
