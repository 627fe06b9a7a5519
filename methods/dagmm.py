"""DAGMM (Zong et al., 2018): autoencoder and Gaussian mixture trained together, scored by the mixture's energy."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corel._checks import count, non_negative, one_of
from corel._device import standard_torch
from methods.base import NonFiniteLossError, needs_fit
from methods.dcgan import DCGANSettings, Decoder, Encoder, initialise
from methods.neural import NeuralMethod, check_images, checked_field

#: Added to the diagonals of covariances, as in the reference, so that singular ones can be inverted.
JITTER = 1e-3
#: Keras's ε, which the reference adds to determinants and to the density of every component.
KERAS_EPSILON = 1e-7
_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class DAGMMSettings(DCGANSettings):
    """Settings of :class:`DAGMM`; the defaults are the reference's, except for ``mixture``.

    Parameters
    ----------
    components
        Number of Gaussians in the mixture.
    energy_weight, covariance_weight
        Factors of the mean energy and of Σ 1 / diag(Σₖ) in the loss.
    mixture
        "paper": as the method's paper describes it: the energy is the negative log-density of the mixture, and scores
        are taken under the mixture of the whole training set. "code": as in the code of Golan and El-Yaniv, which
        made the numbers in the tables of their paper and later ones: see :meth:`Mixture.code_energy`; the jitter of
        covariances is random, scores are taken under the mixture of the last training batch, all is float32, and a
        loss that is not finite does not end the training.
    """

    representation: int = checked_field(count, 5)
    batch_size: int = checked_field(count, 256)
    components: int = checked_field(count, 3)
    energy_weight: float = checked_field(non_negative, 0.01)
    covariance_weight: float = checked_field(non_negative, 0.0005)
    mixture: str = checked_field(one_of("paper", "code"), "paper")


class Mixture(NamedTuple):
    """A Gaussian mixture: weights (k,), means (k, d), covariances (k, d, d)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def estimate(cls, z: Tensor, memberships: Tensor, *, random_jitter: bool = False) -> Mixture:
        """Estimate from points (n, d) and soft memberships (n, k), as in Eq. 5 of the method's paper.

        The diagonals of covariances are raised by 1e-3 and a millionth of their mean, because float32 rounds a fixed
        amount away in large ones; with ``random_jitter`` by numbers drawn from N(1e-3, 1e-4²), as in the reference.
        """
        mass = memberships.sum(0) + _EPSILON
        means = memberships.T @ z / mass[:, None]
        centred = z[:, None] - means
        covariances = torch.einsum("nk,nki,nkj->kij", memberships, centred, centred) / mass[:, None, None]
        variances = covariances.diagonal(dim1=1, dim2=2)
        if random_jitter:
            # drawn on the CPU, so that it is the same on every device
            jitter = JITTER + 1e-4 * torch.randn(variances.shape, dtype=z.dtype, device="cpu").to(z.device)
        else:
            jitter = JITTER + 1e-6 * variances.mean(1, keepdim=True).expand_as(variances)
        return cls(mass / len(z), means, covariances + torch.diag_embed(jitter))

    def energy(self, z: Tensor) -> Tensor:
        """Negative log-density (Eq. 6), (n, d) → (n,); NaN where a covariance is not finite."""
        factor, info = torch.linalg.cholesky_ex(self.covariances)
        factor = torch.where((info == 0)[:, None, None], factor, math.nan)
        centred = (z[:, None] - self.means).permute(1, 2, 0)
        whitened = torch.linalg.solve_triangular(factor, centred, upper=False)
        log_determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = z.shape[1] * math.log(2 * math.pi)
        log_density = -0.5 * (whitened.square().sum(1) + log_determinant[:, None] + constant)
        return -torch.logsumexp(log_density + self.weights.log()[:, None], 0)

    def code_energy(self, z: Tensor) -> Tensor:
        """Energy as the reference computes it, (n, d) → (n,).

        1e-7 is added to the density of each component, which bounds the energy at 15 for three of them, and to the
        determinant of 2πΣ. Where rounding makes an inverse or a determinant negative the result is not finite.
        """
        precisions = torch.linalg.inv_ex(self.covariances).inverse
        centred = z[:, None] - self.means
        distances = torch.einsum("nki,kij,nkj->nk", centred, precisions, centred)
        root = (torch.linalg.det(2 * math.pi * self.covariances) + KERAS_EPSILON).sqrt()
        densities = self.weights * (-0.5 * distances).exp() / root + KERAS_EPSILON
        return -densities.sum(1).log()


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn on the CPU, so that every device drops the same units."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same."""
        if not self.training:
            return input
        kept = torch.empty(input.shape, dtype=input.dtype, device="cpu").bernoulli_(1 - self.p)
        return input * kept.div_(1 - self.p).to(input.device)


