"""What there is to run, and what a run would do: ``bench.table1 --list`` and ``--dry-run``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

import pandas as pd

import methods
from bench import data
from bench.engine.cells import Cell, described, flattened, shown_value
from bench.engine.store import Rows


def listing(names: Sequence[str], data_root: str) -> str:
    """Methods with their settings in both profiles, and datasets with whether their files are there.

    Parameters
    ----------
    names
        The methods.
    data_root
        The folder that holds the datasets.
    """
    lines = ["Methods, and --set METHOD.SETTING=VALUE with its values by profile:"]
    for name in names:
        profiles = methods.resolve(name).profiles
        values = [flattened(dataclasses.asdict(settings)) for settings in profiles.values()]
        settings = dict.fromkeys(setting for profile in values for setting in profile)
        lines += ["", _columns(f"  {name}", profiles) if settings else f"  {name}: no settings"]
        for setting in settings:
            shown = [shown_value(profile[setting]) if setting in profile else "–" for profile in values]
            lines.append(_columns(f"    {setting}", shown))
    lines += [
        "",
        f"Datasets in {data_root}, and the auxiliary dataset of each unless --auxiliary names another:",
        "",
    ]
    for name in data.names():
        found = "found" if data.is_present(name, data_root=data_root) else "not found"
        lines.append(f"  {name:<20} {data.default_auxiliary(name):<14}  {found}")
    lines.append("  folder:PATH          itself          PATH/train/CLASS/* and PATH/test/CLASS/*")
    return "\n".join(lines)


def _columns(name: str, values: Iterable[str]) -> str:
    return f"{name:<32}{''.join(f'{value:<14}  ' for value in values)}".rstrip()


def forecast(cells: Sequence[Cell], known: Rows, workers: int, retry: bool) -> str:
    """What a run would do with ``cells``, and about how long it would take.

    Parameters
    ----------
    cells
        The plan.
    known
        Finished cells and trainings: those that are planned need not run, and all tell how long similar ones take.
    workers
        Processes that run cells.
    retry
        Whether cells that failed before run again.
    """
    rows = pd.DataFrame([cell.row() for cell in cells]).drop_duplicates("key")
    rows["there"] = rows["key"].isin(set(known.cells["key"]))
    rows["failed"] = rows["key"].isin(set(known.failures["key"])) & ~rows["there"]
    rows["runs"] = ~rows["there"] & (retry | ~rows["failed"])
    seconds = known.cells.assign(seconds=known.cells["fit_seconds"] + known.cells["score_seconds"])
    # similar: the same method with the same settings on as many images of the same data
    similar = ["method_identity", "settings", "dataset_fingerprint", "train_per_class", "test_images"]
    means = seconds.groupby(similar, dropna=False)["seconds"].mean().reset_index()
    rows = rows.astype({"test_images": "Int64"}).merge(means, how="left", on=similar)
    lines = []
    for (dataset, method, changes, m, auxiliary), group in rows.groupby(
        ["dataset_title", "method", "changes", "train_per_class", "auxiliary_title"], sort=False, dropna=False
    ):
        todo = group[group["runs"]]
        settings = described(json.loads(changes))
        name = f"{method} ({settings})" if settings else method
        where = f"{name} on {dataset}, m = {m}" + (f", auxiliary {auxiliary}" if isinstance(auxiliary, str) else "")
        time = "" if todo.empty else f", {_duration(todo['seconds'].mean() * len(todo))}"
        failed = f", {group['failed'].sum()} failed before" if group["failed"].any() else ""
        lines.append(f"{where}: {_cells(len(todo))} to run{time}, {group['there'].sum()} there{failed}")
    todo = rows[rows["runs"]]
    trainings = todo.dropna(subset=["auxiliary_key"]).drop_duplicates("auxiliary_key")
    trainings = trainings[~trainings["auxiliary_key"].isin(set(known.auxiliaries["key"]))]
    by_settings = known.auxiliaries.groupby("settings")["seconds"].mean()
    expected = trainings["auxiliary_settings"].map(by_settings)
    for row, value in zip(trainings.itertuples(), expected, strict=True):
        lines.append(f"training of {row.method} on {row.auxiliary_title}, {_duration(value)}")
    unknown = int(todo["seconds"].isna().sum()) + int(expected.isna().sum())
    total = todo["seconds"].sum() / workers + expected.sum()
    if len(todo) == 0:
        summary = "nothing to run"
    elif todo["seconds"].notna().sum() + expected.notna().sum() == 0:
        summary = f"{_cells(len(todo))} to run; no finished cell here tells how long they take"
    else:
        summary = f"{_cells(len(todo))} to run, {_duration(total)} with {workers} worker{'s' * (workers > 1)}"
        summary += f"; for {unknown} cells or trainings no time is known" if unknown else ""
    return "\n".join([*lines, summary])


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    if pd.isna(seconds):
        return "time unknown"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"
