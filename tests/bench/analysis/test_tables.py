"""From rows to averages, differences and text."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import math

import pandas as pd
import pytest

from bench.analysis import paper, statistics, tables
from bench.engine.cells import Cell, MethodSpec


def cell(method: str, m: int | str = 120, run: int = 0, index: int = 0, auxiliary: str | None = None, **more) -> Cell:
    settings, changes = more.pop("settings", {}), more.pop("changes", {})
    needs = auxiliary is not None
    spec = MethodSpec(method, "quick", settings, 1, "", needs, {}, changes=changes)
    shown = {"classes": 2, "test_size": 10, "dataset_title": "cifar10 (folder)", "auxiliary_title": auxiliary, **more}
    return Cell("cifar10", "0" * 64, spec, auxiliary, auxiliary, m, run, index, f"class {index}", 0, **shown)


def rows(cells, aucs) -> pd.DataFrame:
    """Rows of cells: AUCs by variant for finished ones, an error's text for failed ones, None for others."""
    return pd.DataFrame(
        [
            {
                **c.row(),
                "aucs": json.dumps(a) if isinstance(a, dict) else None,
                "fit_seconds": 1.5,
                "score_seconds": 0.25,
                "cell": str(c) if isinstance(a, str) else None,
                "error": a if isinstance(a, str) else None,
            }
            for c, a in zip(cells, aucs, strict=True)
        ]
    )


def one(cells, aucs) -> tuple[dict, dict]:
    """The one row of a table, as numbers and as text."""
    table = tables.build(rows(cells, aucs))
    (row,) = table.to_dict("records")
    (text,) = tables.for_people(table).to_dict("records")
    return row, text


def test_values_that_read_alike_are_told_apart():
    values = [None, "None", 1, 1.0, True, "true", 2]
    cells = [cell("adt", index=i, settings={"a": value}) for value in values for i in range(2)]
    built = tables.build(rows(cells, [{"": 0.5}] * len(cells)))
    assert len(set(built["settings"])) == len(values)
    assert list(built["settings"])[-2:] == ["a=true", "a=2"]


def test_classes_by_themselves():
    cells = [cell("corel", run=run, index=index, auxiliary="cifar100") for run in range(2) for index in (1, 0)]
    cells += [cell("adt", test_images=4), cell("adt", index=1, test_images=4)]
    aucs = [{"": a} for a in (0.7, 0.8, 0.9, 0.8)] + [{"dirichlet": 0.6, "softmax": 0.5}, "an error"]
    table = tables.by_class(rows(cells, aucs))
    assert list(table["method"]) == ["corel", "corel", "adt", "adt"]
    assert list(table["class_name"]) == ["class 0", "class 1", "class 0", "class 0"]
    assert list(table["variant"]) == ["", "", "dirichlet", "softmax"]
    assert list(table["auc_mean"]) == pytest.approx([0.8, 0.8, 0.6, 0.5])
    assert list(table["auc_std"])[:2] == pytest.approx([0.0, 0.1 * math.sqrt(2)])
    assert table["auc_std"].isna().tolist() == [False, False, True, True]
    assert list(table["runs"]) == [2, 2, 1, 1]
    assert list(table["test_images"]) == [10, 10, 4, 4]
    assert list(tables.by_class(rows(cells[-1:], aucs[-1:]))["auc_mean"]) == []


