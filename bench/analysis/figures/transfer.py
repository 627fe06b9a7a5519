"""Fig. 6 and 8: mean deaths per branch, where the encoder learned and elsewhere (§5.3, Appendix D)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

from bench.analysis import style
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study, batches
from corel import death_times

_SIDE = 32


def photographs() -> np.ndarray:
    """Patches of the two photographs that come with scikit-learn: (n, 3, 32, 32) uint8, side by side."""
    from sklearn.datasets import load_sample_images

    return np.concatenate([_patches(image.transpose(2, 0, 1), _SIDE) for image in load_sample_images().images])


def terrain() -> np.ndarray:
    """Patches of the elevation map that comes with matplotlib, in grey: (n, 3, 32, 32) uint8, half overlapping."""
    from matplotlib.cbook import get_sample_data

    data: Any = get_sample_data("jacksboro_fault_dem.npz")
    height = data["elevation"].astype(float)
    grey = np.round(255 * (height - height.min()) / np.ptp(height)).astype(np.uint8)
    return _patches(np.broadcast_to(grey, (3, *grey.shape)), _SIDE // 2)


def _patches(image: np.ndarray, step: int) -> np.ndarray:
    """(3, height, width) → (n, 3, 32, 32)."""
    windows = sliding_window_view(image, (_SIDE, _SIDE), axis=(1, 2))[:, ::step, ::step]
    return np.ascontiguousarray(windows.transpose(1, 2, 0, 3, 4).reshape(-1, 3, _SIDE, _SIDE))


#: What stands for another dataset where none is given: it needs no download.
SAMPLES: tuple[tuple[str, Callable[[], np.ndarray]], ...] = (
    ("patches of scikit-learn's photographs", photographs),
    ("patches of matplotlib's elevation map", terrain),
)


def other(study: Study, place: int) -> tuple[str, list[np.ndarray]]:
    """Title and images of the dataset that is compared with the training's.

    Parameters
    ----------
    place
        0: the first that is not the training's, all of its images (Fig. 6). 1: the second, its test split (Fig. 8).
    """
    others = [study.dataset(name) for name in study.names]
    others = [dataset for dataset in others if dataset.fingerprint != study.auxiliary.fingerprint]
    if place >= len(others):
        title, images = SAMPLES[place]
        return title, [images()]
    dataset = others[place]
    if place:
        return f"{dataset.title}, test split", [dataset.test_images]
    return f"{dataset.title}, all", [dataset.train_images, dataset.test_images]


def draw(study: Study, place: int) -> Picture:
    """Draw the mean death of each branch, with the means of the least and of the largest."""
    training = study.training()
    title, images = other(study, place)
    figure = Figure(figsize=(7.2, 3.0))
    axes = figure.subplots()
    eta, size = training.method.settings.eta, training.method.settings.batch_size
    frames = []
    own: Sequence[np.ndarray] = [study.auxiliary.test_images]
    for k, (name, splits) in enumerate([(f"{study.auxiliary.title}, test split", own), (title, images)]):
        clouds = batches(training.encode(*splits), size, study.generator(name))
        deaths = death_times(clouds)  # (branches, batches, b − 1), in order
        table = pd.DataFrame(
            {
                "data": name,
                "branch": range(1, len(deaths) + 1),
                "batches": deaths.shape[1],
                "alpha": deaths[..., 0].mean(1),
                "epsilon": deaths.mean((1, 2)),
                "beta": deaths[..., -1].mean(1),
            }
        )
        x, colour = table["branch"] + (0.16 if k else -0.16), style.COLOURS[k]
        axes.vlines(x, table["alpha"], table["beta"], color=colour, linewidth=2.6, alpha=0.4)
        number = deaths.shape[1]
        label = f"{name} ({number:,} batch{'es' if number > 1 else ''})"
        axes.plot(x, table["epsilon"], linestyle="", color=colour, marker=style.MARKERS[k], markersize=5.5,
                  markerfacecolor="white" if k else colour, markeredgewidth=1.4, label=label)  # fmt: skip
        frames.append(table)
    axes.axhline(eta, **style.REFERENCE, label=f"η = {eta:g}")
    count = len(frames[0])
    axes.set(xlabel="branch", ylabel="death time", ylim=(0, None), xlim=(0.3, count + 0.7))
    axes.set_xticks(range(1, count + 1) if count <= 32 else range(0, count + 1, 10))
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    caption = (
        f"Mean death per branch over random batches of {size} images (markers), and from α̂ to β̂, the means of a "
        f"batch's least and largest death (bars): on the test split of {study.auxiliary.title}, on whose training "
        f"split the encoder was trained, and on {title}. Paper: {'Appendix D, Fig. 8' if place else '§5.3, Fig. 6'}."
    )
    tables = {"": pd.concat(frames, ignore_index=True)}
    return Picture(figure, tables, caption, [training.about, f"random batches: {study.local()}"])
