"""The page: everything that rows can tell, as one HTML file that needs nothing else, as Markdown and as pictures.

It is made from rows alone, and from the gallery that a run of ``corel`` leaves beside them. What cannot be shown is
said in its place, with the command that computes it.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import html
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.analysis import charts, comparison, paper, statistics, tables
from bench.engine.cells import described, flattened
from corel.checkpoint import write_atomically

#: What a cell was computed with: said once for all cells that share it.
_ENVIRONMENT = ["git_commit", "device", "threads", "versions"]
#: What drew the page.
_DRAWN_WITH = ("matplotlib", "scipy", "scikit-posthocs", "statsmodels", "pandas", "Jinja2")
#: Measured cells of one line that its details list; the rest are in the rows that the page carries.
_LISTED_CELLS = 1000


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: one method, score variant and choice of settings on one dataset, with one m.

    Attributes
    ----------
    first
        A row of the line, for what all of them share.
    cells
        Those that are finished, with the column ``auc``.
    name, label
        The method with its variant and settings; in ``label``, with what else tells it from its neighbours.
    planned, failed
        How many cells there are to be, as far as the rows tell, and how many ended in an error.
    interval, std
        Mean AUC with its interval, and its standard deviation over runs.
    paper, authors
        The published numbers, NaN where there is none.
    """

    first: pd.Series
    cells: pd.DataFrame
    name: str
    label: str
    planned: int
    failed: int
    interval: comparison.Interval
    std: float
    paper: float
    authors: float

    def of(self, column: str) -> Any:
        """The value of a column that all rows of the line share; None where it is empty."""
        value = self.first[column]
        return None if pd.isna(value) else value

    @property
    def m(self) -> str:
        return str(self.first["train_per_class"])

    @property
    def runs(self) -> int:
        return int(self.cells["run"].nunique())

    @property
    def classes(self) -> int:
        return int(self.cells["class"].nunique())

    @property
    def settings(self) -> str:
        return described(flattened(_parsed(self.first["settings"])))

    @property
    def seeds(self) -> dict[str, Any]:
        return _parsed(self.first["seeds"])

    @property
    def seconds(self) -> float:
        """Mean seconds of fitting one class and scoring the test images."""
        return float((self.cells["fit_seconds"] + self.cells["score_seconds"]).mean())


def lines(rows: pd.DataFrame) -> list[Line]:
    """Group rows into the lines of the table: datasets and methods in the order of their appearance, then by m.

    Parameters
    ----------
    rows
        Cells, as :func:`bench.analysis.tables.build` takes them.
    """
    if rows.empty:
        return []
    rows = statistics.with_seed(rows).assign(changed=tables.changed_settings(rows))
    found = []
    for _, group in rows.groupby(statistics.GROUP, sort=False, dropna=False):
        scored = statistics.by_variant(group)
        for variant in dict.fromkeys(scored["variant"]) or [""]:
            found.append(_line(group, scored[scored["variant"] == variant], variant, rows))
    order = {column: list(dict.fromkeys(rows[column])) for column in ("dataset_title", "method", "changed")}
    return sorted(found, key=lambda line: [*(order[c].index(line.first[c]) for c in order), line.name, _number(line)])


def _number(line: Line) -> float:
    """m as a number: ``all`` is more than any."""
    return math.inf if line.m == "all" else float(line.m)


def _line(group: pd.DataFrame, cells: pd.DataFrame, variant: str, rows: pd.DataFrame) -> Line:
    first = group.iloc[0]
    told = ", ".join(filter(None, [variant, first["changed"]]))
    name = f"{first['method']} ({told})" if told else str(first["method"])
    alike = rows[(rows["method"] == first["method"]) & (rows["dataset"] == first["dataset"])]
    ways = {"auxiliary_title": "← {}", "profile": "{} profile", "base_seed": "seed {}"}
    more = [form.format(first[c]) for c, form in ways.items() if alike[c].nunique() > 1 and not pd.isna(first[c])]
    per_run = cells.groupby("run")["auc"].mean()
    shown = first.rename({"classes": "of_classes"})
    shown["finished_classes"], shown["variant"] = cells["class"].nunique(), variant
    return Line(
        first=first,
        cells=cells.sort_values(["run", "class"]),
        name=name,
        label=" ".join([name, *more]),
        planned=len(group),
        failed=int((group["aucs"].isna() & group["error"].notna()).sum()),
        interval=dataclasses.replace(comparison.auc_interval(cells), mean=float(per_run.mean())),
        std=float(per_run.std(ddof=1)) if len(per_run) > 1 else math.nan,
        paper=tables.published("paper", shown),
        authors=tables.published("authors", shown),
    )


