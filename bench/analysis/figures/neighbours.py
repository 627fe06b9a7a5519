"""Beyond the paper: the neighbours that points of a trained encoder have, against Corollary 1."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.analysis import style
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study, batches
from corel import BallCount, death_times

#: More points would show nothing else, and take the square of the time.
MOST = 5000
_STEPS = 9


def draw(study: Study) -> Picture:
    """Draw how many neighbours points have within β̂, over the number of points."""
    training = study.training()
    settings = training.method.settings
    b = settings.batch_size
    generator = study.generator("neighbours")
    codes = training.encode(study.auxiliary.train_images)
    largest = death_times(batches(codes, b, generator))[..., -1]  # (branches, batches)
    order = torch.randperm(codes.shape[1], generator=generator)[:MOST].numpy()
    sizes = np.unique(np.geomspace(b, len(order), _STEPS).round().astype(int))
    radii = {"beta_mean": largest.mean(1), "beta_max": largest.amax(1)}
    rows = []
    for name, radius in radii.items():
        for m in sizes.tolist():
            counts = np.stack([_neighbours(cloud[order[:m]], float(r)) for cloud, r in zip(codes, radius, strict=True)])
            for branch, (count, r) in enumerate(zip(counts, radius.tolist(), strict=True), 1):
                least, low, median, high = np.quantile(count, [0, 0.05, 0.5, 0.95])
                rows.append({"radius_is": name, "branch": branch, "radius": r, "m": m, "bound": m - b + 1,
                             "least": least, "lower_5_percent": low, "median": median, "upper_5_percent": high,
                             "share_with_bound": (count >= m - b + 1).mean()})  # fmt: skip
    table = pd.DataFrame(rows)
    share = table[table["m"] == sizes[-1]].groupby("radius_is")["share_with_bound"].mean() * 100
    figure = _figure(table, b)
    caption = (
        f"Neighbours of a point in a branch, among m training images of {study.auxiliary.title}, within β̂, the mean "
        f"over batches of {b} of the largest death (left), and within the largest death of any batch (right): medians "
        "over points and branches, the range of 90 % of the points (band), and the point with the fewest. Corollary 1 "
        "promises every point m − b + 1 neighbours if *all* subsets of b points are α-β-connected; training controls "
        f"random batches alone. Of all points among {sizes[-1]:,}, {share['beta_mean']:.1f} % have so many within β̂, "
        f"and {share['beta_max']:.1f} % within the largest death."
    )
    return Picture(figure, {"": table}, caption, [training.about, f"random batches and subsets: {study.local()}"])


def _neighbours(points: np.ndarray, radius: float) -> np.ndarray:
    """How many other points lie within the radius of each: (m, d) → (m,)."""
    return BallCount(radius).fit(points).score_samples(points) - 1  # a point lies in its own ball


def _figure(table: pd.DataFrame, b: int) -> Figure:
    figure = Figure(figsize=(7.2, 3.2))
    titles = {"beta_mean": "within β̂", "beta_max": "within the largest death of any batch"}
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        found = table[table["radius_is"] == name].groupby("m")
        m, colour = list(found.groups), style.COLOURS[0]
        axes.fill_between(m, found["lower_5_percent"].mean(), found["upper_5_percent"].mean(), color=colour, alpha=0.2,
                          linewidth=0, label="90 % of the points")  # fmt: skip
        axes.plot(m, found["median"].median(), color=colour, marker="o", markersize=4.5, linewidth=1.7, label="median")
        axes.plot(m, found["least"].min(), color=style.COLOURS[1], marker="v", markersize=4.5, linestyle="--",
                  linewidth=1.3, label="the fewest")  # fmt: skip
        axes.plot(m, found["bound"].first(), **style.REFERENCE | {"linewidth": 1.4}, label=f"m − b + 1, b = {b}")
        style.plain_log_axis(axes, "x")
        axes.set_yscale("symlog", linthresh=1)  # a point may have no neighbour
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set(title=title, xlabel="points, m", ylim=(-0.2, None))
    figure.axes[0].set_ylabel("neighbours of a point")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.6)
    return figure
