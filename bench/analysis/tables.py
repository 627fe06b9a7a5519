"""Tables for people: text for the terminal, Markdown and CSV. Made of rows of the store alone, wherever these lie."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis import paper, statistics
from bench.engine.cells import canonical_json, described, flattened
from corel.checkpoint import write_atomically

_LEFT = {"dataset", "method", "auxiliary", "device", "computed"}


def build(rows: pd.DataFrame) -> pd.DataFrame:
    """Make the table of an experiment.

    Parameters
    ----------
    rows
        Cells with the columns of the store, in the order in which the table is to show their methods. Those with
        ``aucs`` are finished; of the others, those with ``error`` ended in one.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, method with its settings, score variant, m and auxiliary; rows of a method stand
        together, so that its regimes can be compared. ``failed`` counts cells that ended in an error; they are in
        no average. ``paper_auc`` and ``authors_auc`` stand beside averages over all classes and the whole test
        split, by a profile's own settings, and ``difference`` is to the latter, which is finer, where it is there.
    """
    rows = statistics.with_seed(rows)
    scored = statistics.by_variant(rows)
    groups = rows.groupby(statistics.GROUP, sort=False, dropna=False)
    experiments = groups[statistics.LABELS].first()
    failed = rows.assign(failed=rows["aucs"].isna() & rows["error"].notna())
    experiments["failed"] = failed.groupby(statistics.GROUP, sort=False, dropna=False)["failed"].sum()
    experiments["place"] = range(len(experiments))
    table = experiments.reset_index().merge(statistics.summarise(scored), how="left", on=statistics.GROUP)
    table = table[table["auc_mean"].notna() | (table["failed"] > 0)].rename(columns={"classes": "of_classes"})
    table["variant"] = [value if isinstance(value, str) else "" for value in table["variant"]]
    for column in ("finished_classes", "runs"):
        table[column] = table[column].fillna(0).astype(int)
    for column in ("auxiliary", "auxiliary_title"):
        table[column] = pd.Series([v if isinstance(v, str) else None for v in table[column]], table.index, dtype=object)
    table["changed"] = changed_settings(table)
    for source in paper.SOURCES:
        reported = [reported_auc(source, row) for row in table.itertuples()]
        table[f"{source}_auc"] = pd.Series(reported, table.index, float)
    table["difference"] = table["auc_mean"] - table["authors_auc"].fillna(table["paper_auc"])
    table = table.loc[_order(table)].reset_index(drop=True)
    columns = {
        "dataset_title": "dataset", "method": "method", "changed": "settings", "variant": "variant",
        "train_per_class": "train_per_class", "auxiliary_title": "auxiliary", "profile": "profile",
        "test_images": "test_images", "test_size": "of_test_images", "finished_classes": "classes",
        "of_classes": "of_classes", "runs": "runs", "auc_mean": "auc_mean", "auc_std": "auc_std",
        "fit_seconds": "fit_seconds", "score_seconds": "score_seconds", "failed": "failed", "paper_auc": "paper_auc",
        "authors_auc": "authors_auc", "difference": "difference", "base_seed": "seed", "dataset_fingerprint": "data",
        "method_version": "version", "source_digest": "source", "protocol": "protocol",
    }  # fmt: skip
    table = table[list(columns)].set_axis(list(columns.values()), axis=1)
    table["test_images"] = table["test_images"].fillna(table["of_test_images"]).astype(int)
    for column in ("data", "source"):
        table[column] = table[column].str[:8]
    return table


def changed_settings(table: pd.DataFrame) -> list[str]:
    """Of each row, as a string, the settings in which it differs from its profile or from another row of its method."""
    settings = [flattened(json.loads(text)) for text in table["settings"]]
    shown: dict[str, dict[str, None]] = {}
    for method in table["method_identity"].unique():
        mine = [values for values, name in zip(settings, table["method_identity"], strict=True) if name == method]
        names = list(dict.fromkeys(name for values in mine for name in values))
        differing = [name for name in names if len({repr(values.get(name, ...)) for values in mine}) > 1]
        changed = [
            name for text in table.loc[table["method_identity"] == method, "changes"] for name in json.loads(text)
        ]
        shown[method] = dict.fromkeys([*changed, *differing])
    told = [
        {name: values[name] for name in sorted(shown[method]) if name in values}
        for values, method in zip(settings, table["method_identity"], strict=True)
    ]
    short = pd.DataFrame({"method": table["method_identity"].to_numpy(), "label": [described(some) for some in told]})
    # different values that look the same, such as None and the string None, are shown as JSON
    exact = pd.Series([", ".join(f"{name}={canonical_json(some[name])}" for name in some) for some in told])
    alike = exact.groupby([short["method"], short["label"]]).transform("nunique") > 1
    return list(short["label"].where(~alike, exact))


def reported_auc(source: str, row: Any) -> float:
    """The AUC that a source reports for a row of the table, NaN where it has nothing that compares."""
    comparable = (
        row.finished_classes == row.of_classes
        and pd.isna(row.test_images)
        and json.loads(row.changes) == paper.SETTINGS.get(row.method, {})
        and not row.source_digest
    )
    values = (row.dataset, row.method, row.variant, row.train_per_class, row.auxiliary)
    auc = paper.published_auc(source, *values) if comparable else None
    return math.nan if auc is None else auc


def _order(table: pd.DataFrame) -> pd.Index:
    """Rows by dataset, method, settings, score, m and auxiliary: m ascending, all else in order of appearance."""
    by = {
        "dataset": table["dataset"] + table["dataset_fingerprint"],
        "method": table["method_identity"] + table["source_digest"],
        "settings": table["settings"],
        "variant": table["variant"],
        "auxiliary": table["auxiliary"].fillna(""),
    }
    appearance = table.sort_values("place", kind="stable").index
    ranks = pd.DataFrame(
        {name: pd.Series(pd.factorize(values.loc[appearance])[0], appearance) for name, values in by.items()}
    )
    ranks["m"] = pd.to_numeric(table["train_per_class"], errors="coerce").fillna(math.inf)
    ranks["place"] = table["place"]
    return ranks.sort_values(["dataset", "method", "settings", "variant", "m", "auxiliary", "place"]).index


def _number(value: float, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def three_digits(value: float) -> str:
    """A number of three digits, whole from 100 on: 1,654 and not 1.65e+03."""
    return _number(value, ",.0f" if value >= 100 else ".3g")


def _auc(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "failed"
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every value as the text that is printed; a column that would say nothing is left out."""
    labels = [", ".join(filter(None, pair)) for pair in zip(table["variant"], table["settings"], strict=True)]
    text = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "method": [f"{m} ({x})" if x else m for m, x in zip(table["method"], labels, strict=True)],
            "m": table["train_per_class"].astype(str),
            "auxiliary": [value if isinstance(value, str) else "–" for value in table["auxiliary"]],
            "test images": [f"{row.test_images:,} of {row.of_test_images:,}" for row in table.itertuples()],
            "classes": [f"{row.classes} of {row.of_classes}" for row in table.itertuples()],
            "AUC": [_auc(*pair) for pair in zip(table["auc_mean"], table["auc_std"], strict=True)],
            "paper": [_number(value, ".2f") for value in table["paper_auc"]],
            "authors' code": [_number(value, ".4f") for value in table["authors_auc"]],
            "difference": [_number(value, "+.3f") for value in table["difference"]],
            "fit s": [three_digits(value) for value in table["fit_seconds"]],
            "score s": [three_digits(value) for value in table["score_seconds"]],
            "failed cells": table["failed"].astype(str),
        }
    )  # fmt: skip
    unneeded = {
        "test images": (table["test_images"] == table["of_test_images"]).all(),
        "classes": (table["classes"] == table["of_classes"]).all(),
        "authors' code": table["authors_auc"].isna().all(),
        "failed cells": (table["failed"] == 0).all(),
    }
    text = text.drop(columns=[column for column, unused in unneeded.items() if unused])
    told = [column for column in ("dataset", "method", "m", "auxiliary", "test images") if column in text]
    for column in ("profile", "seed", "data", "source", "version", "protocol"):
        values = table[column].astype(str)
        if (values.groupby([text[name] for name in told]).nunique() > 1).any():  # equal rows but for it
            text.insert(4, column, values)
            told.append(column)
    return text


