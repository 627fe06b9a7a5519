"""DAGMM (Zong et al., 2018): autoencoder and Gaussian mixture trained together, scored by the mixture's energy."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corel._checks import check_fields, count, counts, non_negative, positive
from methods._epochs import check_images, train_epochs
from methods.base import NonFiniteLossError, OneClassMethod, needs_fit
from methods.dcgan import BATCH, Decoder, Encoder, initialise, scaled

#: Added to the diagonals of covariances, as in the reference, so that a singular one ends nothing.
JITTER = 1e-3
_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class DAGMMSettings:
    """Settings of :class:`DAGMM`; the defaults are the reference's."""

    representation: int = 5
    filters: tuple[int, ...] = (64, 128, 256)
    components: int = 3
    epochs: int = 200
    batch_size: int = 256
    lr: float = 1e-3
    energy_weight: float = 0.01
    covariance_weight: float = 0.0005

    def __post_init__(self) -> None:
        check_fields(
            self,
            representation=count,
            filters=counts(1, 5),
            components=count,
            epochs=count,
            batch_size=count,
            lr=positive,
            energy_weight=non_negative,
            covariance_weight=non_negative,
        )


class Mixture(NamedTuple):
    """A Gaussian mixture: weights (k,), means (k, d), covariances (k, d, d)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def estimate(cls, z: Tensor, memberships: Tensor) -> Mixture:
        """Estimate from points (n, d) and soft memberships (n, k), as in Eq. 5 of the method's paper."""
        mass = memberships.sum(0) + _EPSILON
        means = memberships.T @ z / mass[:, None]
        centred = z[:, None] - means
        covariances = torch.einsum("nk,nki,nkj->kij", memberships, centred, centred) / mass[:, None, None]
        # a part of the size of the covariance itself, for large ones swallow a fixed amount in float32
        jitter = JITTER + 1e-6 * covariances.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        return cls(mass / len(z), means, covariances + jitter * torch.eye(z.shape[1], dtype=z.dtype, device=z.device))

    def energy(self, z: Tensor) -> Tensor:
        """Negative log-density, (n, d) → (n,); NaN where a covariance is not finite."""
        factor, info = torch.linalg.cholesky_ex(self.covariances)
        factor = torch.where((info == 0)[:, None, None], factor, math.nan)
        centred = (z[:, None] - self.means).permute(1, 2, 0)
        whitened = torch.linalg.solve_triangular(factor, centred, upper=False)
        log_determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = z.shape[1] * math.log(2 * math.pi)
        log_density = -0.5 * (whitened.square().sum(1) + log_determinant[:, None] + constant)
        return -torch.logsumexp(log_density + self.weights.log()[:, None], 0)


class DAGMMNet(nn.Module):
    """Autoencoder with its reconstruction's features, and the estimation network."""

    def __init__(self, settings: DAGMMSettings) -> None:
        super().__init__()
        self.encoder = Encoder(settings.representation, settings.filters)
        self.decoder = Decoder(settings.representation, settings.filters)
        self.estimation = nn.Sequential(
            nn.Linear(settings.representation + 2, 64), nn.Tanh(), nn.Dropout(0.5),
            nn.Linear(64, 10), nn.Tanh(), nn.Dropout(0.5),
            nn.Linear(10, settings.components), nn.Softmax(1),
        )  # fmt: skip
        self.estimation.apply(initialise)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 32, 32) → reconstruction, and (b, representation + 2): code, relative error, cosine similarity."""
        code = self.encoder(x)
        reconstructed = self.decoder(code)
        flat, other = x.flatten(1), reconstructed.flatten(1)
        # the root's slope at 0 is infinite: a perfect reconstruction must not make the gradient NaN
        error = ((flat - other).square().sum(1) / (flat.square().sum(1) + _EPSILON) + _EPSILON).sqrt()
        cosine = F.cosine_similarity(flat, other, dim=1)
        return reconstructed, torch.cat([code, error[:, None], cosine[:, None]], 1)


class DAGMM(OneClassMethod):
    """Deep autoencoding Gaussian mixture model; scores are negative energies under the training set's mixture."""

    name = "dagmm"
    profiles: ClassVar = {
        "paper": DAGMMSettings(),
        "quick": DAGMMSettings(filters=(16, 32, 64), epochs=10, batch_size=32),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train on (m, 3, 32, 32) uint8 images and estimate the mixture of all of them."""
        settings = self.settings
        check_images(features)
        images = scaled(features, self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self._net = DAGMMNet(settings).to(self.device)
        optimizer = torch.optim.Adam(self._net.parameters(), lr=settings.lr, eps=1e-7, fused=True)

        def loss(batch: Tensor) -> Tensor:
            x = images[batch.to(self.device)]
            reconstructed, z = self._net(x)
            mixture = Mixture.estimate(z, self._net.estimation(z))
            penalty = (1 / mixture.covariances.diagonal(dim1=1, dim2=2)).sum()
            energy = mixture.energy(z).mean()
            return F.mse_loss(reconstructed, x) + settings.energy_weight * energy + settings.covariance_weight * penalty

        train_epochs(
            self, "mixture", features, self._net, optimizer, loss,
            samples=len(images), batch_size=settings.batch_size, epochs=settings.epochs,
        )  # fmt: skip
        z = self._represent(features)
        with torch.inference_mode():
            memberships = self._net.estimation(z.to(self.device)).cpu()
        self._mixture = Mixture.estimate(z.double(), memberships.double())
        if not all(bool(torch.isfinite(part).all()) for part in self._mixture):
            raise NonFiniteLossError("dagmm: the mixture of the training images is not finite")
        return self

    @needs_fit("_mixture")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """−energy, (n, 3, 32, 32) uint8 → (n,) float64; non-finite ones are one below the least finite score.

        Raises
        ------
        NonFiniteLossError
            If no energy is finite: the training has diverged.
        """
        scores = -self._mixture.energy(self._represent(features).double()).numpy()
        finite = np.isfinite(scores)
        if not finite.any():
            raise NonFiniteLossError(f"dagmm: none of {len(scores)} energies is finite")
        scores[~finite] = scores[finite].min() - 1
        return scores

    @needs_fit("_mixture")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """Code, relative error and cosine similarity, (n, 3, 32, 32) uint8 → (n, representation + 2) float32."""
        return self._represent(features).numpy()

    def _represent(self, features: np.ndarray) -> Tensor:
        self._net.eval()
        with torch.no_grad():
            parts = [
                self._net(scaled(features[start : start + BATCH], self.device))[1].cpu()
                for start in range(0, len(features), BATCH)
            ]
        return torch.cat(parts)
