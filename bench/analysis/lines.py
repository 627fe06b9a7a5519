"""The lines of the table, as the page has them: each with its cells, its interval and its published numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.analysis import comparison, paper, statistics, tables
from bench.engine.cells import described, flattened, shown_value


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
        The method with its variant and settings, and what else tells it from its neighbours; in ``label``, with the
        auxiliary dataset too.
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
        return described(flattened(json.loads(self.first["settings"])))

    @property
    def seeds(self) -> dict[str, Any]:
        return dict(json.loads(self.first["seeds"]))

    @property
    def seconds(self) -> float:
        """Mean seconds of fitting one class and scoring the test images."""
        return float((self.cells["fit_seconds"] + self.cells["score_seconds"]).mean())

    @property
    def parameters(self) -> float:
        """Trained parameters that a model of one class scores with; NaN where the method does not say."""
        return float(self.cells["parameters"].astype("float64").mean())


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
    # official files, and folders made of them, are one dataset
    for name in ("dataset", "auxiliary"):
        title = f"{name}_title"
        rows[title] = rows.groupby([name, f"{name}_fingerprint"])[title].transform("first")
    found = []
    for _, group in rows.groupby(statistics.GROUP, sort=False, dropna=False):
        scored = statistics.by_variant(group)
        for variant in dict.fromkeys(scored["variant"]) or [""]:
            found.append(_line(group, scored[scored["variant"] == variant], variant, rows))
    order = {column: list(dict.fromkeys(rows[column])) for column in ("dataset_title", "method", "changed")}
    return sorted(found, key=lambda line: [*(order[c].index(line.first[c]) for c in order), line.name, number(line)])


def number(line: Line) -> float:
    """m as a number: ``all`` is more than any."""
    return math.inf if line.m == "all" else float(line.m)


def _line(group: pd.DataFrame, cells: pd.DataFrame, variant: str, rows: pd.DataFrame) -> Line:
    first = group.iloc[0]
    told = ", ".join(filter(None, [variant, first["changed"]]))
    alike = rows[(rows["method"] == first["method"]) & (rows["dataset"] == first["dataset"])]
    # other columns in which lines of a method and dataset differ: two with the same label would be drawn as one
    ways = {
        "profile": "{} profile", "base_seed": "seed {}", "method_version": "version {}", "protocol": "protocol {}",
        "source_digest": "source {:.8}", "dataset_fingerprint": "data {:.8}",
        "auxiliary_fingerprint": "auxiliary data {:.8}",
    }  # fmt: skip
    if alike["auxiliary_title"].nunique() == alike["auxiliary_fingerprint"].nunique():
        del ways["auxiliary_fingerprint"]
    more = [form.format(first[c]) for c, form in ways.items() if alike[c].nunique() > 1 and not pd.isna(first[c])]
    name = " ".join([f"{first['method']} ({told})" if told else str(first["method"]), *more])
    auxiliary = first["auxiliary_title"]
    several = alike["auxiliary_title"].nunique() > 1 and not pd.isna(auxiliary)
    per_run = cells.groupby("run")["auc"].mean()
    shown = first.rename({"classes": "of_classes"})
    shown["finished_classes"], shown["variant"] = cells["class"].nunique(), variant
    return Line(
        first=first,
        cells=cells.sort_values(["run", "class"]),
        name=name,
        label=f"{name} ← {auxiliary}" if several else name,
        planned=len(group),
        failed=int((group["aucs"].isna() & group["error"].notna()).sum()),
        interval=dataclasses.replace(comparison.auc_interval(cells), mean=float(per_run.mean())),
        std=float(per_run.std(ddof=1)) if len(per_run) > 1 else math.nan,
        paper=tables.reported_auc("paper", shown),
        authors=tables.reported_auc("authors", shown),
    )


def where(line: Line) -> tuple[str, str]:
    """What methods must share to be compared in pairs: the dataset as it is scored, and m."""
    n = line.of("test_images")
    return f"{line.of('dataset_title')}" + (f", {int(n):,} test images" if n else ""), line.m


def groups(all_lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that compare with each other; of a dataset, the m with most methods comes first."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in all_lines:
        groups.setdefault(where(line), []).append(line)
    titles = list(dict.fromkeys(title for title, _ in groups))
    return sorted(groups.values(), key=lambda g: (titles.index(where(g[0])[0]), -len(g), -number(g[0])))


def command(line: Line, *, methods: Sequence[str] = (), m: Sequence[str] = (), runs: int | None = None) -> str:
    """The command that computes a line, or more of its kind."""
    words = ["python", "-m", "bench.table1", "--datasets", str(line.of("dataset"))]
    words += ["--methods", *(methods or [str(line.of("method"))]), "--train-per-class", *(m or [line.m])]
    if line.of("auxiliary"):
        words += ["--auxiliary", str(line.of("auxiliary"))]
    if line.of("test_images"):
        words += ["--test-images", str(int(line.of("test_images")))]
    profile = line.of("profile")
    words += ["--runs", str(runs or max(line.runs, 1)), *(["--profile", str(profile)] if profile != "any" else [])]
    if not methods:
        for name, value in json.loads(line.of("changes")).items():
            words += ["--set", f"{line.of('method')}.{name}={shown_value(value)}"]
    if line.of("base_seed"):
        words += ["--seed", str(line.of("base_seed"))]
    return shlex.join(words)


@dataclasses.dataclass(frozen=True)
class Missing:
    """Something that is not there, and the command that computes it."""

    what: str
    command: str


def incomplete(all_lines: Sequence[Line]) -> list[Missing]:
    """Lines that lack cells: of their plan where the rows have it, else of the runs that others of the dataset have."""
    found: dict[str, Missing] = {}  # score variants of a method share their cells
    for line in all_lines:
        runs = max(other.runs for other in all_lines if where(other)[0] == where(line)[0])
        planned, there = max(line.planned, runs * int(line.of("classes"))), len(line.cells)
        if there < planned:
            more = command(line, runs=max(runs, 1))
            told = f"{line.of('method')} ({line.of('changed')})" if line.of("changed") else line.of("method")
            failed = f", {line.failed} failed" if line.failed else ""
            what = f"{told} on {line.of('dataset_title')}, m = {line.m}: {there} of {planned} cells{failed}"
            found.setdefault(more, Missing(what, more))
    return list(found.values())


def not_measured(all_lines: Sequence[Line]) -> list[Missing]:
    """Numbers of the paper's Table 1 that no line stands beside."""
    there = {(line.of("dataset"), line.of("method"), line.m, line.of("auxiliary") or "") for line in all_lines
             if not math.isnan(line.paper) and line.of("profile") != "quick"}  # fmt: skip
    found = []
    columns = ["dataset", "method", "train_per_class", "auxiliary"]
    for row in paper.numbers("paper").itertuples():
        if tuple(getattr(row, column) for column in columns) not in there:
            words = ["python", "-m", "bench.table1", "--datasets", row.dataset, "--methods", row.method]
            words += ["--train-per-class", row.train_per_class, "--profile", "paper"]
            words += ["--auxiliary", row.auxiliary] if row.auxiliary else []
            for name, value in paper.SETTINGS.get(row.method, {}).items():
                words += ["--set", f"{row.method}.{name}={value}"]
            learned = f", auxiliary {row.auxiliary}" if row.auxiliary else ""
            what = f"{row.method} on {row.dataset}, m = {row.train_per_class}{learned}: {row.auc:.2f} in the paper"
            found.append(Missing(what, shlex.join(words)))
    return found
