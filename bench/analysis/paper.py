"""The numbers of others, as data: those that the paper prints (Table 1), and those of the authors' released code."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

#: The file of each source. The second is finer: "authors" has six digits where "paper" has two.
SOURCES = {"paper": "paper.csv", "authors": "authors.csv"}

#: The score variant behind a source's number, where a method has more than one.
SCORE_VARIANTS = {"ocsvm-cae": "oracle", "adt": "dirichlet", "dagmm": "code"}

#: The settings behind a source's number, where they are not those of the "paper" profile.
SETTINGS = {"dagmm": {"mixture": "code"}}


@functools.cache
def numbers(source: str) -> pd.DataFrame:
    """All numbers of a source: dataset, method, train_per_class, auxiliary (empty: none), auc, and what else it has."""
    texts = {"train_per_class": str, "auxiliary": str}
    return pd.read_csv(
        Path(__file__).with_name(SOURCES[source]), comment="#", dtype=texts, keep_default_na=False
    )  # fmt: skip


@functools.cache
def _aucs(source: str) -> dict[tuple[str, ...], float]:
    columns = ["dataset", "method", "train_per_class", "auxiliary"]
    return {
        (*names,): float(auc)
        for *names, auc in numbers(source)[[*columns, "auc"]].itertuples(index=False, name=None)
    }  # fmt: skip


def published_auc(
    source: str, dataset: str, method: str, variant: str, train_per_class: int | str, auxiliary: str | None
) -> float | None:
    """AUC that a source gives for this row, or None where it has no such row.

    A number belongs to one score variant only: OC-SVM (CAE)'s, say, was picked by test AUC and is not set beside
    a score that saw no test labels.
    """
    if SCORE_VARIANTS.get(method, variant) != variant:
        return None
    return _aucs(source).get((dataset, method, str(train_per_class), auxiliary or ""))
