"""Gradients of lengths, and the connectivity loss, in Triton kernels.

Gradients are summed in the order of :mod:`.gradients`, so they are the CPU's; the loss is summed by blocks, in float64.
"""

from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.triton_lengths import KINDS


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


def _bits(number: float) -> int:
    """The bits of a float64 as an integer, which a kernel gets unchanged."""
    return int(struct.unpack("q", struct.pack("d", number))[0])


def write_loss(lengths: Tensor, loss: Tensor, eta: float, factor: float) -> None:
    """Write ``factor`` · Σ |η − ε| over all ``lengths`` ε to the scalar ``loss``."""
    double = lengths.dtype == torch.float64
    _loss_kernel[(1,)](lengths, loss, lengths.numel(), _bits(eta), _bits(factor), DOUBLE=double, BLOCK=1024)


def write_gradient(
    columns: Tensor, d: int, edges: Tensor, lengths: Tensor, weights: Tensor, gradient: Tensor,
    strides: tuple[int, int], p: float, loss: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Write a gradient whose strides by cloud and point are given; of the ``loss`` of an η and a factor."""
    batch, padded, n = columns.shape
    if batch == 0:
        return
    size = triton.next_power_of_2(n)
    _gradient_kernel[(batch, n)](
        columns, edges, lengths, weights, gradient, n, d, padded, *strides, *map(_bits, loss or (0.0, 0.0)),
        KIND=KINDS[p], DOUBLE=columns.dtype == torch.float64, LOSS=loss is not None, EDGES=size,
        COORDINATES=triton.next_power_of_2(d), num_warps=max(1, min(8, size // 256)), enable_fp_fusion=False,
    )  # fmt: skip
