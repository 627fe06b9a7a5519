"""The look of the figures: told apart in colour, in grey and by the colour-blind; text that stays text.

The runtime study has more lines than there are colours here: :mod:`bench.analysis.plots` has its own.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

#: Colours of text, of what is less important, and of lines that guide the eye.
INK, MUTED, GUIDE = "#1d2328", "#3c444b", "#8a939b"

#: matplotlib's settings, for ``matplotlib.rc_context``. No dollar sign in a name is set as mathematics.
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GUIDE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e3e7ea",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}
#: Okabe and Ito's palette without yellow, which is too light for a line on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b6670")
MARKERS = "osD^vPX<>ph"
DASHES = ("-", "--", "-.", ":")
#: A line at a value that is aimed at, or that an axis refers to.
REFERENCE: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 1}


def plain_log_axis(axes: Axes, axis: str = "y") -> None:
    """Make an axis logarithmic, with plain numbers: powers need the mathematics that :data:`STYLE` leaves out."""
    axes.set(**{f"{axis}scale": "log"})
    ticks = getattr(axes, f"{axis}axis")
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ticks.set_minor_formatter(NullFormatter())
