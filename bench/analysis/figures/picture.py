"""A figure with its numbers and its caption, and the files that it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench.analysis import plots, tables
from corel.checkpoint import write_atomically

#: How long the last picture of an animation stands, and the others, in milliseconds.
_LAST, _EACH = 2500, 110


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes
    ----------
    figure
        The picture.
    tables
        The numbers that are drawn, by what is added to the figure's name.
    caption
        What is to be seen.
    made_of
        What was run for it: a line for each training, set of rows or computation.
    frames
        The pictures of an animation, where there is one.
    """

    figure: Figure
    tables: Mapping[str, pd.DataFrame]
    caption: str
    made_of: Sequence[str]
    frames: Sequence[Image.Image] = ()


def write(name: str, picture: Picture, folder: Path, drawn: str) -> list[str]:
    """Write a figure as PNG and PDF, its numbers as CSV and its caption as Markdown, each whole or not at all.

    Parameters
    ----------
    name
        The figure's.
    folder
        Where to; it is made where there is none.
    drawn
        The last line of the caption: by which command, commit and versions it was drawn.

    Returns
    -------
    list of str
        Names of the files.
    """
    for kind in ("png", "pdf"):
        plots.save(picture.figure, folder / f"{name}.{kind}")
    if picture.frames:
        first, *others = picture.frames
        times = [_EACH] * len(others) + [_LAST]
        write_atomically(
            folder / f"{name}.gif",
            lambda stream: first.save(
                stream, format="GIF", save_all=True, append_images=others, duration=times, loop=0
            ),
        )  # fmt: skip
    for part, table in picture.tables.items():
        tables.write_csv(folder / f"{name}{part}.csv", table)
    lines = [f"**{name}.** {picture.caption}", "", *(f"- {line}" for line in [*picture.made_of, drawn])]
    tables.write_text(folder / f"{name}.md", "\n".join(lines) + "\n")
    animation = [f"{name}.gif"] if picture.frames else []
    return [f"{name}.png", f"{name}.pdf", *animation, *(f"{name}{part}.csv" for part in picture.tables), f"{name}.md"]


def snapshot(figure: Figure, dpi: int) -> Image.Image:
    """The figure as it is now, in 64 colours: one picture of an animation."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64, dither=Image.Dither.NONE)
