"""Which differences are more than chance: intervals, and methods compared in pairs on the same draws.

The draws of a class are independent of those of any other, so that runs are nested within classes: the unit of every
statistic here is the mean of one class over its runs. scipy, statsmodels and scikit-posthocs compute.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

#: Said wherever an interval is shown.
METHOD = (
    "95 % interval over classes and runs: Student's t on the class means, each over its runs (draws are nested within "
    "classes), cut to [0, 1]; of a single class, Student's t on its runs"
)
ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval; ``low`` and ``high`` are NaN where ``note`` says why."""

    mean: float
    low: float
    high: float
    note: str = ""

    def contains(self, value: float) -> bool | None:
        """Whether ``value`` lies within; None where there is no interval or no value."""
        if math.isnan(self.low) or math.isnan(value):
            return None
        return self.low <= value <= self.high


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Student's t interval of the mean of independent values."""
    from scipy import stats

    values = np.asarray(values, dtype=float)
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, "an interval needs two values")
    error = float(stats.sem(values))
    if error == 0:  # scipy gives NaN for a distribution of width 0
        return Interval(mean, mean, mean, "all values are equal")
    low, high = stats.t.interval(1 - ALPHA, len(values) - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def auc_interval(rows: pd.DataFrame) -> Interval:
    """Interval of a method's mean AUC over classes and runs (:data:`METHOD`).

    Parameters
    ----------
    rows
        Cells of one line of the table, with the columns ``class``, ``run`` and ``auc``.
    """
    means = rows.groupby("class")["auc"].mean()
    if len(means) == 1 and len(rows) > 1:
        found = dataclasses.replace(t_interval(rows["auc"].to_numpy()), note="one class: over its runs alone")
    else:
        found = t_interval(means.to_numpy())
        if len(means) == 1:
            found = dataclasses.replace(found, note="one class and one run: no interval")
    return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0)) if len(rows) else found


def class_means(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Mean AUC by class and method over the draws that every method has.

    Parameters
    ----------
    rows
        Cells of methods on the same dataset and m, with the columns ``label`` (the method's name), ``class``,
        ``class_name``, ``run`` and ``auc``.

    Returns
    -------
    pandas.DataFrame
        A row per class, a column per method, in the order in which they first appear.
    str
        What was left out, empty if nothing was.
    """
    wide = rows.pivot(index=["class", "class_name", "run"], columns="label", values="auc")
    wide = wide.reindex(columns=list(dict.fromkeys(rows["label"])))
    common = wide.dropna()
    left_out = len(wide) - len(common)
    note = f"{left_out} of {len(wide)} draws are left out: not every method has finished them." if left_out else ""
    return common.groupby(level=["class", "class_name"]).mean(), note


def pairs(means: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Compare methods in pairs over classes.

    Parameters
    ----------
    means
        A row per class, a column per method (:func:`class_means`).
    reference
        Compare every other method with this one; None: all pairs.

    Returns
    -------
    pandas.DataFrame
        Columns: first, second, difference (first − second, mean over classes), low, high (95 % t interval), p
        (Wilcoxon's signed-rank test over classes, two-sided), p_holm (Holm's correction for the pairs of this call)
        and note, which says why a value is NaN.
    """
    from scipy import stats

    names = [str(name) for name in means.columns]
    chosen = list(combinations(names, 2)) if reference is None else [(reference, n) for n in names if n != reference]
    records = []
    for first, second in chosen:
        differences = (means[first] - means[second]).to_numpy()
        interval = t_interval(differences)
        p, note = math.nan, ""
        if len(differences) < 2:
            note = "one class: no test over classes" if len(differences) else "no draw in common"
        elif not np.any(differences):
            note = "equal in every class: Wilcoxon's test is undefined"
        else:
            p = float(stats.wilcoxon(differences).pvalue)
        records.append((first, second, interval.mean, interval.low, interval.high, p, math.nan, note))
    table = pd.DataFrame(records, columns=["first", "second", "difference", "low", "high", "p", "p_holm", "note"])
    defined = table["p"].notna()
    if defined.any():
        from statsmodels.stats.multitest import multipletests

        table.loc[defined, "p_holm"] = multipletests(table.loc[defined, "p"], alpha=ALPHA, method="holm")[1]
    return table


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Average ranks over classes, rank 1 being the best, with Friedman's and Nemenyi's tests.

    Attributes
    ----------
    ranks
        By method, ascending.
    p
        p of every pair of methods (Nemenyi), by name; None where ``note`` says why.
    critical_difference
        Ranks that differ by less are not told apart at the level of 5 % (Demšar 2006, §3.2.2).
    friedman
        p of Friedman's test that all methods are alike.
    """

    ranks: pd.Series
    p: pd.DataFrame | None
    critical_difference: float
    friedman: float
    note: str = ""


def ranks(means: pd.DataFrame) -> Ranks:
    """Rank methods within each class, the higher AUC first, ties sharing their ranks.

    Parameters
    ----------
    means
        A row per class, a column per method (:func:`class_means`).
    """
    from scipy import stats

    averages = means.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    classes, methods = means.shape
    if methods < 3 or classes < 2:
        why = "Friedman's test needs three methods" if methods < 3 else "ranks need at least two classes"
        return Ranks(averages, None, math.nan, math.nan, f"{why}; there {'is' if methods < 2 else 'are'} {methods} "
                     f"on {classes} class{'' if classes == 1 else 'es'}.")  # fmt: skip
    if (means.nunique(axis=1) == 1).all():
        return Ranks(averages, None, math.nan, math.nan, "All methods are equal in every class: there are no ranks.")
    import scikit_posthocs

    friedman = float(stats.friedmanchisquare(*means.to_numpy().T).pvalue)
    p = scikit_posthocs.posthoc_nemenyi_friedman(means.reset_index(drop=True))
    q = float(stats.studentized_range.ppf(1 - ALPHA, methods, np.inf)) / math.sqrt(2)
    return Ranks(averages, p, q * math.sqrt(methods * (methods + 1) / (6 * classes)), friedman)
