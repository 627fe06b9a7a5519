"""From rows to averages, differences and text."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from bench.analysis import paper, statistics, tables
from bench.engine.cells import Cell, MethodSpec


def cell(method: str, m: int | str = 120, run: int = 0, index: int = 0, auxiliary: str | None = None) -> Cell:
    spec = MethodSpec(method, "quick", {}, 1, "", auxiliary is not None, {})
    return Cell("cifar10", "0" * 64, spec, auxiliary, auxiliary, m, run, index, f"class {index}", 0)


def rows(cells, aucs) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"key": c.key, "aucs": json.dumps(a), "fit_seconds": 1.5, "score_seconds": 0.25}
            for c, a in zip(cells, aucs, strict=True)
        ],
        columns=["key", "aucs", "fit_seconds", "score_seconds"],
    )


NO_FAILURES = pd.DataFrame(columns=["key", "cell", "error", "failed"])
TITLES = {"cifar10": "cifar10 (folder)", "cifar100": "cifar100"}


def test_mean_over_classes_then_deviation_over_runs():
    cells = [cell("corel", run=run, index=index, auxiliary="cifar100") for run in range(2) for index in range(2)]
    table = tables.build(cells, rows(cells, [{"": a} for a in (0.7, 0.8, 0.8, 0.9)]), NO_FAILURES, TITLES)
    (row,) = table.to_dict("records")
    assert row["auc_mean"] == pytest.approx(0.8)
    assert row["auc_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert row["paper_auc"] == 0.76
    assert row["difference"] == pytest.approx(0.04)
    assert (row["dataset"], row["auxiliary"]) == ("cifar10 (folder)", "cifar100")
    text = tables.for_people(table).to_dict("records")[0]
    assert text["AUC"] == "0.800 ± 0.071"
    assert (text["paper"], text["difference"]) == ("0.76", "+0.040")


def test_papers_number_stands_beside_averages_over_all_classes_only():
    cells = [cell("corel", index=index, auxiliary="cifar100") for index in range(2)]
    table = tables.build(cells, rows(cells, [{"": 0.7}, {"": 0.8}]), NO_FAILURES, TITLES, {"cifar10": 10})
    text = tables.for_people(table).to_dict("records")[0]
    assert (text["classes"], text["paper"], text["difference"]) == ("2 of 10", "–", "–")
    whole = tables.for_people(
        tables.build(cells, rows(cells, [{"": 0.7}, {"": 0.8}]), NO_FAILURES, TITLES, {"cifar10": 2})
    )
    assert "classes" not in whole
    assert whole["paper"].tolist() == ["0.76"]


def test_single_run_has_no_deviation():
    cells = [cell("corel", auxiliary="cifar100")]
    text = tables.for_people(tables.build(cells, rows(cells, [{"": 0.5}]), NO_FAILURES, TITLES))
    assert text["AUC"].tolist() == ["0.500"]


def test_papers_number_stands_beside_its_own_variant_only():
    cells = [cell("ocsvm-cae", "all")]
    table = tables.build(cells, rows(cells, [{"fixed": 0.6, "oracle": 0.65}]), NO_FAILURES, TITLES)
    assert table["variant"].tolist() == ["fixed", "oracle"]
    assert math.isnan(table["paper_auc"][0])
    assert table["paper_auc"][1] == 0.62


def test_methods_stand_in_the_order_asked_for_and_m_ascends_to_all():
    cells = [cell("dagmm", m) for m in ("all", 500, 120)] + [cell("adt", 120)]
    table = tables.build(cells, rows(cells, [{"": 0.5}] * 4), NO_FAILURES, TITLES)
    assert list(zip(table["method"], table["train_per_class"], strict=True)) == [
        ("dagmm", 120), ("dagmm", 500), ("dagmm", "all"), ("adt", 120),
    ]  # fmt: skip


def test_failures_show_beside_finished_cells_and_alone():
    cells = [cell("adt", index=0), cell("adt", index=1), cell("dagmm", index=0)]
    failed = pd.DataFrame([{"key": c.key, "cell": str(c), "error": "E", "failed": ""} for c in cells[1:]])
    table = tables.build(cells, rows(cells[:1], [{"": 0.5}]), failed, TITLES)
    assert table[["method", "failed"]].to_numpy().tolist() == [["adt", 1], ["dagmm", 1]]
    text = tables.for_people(table)
    assert text["AUC"].tolist() == ["0.500", "failed"]
    assert text["failed cells"].tolist() == ["1", "1"]


def test_a_method_that_failed_throughout_keeps_its_place():
    cells = [cell("adt"), cell("dagmm")]
    failed = pd.DataFrame([{"key": cells[0].key, "cell": str(cells[0]), "error": "E", "failed": ""}])
    table = tables.build(cells, rows(cells[1:], [{"": 0.5}]), failed, TITLES)
    assert table["method"].tolist() == ["adt", "dagmm"]


def test_where_nothing_but_a_method_with_auxiliary_images_ran_and_failed():
    cells = [cell("corel", index=index, auxiliary="cifar100") for index in range(2)]
    failed = pd.DataFrame([{"key": c.key, "cell": str(c), "error": "E", "failed": ""} for c in cells])
    table = tables.build(cells, rows([], []), failed, TITLES, {"cifar10": 10})
    text = tables.for_people(table).to_dict("records")
    assert [(row["auxiliary"], row["AUC"], row["failed cells"]) for row in text] == [("cifar100", "failed", "2")]
    assert len(tables.to_text(tables.for_people(table)).splitlines()) == 3


def test_nothing_finished_gives_an_empty_table():
    table = tables.build([], rows([], []), NO_FAILURES, TITLES)
    assert len(table) == 0
    assert tables.to_text(tables.for_people(table)).count("\n") == 1
    assert len(statistics.summarise(statistics.by_variant([], rows([], [])))) == 0


def test_text_and_markdown_hold_every_value():
    cells = [cell("corel", auxiliary="cifar100"), cell("ocsvm-cae")]
    text = tables.for_people(tables.build(cells, rows(cells, [{"": 0.5}, {"fixed": 0.25}]), NO_FAILURES, TITLES))
    for form in (tables.to_text(text), tables.to_markdown(text)):
        for value in text.to_numpy().ravel():
            assert value in form
    lines = tables.to_markdown(text).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_csv_reads_back(tmp_path):
    frame = pd.DataFrame({"method": ["a"], "auc_mean": [1 / 3], "fit_seconds": [1.23456], "paper_auc": [math.nan]})
    tables.write_csv(tmp_path / "t.csv", frame)
    assert (tmp_path / "t.csv").read_text() == "method,auc_mean,fit_seconds,paper_auc\na,0.333333,1.235,\n"


def test_papers_table_is_complete():
    assert len(paper.TABLE_1) == 24
    assert all(0.5 <= auc <= 0.85 for auc in paper.TABLE_1.values())
    assert paper.table1_auc("cifar10", "adt", "softmax", 120, None) is None
    assert paper.table1_auc("cifar10", "adt", "dirichlet", 120, None) == 0.69
    assert paper.table1_auc("digits", "corel", "", 120, "digits") is None


def test_origins_are_told_apart():
    versions = json.dumps({"python": "3.11.7", "torch": "2.15.0"})
    finished = pd.DataFrame(
        [
            ("abc", "cpu (X)", 2, versions),
            ("", "cuda (Y)", 1, versions),
            ("abc", "cpu (X)", 2, versions),
            ("abc", "cpu (X)", 2, "not JSON"),
        ],
        columns=["git_commit", "device", "threads", "versions"],
    )
    assert tables.origins(finished) == [
        "2 cells: commit abc; cpu (X), threads: 2; python 3.11.7, torch 2.15.0.",
        "1 cell: commit unknown; cuda (Y), threads: 1; python 3.11.7, torch 2.15.0.",
        "1 cell: commit abc; cpu (X), threads: 2; not JSON.",
    ]
    assert tables.origins(finished[:0]) == []
