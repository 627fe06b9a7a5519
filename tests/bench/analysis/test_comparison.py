"""Statistics of the page, on cases worked by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from bench.analysis import comparison


def scores(table: dict[str, list[float]]) -> pd.DataFrame:
    """Class means of methods, a row per class."""
    index = pd.MultiIndex.from_tuples([(k, f"class {k}") for k in range(len(next(iter(table.values()))))],
                                      names=["class", "class_name"])  # fmt: skip
    return pd.DataFrame(table, index=index)


def cells(aucs: dict[int, list[float]], label: str = "a") -> pd.DataFrame:
    """Cells from the AUCs of each class's runs."""
    return pd.DataFrame(
        [(label, index, f"class {index}", run, auc) for index, runs in aucs.items() for run, auc in enumerate(runs)],
        columns=["label", "class", "class_name", "run", "auc"],
    )


def test_interval_is_that_of_the_class_means():
    # class means 0.5, 0.6, 0.7: mean 0.6, standard deviation 0.1; t of 2 degrees of freedom at 97.5 % is 4.302653
    found = comparison.auc_interval(cells({0: [0.4, 0.6], 1: [0.6, 0.6], 2: [0.8, 0.6]}))
    assert found.mean == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.high == pytest.approx(0.6 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.contains(0.4) is True
    assert found.contains(0.3) is False
    assert found.contains(math.nan) is None


def test_interval_ends_where_aucs_end():
    found = comparison.auc_interval(cells({0: [0.9], 1: [1.0]}))
    assert found.high == 1.0
    assert 0 <= found.low < 0.9


def test_interval_of_one_class_is_over_its_runs():
    found = comparison.auc_interval(cells({0: [0.7, 0.8, 0.9]}))
    low, high = stats.t.interval(0.95, 2, loc=0.8, scale=0.1 / math.sqrt(3))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(min(high, 1)))
    assert "one class" in found.note


@pytest.mark.parametrize(
    ("aucs", "note"), [({0: [0.7]}, "one class and one run"), ({}, "an interval needs two values")]
)
def test_no_interval_says_why(aucs, note):
    found = comparison.auc_interval(cells(aucs))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert note in found.note


def test_equal_values_have_an_interval_without_width():
    found = comparison.auc_interval(cells({0: [0.5], 1: [0.5]}))
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)


def test_wilcoxon_and_holm_by_hand():
    base = [0.5] * 4
    means = scores({"a": [0.6, 0.7, 0.8, 0.1], "b": base, "c": [0.4, 0.3, 0.2, 0.1]})
    table = comparison.pairs(means, reference="b").set_index("second")
    # b − a: −0.1, −0.2, −0.3, +0.4. Ranks of the positive: 4, of the negative: 6. Of the 16 ways to give signs to
    # 1 … 4, seven have a sum of at most 4 (∅, 1, 2, 3, 4, 1+2, 1+3): p = 2 · 7 / 16
    assert table.loc["a", "difference"] == pytest.approx(-0.05)
    assert table.loc["a", "p"] == pytest.approx(14 / 16)
    # b − c: all positive: one way of 16, p = 2 / 16; it is the smaller of two, so Holm doubles it
    assert table.loc["c", "p"] == pytest.approx(2 / 16)
    assert table.loc["c", "p_holm"] == pytest.approx(4 / 16)
    assert table.loc["a", "p_holm"] == pytest.approx(14 / 16)
    low, high = stats.t.interval(0.95, 3, loc=0.25, scale=stats.sem([0.1, 0.2, 0.3, 0.4]))
    assert (table.loc["c", "low"], table.loc["c", "high"]) == (pytest.approx(low), pytest.approx(high))


def test_without_a_reference_every_pair_is_there_once():
    table = comparison.pairs(scores({"a": [0.6, 0.7], "b": [0.5, 0.8], "c": [0.5, 0.5]}))
    assert list(zip(table["first"], table["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ({"a": [0.5, 0.5], "b": [0.5, 0.5]}, "equal in every class"),
        ({"a": [0.5], "b": [0.6]}, "one class"),
        ({"a": [], "b": []}, "no draw in common"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_test_that_is_undefined_says_why(table, note):
    (row,) = comparison.pairs(scores(table)).to_dict("records")
    assert math.isnan(row["p"])
    assert math.isnan(row["p_holm"])
    assert note in row["note"]


def test_undefined_tests_do_not_count_for_holm():
    means = scores({"a": [0.6, 0.7, 0.8], "b": [0.6, 0.7, 0.8], "c": [0.5, 0.5, 0.5]})
    table = comparison.pairs(means, reference="a").set_index("second")
    assert math.isnan(table.loc["b", "p_holm"])
    assert table.loc["c", "p_holm"] == table.loc["c", "p"] == pytest.approx(2 / 8)


def test_one_method_has_no_pairs():
    assert comparison.pairs(scores({"a": [0.5, 0.6]})).empty


def test_ranks_by_hand():
    found = comparison.ranks(scores({"a": [0.9, 0.9, 0.9, 0.5], "b": [0.8, 0.8, 0.9, 0.6], "c": [0.7, 0.7, 0.1, 0.7]}))
    # a: 1, 1, 1.5, 3; b: 2, 2, 1.5, 2; c: 3, 3, 3, 1
    assert found.ranks.to_dict() == {"a": 6.5 / 4, "b": 7.5 / 4, "c": 10 / 4}
    # Demšar's table: q of three methods at 5 % is 2.343
    assert found.critical_difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 4)), rel=1e-3)
    assert found.friedman == pytest.approx(
        stats.friedmanchisquare([0.9, 0.9, 0.9, 0.5], [0.8, 0.8, 0.9, 0.6], [0.7, 0.7, 0.1, 0.7]).pvalue
    )
    assert found.p is not None
    # Nemenyi: the difference of average ranks in units of its standard error, by the studentized range
    statistic = (2.5 - 6.5 / 4) / math.sqrt(3 * 4 / (6 * 4))
    assert found.p.loc["a", "c"] == pytest.approx(stats.studentized_range.sf(statistic * math.sqrt(2), 3, math.inf))


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ({"a": [0.5, 0.6]}, "there is 1 on 2 classes"),
        ({"a": [0.5, 0.6], "b": [0.5, 0.7]}, "needs three methods"),
        ({"a": [0.5], "b": [0.6], "c": [0.7]}, "at least two classes"),
        ({"a": [0.5, 0.6], "b": [0.5, 0.6], "c": [0.5, 0.6]}, "equal in every class"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_ranks_without_tests_say_why(table, note):
    found = comparison.ranks(scores(table))
    assert found.p is None
    assert note in found.note


def test_only_common_draws_are_compared():
    both = pd.concat([cells({0: [0.5, 0.7], 1: [0.6, 0.8]}, "a"), cells({0: [0.9], 1: [0.4, 0.2]}, "b")])
    means, note = comparison.class_means(both)
    assert means["a"].tolist() == [0.5, 0.7]
    assert means["b"].tolist() == pytest.approx([0.9, 0.3])
    assert note == "1 of 4 draws are left out: not every method has finished them."
