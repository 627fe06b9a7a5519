"""Batch normalisation whose running averages start as those of Keras 2.2 on TensorFlow, the references' library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Debiased(nn.modules.batchnorm._BatchNorm):
    """Running averages without a share of their initial values, 0 and 1.

    After t batches with statistics s₁ … s_t the average is (1 − k) Σ k^(t−i) sᵢ / (1 − k^t), where the reference keeps
    a share k of the average from one batch to the next. ``momentum`` is 1 − k, as in PyTorch. The initial values would
    otherwise keep the share k^t: 13 % after 200 batches at k = 0.99, nothing that matters at k = 0.9.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, eps: float, momentum: float) -> None:
        super().__init__(features, eps, momentum)
        self.batches = 0

    def get_extra_state(self) -> Tensor:
        """The number of batches seen. Kept on the CPU, because reading it from a GPU would wait for the GPU."""
        return torch.tensor(self.batches, dtype=torch.int64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of batches seen."""
        self.batches = int(state)

    def forward(self, input: Tensor) -> Tensor:
        """(b, n) or (b, n, h, w) → the same shape."""
        if not self.training:
            return super().forward(input)
        self.batches += 1
        share = self.momentum / (1 - (1 - self.momentum) ** self.batches)
        if input[:, 0].numel() > 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps
            )
        # A single value per feature has no variance to divide by. PyTorch refuses it; Keras returns the bias.
        with torch.no_grad():
            self.running_mean.lerp_(input.flatten().to(self.running_mean.dtype), share)
            self.running_var.mul_(1 - share)
        return 0 * input + self.bias.view(-1, *[1] * (input.ndim - 2))


class DebiasedBatchNorm1d(_Debiased, nn.BatchNorm1d):
    """Batch normalisation of features (b, n)."""


class DebiasedBatchNorm2d(_Debiased, nn.BatchNorm2d):
    """Batch normalisation of the channels of images (b, n, h, w)."""
