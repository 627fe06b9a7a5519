"""Pictures of persistence diagrams: matplotlib Axes in, the same Axes out.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. For readers of grey print, dimensions
also differ in their markers in a diagram, and are one above the other in a barcode.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from torch import Tensor

from corel import _checks

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_GREY = "#777777"
#: Fractions of the height of a diagram: where the line "∞" is, and up to where finite deaths reach.
_INFINITY, _HIGHEST = 0.95, 0.88


@runtime_checkable
class Diagram(Protocol):
    """What is drawn; :class:`corel.PersistenceDiagram`, which draws itself by this module, is one.

    A protocol, because importing that class, which imports this module, would be circular.
    """

    @property
    def dim(self) -> int:
        """Dimension of the classes."""

    @property
    def points(self) -> Tensor:
        """Births and deaths, (k, 2)."""

    def numpy(self) -> np.ndarray:
        """Births and deaths, (k, 2)."""


def plot_diagram(diagrams: Diagram | Iterable[Diagram], ax: Axes | None = None, **style: Any) -> Axes:
    """Draw persistence diagrams: a point for each class, its death over its birth.

    Classes that never die are on the dashed line "∞". What ``ax`` holds of earlier calls stays in sight.

    Parameters
    ----------
    diagrams
        A :class:`corel.PersistenceDiagram`, or several, such as :func:`corel.vr_persistence` returns.
    ax
        Where to draw; by default, the axes of a new figure.
    **style
        Properties of :class:`matplotlib.lines.Line2D` for the points, in place of those by dimension.

    Returns
    -------
    matplotlib.axes.Axes
        ``ax``, or the new axes.

    Raises
    ------
    TypeError
        If ``diagrams`` or ``ax`` is something else.

    Examples
    --------
    >>> ax = corel.plot_diagram(corel.vr_persistence(torch.rand(50, 2), p=2.0, max_dim=1))
    """
    all_diagrams, ax = _diagrams(diagrams), _axes(ax)
    style = normalize_kwargs(style, Line2D)
    for diagram in all_diagrams:
        births, deaths = diagram.numpy().T
        finite = np.isfinite(deaths)
        look = {"color": _of(_COLOURS, diagram), "marker": _of(_MARKERS, diagram), "markersize": 5, "alpha": 0.7,
                "linestyle": "none", "zorder": 3, "label": _label(diagram), **style}  # fmt: skip
        ax.plot(births[finite], deaths[finite], **look)
        if not finite.all():
            ends = np.full(len(births) - finite.sum(), _INFINITY)
            ax.plot(births[~finite], ends, transform=ax.get_xaxis_transform(), **{**look, "label": None})
            ax.plot((0, 1), (_INFINITY, _INFINITY), "--", color=_GREY, linewidth=1, transform=ax.transAxes)
            ax.text(1.01, _INFINITY, "∞", color=_GREY, va="center", transform=ax.transAxes)
    low, high = _range(ax.dataLim.get_points())
    margin = 0.05 * (high - low)
    bottom = low - margin
    ax.set(xlim=(bottom, high + margin), ylim=(bottom, bottom + (high - bottom) / _HIGHEST), aspect="equal")
    ax.axline((low, low), slope=1, color=_GREY, linewidth=1, zorder=1)
    ax.set(xlabel="birth (length ε)", ylabel="death (length ε)")
    _explain(ax, all_diagrams, loc="lower right")  # below the diagonal, where no class can be
    return ax


def plot_barcode(diagrams: Diagram | Iterable[Diagram], ax: Axes | None = None, **style: Any) -> Axes:
    """Draw a persistence barcode: a bar for each class, from its birth to its death.

    Bars are in the order of the classes in their diagram, dimensions one above the other. The bar of a class that never
    dies ends in an arrow at the edge.

    Parameters
    ----------
    diagrams, ax
        As for :func:`plot_diagram`; ``ax`` should be empty.
    **style
        Properties of :class:`matplotlib.collections.LineCollection` for the bars, in place of those by dimension.

    Returns
    -------
    matplotlib.axes.Axes
        ``ax``, or the new axes.

    Raises
    ------
    TypeError
        If ``diagrams`` or ``ax`` is something else.

    Examples
    --------
    >>> ax = corel.plot_barcode(corel.vr_persistence(torch.rand(50, 2), p=2.0, max_dim=1))
    """
    all_diagrams, ax = _diagrams(diagrams), _axes(ax)
    style = normalize_kwargs(style, LineCollection)
    arrays = [diagram.numpy().astype(float) for diagram in all_diagrams]
    _, high = _range(np.concatenate([np.zeros((0, 2)), *arrays]))
    end, height = 1.05 * high, 0
    thickness = float(np.clip(150 / max(1, sum(map(len, arrays))), 0.5, 4))
    for diagram, array in zip(all_diagrams, arrays, strict=True):
        heights, (births, deaths) = np.arange(height, height + len(array)), array.T
        look = {"color": _of(_COLOURS, diagram), "linewidth": thickness, "label": _label(diagram), **style}
        bars = ax.hlines(heights, births, np.minimum(deaths, end), **look)
        never = heights[np.isinf(deaths)]
        if len(never):  # a line of no points, not clipped, would upset layouts
            ax.plot(np.full(len(never), end), never, ">", color=bars.get_color()[0], markersize=5, clip_on=False)
        height += len(array)
    ax.set(xlabel="length ε", xlim=(0, end), ylim=(-1, max(1, height)), yticks=[])
    ax.spines[["top", "right", "left"]].set_visible(False)
    _explain(ax, all_diagrams, loc="lower left", bbox_to_anchor=(0, 1), ncols=max(1, len(all_diagrams)))
    return ax


def _diagrams(diagrams: Diagram | Iterable[Diagram]) -> list[Diagram]:
    accepted = "a PersistenceDiagram, and sequences of them"
    if isinstance(diagrams, Diagram):
        return [diagrams]
    if not isinstance(diagrams, Iterable) or isinstance(diagrams, str | Tensor | np.ndarray):
        raise TypeError(_checks.got("diagrams", diagrams, accepted))
    found = list(diagrams)
    for one in found:
        if not isinstance(one, Diagram):
            raise TypeError(_checks.got("diagrams", one, accepted))
    return found


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        from matplotlib import pyplot  # chooses how figures are shown: not before one is asked for

        return pyplot.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(_checks.got("ax", ax, "matplotlib's Axes, and None"))
    return ax


def _range(numbers: np.ndarray) -> tuple[float, float]:
    """The least and the greatest finite number, or an interval of length 1 where they are the same or there is none."""
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _of(values: tuple[str, ...], diagram: Diagram) -> str:
    return values[diagram.dim % len(values)]


def _label(diagram: Diagram) -> str:
    return f"dimension {diagram.dim}" + ("" if len(diagram.points) else ": no classes")


def _explain(ax: Axes, diagrams: list[Diagram], **options: Any) -> None:
    """Add a legend, and a text if there are no classes at all."""
    if diagrams:
        ax.legend(frameon=False, **options)
    if not any(len(diagram.points) for diagram in diagrams):
        ax.text(0.5, 0.5, "no classes", color=_GREY, ha="center", va="center", transform=ax.transAxes)
