"""Codes of corel, whitened by those of the auxiliary images: are their distances worth more after it?

A class is the mean of its whitened codes, scaled to unit length, and a score the cosine to it. No radius is chosen.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from methods.base import needs_fit
from methods.corel import Corel, CorelSettings


@dataclasses.dataclass(frozen=True)
class WhitenedMeanSettings(CorelSettings):
    """Settings of corel; what is added to the eigenvalues of the covariance, as a share of the largest."""

    ridge: float = 0.03


class WhitenedMean(Corel):
    """Cosine to the mean of a class, of codes of corel that are whitened by the auxiliary images."""

    name = "whitened-mean"
    profiles: ClassVar = {"paper": WhitenedMeanSettings(), "quick": WhitenedMeanSettings(epochs=6)}
    version = 1

    def _corel(self) -> Corel:
        values = {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(CorelSettings)}
        return Corel(CorelSettings(**values), seed=self.seed, device=str(self.device))

    def auxiliary_settings(self) -> dict[str, Any]:
        """Those of corel: the encoder is the one that corel trains with these settings."""
        return self._corel().auxiliary_settings()

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Let corel train its encoder, or load it, and take mean and covariance of the codes of the images."""
        super().fit_auxiliary(images, path=path)
        codes = super().prepare(images).astype(np.float64)
        self._centre = codes.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(codes.T))
        self._whitening = vectors / np.sqrt(values + self.settings.ridge * values[-1])
        return self

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Whitened codes of unit length: (n, 3, 32, 32) uint8 → (n, branches · branch_dim) float32."""
        codes = super().prepare(images)
        for row in codes:
            # one at a time, in double precision: an image's code does not depend on the others of its split
            whitened = (row - self._centre) @ self._whitening
            row[:] = whitened / max(np.linalg.norm(whitened), np.finfo(np.float64).tiny)
        return codes

    def fit(self, features: np.ndarray) -> Self:
        """Take the mean of the class: (m, branches · branch_dim) → self."""
        self._mean = features.astype(np.float64).mean(axis=0)
        return self

    @needs_fit("_mean")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Inner products with the mean, which ranks as the cosine does: (n, …) → (n,) float64."""
        return features.astype(np.float64) @ self._mean