def _parsed(text: object) -> dict[str, Any]:
    """JSON of a row as a dictionary; what is no such thing stands under an empty name."""
    try:
        found = json.loads(str(text))
    except ValueError:
        found = text
    return found if isinstance(found, dict) else {"": found}


# ---------------------------------------------------------------------------------------------------- the pictures


_Looks = Mapping[str, charts.Look]


@dataclasses.dataclass(frozen=True)
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
                "m": _number(line),
                "auc_mean": line.interval.mean,
                "auc_std": line.std,
                "low": line.interval.low,
                "high": line.interval.high,
                "paper_auc": line.paper,
                "authors_auc": line.authors,
                "seconds": line.seconds,
            }
            for line in chosen
        ]
    )


def _where(line: Line) -> tuple[str, str]:
    """What methods must share to be compared in pairs: the dataset as it is scored, and m."""
    n = line.of("test_images")
    return f"{line.of('dataset_title')}" + (f", {int(n):,} test images" if n else ""), line.m


def _runs(chosen: Sequence[Line]) -> str:
    counts = sorted({line.runs for line in chosen})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} run{'' if counts == [1] else 's'}"


def _intervals(all_lines: Sequence[Line], look: _Looks) -> list[Picture]:
    """Each dataset's lines with their intervals, beside the published numbers."""
    found = []
    for title in dict.fromkeys(line.of("dataset_title") for line in all_lines):
        chosen = [line for line in all_lines if line.of("dataset_title") == title]
        caption = f"{title}, {_runs(chosen)}. {comparison.METHOD}. Dashed: chance."
        figure = charts.intervals(_table(chosen), look)
        found.append(Picture(f"{_slug(title)}-auc", f"AUC on {title}", caption, figure))
    return found


def _by_class(group: Sequence[Line]) -> Picture:
    title, m = _where(group[0])
    cells = pd.concat([line.cells.assign(label=line.label) for line in group])
    means = cells.pivot_table(index=["class", "class_name"], columns="label", values="auc")
    means = means[[line.label for line in group]]
    caption = f"{title}, m = {m}: AUC of each class, mean over {_runs(group)}."
    if len(means) > 40:
        caption += " Classes in the order of their mean over methods."
    return Picture(f"{_slug(title)}-m{m}-by-class", f"AUC by class, {title}, m = {m}", caption, charts.heat_map(means))


def _over_m(title: str, chosen: Sequence[Line], look: _Looks) -> Picture:
    table = _table(chosen)
    name, heading = f"{_slug(title)}-over-m", f"AUC over m, {title}"
    finite = table[np.isfinite(table["m"])]
    if finite["m"].nunique() < 2:
        there = ", ".join(dict.fromkeys(line.m for line in chosen))
        names = list(dict.fromkeys(line.of("method") for line in chosen))
        more = _command(chosen[0], methods=names, m=["50", "120", "250"])
        return Picture(name, heading, f"{title}: a curve needs two numbers of training images; there is {there}.",
                       command=more)  # fmt: skip
    caption = f"{title}, {_runs(chosen)}. Band: ± one standard deviation over runs, the classes being the same."
    return Picture(name, heading, caption, charts.over_m(finite, look))


def _cost(group: Sequence[Line], trainings: pd.DataFrame, look: _Looks) -> Picture:
    title, m = _where(group[0])
    devices = sorted({str(device) for line in group for device in line.cells["device"]})
    caption = f"{title}, m = {m}. Mean seconds of fitting one class and scoring the test images; {'; '.join(devices)}."
    if len(devices) > 1:
        caption += " Times of different machines do not compare."
    used = {line.of("auxiliary") for line in group} - {None}
    for row in trainings.itertuples():
        if row.auxiliary in used:
            caption += f" Not in it: {row.seconds:,.0f} s, once, for what {row.method} learns from {row.auxiliary}."
    figure = charts.cost(_table(group), "seconds", look)
    return Picture(f"{_slug(title)}-m{m}-seconds", f"AUC against seconds, {title}, m = {m}", caption, figure)


