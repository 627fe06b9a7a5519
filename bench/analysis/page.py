"""The page: everything that rows can tell, as one HTML file that needs nothing else, as Markdown and as pictures.

It is made from rows alone, and from the gallery that a run of ``corel`` leaves beside them. What cannot be shown is
said in its place, with the command that computes it.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import hashlib
import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.analysis import charts, comparison, paper, sections
from bench.analysis.lines import Line, command, groups, incomplete, lines, not_measured
from bench.analysis.sections import Picture
from bench.engine.cells import printable
from bench.engine.store import typed
from corel.checkpoint import write_atomically

#: What a cell was computed with: said once for all cells that share it.
_ENVIRONMENT = ["git_commit", "device", "threads", "versions"]
#: What drew the page.
_DRAWN_WITH = ("matplotlib", "scipy", "scikit-posthocs", "statsmodels", "pandas", "Jinja2")
#: Measured cells of one line that its details list; the rest are in the rows that the page carries.
_LISTED_CELLS = 1000


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
        found = {k: str(v) for k, v in json.loads(self.versions).items()}
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
    own = [json.loads(seeds).get("method", "") for seeds in shown["seeds"]]
    return shown.assign(environment=names, seed=own).to_dict("records")


def _drawn_with() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in _DRAWN_WITH)


def _embedded(finished: pd.DataFrame) -> str:
    """The rows as a compressed CSV within an address: whoever has the page has what it is made from."""
    text = finished.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return "data:application/gzip;base64," + base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


# --------------------------------------------------------------------------------------------------- the templates


class _Raw(str):
    """Text that a Markdown template prints as it is."""


def _markdown(value: object) -> object:
    """A printed value with everything escaped that Markdown or HTML would take for markup."""
    if isinstance(value, _Raw) or not isinstance(value, str):
        return value
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", value.replace("\n", " "))
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


def _templates(finalize: Callable[[object], object] | None = None) -> jinja2.Environment:
    """The templates beside this file: HTML is escaped, and Markdown what ``finalize`` makes of each value."""
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
    """Style and script of the page, and the script's hash: the Content-Security-Policy blocks any other script."""
    folder = resources.files("bench.analysis") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(digest)}


# ------------------------------------------------------------------------------------------------------- the page


def _make_unique(pictures: Sequence[Picture]) -> None:
    """Give each picture a name of its own: the titles of two datasets may make the same one."""
    taken: set[str] = set()
    for picture in pictures:
        stem, number = picture.name, 1
        while picture.name in taken:
            number += 1
            picture.name = f"{stem}-{number}"
        taken.add(picture.name)


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
        Made where there is none; files of these names are replaced.
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
    commands, sources = [printable(line) for line in commands], [printable(name) for name in sources]
    every_line, finished = lines(rows), typed(rows[rows["aucs"].notna()], "cells")
    measured = [line for line in every_line if len(line.cells)]
    together = groups(measured)
    titles = list(dict.fromkeys(line.of("dataset_title") for line in measured))
    look = charts.looks([line.label for line in measured])
    content: dict[str, Any] = {
        "intervals": sections.intervals(measured, look),
        "by_class": [sections.by_class(group) for group in together],
        "over_m": [
            sections.over_m(t, [line for line in measured if line.of("dataset_title") == t], look) for t in titles
        ],
        "seconds": [sections.cost(group, trained, look) for group in together],
        "parameters": [sections.parameters(group, look) for group in together],
        "comparisons": [sections.compared(group, look) for group in together],
        "gallery": sections.at_work(gallery),
    }
    pictures = [*content["intervals"], *content["by_class"], *content["over_m"], *content["seconds"],
                        *content["parameters"], *(c.picture for c in content["comparisons"]),
                        *content["gallery"]]  # fmt: skip
    _make_unique(pictures)
    figures = {picture.name: picture.figure for picture in pictures if picture.figure is not None}
    environments = _environments(finished)
    content |= {
        "lines": every_line,
        "titles": titles,
        "method_count": finished["method_identity"].nunique(),
        "cells": len(finished),
        "finished": max(finished["finished"], default="")[:10],
        "profiles": sorted(set(rows["profile"]) - {"any"}),
        "sources": sources,
        "failed": rows[rows["aucs"].isna() & rows["error"].notna()].to_dict("records"),
        "incomplete": incomplete(every_line),
        "not_measured": not_measured(measured),
        "paper_count": len(paper.numbers("paper")),
        "commands": commands,
        "environments": list(environments.values()),
        "drawn_with": _drawn_with(),
        "rows": _embedded(finished),
        "interval_method": comparison.METHOD,
        "has_paper": any(not math.isnan(line.paper) for line in measured),
        "has_authors": any(not math.isnan(line.authors) for line in measured),
        "listed_cells": _LISTED_CELLS,
        "command_of": command,
        "cells_of": lambda line: _cells(line, environments),
        "environments_of": lambda line: [environments[k] for k in dict.fromkeys(_environment_keys(line.cells))],
        "span": _span,
        "against": _against,
    }
    charts.save(figures, folder / "figures")
    constraints = "\n\n".join(environment.constraints for environment in environments.values())
    texts = {
        "constraints.txt": f"{constraints}\n\n# the page was drawn with {content['drawn_with']}\n",
        "report.md": _templates(_markdown).get_template("report.md").render(content),
        "index.html": _templates().get_template("page.html").render(content, **_style_and_script()),
    }
    for name, text in texts.items():
        write_atomically(folder / name, lambda stream, text=text: stream.write(text.encode()))  # type: ignore[misc]
    return folder / "index.html"
