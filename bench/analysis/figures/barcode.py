"""Beyond the paper: what the connectivity loss does to the barcode of a batch, before and after, and on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from bench.analysis import style
from bench.analysis.figures import three_gaussians
from bench.analysis.figures.picture import Picture, snapshot
from bench.analysis.figures.study import Study
from corel import Autoencoder, death_times, merge_edges
from methods.corel import Corel

_BAR = {"color": style.COLOURS[0], "linewidth": 1.3}
#: Steps of the toy's training that the animation shows: close together at first, when most happens.
STEPS = tuple(dict.fromkeys(int(1800 * (k / 44) ** 2.2) for k in range(45)))


def draw(study: Study) -> Picture:
    """Draw the barcode of a batch of test images before and after training, and the toy of Fig. 2 in motion."""
    training = study.training()
    settings = training.method.settings
    size = min(settings.batch_size, len(study.auxiliary.test_images))
    chosen = torch.randperm(len(study.auxiliary.test_images), generator=study.generator("barcode"))[:size].sort().values
    images = np.asarray(study.auxiliary.test_images[chosen.numpy()])
    states = {"before training": initial_codes(training.method, images), "after training": training.encode(images)}
    figure = Figure(figsize=(7.2, 3.4))
    rows = []
    barcodes = {state: death_times(torch.from_numpy(codes[0])).numpy() for state, codes in states.items()}
    longest = 1.05 * max(settings.eta, *(deaths[-1] for deaths in barcodes.values()))
    for axes, (state, deaths) in zip(figure.subplots(1, 2, sharey=True), barcodes.items(), strict=True):
        axes.hlines(range(1, len(deaths) + 1), 0, deaths, **_BAR)
        _frame(axes, settings.eta, len(deaths), longest)
        axes.set_title(f"{state}\nα, mean, β = {deaths.min():.2f}, {deaths.mean():.2f}, {deaths.max():.2f}")
        rows.append(pd.DataFrame({"state": state, "branch": 1, "bar": range(1, len(deaths) + 1), "death": deaths}))
    figure.axes[0].set_ylabel("bar, by length")
    generator = study.generator("three Gaussians")  # the points of Fig. 2
    points = three_gaussians.sample(generator)
    frames = animation(points, three_gaussians.mapped(points, STEPS, generator.initial_seed()))
    caption = (
        f"0-dimensional barcodes of one batch of {size} test images of {study.auxiliary.title}, in the first branch of "
        "the code, with the weights that training begins with and with those it ends with. A bar ends where two "
        "components merge; the loss draws all ends to η. Ends are full distances ε (the paper's barcode holds ε/2). "
        "The animated picture shows the same on the toy example of Fig. 2: a batch of 50 points with the edges that "
        "merge its components, and its barcode, while the mapping is trained by the connectivity loss alone."
    )
    made_of = [training.about, f"animation: {three_gaussians.SETTINGS}; {study.local()}"]
    return Picture(figure, {"": pd.concat(rows, ignore_index=True)}, caption, made_of, frames)


def initial_codes(method: Corel, images: np.ndarray) -> np.ndarray:
    """Codes by branch under the weights that a training began with.

    Parameters
    ----------
    images
        (n, 3, 32, 32) uint8.

    Returns
    -------
    numpy.ndarray
        (branches, n, branch_dim) float32.
    """
    settings = method.settings
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        torch.default_generator.manual_seed(method.seed)
        encoder = Autoencoder(settings.branches, settings.branch_dim, device="cpu", dtype=torch.float32).encoder
        codes = encoder(torch.from_numpy(images).float().div_(255))
    return codes.view(len(codes), settings.branches, settings.branch_dim).transpose(0, 1).numpy()


def animation(points: Tensor, clouds: list[Tensor]) -> list[Image.Image]:
    """Pictures of a batch in the plane and of its barcode, one for each of :data:`STEPS`."""
    batch = torch.arange(0, len(points), len(points) // three_gaussians.BATCH)
    figure = Figure(figsize=(7.2, 3.2))
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    reach = 1.15 * max((cloud - cloud.mean(0)).abs().quantile(0.995).item() for cloud in clouds)
    left.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    faint = left.scatter([], [], s=5, color="#c9d1d8", linewidth=0)
    edges = left.add_collection(LineCollection([], colors=style.MUTED, linewidths=0.9, zorder=2))
    parts = len(batch) // 3 + 1
    dots = [left.scatter([], [], s=26, color=colour, marker=marker, linewidth=0, zorder=3)
            for colour, marker in three_gaussians.LOOKS]  # fmt: skip
    longest = max(death_times(cloud[batch]).amax().item() for cloud in clouds)
    _frame(right, three_gaussians.ETA, len(batch) - 1, 1.05 * longest)
    right.set_yticks([])
    bars = right.hlines(range(1, len(batch)), 0, [1] * (len(batch) - 1), **_BAR | {"linewidth": 2.0})
    frames = []
    for step, cloud in zip(STEPS, clouds, strict=True):
        cloud = cloud - cloud.mean(0)  # a shift changes no length
        some = cloud[batch]
        deaths = death_times(some).tolist()
        faint.set_offsets(cloud.numpy())
        edges.set_segments(list(some[merge_edges(some)].numpy()))
        for dot, part in zip(dots, some.split(parts), strict=True):
            dot.set_offsets(part.numpy())
        bars.set_segments([np.array([(0, y), (x, y)]) for y, x in enumerate(deaths, 1)])
        left.set_title(f"50 points of a batch, after {step / 30:.1f} epochs")
        right.set_title(f"its barcode: α, mean, β = {deaths[0]:.2f}, {sum(deaths) / len(deaths):.2f}, {deaths[-1]:.2f}")
        frames.append(snapshot(figure, 100))
    return frames


def _frame(axes: Axes, eta: float, bars: int, longest: float) -> None:
    axes.axvline(eta, **style.REFERENCE | {"zorder": 4})
    axes.text(eta, 0.02, f" η = {eta:g}", transform=axes.get_xaxis_transform())  # below, bars are short
    axes.set(xlabel="distance", xlim=(0, longest), ylim=(0, bars + 1))
    axes.grid(axis="y", visible=False)
