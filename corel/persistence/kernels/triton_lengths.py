"""Lengths in Triton kernels, rounded as :mod:`corel.persistence.metric` defines them."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from corel.persistence.kernels.rounding import EUCLIDEAN_RANGE

#: Clouds of up to so many coordinates are kept in registers while their trees grow, and code is compiled for each
#: number of them.
FEW_COORDINATES = 16
#: The norms of the kernels, and the value of KIND for each.
KINDS = {1.0: 1, 2.0: 2, math.inf: 0}


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
def lengths_between(  # type: ignore[no-untyped-def]
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


def constants_of(points: Tensor, p: float) -> dict[str, object]:
    """The constants of kernels that compute lengths under ‖·‖p in the dtype of ``points``."""
    smallest, down, up = EUCLIDEAN_RANGE[points.dtype]
    return {
        "smallest": smallest, "down": 2.0**down, "up": 2.0**up,
        "KIND": KINDS[p], "DOUBLE": points.dtype == torch.float64,
        # a fused multiply-add would round once where the definition of lengths rounds twice
        "enable_fp_fusion": False,
    }  # fmt: skip


def columns_of(points: Tensor) -> Tensor:
    """The coordinates of each cloud, (…, n, d) → (B, d, n): threads read those of neighbouring points together.

    Many coordinates are filled up with zeros, which change no length, to a multiple of 8.
    """
    *lead, n, d = points.shape
    columns = points.mT.reshape(math.prod(lead), d, n).contiguous().resolve_neg()
    return columns if d <= FEW_COORDINATES else torch.nn.functional.pad(columns, (0, 0, 0, -d % 8))
