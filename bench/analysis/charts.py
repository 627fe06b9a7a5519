"""The pictures of the page: from numbers to matplotlib figures, and from a figure to SVG that stands in HTML.

Names are text: no dollar sign in them is set as mathematics, and what HTML takes for markup arrives escaped.
"""

from __future__ import annotations

import dataclasses
import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench.analysis import plots
from bench.analysis.comparison import Ranks
from bench.analysis.style import COLOURS, DASHES, GUIDE, INK, MARKERS, MUTED, STYLE

_WIDTH = 5.6


@dataclasses.dataclass(frozen=True)
class Look:
    """How a method is drawn, in every picture alike: its colour, marker and dashes all tell it from the others."""

    colour: str
    marker: str
    dashes: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each method; ours is the first."""
    ordered = sorted(dict.fromkeys(names), key=lambda name: not name.startswith("corel"))
    return {
        name: Look(
            COLOURS[k % len(COLOURS)],
            MARKERS[k % len(MARKERS)],
            DASHES[(k // len(COLOURS) + k) % len(DASHES)] if k else "-",
        )
        for k, name in enumerate(ordered)
    }


def short(name: str, length: int = 30) -> str:
    """A name for a picture: without control characters, the middle of a long one left out."""
    name = "".join(c if c.isprintable() else " " for c in name)
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def seconds(value: float) -> str:
    """A number of seconds in the unit that suits it."""
    if math.isnan(value):
        return "–"
    text = "0 s"
    for unit, size in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        number = float(f"{value / size:.3g}")  # rounded first: 0.9996 ms is 1 ms, not 1e+03 µs
        if number >= 1 or (unit == "µs" and value):
            text = f"{number:,g} {unit}"
    return text


def _legend(figure: Figure, handles: Sequence[Line2D], columns: int = 2) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.6)


def _auc_axis(axes: Axes, axis: str, low: float, high: float) -> None:
    """Limits around what is shown, and a line at chance where it is in sight."""
    low, high = max(0.0, math.floor(low * 20 - 0.3) / 20), min(1.0, math.ceil(high * 20 + 0.3) / 20)
    getattr(axes, f"set_{axis}lim")(low - 0.004, high + 0.004)
    if low <= 0.5:
        line = axes.axvline if axis == "x" else axes.axhline
        line(0.5, color=GUIDE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def intervals(table: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Mean AUC of each line of the table with its 95 % interval, beside the paper's and the authors' numbers.

    Parameters
    ----------
    table
        Columns: name, auc_mean, auc_std, low, high, paper_auc, authors_auc, label; a row per line, top first.
    look
        How each label is drawn (:func:`looks`).
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.9 + 0.27 * len(table))
        columns = ["auc_mean", "low", "high", "paper_auc", "authors_auc"]
        for y, row in enumerate(table.itertuples()):
            colour = look[row.label].colour
            if not math.isnan(row.low):
                axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6)
            if not math.isnan(row.auc_std):
                ends = [row.auc_mean - row.auc_std, row.auc_mean + row.auc_std]
                axes.plot(ends, [y, y], color=colour, linewidth=5, alpha=0.35)
            axes.plot(row.auc_mean, y, look[row.label].marker, color=colour, markersize=5.5, zorder=3)
            axes.plot(row.paper_auc, y, "D", color=INK, markerfacecolor="white", markersize=5.5, zorder=4)
            axes.plot(row.authors_auc, y, "|", color=INK, markersize=11, markeredgewidth=1.6, zorder=4)
        axes.set_yticks(range(len(table)), [short(name, 40) for name in table["name"]])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        values = table[columns].to_numpy(dtype=float)
        _auc_axis(axes, "x", float(np.nanmin(values)), float(np.nanmax(values)))
        axes.set_xlabel("AUC")
        handles = [
            Line2D([], [], color=MUTED, marker="o", markersize=5, linewidth=1.6, label="mean, 95 % interval"),
        ]
        if table["auc_std"].notna().any():
            handles.append(Line2D([], [], color=MUTED, linewidth=5, alpha=0.35, label="± SD over runs"))
        if table["paper_auc"].notna().any():
            handles.append(Line2D([], [], linestyle="", marker="D", color=INK, markerfacecolor="white",
                                  markersize=5, label="paper"))  # fmt: skip
        if table["authors_auc"].notna().any():
            handles.append(Line2D([], [], linestyle="", marker="|", color=INK, markersize=10,
                                  markeredgewidth=1.6, label="authors' code"))  # fmt: skip
        _legend(figure, handles, len(handles))
        return figure


def heat_map(means: pd.DataFrame) -> Figure:
    """AUC by class (rows) and method (columns): the darker, the higher; with numbers up to 40 classes.

    Parameters
    ----------
    means
        A row per class, indexed by (class, class_name), a column per method; NaN where there is nothing.
    """
    many = len(means) > 40
    if many:
        means = means.loc[means.mean(axis=1).sort_values(ascending=False).index]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        columns = [short(str(name), 26) for name in means.columns]
        names = [short(str(name), 24) for name in means.index.get_level_values("class_name")]
        letters = max(map(len, columns)), max(map(len, names))
        height = min(0.25 * len(means), 8.0) + 0.9 + 0.045 * letters[0]  # with the slanted names
        width = 0.5 + 0.48 * len(columns) + 0.055 * letters[0] + 0.075 * letters[1]
        figure, axes = _figure(height, min(max(width, 4.0), 12.0))
        values = means.to_numpy(dtype=float)
        # one scale for all pictures, so that they compare; it starts at chance
        image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="left",
                        rotation_mode="anchor")  # fmt: skip
        axes.xaxis.tick_top()
        step = math.ceil(len(means) / 40)
        axes.set_yticks(range(0, len(names), step), names[::step])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if not many:
            axes.set_xticks(np.arange(1, means.shape[1]) - 0.5, minor=True)
            axes.set_yticks(np.arange(1, len(means)) - 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="minor", length=0)
            for (y, x), value in np.ndenumerate(values):
                text = "–" if math.isnan(value) else f"{value:.2f}"
                dark = value > 0.8
                axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.04, pad=0.03, aspect=40)
        bar.outline.set_visible(False)
        ticks = [0.5, 0.6, 0.7, 0.8, 0.9, 1] if len(columns) > 4 else [0.5, 0.75, 1]
        bar.set_ticks(ticks, labels=[f"≤ {tick:g}" if tick == 0.5 else f"{tick:g}" for tick in ticks])
        bar.set_label("AUC")
        return figure


def over_m(table: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Mean AUC over the number m of training images per class, with bands of ± one standard deviation over runs.

    Parameters
    ----------
    table
        Columns: label, m (a number), auc_mean, auc_std.
    look
        How each label is drawn (:func:`looks`).
    """
    with matplotlib.rc_context(STYLE):
        last = table.sort_values("m").groupby("label")["auc_mean"].last().sort_values(ascending=False)
        figure, axes = _figure(3.1 + 0.19 * math.ceil(len(last) / 2))
        handles: list[Line2D] = []
        for label in last.index:
            own = table[table["label"] == label].sort_values("m")
            style = look[label]
            spread = own["auc_std"].fillna(0)
            axes.fill_between(own["m"], own["auc_mean"] - spread, own["auc_mean"] + spread, color=style.colour,
                              alpha=0.18, linewidth=0)  # fmt: skip
            handles += axes.plot(own["m"], own["auc_mean"], color=style.colour, marker=style.marker, markersize=5,
                                 linestyle=style.dashes, linewidth=1.7, label=short(str(label), 34))  # fmt: skip
        axes.set_xscale("log")
        ticks = sorted(table["m"].unique())
        axes.set_xticks(ticks if len(ticks) <= 8 else ticks[:: math.ceil(len(ticks) / 8)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        spread = table["auc_std"].fillna(0)
        _auc_axis(axes, "y", float((table["auc_mean"] - spread).min()), float((table["auc_mean"] + spread).max()))
        axes.set_xlabel("training images per class, m")
        axes.set_ylabel("AUC")
        _legend(figure, handles)
        return figure


def cost(table: pd.DataFrame, quantity: str, look: Mapping[str, Look]) -> Figure:
    """Mean AUC against what it costs, on a logarithmic axis.

    Parameters
    ----------
    table
        Columns: label, auc_mean, low, high (the 95 % interval) and the one that ``quantity`` names.
    quantity
        ``"seconds"`` of fitting and scoring one class, or ``"parameters"``.
    look
        How each label is drawn (:func:`looks`).
    """
    with matplotlib.rc_context(STYLE):
        table = table.sort_values("auc_mean", ascending=False)
        figure, axes = _figure(3.1 + 0.19 * math.ceil(len(table) / 2))
        handles: list[Line2D] = []
        for row in table.to_dict("records"):
            style = look[row["label"]]
            if not math.isnan(row["low"]):
                axes.plot([row[quantity]] * 2, [row["low"], row["high"]], color=style.colour, linewidth=1.1, alpha=0.55)
            handles += axes.plot(row[quantity], row["auc_mean"], style.marker, color=style.colour, markersize=7,
                                 label=short(str(row["label"]), 34))  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.12)
        if quantity == "seconds":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:,.0f} s" if t >= 1 else seconds(t)))
            axes.set_xlabel("fitting and scoring, per class")
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.set_xlabel("parameters")
        few = table[quantity].max() < 30 * table[quantity].min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=7))
        axes.xaxis.set_minor_formatter(NullFormatter())
        shown = table[["auc_mean", "low", "high"]].to_numpy(dtype=float)
        _auc_axis(axes, "y", float(np.nanmin(shown)), float(np.nanmax(shown)))
        axes.set_ylabel("AUC")
        _legend(figure, handles)
        return figure


