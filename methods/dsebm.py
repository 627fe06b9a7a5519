"""DSEBM (Zhai et al., 2016): a deep energy model trained by denoising, scored by its energy."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corel._checks import positive
from methods.base import needs_fit
from methods.dcgan import DCGANSettings, Encoder
from methods.neural import NeuralMethod, check_images, checked_field


@dataclasses.dataclass(frozen=True)
class DSEBMSettings(DCGANSettings):
    """Settings of :class:`DSEBM`; the defaults are the reference's.

    Parameters
    ----------
    noise
        Standard deviation of the noise that is added to pixels, which are scaled to [−1, 1].
    """

    noise: float = checked_field(positive, 0.5)


class EnergyNet(nn.Module):
    """E(x) = ½‖x − b′‖² − Σ h(x), with a learned bias b′ per pixel and h the encoder's rectified representation."""

    def __init__(self, representation: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Encoder(representation, filters, nn.ReLU())
        self.bias = nn.Parameter(torch.zeros(3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, 32, 32) → (b,) energies."""
        return 0.5 * (x - self.bias).square().flatten(1).sum(1) - self.encoder(x).sum(1, dtype=x.dtype)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x − ∂E/∂x, differentiable with respect to the parameters."""
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
        return x - gradient


class DSEBM(NeuralMethod):
    """Deep structured energy model: reconstructs images from noisy ones by a step down the energy; scores −E(x)."""

    name = "dsebm"
    version = 2
    profiles: ClassVar = {
        "paper": DSEBMSettings(),
        "quick": DSEBMSettings(representation=64, filters=(8, 16, 32), epochs=5, batch_size=32, lr=3e-3),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train the energy on (m, 3, 32, 32) uint8 images."""
        settings = self.settings
        images = self._inputs(check_images(features))
        self._net = self._build(lambda: EnergyNet(settings.representation, settings.filters))

        def loss(batch: Tensor) -> Tensor:
            x = images[batch]
            # drawn on the CPU, so that every device adds the same noise
            noise = torch.randn(x.shape, dtype=x.dtype, device="cpu").to(x.device)
            return F.mse_loss(self._net.reconstruct(x + settings.noise * noise), x)

        self._train("energy", features, self._net, loss)
        return self

    @needs_fit("_net")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """−E(x), (n, 3, 32, 32) uint8 → (n,) float64."""
        return -self._evaluate(self._net, features).astype(np.float64)

    @needs_fit("_net")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """h(x), (n, 3, 32, 32) uint8 → (n, representation) float32."""
        return self._evaluate(self._net.encoder, features)
