"""The connectivity loss (paper, Eq. 4): the distance of the death times of a batch from a length η."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corel import _checks
from corel.persistence.metric import check_p, edge_lengths, is_plain_cpu
from corel.persistence.spanning_tree import (
    check_points,
    cpu_kernels,
    death_times,
    gpu_kernels,
    takes_gpu_kernels,
)


def connectivity_loss(
    z: Tensor, eta: float = 2.0, branches: int = 1, p: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """:class:`ConnectivityLoss` as a function of codes ``z`` (b, n), with the class's parameters, result and errors."""
    eta, branches, reduction = _check_settings(eta, branches, reduction)
    z, p = check_points(z, "z", "(b, n)"), check_p(p)
    if z.dim() != 2:
        raise ValueError(f"z: got shape {tuple(z.shape)}; accepted is (b, n)")
    if z.shape[1] % branches:
        raise ValueError(f"branches: got {branches}; it must divide the {z.shape[1]} columns of z")
    factor = 1.0 / branches if reduction == "mean" else 1.0
    if is_plain_cpu(z) or takes_gpu_kernels(z, z.shape[0], z.shape[1] // branches, p):
        if z.requires_grad and torch.is_grad_enabled():
            return _Connectivity.apply(z, eta, branches, p, factor)
        kernels = cpu_kernels() if z.is_cpu else gpu_kernels()
        return kernels.connectivity(z, branches, eta, factor, p, False)[0]
    try:
        deaths = death_times(_clouds(z, branches), p)
    except _checks.NonFiniteError:
        raise _checks.non_finite("z") from None
    return _loss(deaths, eta, factor)


def _loss(deaths: Tensor, eta: float, factor: float) -> Tensor:
    return factor * (deaths - eta).abs().sum()


def _clouds(z: Tensor, branches: int) -> Tensor:
    return z.unflatten(1, (branches, -1)).transpose(0, 1)


class _Connectivity(torch.autograd.Function):
    """The loss, with its gradient in kernels; second derivatives, in torch operations."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, eta: float, branches: int, p: float, factor: float) -> Tensor:
        kernels = cpu_kernels() if z.is_cpu else gpu_kernels()
        loss, gradient, edges = kernels.connectivity(z, branches, eta, factor, p, True)
        ctx.save_for_backward(z, gradient, edges)
        ctx.settings = eta, branches, p, factor
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        z, gradient, edges = ctx.saved_tensors
        if torch.is_grad_enabled():
            eta, branches, p, factor = ctx.settings
            loss = _loss(edge_lengths(_clouds(z, branches), edges, p), eta, factor)
            (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
        return upstream * gradient, None, None, None, None


def _check_settings(eta: float, branches: int, reduction: str) -> tuple[float, int, str]:
    return float(_checks.positive("eta", eta)), _checks.count("branches", branches), _reduction("reduction", reduction)


_reduction = _checks.one_of("mean", "sum")


class ConnectivityLoss(nn.Module):
    """Connectivity loss of a batch of codes: Σ ``|η − ε|`` over the b − 1 deaths ε of each branch (paper, Eq. 4).

    ``loss(z)`` takes codes (b, n) floating point, b ≥ 1, n ≥ 1, on any device, and gives a scalar: float64 for float64
    codes and float32 otherwise (also under autocast). With k branches, branch i is columns i·n/k to (i + 1)·n/k. A
    single code has no deaths and loss 0. Where ε = η the subgradient is 0; for lengths see :func:`corel.death_times`.
    NaN and infinity in ``z`` are an error on a CPU, and not looked for on a GPU. It can be differentiated twice, and
    runs under ``torch.compile``, ``torch.export`` and ``torch.func``; ``torch.jit.trace`` would keep the numbers of the
    batch that it traced.

    Parameters
    ----------
    eta
        The length η > 0 that death times are to have.
    branches
        Number of branches k; divides n.
    p
        Norm, 1 ≤ p ≤ ∞.
    reduction
        Over branches: ``"mean"``, as in the authors' released code, or ``"sum"``, as §5 of the paper writes it.

    Raises
    ------
    TypeError, ValueError
        If an argument, or ``z`` at a call, is not as described.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    >>> ConnectivityLoss(eta=2.0)(z)
    tensor(2.)
    """

    def __init__(self, eta: float = 2.0, branches: int = 1, p: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.eta, self.branches, self.reduction = _check_settings(eta, branches, reduction)
        self.p = check_p(p)

    def forward(self, z: Tensor) -> Tensor:
        """(b, n) codes → scalar."""
        return connectivity_loss(z, self.eta, self.branches, self.p, self.reduction)

    def extra_repr(self) -> str:
        return f"eta={self.eta}, branches={self.branches}, p={self.p}, reduction={self.reduction!r}"
