"""Deep-SVDD: deep one-class classification (Ruff et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from corel._checks import at_least, count, counts, integer, non_negative, positive
from methods.base import needs_fit
from methods.neural import NeuralMethod, TrainingSettings, as_float, check_images, checked_field

EPS = 1e-4  # of every batch normalisation


def contrast_normalise(images: Tensor) -> Tensor:
    """Global contrast normalisation: subtract an image's mean over channels and pixels, divide by its mean |x|.

    Parameters
    ----------
    images
        (n, c, h, w) floating point.

    Returns
    -------
    torch.Tensor
        Of the same shape. A constant image becomes zero.
    """
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    scale = centred.abs().mean(dim=(1, 2, 3), keepdim=True)
    # The scale of a constant image is 0 up to rounding, which is below 5e-7 of its value. The smallest real contrast,
    # one grey level in one of 3,072 values, is 2.5e-6 of white: the threshold lies between the two.
    rounding = 5e-7 * images.abs().amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(scale > rounding, centred / scale, 0.0)


def _xavier(convolutions: nn.Module) -> None:
    for module in convolutions.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("leaky_relu"))


class Encoder(nn.Module):
    """Three 5×5 convolutions, each with batch normalisation, LeakyReLU and 2×2 max-pooling, and a linear layer.

    Nothing here has a bias, nor batch normalisation a scale or shift: with one the constant function would be the
    trivial optimum of the one-class loss.

    Parameters
    ----------
    filters
        Channels after each convolution.
    representation_dim
        Outputs of the linear layer.
    """

    def __init__(self, filters: tuple[int, int, int] = (32, 64, 128), representation_dim: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out_channels in filters:
            layers += [
                nn.Conv2d(channels, out_channels, 5, padding=2, bias=False),
                nn.BatchNorm2d(out_channels, eps=EPS, affine=False),
                nn.LeakyReLU(),
                nn.MaxPool2d(2),
            ]
            channels = out_channels
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(channels * 4 * 4, representation_dim, bias=False)
        _xavier(self.convolutions)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, 32, 32) → (b, representation_dim)."""
        return self.dense(self.convolutions(images).flatten(1))


class CodeNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one, which has no variance, by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, k) → (b, k)."""
        if len(input) > 1:
            return super().forward(input)
        return functional.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)


class Decoder(nn.Module):
    """Batch normalisation of the codes, then 5×5 transposed convolutions with ×2 nearest upsampling between."""

    def __init__(self, filters: tuple[int, int, int] = (32, 64, 128), representation_dim: int = 128) -> None:
        super().__init__()
        self.norm = CodeNorm(representation_dim, eps=EPS, affine=False)
        channels = representation_dim // 16
        layers: list[nn.Module] = [nn.LeakyReLU()]
        for out_channels in reversed(filters):
            layers += [
                nn.ConvTranspose2d(channels, out_channels, 5, padding=2, bias=False),
                nn.BatchNorm2d(out_channels, eps=EPS, affine=False),
                nn.LeakyReLU(),
                nn.Upsample(scale_factor=2),
            ]
            channels = out_channels
        layers += [nn.ConvTranspose2d(channels, 3, 5, padding=2, bias=False), nn.Sigmoid()]
        self.convolutions = nn.Sequential(*layers)
        _xavier(self.convolutions)

    def forward(self, codes: Tensor) -> Tensor:
        """(b, representation_dim) → (b, 3, 32, 32) in [0, 1]."""
        return self.convolutions(self.norm(codes).reshape(len(codes), -1, 4, 4))


def centre_of(outputs: Tensor, margin: float = 0.1) -> Tensor:
    """The mean of the outputs, (n, k) → (k,), each coordinate moved to at least ``margin`` from 0, keeping its sign.

    Zero weights alone would reach a coordinate of 0. An exact 0 becomes +``margin``.
    """
    centre = outputs.mean(dim=0)
    sign = torch.where(centre < 0, -torch.ones_like(centre), torch.ones_like(centre))
    return torch.where(centre.abs() < margin, margin * sign, centre)


@dataclass(frozen=True)
class DeepSVDDSettings(TrainingSettings):
    """Settings of :class:`DeepSVDD`; the defaults are those of Ruff et al. ``epochs`` and ``lr`` are the
    one-class training's.

    Parameters
    ----------
    filters
        Channels of the three convolutions.
    representation_dim
        Length of the representation, a multiple of 16.
    pretraining_epochs, pretraining_milestone, pretraining_lr
        Epochs of the autoencoder, the epoch from which on its learning rate is a tenth, and that rate.
    milestone
        The same of the one-class training.
    weight_decay
        Of both trainings.
    """

    epochs: int = checked_field(count, 150)
    batch_size: int = checked_field(count, 200)
    lr: float = checked_field(positive, 1e-4)
    filters: tuple[int, int, int] = checked_field(counts(3, 3), (32, 64, 128))
    representation_dim: int = checked_field(
        integer("multiples of 16, at least 16", lambda size: size >= 16 and size % 16 == 0), 128
    )
    pretraining_epochs: int = checked_field(at_least(0), 350)
    pretraining_milestone: int = checked_field(count, 250)
    milestone: int = checked_field(count, 50)
    pretraining_lr: float = checked_field(positive, 1e-4)
    weight_decay: float = checked_field(non_negative, 5e-7)


class DeepSVDD(NeuralMethod):
    """Deep support vector data description, one-class objective.

    A network, pre-trained as the encoder of an autoencoder, is trained to send the images of the class near a fixed
    centre c, the mean of its initial outputs; the score of an image is −‖f(x) − c‖². Images are normalised in
    contrast, then scaled by the smallest and largest value that the class's training images have.
    """

    name = "deep-svdd"
    version = 2
    profiles: ClassVar = {
        "paper": DeepSVDDSettings(),
        "quick": DeepSVDDSettings(
            filters=(8, 16, 32),
            representation_dim=32,
            pretraining_epochs=2,
            epochs=4,
            batch_size=20,
            pretraining_lr=1e-3,
            lr=1e-3,
        ),
    }

    def fit(self, features: np.ndarray) -> Self:
        """Pre-train the autoencoder, fix the centre and train the encoder.

        Parameters
        ----------
        features
            (m, 3, 32, 32) uint8, m ≥ 1.

        Raises
        ------
        ValueError, TypeError
            If ``features`` are not images of this kind.
        NonFiniteLossError
            If a training diverged.
        """
        settings = self.settings
        normalised = contrast_normalise(as_float(check_images(features), self.device))
        self._lowest, highest = normalised.aminmax()
        spread = highest - self._lowest
        # Constant images alone have no range; they stay the zeros that the contrast normalisation made of them.
        self._range = torch.where(spread > 0, spread, torch.ones_like(spread))
        images = self._scaled(normalised)
        networks = self._build(
            lambda: nn.ModuleDict(
                {
                    "encoder": Encoder(settings.filters, settings.representation_dim),
                    "decoder": Decoder(settings.filters, settings.representation_dim),
                }
            )
        )
        self._encoder, decoder = networks["encoder"], networks["decoder"]

        def reconstruction_loss(batch: Tensor) -> Tensor:
            inputs = images[batch]
            return (decoder(self._encoder(inputs)) - inputs).square().sum(dim=(1, 2, 3)).mean()

        def one_class_loss(batch: Tensor) -> Tensor:
            return (self._encoder(images[batch]) - self._centre).square().sum(dim=1).mean()

        self._train(
            "pretraining", features, networks, reconstruction_loss,
            epochs=settings.pretraining_epochs, milestone=settings.pretraining_milestone,
            lr=settings.pretraining_lr, weight_decay=settings.weight_decay, eps=1e-8,
        )  # fmt: skip
        self._centre = centre_of(torch.from_numpy(self.encode(features)).to(self.device))
        self._train(
            "training", features, self._encoder, one_class_loss,
            milestone=settings.milestone, weight_decay=settings.weight_decay, eps=1e-8,
        )  # fmt: skip
        return self

    @needs_fit("_centre")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score images, (n, 3, 32, 32) uint8 → (n,) float64: −‖f(x) − c‖²."""
        offsets = self.encode(features).astype(np.float64) - self._centre.double().cpu().numpy()
        return -(offsets**2).sum(axis=1)

    @needs_fit("_encoder")
    def encode(self, features: np.ndarray) -> np.ndarray:
        """The network's outputs f(x), (n, 3, 32, 32) uint8 → (n, representation_dim) float32."""
        return self._evaluate(self._encoder, features)

    def _inputs(self, images: np.ndarray) -> Tensor:
        # Normalised here rather than in ``prepare``: as float32, ImageNet's training split would take 16 GB.
        return self._scaled(contrast_normalise(as_float(images, self.device)))

    def _scaled(self, normalised: Tensor) -> Tensor:
        """Map the range of the training images to [0, 1]."""
        return (normalised - self._lowest) / self._range
