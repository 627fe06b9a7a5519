"""The sections of the page: what each shows of the lines, or says in place of it."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.analysis import charts, comparison
from bench.analysis.lines import Line, command, number, where

Looks = Mapping[str, charts.Look]


@dataclasses.dataclass
class Picture:
    """A picture with its caption, or, where ``figure`` is None, what is missing for it."""

    name: str
    title: str
    caption: str
    figure: Figure | None = None
    command: str = ""

    @property
    def svg(self) -> Markup:
        return Markup(charts.inline_svg(self.figure, self.title) if self.figure is not None else "")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods on the same draws of one dataset."""

    title: str
    note: str
    reference: str
    against: pd.DataFrame
    every: pd.DataFrame
    ranks: comparison.Ranks
    picture: Picture


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "dataset"


def _table(chosen: Iterable[Line]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "label": line.label,
                "name": f"{line.label}, m = {line.m}",
                "m": number(line),
                "auc_mean": line.interval.mean,
                "auc_std": line.std,
                "low": line.interval.low,
                "high": line.interval.high,
                "paper_auc": line.paper,
                "authors_auc": line.authors,
                "seconds": line.seconds,
                "parameters": line.parameters,
            }
            for line in chosen
        ]
    )


def _runs(chosen: Sequence[Line]) -> str:
    counts = sorted({line.runs for line in chosen})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} run{'' if counts == [1] else 's'}"


def intervals(all_lines: Sequence[Line], look: Looks) -> list[Picture]:
    """Each dataset's lines with their intervals, beside the published numbers."""
    found = []
    for title in dict.fromkeys(line.of("dataset_title") for line in all_lines):
        chosen = [line for line in all_lines if line.of("dataset_title") == title]
        caption = f"{title}, {_runs(chosen)}. {comparison.METHOD}. Dashed, where in sight: chance."
        figure = charts.intervals(_table(chosen), look)
        found.append(Picture(f"{_slug(title)}-auc", f"AUC on {title}", caption, figure))
    return found


def by_class(group: Sequence[Line]) -> Picture:
    title, m = where(group[0])
    cells = pd.concat([line.cells.assign(label=line.label) for line in group])
    means = cells.pivot_table(index=["class", "class_name"], columns="label", values="auc")
    means = means[[line.label for line in group]]
    caption = f"{title}, m = {m}: AUC of each class, mean over {_runs(group)}."
    if len(means) > 40:
        caption += " Classes in the order of their mean over methods."
    return Picture(f"{_slug(title)}-m{m}-by-class", f"AUC by class, {title}, m = {m}", caption, charts.heat_map(means))


def over_m(title: str, chosen: Sequence[Line], look: Looks) -> Picture:
    table = _table(chosen)
    name, heading = f"{_slug(title)}-over-m", f"AUC over m, {title}"
    finite = table[np.isfinite(table["m"])]
    if finite["m"].nunique() < 2:
        there = ", ".join(dict.fromkeys(line.m for line in chosen))
        names = list(dict.fromkeys(line.of("method") for line in chosen))
        more = command(chosen[0], methods=names, m=["50", "120", "250"])
        return Picture(name, heading, f"{title}: a curve needs two numbers of training images; there is {there}.",
                       command=more)  # fmt: skip
    caption = f"{title}, {_runs(chosen)}. Band: ± one standard deviation over runs, the classes being the same."
    return Picture(name, heading, caption, charts.over_m(finite, look))


def cost(group: Sequence[Line], trainings: pd.DataFrame, look: Looks) -> Picture:
    title, m = where(group[0])
    devices = sorted({str(device) for line in group for device in line.cells["device"]})
    caption = f"{title}, m = {m}. Mean seconds of fitting one class and scoring the test images; {'; '.join(devices)}."
    if len(devices) > 1:
        caption += " Times of different machines do not compare."
    for row in trainings.itertuples():
        learned = [line.label for line in group if line.of("auxiliary_key") == row.key]
        if learned:
            caption += f" Not in it: {row.seconds:,.0f} s, once, for what {', '.join(learned)} "
            caption += f"learn{'s' if len(learned) == 1 else ''} from {row.auxiliary_title}."
    figure = charts.cost(_table(group), "seconds", look)
    return Picture(f"{_slug(title)}-m{m}-seconds", f"AUC against seconds, {title}, m = {m}", caption, figure)


