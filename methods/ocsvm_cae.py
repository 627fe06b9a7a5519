"""OC-SVM (CAE): a one-class SVM on the representations of a convolutional autoencoder of the class."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.svm import OneClassSVM
from torch import Tensor, nn

from corel._checks import boolean, check_fields, count, counts, positive, real
from methods._epochs import check_images, train_epochs
from methods.base import OneClassMethod, needs_fit
from methods.dcgan import BATCH, Decoder, Encoder, scaled

#: The reference's grid, of which it takes the pair with the best test AUC.
GRID_NU = tuple(round(0.1 * k, 1) for k in range(1, 10))
GRID_GAMMA = tuple(2.0**k for k in range(-7, 3))


@dataclasses.dataclass(frozen=True)
class OCSVMCAESettings:
    """Settings of :class:`OCSVMCAE`; the defaults are the reference's, but for ``nu``, which is ours.

    ``nu`` and γ = "scale" (1 / (dimensions · variance), as scikit-learn has it) are the "fixed" selection, made before
    any label is seen. ``grid`` False leaves the "oracle" out.
    """

    representation: int = 256
    filters: tuple[int, ...] = (64, 128, 256)
    epochs: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    nu: float = 0.1
    grid: bool = True

    def __post_init__(self) -> None:
        check_fields(
            self,
            representation=count,
            filters=counts(1, 5),
            epochs=count,
            batch_size=count,
            lr=positive,
            nu=real("numbers above 0 and up to 1", lambda nu: 0 < nu <= 1),
            grid=boolean,
        )


class OCSVMCAE(OneClassMethod):
    """One-class SVM with a Gaussian kernel on the codes of a convolutional autoencoder trained on the class.

    Scores are the SVM's decision function. "fixed" is one SVM, chosen beforehand; "oracle" the family of the
    reference's grid (9 ν × 10 γ), which it chooses from by test AUC.
    """

    name = "ocsvm-cae"
    profiles: ClassVar = {
        "paper": OCSVMCAESettings(),
        "quick": OCSVMCAESettings(representation=64, filters=(16, 32, 64), epochs=15, batch_size=32),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train the autoencoder and the one-class SVMs on (m, 3, 32, 32) uint8 images."""
        settings = self.settings
        check_images(features)
        images = scaled(features, self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self._encoder = Encoder(settings.representation, settings.filters, nn.Tanh()).to(self.device)
            decoder = Decoder(settings.representation, settings.filters).to(self.device)
        net = nn.Sequential(self._encoder, decoder)
        optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr, eps=1e-7, fused=True)

        def loss(batch: Tensor) -> Tensor:
            x = images[batch.to(self.device)]
            return F.mse_loss(net(x), x)

        train_epochs(
            self, "autoencoder", features, net, optimizer, loss,
            samples=len(images), batch_size=settings.batch_size, epochs=settings.epochs,
        )  # fmt: skip
        self._codes = self.encode(features).astype(np.float64)
        variance = self._codes.var()
        self._scale = 1.0 / (self._codes.shape[1] * variance) if variance > 0 else 1.0
        squares = _squared_distances(self._codes, self._codes)

        def family(gamma: float, *values: float) -> list[OneClassSVM]:
            kernel = np.exp(-gamma * squares)
            return [OneClassSVM(kernel="precomputed", nu=nu).fit(kernel) for nu in values]

        self._svms = [(self._scale, family(self._scale, settings.nu))]
        if settings.grid:
            # libsvm works without Python's lock; each thread holds two kernel matrices
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
        """ "fixed": (n,); "oracle": (90, n), ν fastest, of which the reference takes the best by test AUC."""
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
        for start in range(0, len(codes), BATCH):
            squares = _squared_distances(codes[start : start + BATCH], self._codes)

            def family(index: int, squares: np.ndarray = squares) -> np.ndarray:
                gamma, svms = families[index]
                return np.exp(-gamma * squares) @ coefficients[index] + [svm.intercept_[0] for svm in svms]

            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                parts = pool.map(family, range(len(families)))
                scores[:, start : start + BATCH] = np.concatenate(list(parts), axis=1).T
        return scores

    @needs_fit("_encoder")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """Representations, (n, 3, 32, 32) uint8 → (n, representation) float32 in [−1, 1]."""
        self._encoder.eval()
        with torch.inference_mode():
            parts = [
                self._encoder(scaled(features[start : start + BATCH], self.device)).cpu()
                for start in range(0, len(features), BATCH)
            ]
        return torch.cat(parts).numpy() if parts else np.empty((0, self.settings.representation), np.float32)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return np.maximum(squares, 0.0)
