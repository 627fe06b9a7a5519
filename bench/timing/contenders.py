"""What the runtime study times: every form of ours, and every peer.

A contender has one line in the tables. Its ``call`` takes what ``convert`` made of the input, outside of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import corel
from bench.timing import peers

#: Up to these sizes: batches, float64 and every form of ours; Algorithm 3 in dimension 0; in dimension 1.
EVERYTHING, REDUCTION, DIMENSION_1 = 2048, 512, 256
ONE_CLOUD, GRADIENT, BATCH, DIMENSION_1_TASK = "one cloud", "gradient", "batch", "dimension 1"
#: The connectivity loss as the paper trains with it; a step of that training, timed in an epoch of ``STEPS``.
LOSS, LOSS_SHAPE = "loss of 100 codes in 16 branches of 10", (100, 160)
TRAINING, STEPS, IMAGES_SHAPE = "training step, 100 images", 10, (1000, 3, 32, 32)


@dataclass
class Contender:
    """One line of the study. A call makes ``steps`` equal steps, and the tables give the time of one."""

    task: str
    name: str
    call: Callable[[Any], object]
    convert: Callable[[np.ndarray], Any] = lambda points: points
    steps: int = 1
    seconds: list[float] = field(default_factory=list)  #: of each call

    @property
    def own(self) -> bool:
        """Whether it is ours."""
        return self.name.startswith("corel")


def own_name(what: str, device: torch.device) -> str:
    """How a form of ours is called in the tables."""
    return f"corel {what}" + ("" if device.type == "cpu" else f", {device.type}")


def of_clouds(n: int, p: float, device: torch.device, others: Sequence[peers.Ready]) -> list[Contender]:
    """Everything that is timed at ``n`` points under ‖·‖p: the inputs are (batch, n, dim) float64 arrays."""
    single, double = _tensor(device, torch.float32), _tensor(device, torch.float64)
    grad = _tensor(device, torch.float32, grad=True)
    loss = corel.ConnectivityLoss(eta=2.0, p=p)
    found: list[Contender] = []

    def edges(points: torch.Tensor) -> object:
        return corel.merge_edges(points, p)

    def deaths(points: torch.Tensor) -> torch.Tensor:
        return corel.death_times(points, p)

    def reduction(max_dim: int, algorithm: str = "reduction") -> Callable[[torch.Tensor], object]:
        return lambda points: corel.vr_persistence(points, p=p, max_dim=max_dim, algorithm=algorithm)

    def ours(task: str, what: str, call: Callable[..., object], convert: Callable[[np.ndarray], Any]) -> None:
        of_one = convert if task == BATCH else lambda points: convert(points[0])
        found.append(Contender(task, own_name(what, device), call, of_one))

    deaths_backward = _backward(lambda points: deaths(points).sum())
    ours(ONE_CLOUD, "merge_edges, float32", edges, single)
    ours(ONE_CLOUD, "death_times, float32", deaths, single)
    ours(GRADIENT, "death_times, forward + backward", deaths_backward, grad)
    if n <= EVERYTHING:
        ours(ONE_CLOUD, "merge_edges, float64", edges, double)
        ours(ONE_CLOUD, "death_times, float64", deaths, double)
        ours(GRADIENT, "ConnectivityLoss, forward", loss, single)
        ours(GRADIENT, "ConnectivityLoss, forward + backward", _backward(loss), grad)
        ours(BATCH, "death_times, batched", deaths, single)
        ours(BATCH, "death_times, batched, float64", deaths, double)
        ours(BATCH, "death_times, batched, forward + backward", deaths_backward, grad)
        for peer in others:
            name = peer.name + (", one by one" if peer.batch is None else ", batched")
            found.append(Contender(BATCH, name, peer.batch or _each(peer.one)))
    if n <= REDUCTION:
        ours(ONE_CLOUD, "vr_persistence, reduction", reduction(0), single)
    if n <= DIMENSION_1:
        ours(DIMENSION_1_TASK, "vr_persistence, reduction", reduction(1), single)
        ours(DIMENSION_1_TASK, "vr_persistence, auto", reduction(1, "auto"), single)
        if any(peer.name == "ripser" for peer in others):
            found.append(Contender(DIMENSION_1_TASK, "ripser", peers.ripser(p, 1), _first))
    return found + [Contender(ONE_CLOUD, peer.name, peer.one, _first) for peer in others]


def of_loss(p: float, device: torch.device) -> list[Contender]:
    """The connectivity loss; the inputs are codes, :data:`LOSS_SHAPE`."""
    loss = corel.ConnectivityLoss(eta=2.0, branches=16, p=p)
    single, grad = _tensor(device, torch.float32), _tensor(device, torch.float32, grad=True)
    found = [
        Contender(LOSS, own_name("ConnectivityLoss, forward", device), loss, single),
        Contender(LOSS, own_name("ConnectivityLoss, forward + backward", device), _backward(loss), grad),
    ]
    if device.type == "cuda":
        name = own_name("ConnectivityLoss, forward + backward in a graph", device)
        found.append(Contender(LOSS, name, _graph(loss, device), single))
    return found


def of_training(device: torch.device) -> list[Contender]:
    """A short training with the paper's settings beside a plain loop; the inputs are images, :data:`IMAGES_SHAPE`."""

    def ours(images: np.ndarray) -> object:
        return corel.train_autoencoder(images, epochs=1, device=device, progress=False)

    def plain(images: torch.Tensor) -> object:
        model = corel.Autoencoder().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for x in images.split(len(images) // STEPS):
            loss = (model(x)[0] - x).abs().flatten(1).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model

    def single(images: np.ndarray) -> np.ndarray:
        return images.astype(np.float32)

    plain_name = "plain PyTorch loop, reconstruction alone"
    return [
        Contender(TRAINING, own_name("train_autoencoder", device), ours, single, STEPS),
        Contender(TRAINING, plain_name, plain, _tensor(device, torch.float32), STEPS),
    ]


def _tensor(device: torch.device, dtype: torch.dtype, grad: bool = False) -> Callable[[np.ndarray], torch.Tensor]:
    return lambda points: torch.from_numpy(points).to(device, dtype).requires_grad_(grad)


def _first(points: np.ndarray) -> np.ndarray:
    return points[0]


def _each(call: peers.Call) -> peers.Call:
    return lambda points: [call(cloud) for cloud in points]


def _backward(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], object]:
    def call(points: torch.Tensor) -> object:
        points.grad = None
        function(points).backward()
        return points.grad

    return call


def _graph(loss: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Callable[[Any], object]:
    """Forward and backward captured in a CUDA graph, to be replayed."""
    code = torch.randn(LOSS_SHAPE, device=device, requires_grad=True)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            loss(code).backward()
    torch.cuda.current_stream(device).wait_stream(side)
    code.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss(code).backward()

    def call(points: torch.Tensor) -> object:
        code.detach().copy_(points)  # a graph reads its input, and writes its gradient, where it was captured
        graph.replay()
        return code.grad

    return call


def norm_name(p: float) -> str:
    """L1, L2 or L∞."""
    return "L∞" if p == math.inf else f"L{p:g}"
