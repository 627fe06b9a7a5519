"""Controlled connectivity on top of patch-lda: a branched layer trained by the connectivity loss on its codes.

Scores show what the loss is good for there: the ball count at the η that the layer was trained for, and, on the same
codes, patch-lda's two scores, which know no radius.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corel import BallCount, ConnectivityLoss
from methods.base import needs_fit
from methods.neural import NeuralMethod
from methods.patch_lda import PatchLDA, PatchLDASettings


@dataclasses.dataclass(frozen=True)
class PatchCorelSettings(PatchLDASettings):
    """Settings of patch-lda, and those of the layer: as in corel, but fewer epochs, because it is small.

    ``hidden`` is the number of rectified units between patch-lda's codes and the branches; 0: the layer is linear. With
    ``unit``, codes are scaled to one length first.
    """

    hidden: int = 0
    unit: bool = False
    eta: float = 2.0
    lam: float = 20.0
    branches: int = 16
    branch_dim: int = 10
    epochs: int = 20
    batch_size: int = 100
    lr: float = 1e-3
    autocast: bool = False


class PatchCorel(PatchLDA, NeuralMethod):
    """Ball count of a branched code of patch-lda's codes, trained to reconstruct them with connectivity."""

    name = "patch-corel"
    profiles: ClassVar = {
        "paper": PatchCorelSettings(),
        "quick": PatchCorelSettings(images=1000, filters=16, mirror=False, components=128, copies=500, epochs=6),
    }

    def _given(self, images: np.ndarray) -> Tensor:
        """What the layer sees: (n, 3, 32, 32) uint8 → (n, components) float32."""
        codes = torch.from_numpy(self._codes(images))
        return F.normalize(codes) * math.sqrt(codes.shape[1]) if self.settings.unit else codes

    def _layer(self, components: int) -> nn.Sequential:
        settings = self.settings
        width = settings.branches * settings.branch_dim
        if settings.hidden == 0:
            return nn.Sequential(nn.Linear(components, width))
        return nn.Sequential(nn.Linear(components, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, width))

    def _learn(self, images: np.ndarray) -> dict[str, Tensor]:
        settings = self.settings
        learned = super()._learn(images)
        seen = images[self._drawn(len(images))]
        given = self._given(seen).to(self.device)
        components = given.shape[1]

        def make() -> nn.Sequential:
            return nn.Sequential(
                self._layer(components), nn.Linear(settings.branches * settings.branch_dim, components)
            )

        net = self._build(make)
        connectivity = ConnectivityLoss(eta=settings.eta, branches=settings.branches, reduction="mean")

        def loss(batch: Tensor) -> Tensor:
            x = given[batch]
            z = net[0](x)
            return (net[1](z) - x).abs().sum() / len(x) + settings.lam * connectivity(z)

        self._train("branches", given.cpu().numpy(), net, loss)
        with torch.no_grad():
            z = torch.cat([net[0](x) for x in given.split(500)]).double()
        # what whitens the new codes, for the scores that know no radius
        values, vectors = torch.linalg.eigh(torch.cov(z.T).cpu())
        whitening = vectors / (values + settings.ridge * values[-1]).sqrt()
        layer = {f"layer.{name}": weights for name, weights in net[0].state_dict().items()}
        return {**learned, **layer, "centre": z.mean(0).float(), "whitening": whitening.float()}

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Codes of the branched layer, and the same whitened: (n, 3, 32, 32) uint8 → (n, 2 · width) float32."""
        if not self._learned:
            raise ValueError("patch-corel: prepare needs a trained layer; call fit_auxiliary first")
        learned = {name: tensor.cpu().double() for name, tensor in self._learned.items()}
        layer = self._layer(learned["projection"].shape[1]).double()
        layer.load_state_dict({name.removeprefix("layer."): learned[name] for name in learned if "layer." in name})
        codes = []
        for part in self._given(images).split(500):
            # in double precision, so that an image's code in single precision does not depend on its neighbours
            with torch.no_grad():
                z = layer(part.double()).float()
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
