"""Rows in text files."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from bench.engine import published
from bench.engine.cells import Cell, MethodSpec
from bench.engine.store import STORE_FILE, Store, columns_of

SPEC = MethodSpec("corel", "quick", {"eta": 2.0}, 1, "", True, {"method": "corel", "eta": 2.0})
CELL = Cell("digits", "f" * 64, SPEC, "digits", "f" * 64, 120, 0, 3, "3", 0, test_size=450, classes=10)
AUC = 0.1 + 0.2  # no short decimal


def fill(folder, cells, auc=AUC, failed=()) -> None:
    folder.mkdir(exist_ok=True)
    with Store(folder / STORE_FILE, "python -m bench.table1") as store:
        for cell in cells:
            store.add(
                cell, aucs={"": auc, "other": 1 / 3}, fit_seconds=1 / 7, score_seconds=2e-17, device="cpu", threads=1,
                versions={"python": "3"}, git_commit="abc",
            )  # fmt: skip
            if cell.auxiliary is not None:
                store.add_auxiliary(
                    cell, seconds=1 / 9, device="cpu", threads=2, versions={"python": "3"}, git_commit="abc"
                )
        for cell in failed:
            store.add_failure(cell, 'ValueError: a "quoted", comma')


def equal(one, other) -> None:
    for name in published.ROW_TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)


def test_every_column_comes_back_exactly(tmp_path):
    names = ["NA", "null", "", " a", 'b"c', "d,e", "f\ng", "h\r", "ü", "<img src=x>", "007", "1e5"]
    cells = [dataclasses.replace(CELL, run=run, class_name=name) for run, name in enumerate(names)]
    cells.append(dataclasses.replace(CELL, test_images=100))
    cells.append(dataclasses.replace(CELL, train_per_class="all", auxiliary=None, auxiliary_fingerprint=None))
    fill(tmp_path / "run", cells, failed=[dataclasses.replace(CELL, class_index=4)])
    rows = published.read_rows(tmp_path / "run")
    (tmp_path / "out").mkdir()
    published.write_published(tmp_path / "out", rows)
    equal(published.read_rows(tmp_path / "out"), rows)
    heads = {name: (tmp_path / "out" / file).read_text().splitlines()[0] for name, file in published.FILES.items()}
    for name, head in heads.items():
        assert head.replace('"', "").split(",") == list(columns_of(name))


def test_order_depends_on_the_rows_alone(tmp_path):
    settings = [dataclasses.replace(SPEC, settings={"lam": value}) for value in (5.0, 10.0, 0.0)]
    cells = [
        dataclasses.replace(CELL, method=spec, train_per_class=m, class_index=index)
        for spec in settings for m in ("all", 120, 20) for index in (10, 9)
    ]  # fmt: skip
    fill(tmp_path / "a", cells)
    fill(tmp_path / "b", cells[::-1])
    a, b = (published.merge([("x", published.read_rows(tmp_path / name))]).cells for name in "ab")
    assert a["key"].tolist() == b["key"].tolist()
    assert a["settings"].drop_duplicates().tolist() == ['{"lam":0.0}', '{"lam":5.0}', '{"lam":10.0}']
    assert a["train_per_class"].drop_duplicates().tolist() == ["20", "120", "all"]
    assert a["class"].tolist()[:2] == [9, 10]


def test_rows_of_several_runs_are_put_together(tmp_path):
    cells = [dataclasses.replace(CELL, run=run) for run in range(3)]
    fill(tmp_path / "a", cells[:2], failed=cells[2:])
    fill(tmp_path / "b", cells[1:])
    rows = published.merge([(name, published.read_rows(tmp_path / name)) for name in "ab"])
    assert rows.cells["run"].tolist() == [0, 1, 2]
    assert len(rows.auxiliaries) == 1
    assert len(rows.failures) == 0


def test_other_numbers_for_a_cell_are_an_error(tmp_path):
    fill(tmp_path / "a", [CELL])
    fill(tmp_path / "b", [CELL], auc=AUC + 1e-15)
    parts = [(name, published.read_rows(tmp_path / name)) for name in "ab"]
    with pytest.raises(
        ValueError, match=rf"cell {CELL.key} \(corel on digits, class '3', run 0\) has the AUC .* in a "
    ):
        published.merge(parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"key"', '"kee"', 1), "its columns are those of another version"),
        (lambda text: text + '"x",1\n', "not as many values"),
        (lambda text: text.replace("450", '"many"', 1), "column 'test_size'"),
        (lambda text: text.replace("0.30000000000000004,", '"high",', 1), "column 'auc'"),
        (lambda text: text.replace('""other"": 0', '""other"": NaN, ""x"": 0'), "the aucs of cell"),
        (lambda text: text.replace('{""python', '{\n""python'), "column 'versions'"),  # JSON, but in two lines
        (lambda text: text[: len(text) // 2], "rows.csv"),
        (lambda text: "", "rows.csv"),
    ],
)
def test_damaged_rows_are_named(tmp_path, change, message):
    fill(tmp_path / "run", [CELL])
    (tmp_path / "out").mkdir()
    published.write_published(tmp_path / "out", published.read_rows(tmp_path / "run"))
    path = tmp_path / "out" / "rows.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        published.read_rows(tmp_path / "out", "--from")
    assert str(caught.value).startswith("--from: ")
    assert "rows.csv" in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"--from: .*rows\.csv"):
        published.read_rows(tmp_path, "--from")


def test_folder_without_rows(tmp_path):
    with pytest.raises(ValueError, match=r"--from: got .* holds neither cells\.sqlite"):
        published.read_rows(tmp_path / "nowhere", "--from")
