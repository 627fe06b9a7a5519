"""From rows of the store to a table's numbers."""

from __future__ import annotations

import json

import pandas as pd

#: Columns that define a row of a table: cells that agree in all of them are one experiment, and are averaged.
GROUP = [
    "dataset", "dataset_fingerprint", "method_identity", "method_version", "source_digest", "settings",
    "train_per_class", "auxiliary_fingerprint", "test_images", "base_seed", "protocol",
]  # fmt: skip
#: Further columns, constant within such a row, that a table shows.
LABELS = ["dataset_title", "method", "profile", "changes", "auxiliary", "auxiliary_title", "classes", "test_size"]


def with_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the column ``base_seed``."""
    return rows.assign(base_seed=[json.loads(seeds)["base"] for seeds in rows["seeds"]])


def by_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per finished cell and score variant, in order: ``rows`` with ``variant``, and its ``auc``."""
    finished = rows[rows["aucs"].notna()]
    scores = finished.assign(score=[list(json.loads(aucs).items()) for aucs in finished["aucs"]])
    scores = scores.explode("score", ignore_index=True)
    variant, auc = zip(*scores["score"], strict=True) if len(scores) else ((), ())
    return scores.drop(columns="score").assign(
        variant=pd.Series(variant, dtype=object), auc=pd.Series(auc, dtype="float64")
    )


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over classes, then over runs (§5.2).

    Parameters
    ----------
    rows
        As :func:`by_variant` and :func:`with_seed` give them.

    Returns
    -------
    pandas.DataFrame
        One row per experiment (:data:`GROUP`) and score variant, in order. ``auc_std`` is the sample standard
        deviation over runs of the mean over classes, NaN for a single run. ``fit_seconds`` and ``score_seconds`` are
        means per cell, ``finished_classes`` and ``runs`` the numbers of those that are finished.
    """
    keys = [*GROUP, "variant"]
    groups = rows.groupby(keys, sort=False, dropna=False)
    per_run = rows.groupby([*keys, "run"], sort=False, dropna=False)["auc"].mean()
    over_runs = per_run.groupby(level=keys, sort=False, dropna=False)
    return pd.DataFrame(
        {
            "finished_classes": groups["class"].nunique(),
            "runs": groups["run"].nunique(),
            "auc_mean": over_runs.mean(),
            "auc_std": over_runs.std(ddof=1),
            "fit_seconds": groups["fit_seconds"].mean(),
            "score_seconds": groups["score_seconds"].mean(),
        }
    ).reset_index()