def to_text(text: pd.DataFrame) -> str:
    """Columns aligned for a terminal; numbers to the right."""
    widths = {column: max([len(column), *map(len, text[column])]) for column in text}

    def line(values: Mapping[str, str]) -> str:
        cells = (values[c].ljust(widths[c]) if c in _LEFT else values[c].rjust(widths[c]) for c in text)
        return "  ".join(cells).rstrip()

    head = line({column: column for column in text})
    return "\n".join([head, "-" * len(head), *(line(row) for row in text.to_dict("records"))])


def to_lines(text: pd.DataFrame) -> list[str]:
    """A line per row that says by itself what it is of, for a table that is not whole yet."""
    hidden = ("dataset", "method", "AUC")
    lines = []
    for row in text.to_dict("records"):
        rest = ", ".join(f"{name} {value}" for name, value in row.items() if name not in hidden and value != "–")
        lines.append(f"{row['method']} on {row['dataset']}: AUC {row['AUC']} ({rest})")
    return lines


def _inert(text: str) -> str:
    """Escape HTML for Markdown, which would pass it on: names of folders and files may look like HTML."""
    return html.escape(text, quote=False)


def to_markdown(text: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    rows = [
        "| " + " | ".join(text.columns) + " |",
        "|" + "|".join("---" if column in _LEFT else "---:" for column in text) + "|",
    ]
    rows += [
        "| " + " | ".join(_inert(value).replace("|", "\\|") for value in row.values()) + " |"
        for row in text.to_dict("records")
    ]
    return "\n".join(rows)


def notes(table: pd.DataFrame, trained: pd.DataFrame, commands: Sequence[str]) -> list[str]:
    """Lines that say what the numbers of a table are, and what produced them.

    Parameters
    ----------
    table
        As :func:`build` gives it.
    trained
        The store's rows of the trainings on auxiliary images behind it.
    commands
        The command lines that produced it.
    """
    profiles = [f"{name!r}" for name in table["profile"].unique() if name != "any"]
    seeds = ", ".join(str(seed) for seed in table["seed"].unique())
    runs = " or ".join(str(count) for count in sorted(table["runs"].unique()) if count) or "0"
    what = f"Profile {' and '.join(profiles)}" if profiles else "Settings the same in every profile"
    lines = [
        f"{what}, base seed {seeds}; AUC: mean over classes, then mean ± standard deviation over {runs} "
        f"run{'' if runs == '1' else 's'}; fit and score: mean seconds per cell.",
    ]
    if (table["profile"] == "quick").any():
        lines.append("The quick profile trains briefly: compare only numbers of the 'paper' profile with the paper's.")
    if (table["variant"] == "oracle").any():
        lines.append("(oracle): the best of a grid, picked by test AUC as the reference does; no honest selection.")
    if table["authors_auc"].notna().any():
        lines.append("Difference: to the authors' code where it has the row, else to the paper, which has two digits.")
    for row in trained.itertuples():
        what = "autoencoder" if row.method == "corel" else "representation"
        lines.append(f"Shared {what} of {row.method} on {row.auxiliary_title}: {row.seconds:.0f} s, {row.device}.")
    lines += [f"Produced by: {command}" for command in commands]
    return lines


def origins(finished: pd.DataFrame) -> list[str]:
    """Where the store's rows come from, a line for each: cells of one table may be of several commits and machines."""
    lines = []
    keys = ["git_commit", "device", "threads", "versions"]
    for (commit, device, threads, versions), group in finished.groupby(keys, sort=False, dropna=False):
        cells = f"{len(group)} cell{'s' if len(group) > 1 else ''}"
        source = commit if commit.startswith("version ") else f"commit {commit or 'unknown'}"
        listed = ", ".join(f"{name} {version}" for name, version in json.loads(versions).items())
        lines.append(f"{cells}: {source}; {device}, threads: {threads}; {listed}.")
    return lines


def effort(finished: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """On which devices the store's rows were computed, when, and in how many hours, as the text that is printed.

    Parameters
    ----------
    finished
        Cells, whose time is that of fitting and scoring.
    trained
        Trainings on auxiliary images.
    """
    columns = ["device", "threads", "cells", "trainings", "finished", "seconds"]
    cells = finished.assign(cells=1, trainings=0, seconds=finished["fit_seconds"] + finished["score_seconds"])
    both = pd.concat([cells[columns], trained.assign(cells=0, trainings=1)[columns]], ignore_index=True)
    lines = [
        {
            "device": device,
            "threads": str(threads),
            "cells": f"{group['cells'].sum():,}",
            "trainings": f"{group['trainings'].sum():,}",
            "computed": " to ".join(dict.fromkeys([group["finished"].min()[:10], group["finished"].max()[:10]])),
            "hours": three_digits(group["seconds"].sum() / 3600),
        }
        for (device, threads), group in both.groupby(["device", "threads"], sort=False)
    ]
    return pd.DataFrame(lines)


def write(folder: Path, rows: pd.DataFrame, trained: pd.DataFrame, commands: Sequence[str]) -> pd.DataFrame:
    """Write ``table1.csv``, ``table1.md`` and ``classes.csv`` of ``rows`` to a folder; returns the first."""
    table = build(rows)
    finished, failed = rows[rows["aucs"].notna()], rows[rows["aucs"].isna() & rows["error"].notna()]
    write_csv(folder / "table1.csv", table)
    write_csv(folder / "classes.csv", by_class(rows))
    errors = [f"Failed: {row.cell}: {row.error}" for row in failed.itertuples()]
    paragraphs = ["# One-vs-all AUC (Table 1)", to_markdown(for_people(table))]
    paragraphs += map(_inert, notes(table, trained, commands))
    if len(finished):
        paragraphs.append(to_markdown(effort(finished, trained)))
    paragraphs += map(_inert, [*origins(finished), *errors])
    write_text(folder / "table1.md", "\n\n".join(paragraphs) + "\n")
    return table


def by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """AUC of each class: mean and sample standard deviation over runs, a line per row of the table and class."""
    scored = statistics.by_variant(statistics.with_seed(rows).assign(changed=changed_settings(rows)))
    scored["test_images"] = scored["test_images"].fillna(scored["test_size"]).astype(int)
    keys = [*statistics.GROUP, "variant"]
    scored["line"] = scored.groupby(keys, sort=False, dropna=False).ngroup()
    groups = scored.sort_values(["line", "class"], kind="stable").groupby([*keys, "class"], sort=False, dropna=False)
    table = groups[["dataset_title", "method", "changed", "auxiliary_title", "class_name"]].first()
    table["runs"], table["auc_mean"], table["auc_std"] = groups.size(), groups["auc"].mean(), groups["auc"].std(ddof=1)
    columns = {
        "dataset_title": "dataset", "method": "method", "changed": "settings", "variant": "variant",
        "train_per_class": "train_per_class", "auxiliary_title": "auxiliary", "test_images": "test_images",
        "base_seed": "seed", "class": "class", "class_name": "class_name", "runs": "runs", "auc_mean": "auc_mean",
        "auc_std": "auc_std",
    }  # fmt: skip
    return table.reset_index()[list(columns)].set_axis(list(columns.values()), axis=1)


def write_cells(path: Path, rows: pd.DataFrame) -> None:
    """Write one line per finished cell and score variant: what the averages are made of."""
    columns = [
        "dataset", "method", "settings", "variant", "train_per_class", "auxiliary", "test_images", "run", "class",
        "class_name", "auc", "fit_seconds", "score_seconds",
    ]  # fmt: skip
    write_csv(path, statistics.by_variant(rows.assign(settings=changed_settings(rows)))[columns])


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, in one step; bytes of names that are not UTF-8 are written as escapes."""
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, in one step: floats with six decimals, columns of seconds with three."""
    shown = table.copy()
    for column in shown:
        if shown[column].dtype.kind == "f":
            digits = 3 if str(column).endswith("seconds") else 6
            shown[column] = shown[column].map(f"{{:.{digits}f}}".format, na_action="ignore")
    write_text(path, shown.to_csv(index=False, lineterminator="\n"))
