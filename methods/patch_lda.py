"""Patch-LDA: a dictionary of image patches, whitened by unlabelled images, and the mean of a class."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from corel._checks import boolean, check_fields, count, integer, non_negative, positive
from corel.checkpoint import write_atomically
from corel.training import fingerprint
from methods.base import OneClassMethod, needs_fit

#: Images at a time. Fixed, because sums may round differently in batches of another size.
_BATCH = 500
#: Images whose correlations are held at a time: a core's cache holds few of them, and a GPU wants many.
_CHUNK = {"cpu": 2, "cuda": 100}
#: Patches from which the whitening of patches is estimated.
_PATCHES = 100_000


@dataclasses.dataclass(frozen=True)
class PatchLDASettings:
    """Settings of :class:`PatchLDA`.

    ``images`` bounds how many auxiliary images are used; ``filters`` patches of ``patch`` × ``patch`` pixels are the
    dictionary, correlated with an image at every ``stride``-th pixel; ``threshold`` is subtracted from both signs of
    a correlation, and what is left averaged over ``grid`` × ``grid`` fields of the image, and over the image and its
    mirror image where ``mirror`` is true; ``components`` principal components are kept, whitened with ``ridge`` times
    the largest eigenvalue added to all.
    """

    images: int = 50_000
    filters: int = 512
    patch: int = 6
    stride: int = 2
    threshold: float = 0.25
    grid: int = 2
    mirror: bool = True
    components: int = 1024
    ridge: float = 0.01

    def __post_init__(self) -> None:
        check_fields(
            self,
            images=count,
            filters=count,
            patch=integer("integers from 2 to 32, the side of an image", lambda side: 2 <= side <= 32),
            stride=count,
            threshold=non_negative,
            grid=count,
            mirror=boolean,
            components=count,
            ridge=positive,
        )


class PatchLDA(OneClassMethod):
    """Linear discriminant of a class against the background, on thresholded correlations with image patches.

    Patches as a dictionary are Coates, Lee and Ng's (AISTATS 2011; how far they go: Thiry et al., ICLR 2021), whitened
    means as detectors Hariharan, Malik and Ramanan's (ECCV 2012). Nothing is trained by gradients.
    """

    name = "patch-lda"
    profiles: ClassVar = {
        "paper": PatchLDASettings(),
        "quick": PatchLDASettings(images=1000, filters=32, mirror=False, components=128),
    }
    needs_auxiliary = True

    def __init__(self, settings: PatchLDASettings | None = None, *, seed: int = 0, device: str = "auto") -> None:
        super().__init__(settings, seed=seed, device=device)
        side = (32 - self.settings.patch) // self.settings.stride + 1
        means = F.adaptive_avg_pool2d(torch.eye(side * side).view(-1, side, side), self.settings.grid)
        self._fields = means.flatten(1).T.contiguous().to(self.device)
        self._learned: dict[str, Tensor] | None = None
        self._mean: np.ndarray | None = None

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Draw the dictionary and whiten its features by unlabelled images, or load both from ``path``."""
        shape = repr((sorted(self.auxiliary_settings().items()), self.seed, fingerprint(images)))
        key = hashlib.sha256(shape.encode()).hexdigest()
        learned = None if path is None else self._load(Path(path), key)
        if learned is None:
            learned = self._learn(images)
            if path is not None:
                state = {"key": key, **{name: tensor.cpu() for name, tensor in learned.items()}}
                write_atomically(path, lambda stream: torch.save(state, stream))
        self._learned = {name: tensor.to(self.device) for name, tensor in learned.items()}
        return self

    def _load(self, path: Path, key: str) -> dict[str, Tensor] | None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return {name: state[name] for name in ("kernel", "mean", "projection")} if state["key"] == key else None
        except Exception:  # whatever the damage to the file, it is made again
            return None

    def _learn(self, images: np.ndarray) -> dict[str, Tensor]:
        settings = self.settings
        generator = np.random.default_rng(self.seed % 2**64)
        chosen = np.sort(generator.permutation(len(images))[: settings.images])
        kernel = torch.from_numpy(self._dictionary(images, chosen, generator)).to(self.device)
        self._learned = {"kernel": kernel}
        first = chosen[:_BATCH]
        shift = next(self._features(images, first))[: len(first)].mean(0)  # near the mean: it costs products no digits
        total = torch.zeros(len(shift), dtype=torch.float64, device=self.device)
        products = torch.zeros(len(shift), len(shift), dtype=torch.float64, device=self.device)
        for start, features in zip(range(0, len(chosen), _BATCH), self._features(images, chosen), strict=True):
            features = features[: len(chosen) - start] - shift
            total += features.sum(0, dtype=torch.float64)
            products += features.T @ features
        mean = total / len(chosen)
        covariance = products / len(chosen) - torch.outer(mean, mean)
        scale = covariance.diagonal().clamp_min(1e-12).rsqrt()
        values, vectors = torch.linalg.eigh((covariance * scale * scale[:, None]).float())
        values, vectors = values[-settings.components :], vectors[:, -settings.components :]
        projection = scale[:, None].float() * vectors / (values + settings.ridge * values[-1]).sqrt()
        return {"kernel": kernel, "mean": (shift + mean).float(), "projection": projection}

    def _dictionary(self, images: np.ndarray, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The filters, (3 · patch², filters) float32: normalising a patch's mean and whitening are part of them."""
        side, drawn = self.settings.patch, np.sort(generator.choice(chosen, _PATCHES))
        corners = generator.integers(0, 33 - side, (_PATCHES, 2))
        patches = np.stack(
            [images[i, :, y : y + side, x : x + side].ravel() for i, (y, x) in zip(drawn, corners, strict=True)]
        ).astype(np.float64)
        patches -= patches.mean(1, keepdims=True)
        patches /= np.sqrt(patches.var(1, keepdims=True) + 10)
        values, vectors = np.linalg.eigh(np.cov(patches.T))
        whitening = (vectors / np.sqrt(values + 0.1)) @ vectors.T
        filters = (patches[generator.permutation(_PATCHES)[: self.settings.filters]] - patches.mean(0)) @ whitening
        filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
        kernel = whitening @ filters.T
        return (kernel - kernel.mean(0)).astype(np.float32)

    def _features(self, images: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[Tensor]:
        """Features of images, 500 at a time and zeros after the last: (500, 2 · filters · grid²) float32."""
        assert self._learned is not None
        kernel, chunk = self._learned["kernel"], _CHUNK[self.device.type]
        indices = np.arange(len(images)) if chosen is None else chosen
        batch = np.zeros((_BATCH, *images.shape[1:]), np.uint8)
        for start in range(0, len(indices), _BATCH):
            part = indices[start : start + _BATCH]
            batch[: len(part)] = images[part]
            x = torch.from_numpy(batch).to(self.device, torch.float32)
            features = torch.cat([self._pooled(part, kernel) for part in x.split(chunk)])
            if self.settings.mirror:
                features += torch.cat([self._pooled(part, kernel) for part in x.flip(3).split(chunk)])
            features[len(part) :] = 0
            yield features

    def _pooled(self, x: Tensor, kernel: Tensor) -> Tensor:
        settings = self.settings
        patches = F.unfold(x, settings.patch, stride=settings.stride).transpose(1, 2)
        patches = patches / (patches.var(2, correction=0, keepdim=True) + 10).sqrt()
        y = patches.contiguous() @ kernel  # (images, positions, filters)
        fields = self._fields
        positive = fields @ (y - settings.threshold).relu_()
        return torch.cat([positive, fields @ y.neg_().sub_(settings.threshold).relu_()], 2).flatten(1)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Whitened features: (n, 3, 32, 32) uint8 → (n, components) float32."""
        if self._learned is None:
            raise ValueError("patch-lda: prepare needs a dictionary; call fit_auxiliary first")
        mean, projection = self._learned["mean"], self._learned["projection"]
        codes = np.empty((len(images), projection.shape[1]), np.float32)
        for start, features in zip(range(0, len(images), _BATCH), self._features(images), strict=True):
            part = codes[start : start + _BATCH]
            part[:] = ((features - mean) @ projection)[: len(part)].cpu().numpy()
        return codes

    def fit(self, features: np.ndarray) -> Self:
        """Average the unit vectors of the class's codes, (m, components)."""
        self._mean = _unit(features).mean(0)
        return self

    @needs_fit("_mean")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """The cosine to the class's mean: (n, components) → (n,) float64."""
        return self.score_variants(features)["cosine"]

    @needs_fit("_mean")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """ "cosine" of code and mean, and "lda": their inner product, the discriminant against the background."""
        assert self._mean is not None
        mean = self._mean / max(float(np.linalg.norm(self._mean)), 1e-12)
        blocks = [features[start : start + 1000] for start in range(0, len(features), 1000)]
        # row by row, not as a matrix product: its rounding depends on how many rows there are
        return {
            "cosine": np.concatenate([(_unit(block) * mean).sum(1) for block in blocks] or [np.empty(0)]),
            "lda": np.concatenate([(block * mean).sum(1) for block in blocks] or [np.empty(0)]),
        }

    def encode(self, features: np.ndarray) -> np.ndarray:
        """The codes themselves: prepared features are codes."""
        return np.asarray(features, dtype=np.float32)


def _unit(codes: np.ndarray) -> np.ndarray:
    codes = np.asarray(codes, np.float64)
    return codes / np.maximum(np.sqrt((codes * codes).sum(1, keepdims=True)), 1e-12)
