"""Figures, drawn from rows of a table alone, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from corel.checkpoint import write_atomically

#: Colour, marker, width and dashes of ours in the runtime study.
_OWN = [("#C2002F", "o", 3.6, "-"), ("#000000", "s", 2.0, (0, (5, 1.5)))]
#: Colours of the others, by Okabe and Ito and by Tol: colour-blind readers can tell them apart. No red: that is ours.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999933", "#882255", "#332288", "#44AA99",
            "#DDAA33", "#AA4499", "#117733", "#777777", "#A6761D", "#6699CC", "#661100"]  # fmt: skip
_MARKERS = [(marker, face) for face in ("filled", "hollow") for marker in "^vD<>pPXd*"]


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, without a date: the same rows give the same bytes."""
    kind = path.suffix.removeprefix(".")
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with matplotlib.rc_context({"svg.hashsalt": "corel", "svg.fonttype": "none"}):
        write_atomically(path, lambda stream: figure.savefig(stream, format=kind, dpi=160, metadata=dates.get(kind)))


def runtime(table: pd.DataFrame) -> Figure:
    """The log–log plot of the paper's Fig. 7: milliseconds over the points of one cloud, with quartiles.

    Parameters
    ----------
    table
        Rows of the runtime study, as ``runtime.csv`` has them; at least one of the task "one cloud".
    """
    of_one = table[(table["task"] == "one cloud") & ~table["contender"].str.contains("merge_edges|float64", regex=True)]
    names = list(dict.fromkeys(of_one["contender"]))
    figure = Figure(figsize=(8.5, max(5.0, 1.2 + 0.26 * len(names))), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="points", ylabel="milliseconds per call (median, quartiles)")
    sizes = sorted(set(of_one["size"]))
    margin = max((sizes[-1] / sizes[0]) ** 0.05, 1.05)  # one size alone gives a logarithmic axis no width
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    styles = _styles(names)
    for name, group in of_one.groupby("contender", sort=False):
        own, median = str(name).startswith("corel"), group["median_ms"]
        quartiles = [median - group["lower_quartile_ms"], group["upper_quartile_ms"] - median]
        axes.errorbar(group["size"], median, quartiles, elinewidth=0.8, zorder=3 if own else 2, **styles[str(name)])
    step = table.loc[table["task"].str.startswith("training step") & table["contender"].str.startswith("corel")]
    if len(step):
        height = step["median_ms"].iloc[0]
        axes.axhline(height, color="#555555", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        label = "a training step of the autoencoder, 100 images"
        axes.text(0.01, height, label, transform=axes.get_yaxis_transform(), va="bottom", fontsize=8, color="#555555")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.grid(True, which="major", linewidth=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    first = of_one.iloc[0]
    _label_ends(figure, axes, of_one, styles)
    axes.set_title(
        f"0-dimensional Rips persistence of one cloud: {first['points']}, "
        f"$\\mathbb{{R}}^{{{first['dim']}}}$, {first['metric']}",
        fontsize=11,
        loc="left",
    )
    figure.supxlabel(f"{table['command'].iloc[0]} · {table['machine'].iloc[0]}", fontsize=6, x=0.01, ha="left")
    return figure


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker of its own for each line; ours are heavier."""
    own = [name for name in names if name.startswith("corel")]
    styles = {}
    for index, name in enumerate(own):
        colour, marker, width, dashes = _OWN[index % len(_OWN)]
        styles[name] = {"color": colour, "marker": marker, "linewidth": width, "linestyle": dashes, "markersize": 7}
    for index, name in enumerate(name for name in names if name not in own):
        colour, (marker, face) = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        styles[name] = {"color": colour, "marker": marker, "linewidth": 1.1, "markersize": 5,
                        "markerfacecolor": colour if face == "filled" else "white"}  # fmt: skip
    return styles


def _label_ends(figure: Figure, axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """Name each line to the right of the axes, as near to the height of its end as the others leave room."""
    ends = rows.sort_values("size").groupby("contender", sort=False).tail(1).sort_values("median_ms")
    low, high = np.log(axes.get_ylim())
    heights = (np.log(ends["median_ms"].to_numpy()) - low) / (high - low)
    gap = 0.21 / (figure.get_figheight() - 1.2)  # of the axes' height, for one line of text
    order = np.arange(len(ends))
    # least squares under the condition that neighbours are at least a gap apart
    places = isotonic_regression(heights - gap * order).x.clip(0, max(0, 1 - gap * (len(ends) - 1))) + gap * order
    for row, place in zip(ends.itertuples(), places, strict=True):
        style, own = styles[row.contender], row.contender.startswith("corel")
        axes.plot([1.05], [place], transform=axes.transAxes, clip_on=False, **style)
        axes.text(1.07, place, row.contender, transform=axes.transAxes, va="center", fontsize=8, color="#222222",
                  fontweight="bold" if own else "normal")  # fmt: skip
        if row.size == ends["size"].max():  # from elsewhere it would cross the plot and look like data
            leader = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "linestyle": ":", "shrinkB": 0}
            axes.annotate("", (row.size, row.median_ms), (1.05, place), textcoords="axes fraction", arrowprops=leader)
