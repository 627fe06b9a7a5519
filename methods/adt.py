"""ADT: anomaly detection with geometric transformations (Golan and El-Yaniv, NeurIPS 2018)."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from corel._checks import boolean, check_fields, count, integer, non_negative, one_of, positive
from methods._epochs import check_images, train_epochs
from methods._winograd import multiplies_bfloat16
from methods.base import OneClassMethod, needs_fit
from methods.dirichlet import fit_dirichlet
from methods.wide_resnet import FastWideResNet, WideResNet

#: (flip, shift x, shift y, quarter turns) of each transformation; its place in the tuple is its class.
TRANSFORMATIONS: tuple[tuple[bool, int, int, int], ...] = tuple(
    itertools.product((False, True), (0, -8, 8), (0, -8, 8), range(4))
)

#: The faster precision on this processor; mean AUCs of both are within 0.005 (``python -m bench.precision``).
FASTEST = "bfloat16" if multiplies_bfloat16() else "float32"


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


def canvases(side: int) -> tuple[Tensor, list[list[list[int]]], tuple[int, ...]]:
    """The transformations as crops of eight larger images: all shifts of one flip and one rotation share theirs.

    Returns
    -------
    sources
        (8, larger²) int64: pixel k of larger image c is pixel [c, k] of the image itself. The image is extended on all
        sides by its reflection, flipped and rotated.
    crops
        ``crops[c][i][j]`` is the transformation that crop i in rows and j in columns of larger image c shows.
    starts
        Rows, and columns, at which crops start.
    """
    margin = 8 * side // 32
    own = np.arange(side * side).reshape(side, side)
    starts = (0, margin, 2 * margin)
    transformation = {tuple(source): index for index, source in enumerate(source_pixels(side).tolist())}
    sources, crops = [], []
    for flip, quarter_turns in itertools.product((False, True), range(4)):
        larger = np.rot90(np.pad(own[:, ::-1] if flip else own, margin, mode="symmetric"), quarter_turns)
        sources.append(larger.reshape(-1))
        crops.append(
            [
                [transformation[tuple(larger[i : i + side, j : j + side].reshape(-1).tolist())] for j in starts]
                for i in starts
            ]
        )
    return torch.from_numpy(np.stack(sources)), crops, starts


def reduced(images: Tensor, side: int) -> Tensor:
    """Images whose squares of ``side`` × ``side`` pixels are averaged: (b, 3, h, w) uint8 → (b, 3, h/side, w/side).

    The result is float32 in [0, 255], or the images themselves if ``side`` is 1. It comes before the transformation,
    once for all 72: each takes squares to squares.
    """
    return functional.avg_pool2d(images.float(), side) if side > 1 else images


def transformed_inputs(pixels: Tensor, source: Tensor) -> Tensor:
    """What the network sees of images under transformations.

    Parameters
    ----------
    pixels
        (b, 3, h, w) in [0, 255], uint8 or float32.
    source
        (b or 1, side²) rows of :func:`source_pixels` or :func:`canvases`, on the images' device: one for each image,
        or one for all.

    Returns
    -------
    torch.Tensor
        (b, 3, side, side) float32 in [−1, 1], channels last in memory.
    """
    scaled = pixels.float() * (2 / 255) - 1
    index = source[:, None, :].expand(len(scaled), scaled.shape[1], -1)
    side = math.isqrt(source.shape[1])
    taken = scaled.flatten(2).gather(2, index)
    return taken.reshape(*scaled.shape[:2], side, side).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ADTSettings:
    """Settings of :class:`ADT`; the defaults are the paper's.

    Parameters
    ----------
    depth, width
        Of the wide residual network; depth 6n + 4.
    downsample
        Side of the squares, 1, 2, 4 or 8, whose mean the network sees as one pixel; 1: the images as they are.
    epochs
        Passes over all 72 transformations of all images; the reference has ⌈200 / 72⌉.
    batch_size
        Transformed images in a step of training.
    lr
        Learning rate of Adam.
    l2
        Factor on the sum of squares of every parameter (weights, biases, scales and shifts) in the loss.
    score
        What ``score_samples`` returns: "dirichlet" (the reference code) or "softmax" (the papers' text).
    winograd
        Whether scoring on the CPU uses Winograd's algorithm: the same numbers up to rounding in less time. It
        serves networks of depth 10 and width 2 or more on images that are a multiple of 16 wide after downsampling;
        others go without.
    precision
        Of scoring: "float32"; or "bfloat16", where convolutions multiply bfloat16 and sum in float32; or "both", one
        after the other, each a score of its own, to compare them.
    training_precision
        Of training: "float32"; or "bfloat16", by autocast: weights, their updates and the last layer stay float32.
        The "paper" profile takes bfloat16 for both where the processor has an instruction for it, which halves the
        time, and float32 elsewhere. ``python -m bench.precision`` compares the AUCs.
    """

    depth: int = 10
    width: int = 4
    downsample: int = 1
    epochs: int = 3
    batch_size: int = 128
    lr: float = 1e-3
    l2: float = 2.5e-4
    score: str = "dirichlet"
    winograd: bool = True
    precision: str = "float32"
    training_precision: str = "float32"

    def __post_init__(self) -> None:
        check_fields(
            self,
            depth=integer("10, 16, 22, … (6n + 4)", lambda depth: depth >= 10 and depth % 6 == 4),
            width=count,
            downsample=one_of(1, 2, 4, 8),
            epochs=count,
            batch_size=count,
            lr=positive,
            l2=non_negative,
            score=one_of("dirichlet", "softmax"),
            winograd=boolean,
            precision=one_of("float32", "bfloat16", "both"),
            training_precision=one_of("float32", "bfloat16"),
        )


class ADT(OneClassMethod):
    """Anomaly detection with geometric transformations.

    A wide residual network learns which of 72 transformations an image of the class went through; an image of
    another class is one on which it is less sure. Two scores come from one pass, both over all transformations t of
    an image with softmax outputs p⁽ᵗ⁾: "softmax" is the mean of p⁽ᵗ⁾ₜ; "dirichlet" is Σₜ Σₖ (α⁽ᵗ⁾ₖ − 1) log p⁽ᵗ⁾ₖ,
    the log-likelihood up to a constant under Dirichlet distributions fitted to the training images.
    """

    name = "adt"
    version = 2
    profiles: ClassVar = {
        "paper": ADTSettings(precision=FASTEST, training_precision=FASTEST),
        "quick": ADTSettings(width=1, downsample=4, epochs=1),
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
        images = torch.from_numpy(np.array(check_images(features)))
        pixels = reduced(images, settings.downsample)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            net = WideResNet(len(TRANSFORMATIONS), depth=settings.depth, width=settings.width)
        self._net = net.to(self.device).to(memory_format=torch.channels_last)
        self._source = source_pixels(images.shape[-1] // settings.downsample)
        # Keras adds l2 · w² to the loss, whose gradient is 2 · l2 · w; its Adam has an epsilon of 1e-7.
        decay = 2 * settings.l2
        optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr, weight_decay=decay, eps=1e-7, fused=True)

        def loss(samples: Tensor) -> Tensor:
            image, transformation = samples // len(TRANSFORMATIONS), samples % len(TRANSFORMATIONS)
            batch, source = pixels[image].to(self.device), self._source[transformation].to(self.device)
            with self._autocast(settings.training_precision):
                logits = net(transformed_inputs(batch, source))
            return functional.cross_entropy(logits, transformation.to(self.device))

        train_epochs(
            self,
            "training",
            features,
            net,
            optimizer,
            loss,
            samples=len(images) * len(TRANSFORMATIONS),
            batch_size=settings.batch_size,
            epochs=settings.epochs,
        )
        both = settings.precision == "both"
        self._alpha = {
            precision: self._fit_dirichlet(images.numpy(), precision)
            for precision in (("float32", "bfloat16") if both else (settings.precision,))
        }
        return self

    def _fit_dirichlet(self, images: np.ndarray, precision: str) -> np.ndarray:
        """α of each transformation, (72, 72) float64."""
        means = {own: log_p.mean(axis=0) for own, log_p in self._log_probabilities(images, precision, "fitting")}
        return fit_dirichlet(np.stack([means[own] for own in range(len(TRANSFORMATIONS))]))

    @needs_fit("_alpha")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score images, (n, 3, 32, 32) uint8 → (n,) float64, by the score that the settings name."""
        return next(iter(self.score_variants(features).values()))

    @needs_fit("_alpha")
    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Both scores, (n,) float64 each, from one pass; first the one that the settings name.

        With ``precision="both"`` there are four, such as "dirichlet in float32", from two passes.
        """
        variants = {}
        for precision, alpha in self._alpha.items():
            scores = {"dirichlet": np.zeros(len(features)), "softmax": np.zeros(len(features))}
            for own, log_p in self._log_probabilities(check_images(features), precision, "scoring"):
                scores["dirichlet"] += log_p @ (alpha[own] - 1)
                scores["softmax"] += np.exp(log_p[:, own]) / len(TRANSFORMATIONS)
            for name in sorted(scores, key=lambda name: name != self.settings.score):
                variants[f"{name} in {precision}" if len(self._alpha) > 1 else name] = scores[name]
        return variants

    def _autocast(self, precision: str) -> torch.autocast:
        """Compute in ``precision`` where convolutions are PyTorch's own."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def _log_probabilities(self, images: np.ndarray, precision: str, task: str) -> Iterator[tuple[int, np.ndarray]]:
        """For each transformation, its number and the log-softmax of all images under it, (n, 72) float64.

        Taken in float64 from the logits, it is finite where the softmax itself would have become 0.
        """
        settings, on_cpu = self.settings, self.device.type == "cpu"
        side = images.shape[-1] // settings.downsample
        net: Callable[[Tensor], Tensor] = self._net
        sources, members = self._source, [[own] for own in range(len(TRANSFORMATIONS))]
        fast = on_cpu and settings.winograd and settings.depth == 10 and settings.width > 1 and side >= 16
        # On the CPU a batch should fit into the cache; on a GPU it should fill it.
        size = 24 * settings.downsample**2 if on_cpu else 2048
        if fast:
            sources, crops, starts = canvases(side)
            members = [[own for row in rows for own in row] for rows in crops]
            net = FastWideResNet(self._net, side, starts, precision)
            size = 16 * settings.downsample**2
        chunks = [
            reduced(torch.from_numpy(np.array(images[start : start + size])), settings.downsample)
            for start in range(0, len(images), size)
        ]

        def logits(chunk: Tensor, source: Tensor) -> Tensor:
            inputs = transformed_inputs(chunk.to(self.device), source)
            with torch.inference_mode(), contextlib.nullcontext() if fast else self._autocast(precision):
                return net(inputs).double()

        progress = tqdm(total=len(TRANSFORMATIONS), desc=f"{self.name} {task}", disable=not self.progress, leave=False)
        with _each_on_one_thread(on_cpu) as apply, progress:
            for source, group in zip(sources, members, strict=True):
                batches = apply(logits, chunks, itertools.repeat(source[None].to(self.device)))
                log_p = torch.cat(list(batches)).view(len(images), len(group), -1).log_softmax(dim=2).cpu().numpy()
                for place, own in enumerate(group):
                    yield own, log_p[:, place]
                    progress.update()


@contextlib.contextmanager
def _each_on_one_thread(on_cpu: bool) -> Iterator[Callable[..., Iterable[Tensor]]]:
    """A ``map`` that, on the CPU, computes each item on one thread of its own, as many at a time as torch has threads.

    Whole batches in parallel share no data, so no thread waits for another, and each stays in its core's cache.
    """
    if not on_cpu:
        yield map
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
