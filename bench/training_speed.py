"""``python -m bench.training_speed``: a training step of the autoencoder beside a plain PyTorch loop, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from bench.analysis import tables
from bench.engine import provenance
from bench.engine.command_line import Parser, positive_int, run, writable_directory
from corel import Autoencoder, ConnectivityLoss
from corel._device import resolve_device
from corel._memory import reuse_freed_memory
from corel.training import _Settings, _Trainer

PROGRAM = "bench.training_speed"

#: So many batches of images take turns, however many steps are timed.
DISTINCT = 10


def plain_step(device: torch.device) -> Callable[[torch.Tensor], object]:
    """A step as one would write it: the same network and optimiser, reconstruction loss alone."""
    torch.manual_seed(0)
    model = Autoencoder().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: torch.Tensor) -> object:
        reconstructed, _ = model(x)
        loss = (reconstructed - x).abs().flatten(1).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def own_step(device: torch.device) -> Callable[[torch.Tensor], object]:
    """A step of :func:`corel.train_autoencoder` with the paper's settings."""
    trainer = _Trainer(_Settings(2.0, 20.0, 16, 10, 100, 1e-3, "mean", 0), device)
    return lambda x: trainer.step(x.contiguous(memory_format=torch.channels_last))


def connectivity(device: torch.device) -> Callable[[torch.Tensor], object]:
    """The connectivity loss of 100 codes in 16 branches, forward and backward, alone."""
    loss = ConnectivityLoss(eta=2.0, branches=16)
    code = torch.randn(100, 160, device=device, requires_grad=True)

    def step(x: torch.Tensor) -> object:
        code.grad = None
        value = loss(code)
        value.backward()
        return value

    return step


def measure(device: torch.device, steps: int, rounds: int) -> pd.DataFrame:
    """Median seconds a step of each, measured in turns; one row each."""
    images = torch.rand(min(steps, DISTINCT), 100, 3, 32, 32, device=device)
    rows: dict[str, tuple[Callable[[torch.Tensor], object], bool]] = {
        "plain loop, reconstruction alone": (plain_step(device), False),
        "train_autoencoder": (own_step(device), True),
        "ConnectivityLoss, forward + backward": (connectivity(device), False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(rounds + 1):
        for name, (step, reuse) in rows.items():
            if reuse:
                with reuse_freed_memory():
                    taken = _time(step, images, steps, device)
            else:
                taken = _time(step, images, steps, device)
            if turn:  # the first turn warms up
                seconds[name] += taken
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return pd.DataFrame(
        [
            {
                "what": name,
                "median_ms": 1000 * medians[name],
                "lower_quartile_ms": 1000 * float(np.quantile(values, 0.25)),
                "upper_quartile_ms": 1000 * float(np.quantile(values, 0.75)),
                "of_plain_loop": medians[name] / medians["plain loop, reconstruction alone"],
                "seconds_per_epoch_of_50000": 500 * medians[name],
            }
            for name, values in seconds.items()
        ]
    )


def _time(
    step: Callable[[torch.Tensor], object], images: torch.Tensor, steps: int, device: torch.device
) -> list[float]:
    """Seconds of each of ``steps`` steps, on ``images``, (k, 100, 3, 32, 32), in turn."""
    taken = []
    for index in range(steps):
        x = images[index % len(images)]
        started = time.perf_counter()
        step(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Time a training step (batch 100, paper's settings) beside a plain loop without connectivity loss.",
    )
    parser.add_argument("--steps", type=positive_int, default=10, help="steps of each in a turn (default: 10)")
    parser.add_argument("--rounds", type=positive_int, default=8, help="turns that count (default: 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--out", default="results", help="folder for training_speed.csv (default: results)")
    options = parser.parse_args(arguments)
    out = writable_directory(options.out, ["training_speed.csv"])
    device = resolve_device(options.device)
    try:
        table = measure(device, options.steps, options.rounds)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing is kept: medians are of all turns") from None
    tables.write_csv(out / "training_speed.csv", table)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(
        f"\n{device} ({provenance.processor()}), {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"batch 100; medians of {options.rounds * options.steps} steps, in turns; written: {out / 'training_speed.csv'}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(PROGRAM, main))
