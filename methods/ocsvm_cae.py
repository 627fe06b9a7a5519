"""OC-SVM (CAE): a one-class SVM on the representations of a convolutional autoencoder of the class."""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.svm import OneClassSVM
from torch import Tensor, nn

from corel._checks import boolean, real
from methods.base import needs_fit
from methods.dcgan import DCGANSettings, Decoder, Encoder
from methods.neural import BATCH, NeuralMethod, check_images, checked_field

#: The reference's grid, of which it takes the pair with the best test AUC.
GRID_NU = tuple(round(0.1 * k, 1) for k in range(1, 10))
GRID_GAMMA = tuple(2.0**k for k in range(-7, 3))


@dataclasses.dataclass(frozen=True)
class OCSVMCAESettings(DCGANSettings):
    """Settings of :class:`OCSVMCAE`; the defaults are the reference's, except for ``nu``, which is ours.

    Parameters
    ----------
    nu
        ν of the "fixed" SVM, whose γ is scikit-learn's "scale", 1 / (dimensions · variance). Both are chosen before any
        label is seen.
    grid
        Whether the "oracle" is computed too.
    """

    nu: float = checked_field(real("numbers above 0 and up to 1", lambda nu: 0 < nu <= 1), 0.1)
    grid: bool = checked_field(boolean, True)


class OCSVMCAE(NeuralMethod):
    """One-class SVM with a Gaussian kernel on the codes of a convolutional autoencoder trained on the class.

    Scores are the SVM's decision function. "fixed" is one SVM, chosen beforehand; "oracle" is the family of the
    reference's grid (9 ν × 10 γ), from which the reference chooses by test AUC.
    """

    name = "ocsvm-cae"
    version = 2
    profiles: ClassVar = {
        "paper": OCSVMCAESettings(),
        "quick": OCSVMCAESettings(representation=64, filters=(8, 16, 32), epochs=7, batch_size=60),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train the autoencoder and the one-class SVMs on (m, 3, 32, 32) uint8 images."""
        settings = self.settings
        images = self._inputs(check_images(features))
        net = self._build(
            lambda: nn.Sequential(
                Encoder(settings.representation, settings.filters, nn.Tanh()),
                Decoder(settings.representation, settings.filters),
            )
        )
        self._encoder = net[0]

        def loss(batch: Tensor) -> Tensor:
            x = images[batch]
            return F.mse_loss(net(x), x)

        self._train("autoencoder", features, net, loss)
        self._codes = self.encode(features).astype(np.float64)
        variance = self._codes.var()
        self._scale = 1.0 / (self._codes.shape[1] * variance) if variance > 0 else 1.0
        squares = _squared_distances(self._codes, self._codes)

        def family(gamma: float, *values: float) -> list[OneClassSVM]:
            kernel = np.exp(-gamma * squares)
            return [OneClassSVM(kernel="precomputed", nu=nu).fit(kernel) for nu in values]

        self._svms = [(self._scale, family(self._scale, settings.nu))]
        if settings.grid:
            # libsvm releases Python's lock; each thread holds two kernel matrices
            with ThreadPoolExecutor(min(torch.get_num_threads(), 4)) as pool:
                families = pool.map(lambda gamma: family(gamma, *GRID_NU), GRID_GAMMA)
                self._svms += list(zip(GRID_GAMMA, families, strict=True))
        return self

    @needs_fit("_svms")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """The fixed SVM's decision function, (n, 3, 32, 32) uint8 → (n,) float64."""
        return self._scores(features, self._svms[:1])[0]

    @needs_fit("_svms")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Both scores: "fixed", (n,), and "oracle", (90, n), ν fastest, of which the best by test AUC counts."""
        scores = self._scores(features, self._svms)
        return {"fixed": scores[0], "oracle": scores[1:]} if self.settings.grid else {"fixed": scores[0]}

    def _scores(self, features: np.ndarray, families: list[tuple[float, list[OneClassSVM]]]) -> np.ndarray:
        """Decision functions of all SVMs, (k, n); the kernel matrix is computed once per γ."""
        coefficients = []
        for _, svms in families:
            weights = np.zeros((len(self._codes), len(svms)))
            for column, svm in enumerate(svms):
                weights[svm.support_, column] = svm.dual_coef_[0]
            coefficients.append(weights)
        codes = self.encode(features).astype(np.float64)
        scores = np.empty((sum(len(svms) for _, svms in families), len(codes)))

        def of_family(squares: np.ndarray, index: int) -> np.ndarray:
            gamma, svms = families[index]
            return np.exp(-gamma * squares) @ coefficients[index] + [svm.intercept_[0] for svm in svms]

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start in range(0, len(codes), BATCH):
                squares = _squared_distances(codes[start : start + BATCH], self._codes)
                parts = pool.map(functools.partial(of_family, squares), range(len(families)))
                scores[:, start : start + BATCH] = np.concatenate(list(parts), axis=1).T
        return scores

    @needs_fit("_encoder")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """Representations, (n, 3, 32, 32) uint8 → (n, representation) float32 in [−1, 1]."""
        return self._evaluate(self._encoder, features)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return np.maximum(squares, 0.0)
