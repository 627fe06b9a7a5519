"""Rows in text files: published tables, which others take as finished, and the way from runs to them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.engine.store import ROW_TABLES, STORE_FILE, Rows, Store, checked_aucs, columns_of, typed
from corel.checkpoint import write_atomically

#: The file of each of the store's tables in a published folder.
FILES = {"cells": "rows.csv", "auxiliaries": "auxiliaries.csv", "failures": "failures.csv"}


def read_rows(name: str | Path, argument: str = "folder") -> Rows:
    """Read the rows of a run (a folder with ``cells.sqlite``) or of a published table (one with ``rows.csv``).

    Raises
    ------
    ValueError
        If there are none, or they cannot be read; the message names ``argument``.
    """
    folder = Path(name)
    try:
        if name == "":
            raise ValueError("got ''; accepted are folders of runs and of published tables")
        if (folder / FILES["cells"]).is_file():
            return read_published(folder)
        if (folder / STORE_FILE).is_file():
            with Store.copy(folder / STORE_FILE) as store:
                return store.rows()
    except (ValueError, OSError) as error:
        raise ValueError(f"{argument}: {error}") from None
    raise ValueError(
        f"{argument}: got {str(folder)!r}, which holds neither {STORE_FILE}, as a run's folder does, nor "
        f"{FILES['cells']}, as that of a published table"
    )


def check_kind(name: str | Path, *, run: bool, argument: str) -> None:
    """Refuse to mix a run and a published table in one folder: of the two sets of rows only one would be read.

    Parameters
    ----------
    name
        The folder that is to be written to.
    run
        Whether a run is to be written there; else a published table.
    argument
        The argument that gave the folder, for errors.

    Raises
    ------
    ValueError
        If the other one is there.
    """
    if name != "" and (Path(name) / (FILES["cells"] if run else STORE_FILE)).is_file():
        holds, wanted = ("a published table", "a run") if run else ("a run", "a published table")
        raise ValueError(f"{argument}: got {str(name)!r}, the folder of {holds}; accepted is another one for {wanted}")


def read_published(folder: Path) -> Rows:
    """Read the rows of a published table, with the types of the store's.

    Raises
    ------
    ValueError
        If a file cannot be read or is not of this version.
    """
    tables = {}
    for table in ROW_TABLES:
        path = folder / FILES[table]
        columns = list(columns_of(table))
        if not path.exists() and table != "cells":
            tables[table] = typed(pd.DataFrame(columns=columns), table)
            continue
        try:
            with open(path, encoding="utf-8", newline="") as stream:
                lines = list(csv.reader(stream, strict=True))
            if not lines:
                raise ValueError("it is empty")
            head = lines.pop(0)
            if head != columns:
                raise ValueError("its columns are those of another version")
            if any(len(line) != len(columns) for line in lines):
                raise ValueError("a line has not as many values as there are columns")
            tables[table] = typed(pd.DataFrame(lines, columns=columns, dtype=object), table)
        except (ValueError, csv.Error, OSError) as error:
            raise ValueError(f"cannot read {str(path)!r} ({getattr(error, 'strerror', None) or error})") from None
    checked_aucs(tables["cells"], folder / FILES["cells"])
    return Rows(**tables)


def write_published(folder: Path, rows: Rows) -> None:
    """Write every column of ``rows``: numbers so that they read back exactly, a table without rows not at all."""
    for table in ROW_TABLES:
        frame, path = getattr(rows, table), folder / FILES[table]
        if len(frame) == 0 and table != "cells":
            path.unlink(missing_ok=True)
            continue
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        write_atomically(path, lambda stream, text=text: stream.write(text.encode()))  # type: ignore[misc]


def merge(parts: Sequence[tuple[str, Rows]]) -> Rows:
    """Put rows of several folders together, in an order that depends on the rows alone.

    Of a cell or training that more than one has, the first one's row is kept.

    Parameters
    ----------
    parts
        Rows with the name of where they come from.

    Raises
    ------
    ValueError
        If two give the same cell other AUCs. The message names both, and the cell's key.
    """
    if not parts:
        return Rows(*(typed(pd.DataFrame(columns=list(columns_of(table))), table) for table in ROW_TABLES))
    cells = pd.concat([rows.cells.assign(folder=name) for name, rows in parts], ignore_index=True)
    twice = cells[cells.duplicated("key", keep=False)]
    for key, group in twice.groupby("key"):
        if group["aucs"].nunique() > 1:
            one, other = group.drop_duplicates("aucs").head(2).to_dict("records")
            raise ValueError(
                f"cell {key} ({one['method']} on {one['dataset']}, class {one['class_name']!r}, run {one['run']}) has "
                f"the AUC {one['aucs']} in {one['folder']} and {other['aucs']} in {other['folder']}; "
                "leave one of them out"
            )
    cells = cells.drop_duplicates("key").drop(columns="folder")
    failures = pd.concat([rows.failures for _, rows in parts], ignore_index=True).drop_duplicates("key")
    failures = failures[~failures["key"].isin(set(cells["key"]))]
    auxiliaries = pd.concat([rows.auxiliaries for _, rows in parts], ignore_index=True).drop_duplicates("key")
    return Rows(_sorted(cells, "cells"), _sorted(auxiliaries, "auxiliaries"), _sorted(failures, "failures"))


def _sorted(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    order = [
        "dataset",
        "method",
        "settings",
        "auxiliary",
        "test_images",
        "train_per_class",
        "seed",
        "run",
        "class",
        "key",
    ]
    keys = frame.reindex(columns=order)
    if "seeds" in frame:
        keys["seed"] = [json.loads(seeds)["base"] for seeds in frame["seeds"]]
    for column in ("dataset", "method", "settings"):  # numbers in strings by value: λ = 5 before λ = 10
        keys[column] = keys[column].astype(str).str.replace(r"\d+", lambda number: number[0].zfill(20), regex=True)
    keys["train_per_class"] = pd.to_numeric(keys["train_per_class"], errors="coerce")  # "all" comes last
    ranks = keys.sort_values(order).index
    return typed(frame.loc[ranks].reset_index(drop=True), table)