def test_mean_over_classes_then_deviation_over_runs():
    cells = [cell("corel", run=run, index=index, auxiliary="cifar100") for run in range(2) for index in range(2)]
    row, text = one(cells, [{"": a} for a in (0.7, 0.8, 0.8, 0.9)])
    assert row["auc_mean"] == pytest.approx(0.8)
    assert row["auc_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert (row["classes"], row["runs"]) == (2, 2)
    assert row["paper_auc"] == 0.76
    assert (row["dataset"], row["auxiliary"]) == ("cifar10 (folder)", "cifar100")
    assert text["AUC"] == "0.800 ± 0.071"
    assert text["paper"] == "0.76"


def test_difference_is_to_the_finer_number():
    row, text = one([cell("corel", index=i, auxiliary="cifar100") for i in range(2)], [{"": 0.8}] * 2)
    assert row["difference"] == pytest.approx(0.8 - 0.754935)
    assert (text["authors' code"], text["difference"]) == ("0.7549", "+0.045")
    row, text = one([cell("dsebm", "all", index=i) for i in range(2)], [{"": 0.6}] * 2)
    assert row["difference"] == pytest.approx(-0.01)
    assert "authors' code" not in text
    row, text = one([cell("corel", 500, index=i, auxiliary="cifar10") for i in range(2)], [{"": 0.78}] * 2)
    assert (text["paper"], text["authors' code"], text["difference"]) == ("–", "0.7805", "-0.000")


def test_published_numbers_stand_beside_averages_over_all_classes_only():
    cells = [cell("corel", index=index, auxiliary="cifar100", classes=10) for index in range(2)]
    _, text = one(cells, [{"": 0.7}, {"": 0.8}])
    assert (text["classes"], text["paper"], text["difference"]) == ("2 of 10", "–", "–")
    _, text = one([dataclasses.replace(c, classes=2) for c in cells], [{"": 0.7}, {"": 0.8}])
    assert "classes" not in text
    assert text["paper"] == "0.76"


def test_a_part_of_the_test_split_is_said_and_compared_with_nothing():
    whole = [cell("corel", index=i, auxiliary="cifar100", test_size=10_000) for i in range(2)]
    part = [dataclasses.replace(c, test_images=1000) for c in whole]
    row, text = one(part, [{"": 0.7}] * 2)
    assert text["test images"] == "1,000 of 10,000"
    assert (text["paper"], math.isnan(row["authors_auc"])) == ("–", True)
    both = tables.for_people(tables.build(rows([*whole, *part], [{"": 0.7}] * 4)))
    assert both["test images"].tolist() == ["10,000 of 10,000", "1,000 of 10,000"]
    assert both["paper"].tolist() == ["0.76", "–"]


def test_changed_settings_are_named_and_compared_with_nothing():
    values = [{"lam": 20.0, "reduction": "mean"}, {"lam": 0.0, "reduction": "mean"}]
    cells = [
        cell("corel", index=index, auxiliary="cifar100", settings=settings, changes=changes)
        for settings, changes in zip(values, [{}, {"lam": 0.0}], strict=True)
        for index in range(2)
    ]
    table = tables.build(rows(cells, [{"": 0.7}] * 4))
    assert table["settings"].tolist() == ["lam=20", "lam=0"]
    text = tables.for_people(table)
    assert text["method"].tolist() == ["corel (lam=20)", "corel (lam=0)"]
    assert text["paper"].tolist() == ["0.76", "–"]
    assert one(cells[2:], [{"": 0.7}] * 2)[1]["method"] == "corel (lam=0)"
    assert one(cells[:2], [{"": 0.7}] * 2)[1]["method"] == "corel"


def test_settings_stand_behind_the_score():
    cells = [cell("adt", settings={"epochs": 12}, changes={"epochs": 12})]
    assert one(cells, [{"dirichlet": 0.5}])[1]["method"] == "adt (dirichlet, epochs=12)"


@pytest.mark.parametrize(
    ("column", "change", "shown"),
    [
        ("seed", {"base_seed": 1}, ["0", "1"]),
        ("data", {"dataset_fingerprint": "1" * 64}, ["0" * 8, "1" * 8]),
        ("version", {"method": dataclasses.replace(cell("adt").method, version=2)}, ["1", "2"]),
        ("source", {"method": dataclasses.replace(cell("adt").method, source="e" * 64)}, ["", "e" * 8]),
    ],
)
def test_experiments_that_differ_are_not_averaged_and_told_apart(column, change, shown):
    cells = [cell("adt"), dataclasses.replace(cell("adt"), **change)]
    text = tables.for_people(tables.build(rows(cells, [{"": 0.5}, {"": 0.75}])))
    assert text[column].tolist() == shown
    assert text["AUC"].tolist() == ["0.500", "0.750"]
    assert column not in tables.for_people(tables.build(rows(cells[:1], [{"": 0.5}])))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0123456, "0.0123"), (99.96, "100"), (999.7, "1,000"), (1654.2, "1,654"), (0.0, "0")]
)
def test_seconds_are_numbers_that_one_reads_at_once(seconds, shown):
    table = tables.build(rows([cell("adt")], [{"": 0.5}]).assign(fit_seconds=seconds))
    assert tables.for_people(table)["fit s"].tolist() == [shown]