def _comparison(group: Sequence[Line], look: _Looks) -> Comparison:
    title, m = _where(group[0])
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


def _gallery(path: Path | None) -> list[Picture]:
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
        rows = [(name, np.concatenate([a, b[::-1]]), np.concatenate([i, j[::-1]]))
                for name, a, b, i, j in zip(names, most, least, most_in, least_in, strict=True)]  # fmt: skip
        reconstructions = charts.gallery([(name, images, None) for name, images in pairs])
        extremes = charts.gallery(rows, headings=("most in-class", "least in-class"))
    except (OSError, ValueError, KeyError, EOFError, IndexError) as error:
        return [dataclasses.replace(missing, caption=f"{path.name} cannot be read ({error}). {missing.caption}")]
    return [
        Picture("reconstructions", "Originals beside reconstructions", f"{about}. Test images above what the decoder "
                "makes of their codes.", reconstructions),
        Picture("extremes", "Most and least in-class", f"{about}. Per class the test images with the highest and the "
                "lowest scores; a dark frame: not of this class.", extremes),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ what is missing, commands


def _command(
    line: Line, *, methods: Sequence[str] = (), m: Sequence[str] = (), runs: int | None = None
) -> str:
    """The command that computes a line, or more of its kind."""
    words = ["python", "-m", "bench.table1", "--datasets", str(line.of("dataset"))]
    words += ["--methods", *(methods or [str(line.of("method"))]), "--train-per-class", *(m or [line.m])]
    if line.of("auxiliary"):
        words += ["--auxiliary", str(line.of("auxiliary"))]
    if line.of("test_images"):
        words += ["--test-images", str(int(line.of("test_images")))]
    profile = line.of("profile")
    words += ["--runs", str(runs or max(line.runs, 1)), *(["--profile", str(profile)] if profile != "any" else [])]
    for setting in described(_parsed(line.of("changes"))).split(", ") if not methods else ():
        words += ["--set", f"{line.of('method')}.{setting}"] if setting else []
    if line.of("base_seed"):
        words += ["--seed", str(line.of("base_seed"))]
    return shlex.join(words)


_PARAMETERS = Picture(
    "parameters",
    "AUC against parameters",
    "AUC against the number of parameters: rows do not say how many a method has.",
)


@dataclasses.dataclass(frozen=True)
class Missing:
    """Something that is not there, and the command that computes it."""

    what: str
    command: str


def _incomplete(all_lines: Sequence[Line]) -> list[Missing]:
    """Lines that lack cells: of their plan where the rows have it, else of the runs that others of the dataset have."""
    found = []
    for line in all_lines:
        runs = max(other.runs for other in all_lines if _where(other)[0] == _where(line)[0])
        classes = int(line.of("classes"))
        planned, there = max(line.planned, runs * classes), len(line.cells)
        if there < planned:
            failed = f", {line.failed} failed" if line.failed else ""
            what = f"{line.label} on {line.of('dataset_title')}, m = {line.m}: {there} of {planned} cells{failed}"
            found.append(Missing(what, _command(line, runs=max(runs, 1))))
    return found


def _not_measured(all_lines: Sequence[Line]) -> list[Missing]:
    """Numbers of the paper's Table 1 that no line stands beside."""
    there = {(line.of("dataset"), line.of("method"), line.m, line.of("auxiliary") or "") for line in all_lines
             if not math.isnan(line.paper) and line.of("profile") != "quick"}  # fmt: skip
    found = []
    columns = ["dataset", "method", "train_per_class", "auxiliary"]
    for row in paper.numbers("paper").itertuples():
        if tuple(getattr(row, column) for column in columns) not in there:
            words = ["python", "-m", "bench.table1", "--datasets", row.dataset, "--methods", row.method,
                     "--train-per-class", row.train_per_class, *(["--auxiliary", row.auxiliary] if row.auxiliary else []),
                     "--profile", "paper"]  # fmt: skip
            learned = f", auxiliary {row.auxiliary}" if row.auxiliary else ""
            what = f"{row.method} on {row.dataset}, m = {row.train_per_class}{learned}: {row.auc:.2f} in the paper"
            found.append(Missing(what, shlex.join(words)))
    return found


# --------------------------------------------------------------------------------------------------- what it is from


@dataclasses.dataclass(frozen=True)
class Environment:
    """What cells were computed with, under a short name."""

    name: str
    cells: int
    commit: str
    device: str
    threads: str
    versions: str

    @property
    def constraints(self) -> str:
        """In the form that ``pip install -c`` takes."""
        found = {k: str(v) for k, v in _parsed(self.versions).items()}
        lines = [f"# {self.name}: {self.cells} cells; commit {self.commit or 'unknown'}; {self.device}, "
                 f"threads: {self.threads}; python {found.pop('python', 'unknown')}"]  # fmt: skip
        return "\n".join([*lines, *(f"{name}=={version}" for name, version in found.items() if name != "corel")])


def _environment_keys(cells: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(cells[_ENVIRONMENT].itertuples(index=False, name=None))


def _environments(cells: pd.DataFrame) -> dict[tuple[Any, ...], Environment]:
    """What the cells were computed with, in the order of the rows: E1, E2, …"""
    counts = Counter(_environment_keys(cells))
    return {values: Environment(f"E{n}", counts[values], *map(str, values)) for n, values in enumerate(counts, start=1)}


def _cells(line: Line, environments: Mapping[tuple[Any, ...], Environment]) -> list[dict[str, Any]]:
    """What the details of a line say of each cell."""
    shown = line.cells.head(_LISTED_CELLS)
    names = [environments[key].name for key in _environment_keys(shown)]
    own = [_parsed(seeds).get("method", "") for seeds in shown["seeds"]]
    return shown.assign(environment=names, seed=own).to_dict("records")


def _drawn_with() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in _DRAWN_WITH)


def _embedded(rows: pd.DataFrame) -> str:
    """The rows as a compressed CSV within an address: whoever has the page has what it is made from."""
    text = rows.to_csv(index=False, lineterminator="\n").encode()
    return "data:application/gzip;base64," + base64.b64encode(gzip.compress(text, mtime=0)).decode()


# --------------------------------------------------------------------------------------------------- the templates


class _Raw(str):
    """Text that a Markdown template prints as it is."""


def _markdown(value: object) -> object:
    """A printed value with everything escaped that Markdown or HTML would take for markup."""
    if isinstance(value, _Raw) or not isinstance(value, str):
        return value
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(value.split(" ")).replace("\n", " "))
    return html.escape(text, quote=False)


