"""Fig. 7: the runtime study (Appendix C)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

from bench.analysis import plots
from bench.analysis.figures.picture import Picture
from bench.analysis.figures.study import Study
from bench.timing import contenders

FILE = "runtime.csv"
#: The sizes that the paper names, with few repeats: a study in a minute.
SMALL = ["--sizes", "32", "64", "128", "--repeats", "10"]
#: What the picture and its caption need; studies of older versions have other columns.
_COLUMNS = {
    "task", "size", "contender", "median_ms", "lower_quartile_ms", "upper_quartile_ms", "repeats", "points", "dim",
    "metric", "machine", "device", "versions", "commit", "date", "command",
}  # fmt: skip


def measured(study: Study) -> pd.DataFrame:
    """The table of a study: that of the output folder, a published one, or one that is measured now."""
    for folder in (study.out, *study.published_in, Path("results", "runtime")):
        try:
            table = pd.read_csv(folder / FILE)
        except (OSError, ValueError):
            continue
        if set(table) >= _COLUMNS and contenders.ONE_CLOUD in set(table["task"]):
            return table
    from bench.runtime import main

    main([*SMALL, "--device", study.device, "--out", str(study.out)])
    return pd.read_csv(study.out / FILE)


def draw(study: Study) -> Picture:
    """Draw milliseconds over the points of one cloud."""
    table = measured(study)
    with matplotlib.rc_context({"text.parse_math": True}):
        figure = plots.runtime(table)
        figure.draw_without_rendering()  # makes the labels of the ticks, which are powers
    shown = table[table["task"] == contenders.ONE_CLOUD]
    first = shown.iloc[0]
    caption = (
        "Time of 0-dimensional Vietoris–Rips persistence over the number of points of one cloud, construction of the "
        "complex included; medians with quartiles, every contender on the same clouds. Paper: Appendix C, Fig. 7."
    )
    about = (
        f"measured on {first['date']} by `{first['command']}`: {first['points']} points in dimension {first['dim']}, "
        f"{first['metric']}, {first['repeats']} repeats; {first['machine']}, device {first['device']}; "
        f"commit {first['commit']}; {first['versions']}"
    )
    return Picture(figure, {"": shown}, caption, [about])