def critical_difference(found: Ranks, look: Mapping[str, Look]) -> Figure:
    """Average ranks on a line; bars join the methods that Nemenyi's test does not tell apart at 5 %.

    Raises
    ------
    ValueError
        If there are no tests to draw (``found.note`` says why).
    """
    if found.p is None:
        raise ValueError(f"ranks: {found.note}")
    import scikit_posthocs

    # labels go through str.format and a dictionary of names there: both take any text
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = _figure(0.9 + 0.2 * len(found.ranks), 6.2)
        artists = scikit_posthocs.critical_difference_diagram(
            found.ranks, found.p, ax=axes,
            color_palette={name: look[name].colour for name in found.ranks.index},
            label_fmt_left="{label}  {rank:.2f}", label_fmt_right="{rank:.2f}  {label}",
            label_props={"fontsize": 9}, crossbar_props={"color": INK, "linewidth": 3},
            marker_props={"s": 26}, elbow_props={"linewidth": 1.1}, text_h_margin=0.1 + found.ranks.iloc[0] - 1,
        )  # fmt: skip
        axes.set_xticks(range(1, len(found.ranks) + 1))
        axes.spines.top.set(visible=True, bounds=(1, len(found.ranks)))
        for text in artists["labels"]:
            text.set_text(short(text.get_text(), 34))
            text.set_color(INK)
        return figure


