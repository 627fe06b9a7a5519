"""Two directives whose tables are made when the pages are built: settings from the code, costs from published rows.

``settings METHOD`` shows every field of the method's settings in both profiles; ``costs`` the seconds of every row
under ``results/``. Nothing of them is typed, so that nothing of them can be out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from docutils import nodes
from numpydoc.docscrape import NumpyDocString
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import methods
from bench.analysis.tables import three_digits

RESULTS = Path(__file__).parents[1] / "results"


def inline(text: str) -> list[nodes.Node]:
    """Turn the markup of docstrings, literals and roles, into nodes."""
    parts = re.split(r"``(.+?)``|:[\w:]+:`~?(.+?)`", text)
    literal = (part for triple in zip(parts[1::3], parts[2::3], strict=True) for part in triple if part)
    found: list[nodes.Node] = []
    for plain, code in zip(parts[::3], [*literal, ""], strict=True):
        found += [nodes.Text(plain)] if plain else []
        found += [nodes.literal(text=code)] if code else []
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> nodes.table:
    """Make a table of texts with the markup of docstrings."""

    def row(texts: Sequence[str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *inline(text))) for text in texts))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", row(head))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group)


def meanings(settings: type) -> dict[str, str]:
    """What the docstrings of a settings class and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        for parameter in NumpyDocString(inspect.cleandoc(base.__doc__ or ""))["Parameters"]:
            names = parameter.name.split(", ")
            found |= dict.fromkeys(names, " ".join(parameter.desc))
    return found


class Settings(SphinxDirective):
    """The settings of a method: name, value in both profiles, meaning."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        method = methods.resolve(self.arguments[0])
        paper, quick = method.settings_of("paper"), method.settings_of("quick")
        described = NumpyDocString(inspect.cleandoc(type(paper).__doc__ or ""))
        said = meanings(type(paper))
        rows = [
            [f"``{text}``" for text in (name, repr(getattr(paper, name)), repr(getattr(quick, name)))]
            + [said.get(name, "")]
            for name in (field.name for field in dataclasses.fields(paper))
        ]
        text = " ".join([*described["Summary"], *described["Extended Summary"]])
        columns = 4 if said else 3
        head = ["setting", "paper", "quick", "meaning"]
        return [nodes.paragraph("", "", *inline(text)), table(head[:columns], [row[:columns] for row in rows])]


class Costs(SphinxDirective):
    """What each published row took: cells, seconds of a cell, hours of all."""

    def run(self) -> list[nodes.Node]:
        files = sorted(RESULTS.glob("*/rows.csv"))
        for path in (RESULTS, *files):
            self.env.note_dependency(str(path))
        rows = [row for path in files for row in self.rows(path)]
        if not rows:
            return [nodes.paragraph(text="No rows are published yet.")]
        head = ["published in", "row", "device, threads", "cells", "seconds per cell (median)", "hours, all cells"]
        return [table(head, rows)]

    @staticmethod
    def rows(path: Path) -> list[tuple[str, ...]]:
        """The lines of the table for a published ``rows.csv`` and the ``auxiliaries.csv`` beside it."""
        name = f"``results/{path.parent.name}``"
        found = []
        trainings = path.with_name("auxiliaries.csv")
        if trainings.exists():
            frame = pd.read_csv(trainings)
            for training in frame.to_dict("records"):
                what = f"{training['method']}: training on {training['auxiliary']}"
                where = f"{training['device']}, {training['threads']}"
                seconds = training["seconds"]
                found.append((name, what, where, "1", three_digits(seconds), three_digits(seconds / 3600)))
        cells = pd.read_csv(path, keep_default_na=False)
        cells["seconds"] = cells["fit_seconds"] + cells["score_seconds"]
        keys = ["dataset_title", "method", "profile", "changes", "train_per_class", "test_images", "device", "threads"]
        for (dataset, method, profile, changes, m, test_images, device, threads), group in cells.groupby(
            keys, sort=False
        ):
            what = [f"{method} on {dataset}", f"m = {m}"]
            what += [f"{test_images} test images"] if test_images else []
            what += [f"profile {profile}"] if profile != "any" else []
            what += [f"{setting} = {value}" for setting, value in json.loads(changes).items()]
            seconds = group["seconds"]
            found.append(
                (
                    name, ", ".join(what), f"{device}, {threads}", str(len(group)), three_digits(seconds.median()),
                    three_digits(seconds.sum() / 3600),
                )
            )  # fmt: skip
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("settings", Settings)
    app.add_directive("costs", Costs)
    return {"parallel_read_safe": True}