class DAGMMNet(nn.Module):
    """Autoencoder with its reconstruction's features, and the estimation network.

    ``last_mixture`` is the mixture of the last training batch; as a part of the state it is in checkpoints too.
    """

    def __init__(self, settings: DAGMMSettings) -> None:
        super().__init__()
        self.encoder = Encoder(settings.representation, settings.filters)
        self.decoder = Decoder(settings.representation, settings.filters)
        self.estimation = nn.Sequential(
            nn.Linear(settings.representation + 2, 64), nn.Tanh(), Dropout(0.5),
            nn.Linear(64, 10), nn.Tanh(), Dropout(0.5),
            nn.Linear(10, settings.components), nn.Softmax(1),
        )  # fmt: skip
        self.estimation.apply(initialise)
        components, size = settings.components, settings.representation + 2
        for name, shape in zip(Mixture._fields, [(), (size,), (size, size)], strict=True):
            self.register_buffer(f"last_{name}", torch.zeros(components, *shape))

    @property
    def last_mixture(self) -> Mixture:
        """The mixture of the last training batch."""
        return Mixture(*(self.get_buffer(f"last_{name}") for name in Mixture._fields))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 32, 32) → reconstruction, and (b, representation + 2): code, relative error, cosine similarity."""
        code = self.encoder(x)
        reconstructed = self.decoder(code).to(x.dtype)
        flat, other = x.flatten(1), reconstructed.flatten(1)
        # The root has an infinite slope at 0: without the ε a perfect reconstruction would make the gradient NaN.
        error = ((flat - other).square().sum(1) / (flat.square().sum(1) + _EPSILON) + _EPSILON).sqrt()
        cosine = F.cosine_similarity(flat, other, dim=1)
        return reconstructed, torch.cat([code.to(x.dtype), error[:, None], cosine[:, None]], 1)


class DAGMM(NeuralMethod):
    """Deep autoencoding Gaussian mixture model; scores are negative energies under the mixture of the class."""

    name = "dagmm"
    version = 2
    profiles: ClassVar = {
        "paper": DAGMMSettings(),
        "quick": DAGMMSettings(filters=(8, 16, 32), epochs=5, batch_size=32),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train on (m, 3, 32, 32) uint8 images, and fix the mixture that scores are taken under.

        Raises
        ------
        NonFiniteLossError
            If the training diverged and ``mixture`` is "paper".
        """
        settings = self.settings
        images = self._inputs(check_images(features))
        as_code = settings.mixture == "code"
        net = self._net = self._build(lambda: DAGMMNet(settings))

        def loss(batch: Tensor) -> Tensor:
            x = images[batch]
            reconstructed, z = net(x)
            memberships = net.estimation(z).to(z.dtype)
            with torch.autocast(self.device.type, enabled=False):
                mixture = Mixture.estimate(z, memberships, random_jitter=as_code)
                penalty = (1 / mixture.covariances.diagonal(dim1=1, dim2=2)).sum()
                energy = (mixture.code_energy(z) if as_code else mixture.energy(z)).mean()
            with torch.no_grad():
                for kept, values in zip(net.last_mixture, mixture, strict=True):
                    kept.copy_(values)
            return F.mse_loss(reconstructed, x) + settings.energy_weight * energy + settings.covariance_weight * penalty

        self._train("mixture", features, net, loss, check_finite=not as_code)
        if as_code:
            self._mixture = Mixture(*(part.cpu() for part in net.last_mixture))
            return self
        z = torch.from_numpy(self.encode(features))
        with standard_torch(), torch.no_grad():
            with self._autocast():
                memberships = net.estimation(z.to(self.device)).cpu()
            self._mixture = Mixture.estimate(z.double(), memberships.double())
        if not all(bool(torch.isfinite(part).all()) for part in self._mixture):
            raise NonFiniteLossError("dagmm: the mixture of the training images is not finite")
        return self

    @needs_fit("_mixture")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """−energy, (n, 3, 32, 32) uint8 → (n,) float64; non-finite ones become one less than the least finite score.

        Raises
        ------
        NonFiniteLossError
            If no energy is finite: the training has diverged.
        """
        z = torch.from_numpy(self.encode(features))
        with standard_torch():
            if self.settings.mixture == "code":
                scores = -self._mixture.code_energy(z).double().numpy()
            else:
                scores = -self._mixture.energy(z.double()).numpy()
        finite = np.isfinite(scores)
        if not finite.any():
            raise NonFiniteLossError(f"dagmm: none of {len(scores)} energies is finite")
        scores[~finite] = scores[finite].min() - 1
        return scores

    @needs_fit("_mixture")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """The one score, named after the setting ``mixture``."""
        return {self.settings.mixture: self.score_samples(features)}

    @needs_fit("_net")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """Code, relative error and cosine similarity, (n, 3, 32, 32) uint8 → (n, representation + 2) float32."""
        return self._evaluate(lambda x: self._net(x)[1], features)
