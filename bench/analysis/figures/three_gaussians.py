"""Fig. 2: the connectivity loss alone, on points of the plane (§3.2)."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.analysis import style
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study
from bench.engine.isolation import process_unchanged
from corel import ConnectivityLoss, death_times

BATCH, ETA, EPOCHS, BATCHES, LR = 50, 2.0, (20, 60), 3000, 3e-3
#: Gaussians told apart by colour and by marker.
LOOKS = tuple(zip(style.COLOURS, "o^s", strict=False))
SETTINGS = (
    f"1,500 points of three Gaussians with random means and covariances; MLP 2-20-20-2 with LeakyReLU(0.01); "
    f"{EPOCHS[-1]} epochs of batches of {BATCH}; η = {ETA:g}, L1; Adam, learning rate {LR:g} (the paper prints neither "
    "the Gaussians nor the optimiser)"
)


def sample(generator: torch.Generator) -> Tensor:
    """1,500 points of three Gaussians with random means and covariances, (1500, 2): one after the other."""
    means = 10 * torch.rand(3, 1, 2, generator=generator) - 5
    shapes = torch.randn(3, 2, 2, generator=generator)
    return (means + torch.randn(3, 500, 2, generator=generator) @ shapes).flatten(0, 1)


def mapped(points: Tensor, steps: Iterable[int], seed: int) -> list[Tensor]:
    """The points under the mapping after each of some numbers of steps; 30 steps are an epoch.

    Parameters
    ----------
    points
        (1500, 2).
    steps
        Ascending, from 0.
    seed
        Of the weights and of the order of points.
    """
    with process_unchanged(seed):
        mapping = nn.Sequential(
            nn.Linear(2, 20), nn.LeakyReLU(), nn.Linear(20, 20), nn.LeakyReLU(), nn.Linear(20, 2)
        )  # fmt: skip
        loss, optimizer = ConnectivityLoss(eta=ETA), torch.optim.Adam(mapping.parameters(), lr=LR)
        found, left, done = [], iter(()), 0
        for wanted in steps:
            while done < wanted:
                batch = next(left, None)
                if batch is None:
                    left = iter(torch.randperm(len(points)).split(BATCH))
                    continue
                optimizer.zero_grad()
                loss(mapping(points[batch])).backward()
                optimizer.step()
                done += 1
            found.append(mapping(points).detach())
        return found


def spread(cloud: Tensor, generator: torch.Generator) -> list[float]:
    """α̂, ε̂, β̂: means over random batches of the least, the average and the largest death."""
    choice = torch.rand(BATCHES, len(cloud), generator=generator).argsort(1)[:, :BATCH]
    deaths = death_times(cloud[choice])  # in order
    return torch.stack([deaths[:, 0], deaths.mean(1), deaths[:, -1]]).mean(1).tolist()


def draw(study: Study) -> Picture:
    """Draw the points, and their images after 20 and 60 epochs."""
    generator = study.generator("three Gaussians")
    points = sample(generator)
    steps = [epoch * len(points) // BATCH for epoch in EPOCHS]
    clouds = [points, *mapped(points, steps, generator.initial_seed())]
    figure = Figure(figsize=(7.2, 2.9))
    cloud_rows, estimates = [], []
    for axes, epoch, cloud in zip(figure.subplots(1, 3), (0, *EPOCHS), clouds, strict=True):
        alpha, epsilon, beta = spread(cloud, generator)
        for gaussian, (part, (colour, marker)) in enumerate(zip(cloud.chunk(3), LOOKS, strict=True), 1):
            axes.scatter(*part.T, s=7, color=colour, marker=marker, linewidth=0, alpha=0.8)
            cloud_rows.append(pd.DataFrame({"epochs": epoch, "gaussian": gaussian, "x": part[:, 0], "y": part[:, 1]}))
        title = f"after {epoch} epochs" if epoch else "the data"
        axes.set_title(f"{title}\nα̂, ε̂, β̂ = {alpha:.2f}, {epsilon:.2f}, {beta:.2f}")
        axes.set_aspect("equal", adjustable="datalim")
        axes.locator_params(nbins=5)
        estimates.append({"epochs": epoch, "alpha": alpha, "epsilon": epsilon, "beta": beta})
    caption = (
        "A mapping of the plane to itself, learned by the connectivity loss alone: 1,500 points of three Gaussians "
        "(left), and where they lie after 20 and 60 epochs. α̂, ε̂ and β̂ are the means, over 3,000 random batches of 50 "
        "points, of the least, the average and the largest death; η = 2 is aimed at. Paper: §3.2, Fig. 2."
    )
    tables = {"": pd.concat(cloud_rows, ignore_index=True), "-estimates": pd.DataFrame(estimates)}
    return Picture(figure, tables, caption, [f"{SETTINGS}; {study.local()}"])
