"""ADT: anomaly detection with geometric transformations (Golan and El-Yaniv, NeurIPS 2018)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from corel._checks import count, integer, non_negative, one_of
from methods.base import needs_fit
from methods.dirichlet import fit_dirichlet
from methods.neural import NeuralMethod, TrainingSettings, check_images, checked_field
from methods.wide_resnet import WideResNet

#: (flip, shift x, shift y, quarter turns) of each transformation; its place in the tuple is its class.
TRANSFORMATIONS: tuple[tuple[bool, int, int, int], ...] = tuple(
    itertools.product((False, True), (0, -8, 8), (0, -8, 8), range(4))
)


def transform_pixels(pixels: np.ndarray, flip: bool, shift_x: int, shift_y: int, quarter_turns: int) -> np.ndarray:
    """Flip left and right, shift, and rotate counter-clockwise, in this order.

    As in the reference (Keras), x runs along the rows: pixel (i, j) of the shifted image is (i + shift_x,
    j + shift_y) of the image before; what lies outside is its reflection, the edge pixel repeated.

    Parameters
    ----------
    pixels
        (side, side, …).

    Returns
    -------
    numpy.ndarray
        (side, side, …).
    """
    if flip:
        pixels = pixels[:, ::-1]
    margin = max(abs(shift_x), abs(shift_y))
    padded = np.pad(pixels, [(margin, margin), (margin, margin)] + [(0, 0)] * (pixels.ndim - 2), mode="symmetric")
    height, width = pixels.shape[:2]
    top, left = margin + shift_x, margin + shift_y
    return np.rot90(padded[top : top + height, left : left + width], quarter_turns)


def source_pixels(side: int) -> Tensor:
    """Where each transformation takes its pixels from.

    Returns
    -------
    torch.Tensor
        (72, side²) int64: pixel k of the image under transformation t is pixel [t, k] of the image itself. Of
        images that are not 32 pixels wide, the shifts are as large a part.
    """
    own = np.arange(side * side).reshape(side, side)
    return torch.from_numpy(
        np.stack(
            [
                transform_pixels(own, flip, shift_x * side // 32, shift_y * side // 32, quarter_turns).reshape(-1)
                for flip, shift_x, shift_y, quarter_turns in TRANSFORMATIONS
            ]
        )
    )


def transformed(images: Tensor, sources: Tensor) -> Tensor:
    """Images under transformations, each under its own.

    Parameters
    ----------
    images
        (b, 3, side, side).
    sources
        (b, side²) rows of :func:`source_pixels`, on the images' device.

    Returns
    -------
    torch.Tensor
        (b, 3, side, side), channels last in memory.
    """
    indices = sources[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, indices).view_as(images).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ADTSettings(TrainingSettings):
    """Settings of :class:`ADT`; the defaults are the reference code's.

    Parameters
    ----------
    epochs
        Passes over all 72 transformations of all images; the reference has ⌈200 / 72⌉.
    batch_size
        Transformed images per step.
    depth, width
        Of the wide residual network; depth 6n + 4.
    downsample
        Side of the squares, 1, 2, 4 or 8, whose mean the network sees as one pixel; 1: the images as they are.
    l2
        Factor of the sum of squares of every parameter (weights, biases, scales and shifts) in the loss.
    score
        What ``score_samples`` returns: "dirichlet" (Golan and El-Yaniv) or "softmax" (the text of the COREL paper;
        Golan and El-Yaniv's simplified score).
    """

    epochs: int = checked_field(count, 3)
    depth: int = checked_field(integer("10, 16, 22, … (6n + 4)", lambda depth: depth >= 10 and depth % 6 == 4), 10)
    width: int = checked_field(count, 4)
    downsample: int = checked_field(one_of(1, 2, 4, 8), 1)
    l2: float = checked_field(non_negative, 2.5e-4)
    score: str = checked_field(one_of("dirichlet", "softmax"), "dirichlet")


class ADT(NeuralMethod):
    """Anomaly detection with geometric transformations.

    A wide residual network learns which of 72 transformations an image of the class went through; on an image of
    another class it is less sure. Two scores come from one pass, both over all transformations t of an image with
    softmax outputs p⁽ᵗ⁾: "softmax" is the mean of p⁽ᵗ⁾ₜ; "dirichlet" is Σₜ Σₖ (α⁽ᵗ⁾ₖ − 1) log p⁽ᵗ⁾ₖ, the
    log-likelihood up to a constant under Dirichlet distributions fitted to the training images.
    """

    name = "adt"
    version = 3
    profiles: ClassVar = {
        "paper": ADTSettings(),
        "quick": ADTSettings(width=1, downsample=8, epochs=1, batch_size=512, lr=3e-3),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Train the network on all transformations of the images and fit the Dirichlet distributions.

        Parameters
        ----------
        features
            (m, 3, 32, 32) uint8, m ≥ 1.

        Raises
        ------
        ValueError, TypeError
            If ``features`` are not images of this kind.
        NonFiniteLossError
            If the training diverged.
        """
        settings = self.settings
        images = self._inputs(check_images(features))
        self._sources = source_pixels(images.shape[-1]).to(self.device)
        net = self._build(lambda: WideResNet(len(TRANSFORMATIONS), depth=settings.depth, width=settings.width))
        self._net = net.to(memory_format=torch.channels_last)

        def loss(samples: Tensor) -> Tensor:
            image, transformation = samples // len(TRANSFORMATIONS), samples % len(TRANSFORMATIONS)
            logits = self._net(transformed(images[image], self._sources[transformation]))
            return functional.cross_entropy(logits, transformation)

        # Keras adds l2 · w² to the loss, whose gradient is 2 · l2 · w.
        samples = len(images) * len(TRANSFORMATIONS)
        self._train("training", features, self._net, loss, samples=samples, weight_decay=2 * settings.l2)
        log_p = self._evaluate(self._log_probabilities, features, self._images_at_a_time)
        self._alpha = fit_dirichlet(log_p.mean(axis=0))
        return self

    @needs_fit("_alpha")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score images, (n, 3, 32, 32) uint8 → (n,) float64, by the score that the settings name."""
        return self.score_variants(features)[self.settings.score]

    @needs_fit("_alpha")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Both scores, (n,) float64 each, from one pass; first the one that the settings name."""
        excess = torch.from_numpy(self._alpha - 1).to(self.device)

        def both(images: Tensor) -> Tensor:
            log_p = self._log_probabilities(images)
            softmax = log_p.diagonal(dim1=1, dim2=2).exp().mean(dim=1)
            return torch.stack([(log_p * excess).sum(dim=(1, 2)), softmax], dim=1)

        dirichlet, softmax = self._evaluate(both, features, self._images_at_a_time).T
        scores = {"dirichlet": dirichlet, "softmax": softmax}
        return {name: scores[name] for name in sorted(scores, key=lambda name: name != self.settings.score)}

    def _inputs(self, images: np.ndarray) -> Tensor:
        # Averaging commutes with the transformations, which take squares to squares, and comes once for all 72.
        return functional.avg_pool2d(super()._inputs(images), self.settings.downsample)

    @property
    def _images_at_a_time(self) -> int:
        """One image of 32×32 pixels, under all transformations, keeps activations close to the size of a cache."""
        return self.settings.downsample**2

    def _log_probabilities(self, images: Tensor) -> Tensor:
        """Log-softmax of every image under every transformation: (b, 3, side, side) → (b, 72, 72) float64.

        Taken in float64 from the logits, it is finite where the softmax itself would be rounded to 0.
        """
        count = len(TRANSFORMATIONS)
        logits = self._net(transformed(images.repeat_interleave(count, 0), self._sources.repeat(len(images), 1)))
        return logits.double().view(-1, count, count).log_softmax(dim=2)
