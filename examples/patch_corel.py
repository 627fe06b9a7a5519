"""Controlled connectivity on top of patch-lda: a branched layer trained by the connectivity loss on its codes.

Scores show what the loss is good for there: the ball count at the η that the layer was trained for, and, on the same
codes, patch-lda's two scores, which know no radius.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from corel import BallCount, ConnectivityLoss
from methods.base import needs_fit
from methods.neural import NeuralMethod
from methods.patch_lda import PatchLDA, PatchLDASettings


@dataclasses.dataclass(frozen=True)
class PatchCorelSettings(PatchLDASettings):
    """Settings of patch-lda, and those of the layer: as in corel, but fewer epochs, because it is one matrix."""

    eta: float = 2.0
    lam: float = 20.0
    branches: int = 16
    branch_dim: int = 10
    epochs: int = 20
    batch_size: int = 100
    lr: float = 1e-3
    autocast: bool = False


class PatchCorel(PatchLDA, NeuralMethod):
    """Ball count of a linear, branched code of patch-lda's codes, trained to reconstruct them with connectivity."""

    name = "patch-corel"
    profiles: ClassVar = {
        "paper": PatchCorelSettings(),
        "quick": PatchCorelSettings(images=1000, filters=16, mirror=False, components=128, epochs=6),
    }

    def _learn(self, images: np.ndarray) -> dict[str, Tensor]:
        settings = self.settings
        self._learned = learned = super()._learn(images)
        chosen = np.sort(np.random.default_rng(self.seed % 2**64).permutation(len(images))[: settings.images])
        codes = super().prepare(images[chosen])
        given = torch.from_numpy(codes).to(self.device)
        width = settings.branches * settings.branch_dim

        def make() -> nn.Sequential:
            return nn.Sequential(nn.Linear(codes.shape[1], width), nn.Linear(width, codes.shape[1]))

        net = self._build(make)
        connectivity = ConnectivityLoss(eta=settings.eta, branches=settings.branches, reduction="mean")

        def loss(batch: Tensor) -> Tensor:
            x = given[batch]
            z = net[0](x)
            return (net[1](z) - x).abs().sum() / len(x) + settings.lam * connectivity(z)

        self._train("branches", codes, net, loss)
        state = net[0].state_dict()
        z = (given @ state["weight"].T + state["bias"]).double()
        # what whitens the new codes, for the scores that know no radius
        values, vectors = torch.linalg.eigh(torch.cov(z.T).cpu())
        whitening = vectors / (values + settings.ridge * values[-1]).sqrt()
        return {
            **learned,
            **state,
            "centre": z.mean(0).float(),
            "whitening": whitening.float(),
        }

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Codes of the branched layer, and the same whitened: (n, 3, 32, 32) uint8 → (n, 2 · width) float32."""
        learned = {name: tensor.cpu().double() for name, tensor in self._learned.items()}
        codes = []
        for part in torch.from_numpy(super().prepare(images)).split(500):
            # in double precision, so that an image's code in single precision does not depend on its neighbours
            z = (part.double() @ learned["weight"].T + learned["bias"]).float()
            codes.append(torch.cat([z, ((z - learned["centre"]) @ learned["whitening"]).float()], 1))
        return torch.cat(codes).numpy()

    def _split(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = self.settings.branches * self.settings.branch_dim
        return features[:, :width], features[:, width:]

    def fit(self, features: np.ndarray) -> Self:
        """Store the codes of the class."""
        codes, whitened = self._split(features)
        self._balls = BallCount(radius=self.settings.eta, branches=self.settings.branches).fit(codes)
        return super().fit(whitened)

    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Ball counts at η: (n, …) → (n,) float64."""
        return self.score_variants(features)["ball"]

    @needs_fit("_class")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """ "ball": ball counts at η; "density" and "lda": patch-lda's scores of the same codes, whitened."""
        codes, whitened = self._split(features)
        return {"ball": self._balls.score_samples(codes), **super().score_variants(whitened)}
