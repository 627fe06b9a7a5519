"""Tables for people: text for the terminal, Markdown and CSV for results/. Reads rows of the store only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.analysis import paper, statistics
from bench.engine.cells import Cell
from corel.checkpoint import write_atomically


def build(
    cells: Sequence[Cell],
    finished: pd.DataFrame,
    failed: pd.DataFrame,
    titles: Mapping[str, str],
    class_counts: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Make the table of an experiment.

    Parameters
    ----------
    cells
        The experiment's plan.
    finished, failed
        The store's rows for it.
    titles
        What to call each dataset in the table, by name.
    class_counts
        How many classes each dataset has, by name: the paper's number stands beside averages over all of them only.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, method, score variant, m and auxiliary; rows of a method stand together, so that its
        regimes can be compared. ``failed`` counts cells that ended in an error; they are in no average.
    """
    keys = ["dataset", "method", "variant", "train_per_class", "auxiliary"]
    table = statistics.summarise(statistics.by_variant(cells, finished))
    planned = _planned(cells, failed)
    missing = planned[planned["failed"] > 0]
    table["failed"] = 0
    alone = []
    for row in missing.itertuples():
        same = (
            (table["dataset"] == row.dataset)
            & (table["method"] == row.method)
            & (table["train_per_class"] == row.train_per_class)
        )
        if same.any():
            table.loc[same, "failed"] = row.failed
        else:
            values = (row.dataset, row.method, "", row.train_per_class, row.auxiliary)
            alone.append({**dict(zip(keys, values, strict=True)), "classes": 0, "runs": 0, "failed": row.failed})
    if alone:
        rows = [*table.to_dict("records"), *alone]
        table = pd.DataFrame(rows, columns=table.columns).astype({"auc_mean": float, "auc_std": float})
    table["auxiliary"] = [value if isinstance(value, str) else None for value in table["auxiliary"]]
    class_counts = class_counts or {}
    counts = [class_counts.get(row.dataset, row.classes) for row in table.itertuples()]
    table.insert(table.columns.get_loc("classes") + 1, "of_classes", counts)
    complete = table["classes"] == table["of_classes"]
    table["paper_auc"] = [
        math.nan if not whole or (auc := paper.table1_auc(*values)) is None else auc
        for whole, values in zip(complete, table[keys].itertuples(index=False, name=None), strict=True)
    ]
    table["difference"] = table["auc_mean"] - table["paper_auc"]
    order = {column: list(dict.fromkeys([*planned.get(column, []), *table[column]])) for column in keys}
    order["train_per_class"].sort(key=lambda m: math.inf if m == "all" else m)
    ranks = table[keys].apply(lambda column: column.map(order[str(column.name)].index))
    table = table.loc[ranks.sort_values(keys).index].reset_index(drop=True)
    table["dataset"] = table["dataset"].map(titles)
    table["auxiliary"] = table["auxiliary"].map(lambda name: titles.get(name, name))
    return table


def _planned(cells: Sequence[Cell], failed: pd.DataFrame) -> pd.DataFrame:
    """Per dataset, method and m: how many cells ended in an error."""
    bad = set(failed["key"])
    frame = pd.DataFrame(
        [(cell.dataset, cell.method.name, cell.train_per_class, cell.auxiliary, cell.key in bad) for cell in cells],
        columns=["dataset", "method", "train_per_class", "auxiliary", "failed"],
    )
    groups = frame.groupby(["dataset", "method", "train_per_class", "auxiliary"], sort=False, dropna=False)
    return groups["failed"].sum().reset_index()


def _number(value: float, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every value as the text that is printed."""
    names = [f"{row.method} ({row.variant})" if row.variant else row.method for row in table.itertuples(index=False)]
    aucs = [
        "failed"
        if math.isnan(row.auc_mean)
        else f"{row.auc_mean:.3f} ± {row.auc_std:.3f}"
        if not math.isnan(row.auc_std)
        else f"{row.auc_mean:.3f}"
        for row in table.itertuples(index=False)
    ]
    text = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "method": names,
            "m": table["train_per_class"].astype(str),
            "auxiliary": [value if isinstance(value, str) else "–" for value in table["auxiliary"]],
            "AUC": aucs,
            "paper": [_number(value, ".2f") for value in table["paper_auc"]],
            "difference": [_number(value, "+.3f") for value in table["difference"]],
            "fit s": [_number(value, ".3g") for value in table["fit_seconds"]],
            "score s": [_number(value, ".3g") for value in table["score_seconds"]],
        }
    )
    if (table["classes"] < table["of_classes"]).any():
        text.insert(4, "classes", [f"{row.classes:.0f} of {row.of_classes:.0f}" for row in table.itertuples()])
    if (table["failed"] > 0).any():
        text["failed cells"] = table["failed"].astype(int).astype(str)
    return text


def to_text(text: pd.DataFrame) -> str:
    """Columns aligned for a terminal; numbers to the right."""
    widths = {column: max([len(column), *map(len, text[column])]) for column in text}
    left = {"dataset", "method", "auxiliary"}

    def line(values: Mapping[str, str]) -> str:
        cells = (values[c].ljust(widths[c]) if c in left else values[c].rjust(widths[c]) for c in text)
        return "  ".join(cells).rstrip()

    head = line({column: column for column in text})
    return "\n".join([head, "-" * len(head), *(line(row) for row in text.to_dict("records"))])


def to_markdown(text: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    left = {"dataset", "method", "auxiliary"}
    rows = [
        "| " + " | ".join(text.columns) + " |",
        "|" + "|".join("---" if column in left else "---:" for column in text) + "|",
    ]
    rows += [
        "| " + " | ".join(value.replace("|", "\\|") for value in row.values()) + " |" for row in text.to_dict("records")
    ]
    return "\n".join(rows)


def origins(finished: pd.DataFrame) -> list[str]:
    """Where the store's rows come from, a line for each: cells of one table may be of several commits and machines."""
    lines = []
    keys = ["git_commit", "device", "threads", "versions"]
    for (commit, device, threads, versions), group in finished.groupby(keys, sort=False, dropna=False):
        cells = f"{len(group)} cell{'s' if len(group) > 1 else ''}"
        libraries = _listed_versions(versions)
        lines.append(f"{cells}: commit {commit or 'unknown'}; {device}, threads: {threads}; {libraries}.")
    return lines


def _listed_versions(versions: object) -> str:
    try:
        return ", ".join(f"{name} {version}" for name, version in json.loads(str(versions)).items())
    except (ValueError, AttributeError):  # a store that somebody changed: what it says, then
        return str(versions)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, in one step."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, in one step: AUCs with six digits, seconds with three."""
    shown = table.copy()
    for column in shown:
        digits = {"seconds": 3}.get(str(column).rpartition("_")[2], 6)
        if shown[column].dtype.kind == "f":
            shown[column] = [_number(value, f".{digits}f").replace("–", "") for value in shown[column]]
    write_text(path, shown.to_csv(index=False, lineterminator="\n"))
