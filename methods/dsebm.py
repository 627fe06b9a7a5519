"""DSEBM (Zhai et al., 2016): a deep energy model trained by denoising, scored by its energy."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corel._checks import check_fields, count, counts, positive
from methods._epochs import check_images, train_epochs
from methods.base import OneClassMethod, needs_fit
from methods.dcgan import BATCH, Encoder, scaled


@dataclasses.dataclass(frozen=True)
class DSEBMSettings:
    """Settings of :class:`DSEBM`; the defaults are the reference's. ``noise`` is a standard deviation in [−1, 1]."""

    representation: int = 256
    filters: tuple[int, ...] = (64, 128, 256)
    epochs: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    noise: float = 0.5

    def __post_init__(self) -> None:
        check_fields(
            self,
            representation=count,
            filters=counts(1, 5),
            epochs=count,
            batch_size=count,
            lr=positive,
            noise=positive,
        )


class EnergyNet(nn.Module):
    """E(x) = ½‖x − b′‖² − Σ h(x), with a learned bias b′ per pixel and h the encoder's rectified representation."""

    def __init__(self, representation: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Encoder(representation, filters, nn.ReLU())
        self.bias = nn.Parameter(torch.zeros(3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, 32, 32) → (b,) energies."""
        return 0.5 * (x - self.bias).square().flatten(1).sum(1) - self.encoder(x).sum(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x − ∂E/∂x, differentiable with respect to the parameters."""
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
        return x - gradient


class DSEBM(OneClassMethod):
    """Deep structured energy model: reconstructs images from noisy ones by a step down the energy; scores −E(x)."""

    name = "dsebm"
    profiles: ClassVar = {
        "paper": DSEBMSettings(),
        "quick": DSEBMSettings(representation=64, filters=(8, 16, 32), epochs=15, batch_size=32),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train the energy on (m, 3, 32, 32) uint8 images."""
        settings = self.settings
        check_images(features)
        images = scaled(features, self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self._net = EnergyNet(settings.representation, settings.filters).to(self.device)
        optimizer = torch.optim.Adam(self._net.parameters(), lr=settings.lr, eps=1e-7, fused=True)

        def loss(batch: Tensor) -> Tensor:
            x = images[batch.to(self.device)]
            return F.mse_loss(self._net.reconstruct(x + settings.noise * torch.randn_like(x)), x)

        train_epochs(
            self, "energy", features, self._net, optimizer, loss,
            samples=len(images), batch_size=settings.batch_size, epochs=settings.epochs,
        )  # fmt: skip
        return self

    @needs_fit("_net")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """−E(x), (n, 3, 32, 32) uint8 → (n,) float64."""
        return -self._in_batches(self._net, features).astype(np.float64)

    @needs_fit("_net")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """h(x), (n, 3, 32, 32) uint8 → (n, representation) float32."""
        return self._in_batches(self._net.encoder, features)

    def _in_batches(self, net: nn.Module, features: np.ndarray) -> np.ndarray:
        self._net.eval()
        with torch.inference_mode():
            parts = [
                net(scaled(features[start : start + BATCH], self.device)).cpu()
                for start in range(0, len(features), BATCH)
            ]
        return torch.cat(parts).numpy()
