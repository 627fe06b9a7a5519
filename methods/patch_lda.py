"""Patch-LDA: features from random image patches, whitened by unlabelled images and randomly changed copies of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from corel._checks import at_least, boolean, count, counts, got, non_negative, positive, real
from corel._device import random_state_kept, standard_torch
from corel.checkpoint import write_atomically
from methods.base import OneClassMethod, needs_fit
from methods.neural import BATCH, CheckedSettings, check_images, checked_field, hash_seed

#: Images whose correlations are held at a time: a core's cache holds few of them, and a GPU wants many.
_CHUNK = {"cpu": 8, "cuda": 100}
#: Patches from which the whitening of patches is estimated.
_PATCHES = 20_000


def _sides(name: str, value: Any) -> tuple[int, ...]:
    sides = counts(1, 4)(name, value)
    if max(sides) > 32:
        raise ValueError(got(name, value, "1 to 4 integers from 1 to 32, the side of an image"))
    return sides


@dataclasses.dataclass(frozen=True)
class PatchLDASettings(CheckedSettings):
    """Settings of :class:`PatchLDA`.

    Parameters
    ----------
    images
        Auxiliary images used, at most.
    filters
        Patches of each side in the dictionary.
    patches
        Sides of the patches, in pixels.
    stride
        Pixels from one patch of an image to the next.
    threshold
        Subtracted from a correlation of either sign; what is left below 0 becomes 0.
    grid
        Averages are taken over grid × grid fields of the image.
    mirror
        Whether they are also taken over the image's mirror image.
    offset
        Added to the averages before their logarithm.
    components
        Principal components kept.
    ridge
        Share of the largest eigenvalue that is added to all when the components are whitened.
    copies
        Auxiliary images of which a changed copy is made, to whiten codes by how both differ; 0: not at all.
    crop
        Smallest share of an image's area that its copy shows.
    damping
        Share of the mean variance of these differences that is added to all when codes are whitened by them.
    concentration
        Of the density around each code of a class.
    """

    images: int = checked_field(count, 50_000)
    filters: int = checked_field(count, 128)
    patches: tuple[int, ...] = checked_field(_sides, (4, 8))
    stride: int = checked_field(count, 2)
    threshold: float = checked_field(non_negative, 0.25)
    grid: int = checked_field(count, 3)
    mirror: bool = checked_field(boolean, True)
    offset: float = checked_field(positive, 0.05)
    components: int = checked_field(count, 1536)
    ridge: float = checked_field(positive, 0.003)
    copies: int = checked_field(at_least(0), 10_000)
    crop: float = checked_field(real("numbers above 0, up to 1", lambda share: 0 < share <= 1), 0.6)
    damping: float = checked_field(positive, 0.5)
    concentration: float = checked_field(positive, 14.0)


class PatchLDA(OneClassMethod):
    """Kernel density of a class in a space of whitened features: averages of thresholded correlations with patches.

    A dictionary of random patches is that of Coates, Lee and Ng (AISTATS 2011; see also Thiry et al., ICLR 2021), and
    whitening by background images that of Hariharan, Malik and Ramanan (ECCV 2012). Then each of some images is taken,
    with a randomly changed copy, for a class of its own (Dosovitskiy et al., NIPS 2014), and features are whitened by
    the covariance within these classes (Hatch, Kajarekar and Stolcke, Interspeech 2006). Nothing is trained by
    gradients.
    """

    name = "patch-lda"
    version = 2
    profiles: ClassVar = {
        "paper": PatchLDASettings(),
        "quick": PatchLDASettings(images=1000, filters=16, mirror=False, components=128, copies=500),
    }
    needs_auxiliary = True

    def __init__(self, settings: PatchLDASettings | None = None, *, seed: int = 0, device: str = "auto") -> None:
        super().__init__(settings, seed=seed, device=device)
        #: Filters by the side of their patches, and "mean" and "projection" of the features.
        self._learned: dict[str, Tensor] = {}
        self._class: Tensor | None = None

    def auxiliary_settings(self) -> dict[str, Any]:
        """Every setting but the concentration, which only scores use."""
        return {name: value for name, value in super().auxiliary_settings().items() if name != "concentration"}

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Draw the dictionary and whiten its features by unlabelled images, or load both from ``path``."""
        key = self._learned_key(check_images(images))
        learned = None if path is None else self._load(Path(path), key)
        if learned is None:
            with standard_torch(), torch.no_grad():
                learned = self._learn(images)
            if path is not None:
                state = {"key": key, **{name: tensor.cpu() for name, tensor in learned.items()}}
                write_atomically(path, lambda stream: torch.save(state, stream))
        self._learned = {name: tensor.to(self.device) for name, tensor in learned.items()}
        return self

    def _load(self, path: Path, key: str) -> dict[str, Tensor] | None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return state if state.pop("key") == key else None
        except Exception:  # whatever the damage to the file, it is made again
            return None

    def _drawn(self, count: int) -> np.ndarray:
        """Which of ``count`` auxiliary images are used, ascending."""
        return np.sort(np.random.default_rng(self.seed % 2**64).permutation(count)[: self.settings.images])

    def _learn(self, images: np.ndarray) -> dict[str, Tensor]:
        settings = self.settings
        generator = np.random.default_rng((self.seed % 2**64, 1))
        chosen = self._drawn(len(images))
        dictionary = {
            str(side): torch.from_numpy(self._filters(side, images, chosen, generator)).to(self.device)
            for side in settings.patches
        }
        self._learned = dictionary
        first = chosen[:BATCH]
        shift = next(self._features(images, first))[: len(first)].mean(0)  # near the mean: no cancellation
        total = torch.zeros(len(shift), dtype=torch.float64, device=self.device)
        products = torch.zeros(len(shift), len(shift), dtype=torch.float64, device=self.device)
        for start, features in zip(range(0, len(chosen), BATCH), self._features(images, chosen), strict=True):
            features = features[: len(chosen) - start] - shift
            total += features.sum(0, dtype=torch.float64)
            products += features.T @ features
        mean = total / len(chosen)
        covariance = products / len(chosen) - torch.outer(mean, mean)
        scale = covariance.diagonal().clamp_min(1e-12).rsqrt()
        correlation = (covariance * scale * scale[:, None]).float().cpu().numpy()
        top = [max(0, len(shift) - settings.components), len(shift) - 1]
        values, vectors = scipy.linalg.eigh(correlation, subset_by_index=top, overwrite_a=True, check_finite=False)
        whitening = torch.from_numpy(vectors / np.sqrt(values + settings.ridge * values[-1])).to(self.device)
        projection = scale[:, None].float() * whitening
        learned = self._learned = {**dictionary, "mean": (shift + mean).float(), "projection": projection}
        if settings.copies:
            some = images[np.sort(generator.permutation(chosen)[: settings.copies])]
            change = self._codes(some).astype(np.float64) - self._codes(self._changed(some))
            values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(change.T, bias=True)))
            whitening = vectors / np.sqrt(values + settings.damping * values.mean() + 1e-12)
            learned["projection"] = projection @ torch.from_numpy(whitening.astype(np.float32)).to(self.device)
        return learned

    def _changed(self, images: np.ndarray) -> np.ndarray:
        """Randomly cropped, scaled and recoloured copies: (n, 3, 32, 32) uint8 → the same."""
        from torchvision.transforms import v2  # importing it takes long

        with torch.device("cpu"), random_state_kept(self.device):  # torchvision draws on the default device
            change = v2.Compose(
                [
                    v2.RandomResizedCrop(32, (self.settings.crop, 1.0), (0.9, 1 / 0.9)),
                    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                    v2.RandomGrayscale(0.2),
                ]
            )
            torch.default_generator.manual_seed(hash_seed(self.seed, "copies"))
            return np.stack([change(torch.from_numpy(image)).numpy() for image in images])

    def _filters(self, side: int, images: np.ndarray, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The filters, (3 · side², filters) float32, which include subtraction of a patch's mean, and its whitening."""
        drawn = np.sort(generator.choice(chosen, _PATCHES))
        corners = generator.integers(0, 33 - side, (_PATCHES, 2))
        windows = sliding_window_view(images[drawn], (side, side), axis=(2, 3))
        patches = windows[np.arange(_PATCHES), :, corners[:, 0], corners[:, 1]].reshape(_PATCHES, -1).astype(np.float64)
        patches -= patches.mean(1, keepdims=True)
        patches /= np.sqrt(patches.var(1, keepdims=True) + 10)
        values, vectors = np.linalg.eigh(np.cov(patches.T))
        whitening = (vectors / np.sqrt(values + 0.1)) @ vectors.T
        filters = (patches[generator.choice(_PATCHES, self.settings.filters)] - patches.mean(0)) @ whitening
        filters /= np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-12)
        kernel = whitening @ filters.T
        return (kernel - kernel.mean(0)).astype(np.float32)

    def _features(self, images: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[Tensor]:
        """Features in batches of 500 images, (500, 2 · filters · patches · grid²); black images fill the last one."""
        indices = np.arange(len(images)) if chosen is None else chosen
        for start in range(0, len(indices), BATCH):
            batch = np.zeros((BATCH, *images.shape[1:]), np.uint8)
            part = indices[start : start + BATCH]
            batch[: len(part)] = images[part]
            x = torch.from_numpy(batch).to(self.device, torch.float32)
            means = torch.cat([self._means(some) for some in x.split(_CHUNK[self.device.type])])
            if self.settings.mirror:
                means += torch.cat([self._means(some) for some in x.flip(3).split(_CHUNK[self.device.type])])
                means /= 2
            yield means.add_(self.settings.offset).log_()

    def _means(self, x: Tensor) -> Tensor:
        """Thresholded correlations of (n, 3, 32, 32) images, averaged over fields."""
        settings, parts = self.settings, []
        for side in settings.patches:
            moments = F.avg_pool2d(torch.stack([x.mean(1), (x * x).mean(1)], 1), side, settings.stride).flatten(2)
            variance = (moments[:, 1] - moments[:, 0] ** 2).clamp_min(0)
            patches = F.unfold(x, side, stride=settings.stride) / (variance[:, None] + 10).sqrt()
            y = patches.transpose(1, 2).contiguous() @ self._learned[str(side)]  # (n, positions, filters)
            fields = _fields((32 - side) // settings.stride + 1, settings.grid).to(self.device)
            parts.append(fields @ (y - settings.threshold).relu_())
            parts.append(fields @ y.neg_().sub_(settings.threshold).relu_())
        return torch.cat(parts, 2).flatten(1)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Whitened features: (n, 3, 32, 32) uint8 → (n, components) float32."""
        if not self._learned:
            raise ValueError("patch-lda: prepare needs a dictionary; call fit_auxiliary first")
        with standard_torch(), torch.no_grad():
            return self._codes(check_images(images, least=0))

    def _codes(self, images: np.ndarray) -> np.ndarray:
        mean, projection = self._learned["mean"], self._learned["projection"]
        codes = np.empty((len(images), projection.shape[1]), np.float32)
        for start, features in zip(range(0, len(images), BATCH), self._features(images), strict=True):
            part = codes[start : start + BATCH]
            part[:] = ((features - mean) @ projection)[: len(part)].cpu().numpy()
        return codes

    def fit(self, features: np.ndarray) -> Self:
        """Store the class's codes, (m, components), scaled to unit length."""
        with standard_torch():
            self._class = F.normalize(torch.from_numpy(np.array(features, np.float32)))
        return self

    @needs_fit("_class")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Logarithm of a density on the sphere, but for a constant: (n, components) → (n,) float64."""
        return self.score_variants(features)["density"]

    @needs_fit("_class")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Both scores, (n,) float64 each.

        "density" is the logarithm of the sum of exp(concentration · cosine) over the class's codes, which is that of
        a mixture of von Mises–Fisher densities but for a constant; "lda" is the inner product with the mean of the
        class's unit vectors.
        """
        with standard_torch(), torch.no_grad():
            return self._scores(features)

    def _scores(self, features: np.ndarray) -> dict[str, np.ndarray]:
        assert self._class is not None
        density, lda = np.empty(len(features)), np.empty(len(features))
        for start in range(0, len(features), BATCH):
            part = np.zeros((BATCH, features.shape[1]), np.float32)
            size = len(features[start : start + BATCH])
            part[:size] = features[start : start + BATCH]
            codes = torch.from_numpy(part)
            cosines = (F.normalize(codes) @ self._class.T).double()
            density[start : start + size] = (cosines * self.settings.concentration).logsumexp(1)[:size]
            lda[start : start + size] = (cosines.mean(1) * codes.norm(dim=1))[:size]
        return {"density": density, "lda": lda}

    def encode(self, features: np.ndarray) -> np.ndarray:
        """The codes themselves: prepared features are codes."""
        return np.asarray(features, dtype=np.float32)


@functools.cache
def _fields(positions: int, grid: int) -> Tensor:
    """Averages over grid × grid fields of positions × positions, as a (grid², positions²) matrix."""
    each = torch.eye(positions**2, dtype=torch.float32, device="cpu").view(-1, positions, positions)
    return F.adaptive_avg_pool2d(each, grid).flatten(1).T.contiguous()