def parameters(group: Sequence[Line], look: Looks) -> Picture:
    title, m = where(group[0])
    name, heading = f"{_slug(title)}-m{m}-parameters", f"AUC against parameters, {title}, m = {m}"
    table = _table(group)
    known = table["parameters"].notna()
    untold = ", ".join(dict.fromkeys(table.loc[~known, "label"]))
    if not known.any():
        return Picture(name, heading, f"{title}, m = {m}: no method here says how many parameters it has.")
    caption = f"{title}, m = {m}. Trained parameters that a model of one class scores with."
    if untold:
        caption += f" Without a number of them: {untold}."
    return Picture(name, heading, caption, charts.cost(table[known], "parameters", look))


def compared(group: Sequence[Line], look: Looks) -> Comparison:
    title, m = where(group[0])
    cells = pd.concat([line.cells.assign(label=line.label) for line in group])
    means, note = comparison.class_means(cells)
    ours = [line.label for line in group if line.of("method") == "corel"]
    reference = ours[0] if ours else group[0].label
    ranks = comparison.ranks(means)
    name, heading = f"{_slug(title)}-m{m}-ranks", f"Average ranks, {title}, m = {m}"
    if ranks.p is None:
        picture = Picture(name, heading, f"{title}, m = {m}: no critical differences. {ranks.note}")
    else:
        caption = (
            f"{title}, m = {m}: average ranks over {len(means)} classes, 1 is best. Bars join methods that Nemenyi's "
            f"test does not tell apart at 5 % (critical difference {ranks.critical_difference:.2f}); Friedman's test "
            f"that all are alike: p = {ranks.friedman:.2g}."
        )
        picture = Picture(name, heading, caption, charts.critical_difference(ranks, look))
    against = comparison.pairs(means, reference)
    if len(means) > 1 and len(against) and 2 ** (1 - len(means)) * len(against) > comparison.ALPHA:
        note += (
            f" With {len(means)} classes Wilcoxon's p is at least {2.0 ** (1 - len(means)):.2g}: after Holm's "
            f"correction for {len(against)} pairs none can be below 0.05."
        )
    return Comparison(f"{title}, m = {m}", note.strip(), reference, against, comparison.pairs(means), ranks, picture)


def at_work(path: Path | None) -> list[Picture]:
    """The method at work, from the images that a run left."""
    missing = Picture(
        "gallery", "The method at work",
        "Reconstructions, and the test images that score most and least in-class, are drawn from gallery.npz, which "
        "bench.table1 leaves in its folder where corel ran: it holds images, which rows do not.",
    )  # fmt: skip
    if path is None or not path.is_file():
        return [missing]
    try:
        with np.load(path, allow_pickle=False) as kept:
            about, names = str(kept["about"]), [str(name) for name in kept["classes"]]
            pairs = [("original", kept["originals"]), ("reconstruction", kept["reconstructions"])]
            most, least, most_in, least_in = (kept[n] for n in ("most", "least", "most_in_class", "least_in_class"))
        rows = [(name, np.concatenate([a, b[::-1]]), np.concatenate([~i, j[::-1]]))
                for name, a, b, i, j in zip(names, most, least, most_in, least_in, strict=True)]  # fmt: skip
        reconstructions = charts.gallery([(name, images, None) for name, images in pairs])
        extremes = charts.gallery(rows, headings=("most in-class", "least in-class"))
    except (OSError, ValueError, TypeError, KeyError, EOFError, IndexError, zipfile.BadZipFile) as error:
        return [dataclasses.replace(missing, caption=f"{path.name} cannot be read ({error}). {missing.caption}")]
    return [
        Picture("reconstructions", "Originals beside reconstructions", f"{about}. Test images above what the decoder "
                "makes of their codes.", reconstructions),
        Picture("extremes", "Most and least in-class", f"{about}. Per class the test images with the highest and the "
                "lowest scores. Dark frames: mistakes, of another class among the most, of this class among the least.",
                extremes),
    ]  # fmt: skip
