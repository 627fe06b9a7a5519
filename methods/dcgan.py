"""The DCGAN-style networks and settings that OC-SVM (CAE), DSEBM and DAGMM share, with Keras's conventions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from corel._checks import count, counts
from methods.batch_norm import DebiasedBatchNorm1d, DebiasedBatchNorm2d
from methods.neural import TrainingSettings, checked_field


@dataclasses.dataclass(frozen=True)
class DCGANSettings(TrainingSettings):
    """Settings of the three baselines; the defaults are the reference's.

    Parameters
    ----------
    representation
        Length of the encoder's output.
    filters
        Channels after each of its convolutions.
    """

    representation: int = checked_field(count, 256)
    filters: tuple[int, ...] = checked_field(counts(1, 5), (64, 128, 256))


def initialise(module: nn.Module) -> None:
    """Draw weights as Keras does by default: Glorot-uniform, biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DownConv(nn.Conv2d):
    """3×3 convolution of stride 2 with Keras's "same" padding: for even sizes, one row below and one column right."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, 2s, 2s) → (b, after, s, s)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class UpConv(nn.ConvTranspose2d):
    """3×3 transposed convolution of stride 2 with Keras's "same" padding: the adjoint of :class:`DownConv`."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(b, before, s, s) → (b, after, 2s, 2s)."""
        return super().forward(x)[..., :-1, :-1]


# Keras's momentum, 0.99, is the share kept of the running average; PyTorch's is the share taken from the batch.
_EPS, _MOMENTUM = 1e-3, 0.01


class Encoder(nn.Sequential):
    """Images (b, 3, 32, 32) → representation (b, representation); ``activation`` follows the dense layer if given."""

    def __init__(self, representation: int, filters: Sequence[int], activation: nn.Module | None = None) -> None:
        layers: list[nn.Module] = []
        before = 3
        for after in filters:
            layers += [DownConv(before, after), DebiasedBatchNorm2d(after, _EPS, _MOMENTUM), nn.ReLU()]
            before = after
        side = 32 >> len(filters)
        layers += [nn.Flatten(), nn.Linear(filters[-1] * side * side, representation)]
        super().__init__(*layers, *([] if activation is None else [activation]))
        self.apply(initialise)


class Decoder(nn.Sequential):
    """Representation (b, representation) → images (b, 3, 32, 32) in [−1, 1]."""

    def __init__(self, representation: int, filters: Sequence[int]) -> None:
        side = 32 >> len(filters)
        flat = filters[-1] * side * side
        layers: list[nn.Module] = [
            nn.Linear(representation, flat),
            DebiasedBatchNorm1d(flat, _EPS, _MOMENTUM),
            nn.ReLU(),
            nn.Unflatten(1, (filters[-1], side, side)),
        ]
        before = filters[-1]
        for after in list(filters)[-2::-1]:
            layers += [UpConv(before, after), DebiasedBatchNorm2d(after, _EPS, _MOMENTUM), nn.ReLU()]
            before = after
        super().__init__(*layers, UpConv(before, 3), nn.Tanh())
        self.apply(initialise)
