"""Rows: written whole, once, and found again."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest

from bench.engine.cells import Cell, MethodSpec
from bench.engine.store import Rows, Store

SPEC = MethodSpec("corel", "quick", {"eta": 2.0}, 1, "", True, {"method": "corel", "eta": 2.0})


def cell(run: int = 0) -> Cell:
    return Cell("digits", "f" * 64, SPEC, "digits", "f" * 64, 120, run, 3, "3", 0)


def add(store: Store, run: int = 0, auc: float = 0.75) -> None:
    store.add(
        cell(run),
        aucs={"first": auc, "second": 0.5},
        fit_seconds=1.0,
        score_seconds=2.0,
        device="cpu",
        threads=1,
        versions={"python": "3"},
        git_commit="abc",
    )


def test_rows_come_back_in_another_process_life(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        add(store)
    with Store(tmp_path / "s.sqlite") as store:
        rows = store.finished([cell().key, "other"])
    assert rows["auc"].tolist() == [0.75]
    assert rows["aucs"][0] == '{"first": 0.75, "second": 0.5}'
    assert rows["train_per_class"][0] == "120"


def test_finished_cell_is_never_replaced(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        add(store, auc=0.75)
        add(store, auc=0.25)
        assert store.finished([cell().key])["auc"].tolist() == [0.75]


def test_failure_counts_as_unfinished_and_goes_when_it_succeeds(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.add_failure(cell(), "ValueError: no")
        store.add_failure(cell(), "ValueError: again")
        assert len(store.finished([cell().key])) == 0
        assert store.failed([cell().key])["error"].tolist() == ["ValueError: again"]
        add(store)
        assert len(store.failed([cell().key])) == 0


def test_what_another_run_has_finished_has_not_failed(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        assert store.add_failure(cell(1), "ValueError: no")
        add(store)
        assert not store.add_failure(cell(), "FileNotFoundError: the other run removed it")
        assert len(store.failed([cell().key])) == 0
        # as an earlier version left it
        with store._connection:
            store._connection.execute("UPDATE failures SET key = ? WHERE key = ?", (cell().key, cell(1).key))
        assert store.add_failure(cell(1), "ValueError: no")
        assert store.failed([cell().key, cell(1).key])["key"].tolist() == [cell(1).key]


def test_a_store_that_cannot_be_written_any_more(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        add(store)
        store._connection.execute("PRAGMA query_only = 1")
        for write in (lambda: add(store, 1), lambda: store.add_failure(cell(2), "E")):
            with pytest.raises(ValueError, match=r"store: cannot write to '.*s\.sqlite' \("):
                write()
        with pytest.raises(ValueError, match="store: cannot write to"):
            store.add_auxiliary(
                cell(), seconds=1.0, device="cpu", threads=1, versions={"python": "3"}, git_commit="abc"
            )
        assert len(store.finished([cell().key])) == 1


def test_a_store_that_cannot_be_read_any_more(tmp_path):
    with Store(tmp_path / "s.sqlite") as store, sqlite3.connect(tmp_path / "s.sqlite") as other:
        other.execute("DROP TABLE failures")
        with pytest.raises(ValueError, match=r"store: cannot read '.*s\.sqlite' \(no such table"):
            store.failed(["key"])


@pytest.mark.parametrize("aucs", [
    '{"": nope', "[0.5]", "{}", '{"": "high"}', '{"": NaN}', '{"": 7.5}', '{"": true}', '{"": -0.2}',
    '{"": 0.5, "oracle": 1.5}',
])  # fmt: skip
def test_aucs_that_are_none_are_named(tmp_path, aucs):
    with Store(tmp_path / "s.sqlite") as store:
        add(store)
        with store._connection:
            store._connection.execute("UPDATE cells SET aucs = ?", (aucs,))
        message = rf"s\.sqlite': the aucs of cell '{cell().key}' are .*; accepted are numbers from 0 to 1 by name"
        with pytest.raises(ValueError, match=message):
            store.finished([cell().key])


def test_more_keys_than_one_statement_takes(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        for run in range(3):
            add(store, run)
        keys = [cell(run).key for run in range(3)] + [f"none {i}" for i in range(2000)]
        assert len(store.finished(keys)) == 3
        assert len(store.finished([])) == 0


def test_auxiliary_training_is_noted(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.add_auxiliary(cell(), seconds=12.5, device="cpu", threads=2, versions={"python": "3"}, git_commit="abc")
        rows = store.auxiliaries([cell().auxiliary_key])
        assert rows[["method", "auxiliary", "seconds"]].to_numpy().tolist() == [["corel", "digits", 12.5]]


def test_rows_carry_their_whole_origin(tmp_path):
    with Store(tmp_path / "s.sqlite", command="python -m bench.table1") as store:
        add(store)
        store.add_failure(cell(1), "ValueError: no")
        store.add_auxiliary(cell(), seconds=12.5, device="cpu", threads=2, versions={"python": "3"}, git_commit="abc")
        rows = store.rows()
    for frame in (rows.cells, rows.auxiliaries):
        row = frame.to_dict("records")[0]
        assert row["command"] == "python -m bench.table1"
        assert {"device", "threads", "versions", "git_commit", "finished"} <= set(row)
    assert Cell.from_row(rows.cells.to_dict("records")[0]).row() == cell().row()
    assert rows.failures["error"].tolist() == ["ValueError: no"]
    assert Cell.from_row(rows.failures.to_dict("records")[0]).row() == cell(1).row()
    assert rows.cells["auxiliary_key"].tolist() == rows.auxiliaries["key"].tolist()


def test_rows_of_a_plan_in_its_order(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        add(store, 2)
        store.add_failure(cell(0), "ValueError: no")
        renamed = dataclasses.replace(cell(2), class_name="drei")
        rows = store.of([renamed, cell(1), cell(0)])
    assert rows["run"].tolist() == [2, 1, 0]
    assert rows["aucs"].notna().tolist() == [True, False, False]
    assert rows["error"].notna().tolist() == [False, False, True]
    assert rows["class_name"][0] == "drei"


def test_rows_of_another_store_are_taken_once(tmp_path):
    with Store(tmp_path / "one.sqlite") as one, Store(tmp_path / "two.sqlite") as two:
        for run in range(3):
            add(one, run, auc=0.75)
        one.add_auxiliary(cell(), seconds=12.5, device="cpu", threads=2, versions={"python": "3"}, git_commit="abc")
        add(two, 0, auc=0.25)
        two.add_failure(cell(1), "ValueError: no")
        two.take(one.rows(), [cell(0), cell(1)])
        assert two.rows().cells.set_index("run")["auc"].to_dict() == {0: 0.25, 1: 0.75}
        assert len(two.failed([cell(1).key])) == 0
        assert two.auxiliaries([cell().auxiliary_key])["seconds"].tolist() == [12.5]


def test_a_copy_leaves_the_file_alone(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        add(store)
    before = (tmp_path / "s.sqlite").read_bytes()
    with Store.copy(tmp_path / "s.sqlite") as copy:
        add(copy, 1)
        assert len(copy.rows().cells) == 2
    assert (tmp_path / "s.sqlite").read_bytes() == before
    with Store.copy(tmp_path / "none.sqlite") as empty:
        assert len(empty.rows().cells) == 0
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "other.sqlite").write_bytes(b"no database " * 200)
    with pytest.raises(ValueError, match="store: cannot use"):
        Store.copy(tmp_path / "other.sqlite")


def test_names_that_are_no_text_are_kept_as_escapes(tmp_path):
    odd = dataclasses.replace(cell(), dataset="folder:a\udcff", class_name="b\udcfe")
    with Store(tmp_path / "s.sqlite") as store:
        store.add_failure(odd, "ValueError: c\udcfd")
        (row,) = store.failed([odd.key]).to_dict("records")
    assert (row["dataset"], row["class_name"], row["error"]) == ("folder:a\\xff", "b\\xfe", "ValueError: c\\xfd")


def test_two_connections_write_the_same_file(tmp_path):
    with Store(tmp_path / "s.sqlite") as one, Store(tmp_path / "s.sqlite") as two:
        add(one, 0)
        add(two, 1)
        assert len(one.finished([cell(0).key, cell(1).key])) == 2


def test_file_that_is_no_store(tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"no database " * 200)
    with pytest.raises(ValueError, match="store: cannot use"):
        Store(tmp_path / "s.sqlite")
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute("CREATE TABLE cells (key TEXT)")
    with pytest.raises(ValueError, match="store: cannot use"):
        Store(tmp_path / "old.sqlite")


@pytest.mark.parametrize("table", ["cells", "failures", "auxiliaries"])
def test_every_table_is_looked_at(tmp_path, table):
    Store(tmp_path / "s.sqlite").__exit__()
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"CREATE TABLE {table} (key TEXT, aucs TEXT, git_commit TEXT)")
    with pytest.raises(ValueError, match=r"store: cannot use .*its tables are those of another version"):
        Store(tmp_path / "s.sqlite")


def _altered(rows: Rows, **values: object) -> Rows:
    cells = rows.cells.copy()
    for name, value in values.items():
        cells[name] = value
    return dataclasses.replace(rows, cells=cells)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("class", 4), ("run", 1), ("settings", '{"eta":3.0}'), ("method_identity", "mine"), ("train_per_class", "500"),
        ("dataset_fingerprint", "e" * 64), ("auxiliary_fingerprint", None), ("seeds", '{"base":1}'),
        ("test_images", 10), ("source_digest", "ab"), ("protocol", 0), ("method_version", 2),
    ],
)  # fmt: skip
def test_a_row_of_another_store_must_be_the_cells(tmp_path, column, value):
    with Store(tmp_path / "a.sqlite") as store:
        add(store)
        rows = store.rows()
    with Store(tmp_path / "b.sqlite") as store:
        with pytest.raises(ValueError, match=f"--from: the row of cell .* has {column} .*, where the cell has"):
            store.take(_altered(rows, **{column: value}), [cell()])
        assert len(store.finished([cell().key])) == 0
        store.take(_altered(rows, key="another"), [cell()])
        assert len(store.finished([cell().key])) == 0
        store.take(rows, [cell()])
        assert len(store.finished([cell().key])) == 1