def gallery(rows: Sequence[tuple[str, np.ndarray, np.ndarray | None]], headings: Sequence[str] = ()) -> Figure:
    """Rows of small images under each other, each with its name.

    Parameters
    ----------
    rows
        (name, (k, 3, 32, 32) uint8, (k,) bool or None) each: the images that are True get a dark frame.
    headings
        Titles over equal parts of the columns, with a gap between them.
    """
    columns = max(len(images) for _, images, _ in rows)
    per_part = columns // max(len(headings), 1)
    step, gap = 38, 20  # an image and the white around it; the white between parts
    lefts = [step * x + gap * (x // per_part) for x in range(columns)]
    canvas = np.full((step * len(rows), lefts[-1] + step, 3), 255, np.uint8)
    for y, (_, images, framed) in enumerate(rows):
        for x, image in enumerate(images):
            top, left = y * step + 3, lefts[x] + 3
            if framed is not None and framed[x]:
                canvas[top - 3 : top + 35, left - 3 : left + 35] = 29, 35, 40
                canvas[top - 1 : top + 33, left - 1 : left + 33] = 255
            canvas[top : top + 32, left : left + 32] = image.transpose(1, 2, 0)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        width = 6.4
        figure, axes = _figure((width - 1.2) * canvas.shape[0] / canvas.shape[1] + 0.3, width)
        axes.imshow(canvas, interpolation="nearest")
        axes.set_yticks([step * (y + 0.5) for y in range(len(rows))], [short(name, 16) for name, _, _ in rows])
        axes.set_xticks([lefts[k * per_part] + step * per_part / 2 for k in range(len(headings))], headings)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure


def _lay_out(figure: Figure) -> None:
    """Find the place of everything once, not again for each file."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def inline_svg(figure: Figure, title: str) -> str:
    """The figure as an ``svg`` element for an HTML page.

    Parameters
    ----------
    title
        What a screen reader says in its place.
    """
    stream = io.StringIO()
    # clip paths get their ids from the salt: those of two pictures on one page must differ
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has its own fonts
        _lay_out(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)
    # matplotlib numbers the parts of every picture alike: on one page only identifiers that are referred to may stay
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r'(<[\w:]+[^<>]*?) id="([^"]*)"', lambda tag: tag[0] if tag[2] in referred else tag[1], svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as PNG and PDF.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for name, figure in figures.items():
            _lay_out(figure)
            for kind in ("png", "pdf"):
                plots.save(figure, folder / f"{name}.{kind}")
