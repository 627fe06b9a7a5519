"""Deep-SVDD: deep one-class classification (Ruff et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from corel._checks import at_least, check_fields, count, counts, integer, non_negative, positive
from methods._epochs import check_images, train_epochs
from methods.base import OneClassMethod, needs_fit

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
    # Below this is what rounding leaves of a constant image; one grey level in one value of 3,072 is 10⁻⁶ of white.
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

    A coordinate of 0 could be met by zero weights alone. An exact 0 goes to +``margin``.
    """
    centre = outputs.mean(dim=0)
    return torch.where(centre.abs() < margin, torch.where(centre < 0, -margin, margin), centre)


@dataclass(frozen=True)
class DeepSVDDSettings:
    """Settings of :class:`DeepSVDD`; the defaults are the paper's.

    Parameters
    ----------
    filters
        Channels of the three convolutions.
    representation_dim
        Length of the representation, a multiple of 16.
    pretraining_epochs, pretraining_milestone
        Epochs of the autoencoder, and the one from which on its learning rate is a tenth.
    epochs, milestone
        The same of the one-class training.
    batch_size
        Images in a step of either training.
    lr, pretraining_lr
        Learning rates of Adam.
    weight_decay
        Of both trainings.
    """

    filters: tuple[int, int, int] = (32, 64, 128)
    representation_dim: int = 128
    pretraining_epochs: int = 350
    pretraining_milestone: int = 250
    epochs: int = 150
    milestone: int = 50
    batch_size: int = 200
    pretraining_lr: float = 1e-4
    lr: float = 1e-4
    weight_decay: float = 5e-7

    def __post_init__(self) -> None:
        check_fields(
            self,
            filters=counts(3, 3),
            representation_dim=integer("multiples of 16, at least 16", lambda size: size >= 16 and size % 16 == 0),
            pretraining_epochs=at_least(0),
            pretraining_milestone=count,
            epochs=count,
            milestone=count,
            batch_size=count,
            pretraining_lr=positive,
            lr=positive,
            weight_decay=non_negative,
        )


class DeepSVDD(OneClassMethod):
    """Deep support vector data description, one-class objective.

    A network, pre-trained as the encoder of an autoencoder, is trained to send the images of the class near a fixed
    centre c, the mean of its initial outputs; the score of an image is −‖f(x) − c‖². Images are normalised in
    contrast, then scaled by the smallest and largest value that the class's training images have.
    """

    name = "deep-svdd"
    profiles: ClassVar = {
        "paper": DeepSVDDSettings(),
        "quick": DeepSVDDSettings(
            filters=(8, 16, 32),
            representation_dim=32,
            pretraining_epochs=8,
            epochs=8,
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
        images = check_images(features)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            encoder = Encoder(settings.filters, settings.representation_dim)
            decoder = Decoder(settings.filters, settings.representation_dim)
        self._encoder = encoder.to(self.device)
        decoder.to(self.device)
        ranges = [self._normalised(chunk).aminmax() for chunk in _chunks(images)]
        self._lowest = torch.stack([lowest for lowest, _ in ranges]).amin()
        highest = torch.stack([highest for _, highest in ranges]).amax()
        # Constant images alone have no range; they stay the zeros that the contrast normalisation made of them.
        self._range = torch.where(highest > self._lowest, highest - self._lowest, 1.0)

        def reconstruction_loss(batch: Tensor) -> Tensor:
            inputs = self._inputs(images[batch.numpy()])
            return (decoder(encoder(inputs)) - inputs).square().sum(dim=(1, 2, 3)).mean()

        autoencoder = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        train_epochs(
            self,
            "pretraining",
            images,
            autoencoder,
            self._optimizer(autoencoder, settings.pretraining_lr),
            reconstruction_loss,
            samples=len(images),
            batch_size=settings.batch_size,
            epochs=settings.pretraining_epochs,
            milestone=settings.pretraining_milestone,
        )

        self._centre = centre_of(torch.from_numpy(self.encode(images)).to(self.device))

        def one_class_loss(batch: Tensor) -> Tensor:
            return (encoder(self._inputs(images[batch.numpy()])) - self._centre).square().sum(dim=1).mean()

        train_epochs(
            self,
            "training",
            images,
            encoder,
            self._optimizer(encoder, settings.lr),
            one_class_loss,
            samples=len(images),
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            milestone=settings.milestone,
        )
        return self

    @needs_fit("_centre")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score images, (n, 3, 32, 32) uint8 → (n,) float64: −‖f(x) − c‖²."""
        offsets = self.encode(features).astype(np.float64) - self._centre.double().cpu().numpy()
        return -(offsets**2).sum(axis=1)

    @needs_fit("_encoder")
    @torch.inference_mode()
    def encode(self, features: np.ndarray) -> np.ndarray:
        """The network's outputs f(x), (n, 3, 32, 32) uint8 → (n, representation_dim) float32."""
        self._encoder.eval()
        outputs = [self._encoder(self._inputs(images)) for images in _chunks(check_images(features))]
        return torch.cat(outputs).cpu().numpy()

    def _inputs(self, images: np.ndarray) -> Tensor:
        """(b, 3, 32, 32) uint8 → what the network sees, on the device."""
        return (self._normalised(images) - self._lowest) / self._range

    def _normalised(self, images: np.ndarray) -> Tensor:
        return contrast_normalise(torch.from_numpy(np.array(images)).to(self.device).float())

    def _optimizer(self, net: nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=lr, weight_decay=self.settings.weight_decay, fused=True)


def _chunks(images: np.ndarray, size: int = 256) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))
