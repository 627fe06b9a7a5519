"""Lines of the page: what is averaged, and that no two lines are called alike."""

from __future__ import annotations

import itertools
import shlex

import pandas as pd
import pytest

from bench.analysis import comparison, sections
from bench.analysis.lines import command, groups, lines


@pytest.mark.parametrize(
    ("column", "values", "shown"),
    [
        ("source_digest", ("a" * 64, "b" * 64), "source {:.8}"),
        ("method_version", (1, 2), "version {}"),
        ("dataset_fingerprint", ("a" * 64, "b" * 64), "data {:.8}"),
        ("auxiliary_fingerprint", ("a" * 64, "b" * 64), "auxiliary data {:.8}"),
        ("seeds", ('{"base":1}', '{"base":2}'), "seed {}"),
        ("protocol", (1, 2), "protocol {}"),
    ],
)
def test_lines_that_differ_are_called_differently(make_rows, column, values, shown):
    """Two versions of a method's file were drawn as one, the mean of both, where they shared a label."""
    rows = pd.concat(
        [
            make_rows(["corel"], auc=lambda *_, auc=auc: {"": auc}).assign(**{column: value})
            for value, auc in zip(values, (0.9, 0.1), strict=True)
        ]
    )
    found = lines(rows)
    assert [round(line.interval.mean, 6) for line in found] == [0.9, 0.1]
    names = [shown.format(1 if column == "seeds" and value == values[0] else 2 if column == "seeds" else value)
             for value in values]  # fmt: skip
    assert [line.name for line in found] == [f"corel {name}" for name in names]
    assert len({line.label for line in found}) == 2
    (group,) = groups(found)
    assert sections.by_class(group).figure is not None
    means, _ = comparison.class_means(pd.concat([line.cells.assign(label=line.label) for line in group]))
    assert sorted(means.mean().round(6)) == [0.1, 0.9]


def test_the_same_images_from_files_and_from_folders_are_one_dataset(make_rows):
    rows = pd.concat([make_rows(["corel"]), make_rows(["adt"]).assign(dataset_title="digits (folder)")])
    (group,) = groups(lines(rows))
    assert [line.name for line in group] == ["corel", "adt"]
    auxiliary = {"auxiliary": "cifar100", "auxiliary_fingerprint": "a" * 64}
    rows = pd.concat(
        make_rows(["corel"], m=(m,)).assign(auxiliary_title=title, **auxiliary)
        for m, title in ((50, "cifar100"), (120, "cifar100 (folder)"))
    )
    assert {line.label for line in lines(rows)} == {"corel"}


def test_what_all_lines_share_is_not_said(make_rows):
    found = lines(make_rows(["corel", "adt"], m=(50, 120)))
    assert [line.label for line in found] == ["corel", "corel", "adt", "adt"]
    assert all(a.label != b.label or a.m != b.m for a, b in itertools.combinations(found, 2))


def test_command_keeps_a_setting_with_a_comma_whole(make_rows):
    """It was cut at each comma, and the rest became settings of their own."""
    (line,) = lines(make_rows(["adt"], changes={"note": "a, b=c", "width": 2}))
    words = shlex.split(command(line))
    assert [after for word, after in itertools.pairwise(words) if word == "--set"] == ["adt.note=a, b=c", "adt.width=2"]


def test_cells_of_one_label_are_not_averaged(make_rows):
    (line,) = lines(make_rows(["adt"]))
    twice = pd.concat([line.cells, line.cells]).assign(label="adt")
    with pytest.raises(ValueError, match="duplicate"):
        comparison.class_means(twice)