def test_single_run_has_no_deviation():
    assert one([cell("corel", auxiliary="cifar100")], [{"": 0.5}])[1]["AUC"] == "0.500"


def test_papers_number_stands_beside_its_own_variant_only():
    cells = [cell("ocsvm-cae", "all", index=index) for index in range(2)]
    table = tables.build(rows(cells, [{"fixed": 0.6, "oracle": 0.65}] * 2))
    assert table["variant"].tolist() == ["fixed", "oracle"]
    assert math.isnan(table["paper_auc"][0])
    assert table["paper_auc"][1] == 0.62


def test_methods_stand_in_the_order_asked_for_and_m_ascends_to_all():
    cells = [cell("dagmm", m) for m in ("all", 500, 120)] + [cell("adt", 120)]
    table = tables.build(rows(cells, [{"": 0.5}] * 4))
    assert list(zip(table["method"], table["train_per_class"], strict=True)) == [
        ("dagmm", "120"), ("dagmm", "500"), ("dagmm", "all"), ("adt", "120"),
    ]  # fmt: skip


def test_auxiliary_datasets_are_rows_of_their_own():
    cells = [cell("corel", auxiliary=name, index=i) for name in ("cifar100", "cifar10") for i in range(2)]
    table = tables.build(rows(cells, [{"": a} for a in (0.5, 0.5, 0.75, 0.75)]))
    assert list(zip(table["auxiliary"], table["auc_mean"], strict=True)) == [("cifar100", 0.5), ("cifar10", 0.75)]


def test_failures_show_beside_finished_cells_and_alone():
    cells = [cell("adt", index=0), cell("adt", index=1), cell("dagmm", index=0)]
    table = tables.build(rows(cells, [{"": 0.5}, "E", "E"]))
    assert table[["method", "failed"]].to_numpy().tolist() == [["adt", 1], ["dagmm", 1]]
    text = tables.for_people(table)
    assert text["AUC"].tolist() == ["0.500", "failed"]
    assert text["failed cells"].tolist() == ["1", "1"]


def test_a_method_that_failed_throughout_keeps_its_place():
    table = tables.build(rows([cell("adt"), cell("dagmm")], ["E", {"": 0.5}]))
    assert table["method"].tolist() == ["adt", "dagmm"]


def test_what_has_not_run_yet_has_no_row():
    table = tables.build(rows([cell("adt"), cell("dagmm")], [None, {"": 0.5}]))
    assert table["method"].tolist() == ["dagmm"]
    assert len(tables.build(rows([cell("adt")], [None]))) == 0


def test_where_nothing_but_a_method_with_auxiliary_images_ran_and_failed():
    cells = [cell("corel", index=index, auxiliary="cifar100") for index in range(2)]
    table = tables.build(rows(cells, ["E", "E"]))
    text = tables.for_people(table).to_dict("records")
    assert [(row["auxiliary"], row["AUC"], row["failed cells"]) for row in text] == [("cifar100", "failed", "2")]
    assert len(tables.to_text(tables.for_people(table)).splitlines()) == 3


def test_text_and_markdown_hold_every_value():
    cells = [cell("corel", auxiliary="cifar100"), cell("ocsvm-cae")]
    text = tables.for_people(tables.build(rows(cells, [{"": 0.5}, {"fixed": 0.25}])))
    for form in (tables.to_text(text), tables.to_markdown(text)):
        for value in text.to_numpy().ravel():
            assert value in form
    lines = tables.to_markdown(text).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert tables.to_lines(text)[0] == (
        "corel on cifar10 (folder): AUC 0.500 (m 120, auxiliary cifar100, classes 1 of 2, fit s 1.5, score s 0.25)"
    )


def test_notes_say_what_the_numbers_are():
    cells = [cell("ocsvm-cae", run=run) for run in range(3)]
    table = tables.build(rows(cells, [{"oracle": 0.25}] * 3))
    trained = pd.DataFrame([{"method": "corel", "auxiliary_title": "digits", "seconds": 26.4, "device": "cpu (X)"}])
    lines = tables.notes(table, trained, ["python -m bench.table1"])
    assert lines[0].startswith("Profile 'quick', base seed 0; AUC: mean over classes")
    assert "over 3 runs" in lines[0]
    assert any(line.startswith("(oracle)") for line in lines)
    assert "Shared autoencoder of corel on digits: 26 s, cpu (X)." in lines
    assert lines[-1] == "Produced by: python -m bench.table1"