def _text(value: float, form: str) -> str:
    """A number as a reader expects it: a minus sign, and a dash where there is none."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("-", "−")


def _span(low: float, high: float, form: str) -> str:
    return "–" if math.isnan(low) else f"{_text(low, form)} to {_text(high, form)}"


def _against(line: Line, published: float) -> str:
    """The difference from a published number, and where that lies to the interval."""
    inside = line.interval.contains(published)
    where = "" if inside is None else " within" if inside else " outside"
    return _text(line.interval.mean - published, "+.3f") + where


def _environment(finalize: Callable[[object], object] | None = None) -> jinja2.Environment:
    """Of the templates beside this file: HTML is escaped, and Markdown what ``finalize`` makes of each value."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.analysis"),
        autoescape=finalize is None,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _text, "seconds": charts.seconds, "raw": _Raw, "code": lambda text: _Raw(f"`` {text} ``"),
    }  # fmt: skip
    environment.tests["nan"] = math.isnan
    return environment


def _style_and_script() -> dict[str, Markup]:
    """The page's own, and the hash by which the page lets this script run and no other."""
    folder = resources.files("bench.analysis") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(digest)}


# ------------------------------------------------------------------------------------------------------- the page


def _groups(all_lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that compare with each other; of a dataset, the m with most methods comes first."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in all_lines:
        groups.setdefault(_where(line), []).append(line)
    titles = list(dict.fromkeys(title for title, _ in groups))
    return sorted(groups.values(), key=lambda g: (titles.index(_where(g[0])[0]), -len(g), -_number(g[0])))


def _unique(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures with names that differ, also where the titles of two datasets make the same one."""
    seen: dict[str, int] = {}
    for picture in pictures:
        seen[picture.name] = seen.get(picture.name, 0) + 1
        if seen[picture.name] > 1:
            object.__setattr__(picture, "name", f"{picture.name}-{seen[picture.name]}")
    return list(pictures)


def write(
    folder: Path,
    rows: pd.DataFrame,
    trained: pd.DataFrame,
    commands: Sequence[str] = (),
    sources: Sequence[str] = (),
    gallery: Path | None = None,
) -> Path:
    """Write the page of some rows: ``index.html``, ``report.md``, ``constraints.txt`` and ``figures/``.

    Parameters
    ----------
    folder
        Made where there is none. What an earlier page left there is replaced.
    rows
        Cells, as :func:`bench.analysis.tables.build` takes them: those without ``aucs`` and ``error`` are planned.
    trained
        The store's rows of the trainings on auxiliary images.
    commands
        The commands that computed the rows.
    sources
        Where the rows are from, as the page says it.
    gallery
        The file that :func:`bench.analysis.gallery.write` left, if any.

    Returns
    -------
    pathlib.Path
        ``index.html``.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    every_line, finished = lines(rows), rows[rows["aucs"].notna()]
    all_lines = [line for line in every_line if len(line.cells)]
    groups = _groups(all_lines)
    titles = list(dict.fromkeys(line.of("dataset_title") for line in all_lines))
    look = charts.looks([line.label for line in all_lines])
    content: dict[str, Any] = {
        "intervals": _intervals(all_lines, look),
        "by_class": [_by_class(group) for group in groups],
        "over_m": [_over_m(t, [line for line in all_lines if line.of("dataset_title") == t], look)
                   for t in titles],
        "seconds": [_cost(group, trained, look) for group in groups],
        "comparisons": [_comparison(group, look) for group in groups],
        "gallery": _gallery(gallery),
    }
    pictures = _unique([*content["intervals"], *content["by_class"], *content["over_m"], *content["seconds"],
                        *(c.picture for c in content["comparisons"]), *content["gallery"]])  # fmt: skip
    figures = {picture.name: picture.figure for picture in pictures if picture.figure is not None}
    environments = _environments(finished)
    content |= {
        "lines": every_line,
        "titles": titles,
        "method_count": finished["method_identity"].nunique(),
        "cells": len(finished),
        "finished": max(finished["finished"], default="")[:10],
        "profiles": sorted(set(rows["profile"])),
        "sources": sources,
        "parameters": _PARAMETERS,
        "failed": rows[rows["aucs"].isna() & rows["error"].notna()].to_dict("records"),
        "incomplete": _incomplete(every_line),
        "not_measured": _not_measured(all_lines),
        "paper_count": len(paper.numbers("paper")),
        "commands": commands,
        "environments": list(environments.values()),
        "drawn_with": _drawn_with(),
        "rows": _embedded(finished),
        "interval_method": comparison.METHOD,
        "has_paper": any(not math.isnan(line.paper) for line in all_lines),
        "has_authors": any(not math.isnan(line.authors) for line in all_lines),
        "listed_cells": _LISTED_CELLS,
        "command_of": _command,
        "cells_of": lambda line: _cells(line, environments),
        "environments_of": lambda line: [environments[k] for k in dict.fromkeys(_environment_keys(line.cells))],
        "span": _span,
        "against": _against,
    }
    charts.save(figures, folder / "figures")
    constraints = "\n\n".join(environment.constraints for environment in environments.values())
    texts = {
        "constraints.txt": f"{constraints}\n\n# the page was drawn with {content['drawn_with']}\n",
        "report.md": _environment(_markdown).get_template("report.md").render(content),
        "index.html": _environment().get_template("page.html").render(content, **_style_and_script()),
    }
    for name, text in texts.items():
        write_atomically(folder / name, lambda stream, text=text: stream.write(text.encode()))  # type: ignore[misc]
    return folder / "index.html"
