"""From cells to a table's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from bench.engine.cells import Cell


def by_variant(cells: Sequence[Cell], finished: pd.DataFrame) -> pd.DataFrame:
    """One row per planned cell and score variant, in the order of the plan.

    Columns: dataset, method, variant, train_per_class, auxiliary, run, class, class_name, auc, fit_seconds,
    score_seconds. Cells that are not finished are absent.
    """
    rows = finished.set_index("key").to_dict("index")
    records = []
    for cell in cells:
        row = rows.get(cell.key)
        if row is None:
            continue
        for variant, auc in json.loads(row["aucs"]).items():
            records.append(
                {
                    "dataset": cell.dataset,
                    "method": cell.method.name,
                    "variant": variant,
                    "train_per_class": cell.train_per_class,
                    "auxiliary": cell.auxiliary,
                    "run": cell.run,
                    "class": cell.class_index,
                    "class_name": cell.class_name,
                    "auc": auc,
                    "fit_seconds": row["fit_seconds"],
                    "score_seconds": row["score_seconds"],
                }
            )
    columns = ["dataset", "method", "variant", "train_per_class", "auxiliary", "run", "class", "class_name"]
    return pd.DataFrame(records, columns=[*columns, "auc", "fit_seconds", "score_seconds"])


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over classes, then over runs (§5.2); one row per dataset, method, variant, m and auxiliary.

    ``auc_std`` is the sample standard deviation over runs of the mean over classes, NaN for a single run.
    ``fit_seconds`` and ``score_seconds`` are means per cell.
    """
    keys = ["dataset", "method", "variant", "train_per_class", "auxiliary"]
    records = []
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        per_run = group.groupby("run")["auc"].mean()
        records.append(
            {
                **dict(zip(keys, values, strict=True)),
                "classes": group["class"].nunique(),
                "runs": group["run"].nunique(),
                "auc_mean": per_run.mean(),
                "auc_std": per_run.std(ddof=1),
                "fit_seconds": group["fit_seconds"].mean(),
                "score_seconds": group["score_seconds"].mean(),
            }
        )
    columns = [*keys, "classes", "runs", "auc_mean", "auc_std", "fit_seconds", "score_seconds"]
    table = pd.DataFrame(records, columns=columns)
    # pandas turns None among texts into NaN when grouping
    table["auxiliary"] = [value if isinstance(value, str) else None for value in table["auxiliary"]]
    return table