def test_csv_reads_back(tmp_path):
    frame = pd.DataFrame({"method": ["a"], "auc_mean": [1 / 3], "fit_seconds": [1.23456], "paper_auc": [math.nan]})
    tables.write_csv(tmp_path / "t.csv", frame)
    assert (tmp_path / "t.csv").read_text() == "method,auc_mean,fit_seconds,paper_auc\na,0.333333,1.235,\n"


def test_one_line_per_cell_and_score(tmp_path):
    tables.write_cells(tmp_path / "c.csv", rows([cell("ocsvm-cae"), cell("adt")], [{"fixed": 0.5, "oracle": 1.0}, "E"]))
    frame = pd.read_csv(tmp_path / "c.csv")
    assert frame[["variant", "auc"]].to_numpy().tolist() == [["fixed", 0.5], ["oracle", 1.0]]


def test_numbers_of_others_are_complete():
    assert [len(paper.numbers(source)) for source in paper.SOURCES] == [24, 45]
    assert paper.numbers("paper")["auc"].between(0.5, 0.85).all()
    assert paper.numbers("authors")["auc"].between(0.7, 0.82).all()
    assert paper.published_auc("paper", "cifar10", "adt", "softmax", 120, None) is None
    assert paper.published_auc("paper", "cifar10", "adt", "dirichlet", 120, None) == 0.69
    assert paper.published_auc("paper", "digits", "corel", "", 120, "digits") is None
    assert paper.published_auc("authors", "tiny-imagenet", "corel", "", "500", "tiny-imagenet") == 0.748863


@pytest.mark.parametrize("file", paper.SOURCES.values())
def test_numbers_of_others_say_where_they_are_from(file):
    assert importlib.resources.files("bench.analysis").joinpath(file).read_text().startswith("# ")


def test_origins_are_told_apart():
    versions = json.dumps({"python": "3.11.7", "torch": "2.15.0"})
    finished = pd.DataFrame(
        [
            ("abc", "cpu (X)", 2, versions),
            ("", "cuda (Y)", 1, versions),
            ("abc", "cpu (X)", 2, versions),
            ("version 0.1.0", "cpu (X)", 2, versions),
        ],
        columns=["git_commit", "device", "threads", "versions"],
    )
    assert tables.origins(finished) == [
        "2 cells: commit abc; cpu (X), threads: 2; python 3.11.7, torch 2.15.0.",
        "1 cell: commit unknown; cuda (Y), threads: 1; python 3.11.7, torch 2.15.0.",
        "1 cell: version 0.1.0; cpu (X), threads: 2; python 3.11.7, torch 2.15.0.",
    ]
    assert tables.origins(finished[:0]) == []


def test_effort_is_told_by_device():
    columns = ["device", "threads", "finished", "fit_seconds", "score_seconds"]
    finished = pd.DataFrame(
        [
            ("cpu (X)", 1, "2026-01-02T23:00:00+00:00", 3600.0, 1800.0),
            ("cuda (Y)", 1, "2026-01-04T10:00:00+00:00", 36.0, 0.0),
            ("cpu (X)", 1, "2026-01-01T10:00:00+00:00", 900.0, 900.0),
            ("cpu (X)", 4, "2026-01-01T10:00:00+00:00", 3600.0, 0.0),
        ],
        columns=columns,
    )
    trained = pd.DataFrame(
        [("cpu (X)", 1, "2025-12-31T10:00:00+00:00", 7200.0), ("cuda (Z)", 1, "2026-01-01T10:00:00+00:00", 360.0)],
        columns=["device", "threads", "finished", "seconds"],
    )
    assert tables.effort(finished, trained).to_numpy().tolist() == [
        ["cpu (X)", "1", "2", "1", "2025-12-31 to 2026-01-02", "4"],
        ["cuda (Y)", "1", "1", "0", "2026-01-04", "0.01"],
        ["cpu (X)", "4", "1", "0", "2026-01-01", "1"],
        ["cuda (Z)", "1", "0", "1", "2026-01-01", "0.1"],
    ]
    assert len(tables.effort(finished, trained[:0])) == 3


def test_every_column_of_a_group_is_one_of_the_rows():
    frame = statistics.with_seed(rows([cell("adt")], [{"": 0.5}]))
    assert set(statistics.GROUP + statistics.LABELS) <= set(frame.columns)
