"""From a run to a published table, and back into another run."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from bench import publish, table1
from bench.engine.command_line import run
from bench.engine.published import FILES, read_rows


@pytest.fixture
def call(image_folder: Path, method_file: str, tmp_path: Path, capsys, monkeypatch):
    """Run ``table1`` on the small folder, or ``publish``; returns (status, standard output, standard error)."""
    log = tmp_path / "fits.log"
    monkeypatch.setenv("MEAN_COLOUR_LOG", str(log))
    monkeypatch.chdir(tmp_path)

    def go(program: str, *arguments: str):
        log.write_text("")
        module = {"table1": table1, "publish": publish}[program]
        try:
            status = run(f"bench.{program}", module.main, list(arguments))
        except SystemExit as stop:
            status = int(stop.code)
        captured = capsys.readouterr()
        go.fits = len(log.read_text().splitlines())
        return status, captured.out, captured.err

    def compute(out: str, *more: str):
        given = ["--datasets", f"folder:{image_folder}", "--methods", method_file, "--train-per-class", "4"]
        return go("table1", *given, "--runs", "2", "--workers", "1", "--data-root", "data", "--out", out, *more)

    go.table1 = compute
    return go


def test_another_clone_takes_published_rows_as_finished(call, tmp_path):
    call.table1("run")
    assert call.fits == 6
    status, output, _ = call("publish", "run", "--to", "results/small")
    assert status == 0
    assert "6 cells" in output
    with sqlite3.connect("run/cells.sqlite") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(cells)")]
        connection.row_factory = sqlite3.Row
        stored = {row["key"]: dict(row) for row in connection.execute("SELECT * FROM cells")}
    frame = pd.read_csv("results/small/rows.csv", dtype=str, keep_default_na=False)
    assert list(frame.columns) == columns
    for row in frame.to_dict("records"):
        for name, value in stored[row["key"]].items():
            assert row[name] == ("" if value is None else str(value))
    shutil.rmtree("run")
    status, output, _ = call("table1", "@results/small/command", "--from", "results/small", "--out", "other",
                             "--data-root", "data")  # fmt: skip
    assert (status, call.fits) == (0, 0)
    assert "0 cells run (0 failed), 6 taken" in output
    published = pd.read_csv("results/small/table1.csv")
    pd.testing.assert_frame_equal(pd.read_csv("other/table1.csv"), published)
    read = read_rows(Path("other"))
    pd.testing.assert_frame_equal(
        read.cells.sort_values("key", ignore_index=True),
        read_rows(Path("results/small")).cells.sort_values("key", ignore_index=True),
    )


def test_published_rows_are_taken_and_the_rest_is_run(call):
    call.table1("run", "--classes", "red")
    call("publish", "run", "--to", "results/small")
    assert call.table1("other", "--from", "results/small")[0] == 0
    assert call.fits == 4
    _, output, _ = call.table1("third", "--from", "results/small", "other", "--dry-run")
    assert output.endswith("nothing to run\n")


def test_the_command_leaves_out_what_belongs_to_a_machine(call, image_folder, method_file):
    call.table1("run", "--device", "cpu", "--threads", "1", f"--set={method_file}.noise=0", "--seed", "7")
    call("publish", "run", "--to", "results/small")
    lines = Path("results/small/command").read_text().splitlines()
    assert lines == [
        "# Repeat it with: python -m bench.table1 @results/small/command",
        f"--datasets folder:{image_folder}",
        f"--methods {method_file}",
        f"--set {method_file}.noise=0",
        "--train-per-class 4",
        "--runs 2",
        "--threads 1",
        "--seed 7",
    ]
    command = pd.read_csv("results/small/rows.csv")["command"].unique().tolist()
    assert command == ["python -m bench.table1 " + " ".join(lines[1:])]
    assert f"Produced by: {command[0]}" in Path("results/small/table1.md").read_text()


def test_publishing_merges_runs_and_what_is_there(call):
    call.table1("one", "--runs", "1")
    call.table1("two", "--seed", "1")
    call("publish", "one", "--to", "results/small")
    first = Path("results/small/rows.csv").read_text()
    status, output, _ = call("publish", "two", "one", "--to", "results/small")
    assert status == 0
    assert "9 cells" in output
    assert set(first.splitlines()) <= set(Path("results/small/rows.csv").read_text().splitlines())
    assert {path.name for path in Path("results/small").glob("command*")} == {"command", "command-2"}
    table = pd.read_csv("results/small/table1.csv")
    assert table[["variant", "seed", "runs"]].to_numpy().tolist() == [
        ["mean", 0, 1], ["mean", 1, 2], ["oracle", 0, 1], ["oracle", 1, 2],
    ]  # fmt: skip
    again = {path.name: path.read_bytes() for path in Path("results/small").iterdir()}
    call("publish", "one", "two", "--to", "results/small")
    assert {path.name: path.read_bytes() for path in Path("results/small").iterdir()} == again


def test_tables_need_rows_alone(call, image_folder):
    call.table1("run")
    shutil.rmtree(image_folder)
    shutil.rmtree("data", ignore_errors=True)
    before = pd.read_csv("run/table1.csv")
    call("publish", "run", "--to", "results/small")
    pd.testing.assert_frame_equal(pd.read_csv("results/small/table1.csv"), before)


def test_failed_cells_are_published_as_such_until_they_succeed(call, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    call.table1("run")
    call("publish", "run", "--to", "results/small")
    assert pd.read_csv("results/small/table1.csv")["failed"].tolist() == [2, 2]
    assert len(pd.read_csv(Path("results/small") / FILES["failures"])) == 2
    monkeypatch.delenv("MEAN_COLOUR_FAIL")
    call.table1("run", "--retry-failed")
    call("publish", "run", "--to", "results/small")
    assert pd.read_csv("results/small/table1.csv")["failed"].tolist() == [0, 0]
    assert not (Path("results/small") / FILES["failures"]).exists()


def test_other_numbers_for_the_same_cell(call):
    call.table1("run")
    call("publish", "run", "--to", "results/small")
    before = Path("results/small/rows.csv").read_bytes()
    with sqlite3.connect("run/cells.sqlite") as connection:
        ((key, aucs),) = connection.execute("SELECT key, aucs FROM cells LIMIT 1").fetchall()
        changed = {name: auc - 2**-50 for name, auc in json.loads(aucs).items()}
        connection.execute("UPDATE cells SET aucs = ? WHERE key = ?", (json.dumps(changed), key))
    status, _, error = call("publish", "run", "--to", "results/small")
    assert (status, len(error.splitlines())) == (2, 1)
    assert f"cell {key} (" in error
    assert Path("results/small/rows.csv").read_bytes() == before


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_experiment) -> Path:
    """A folder with a finished run, ``run``, and one without a finished cell, ``empty``."""
    place = tmp_path_factory.mktemp("runs")
    write_experiment(place)
    words = ["--datasets", "folder:images", "--methods", "mean_colour.py", "--train-per-class", "4", "--runs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("bench.analysis.page.write", lambda *_, **__: None)
        for out, limit in (("run", "1"), ("empty", "1e-9")):
            assert table1.main([*words, "--workers", "1", "--limit-hours", limit, "--out", out]) == 0
    return place


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--to", "results/small"], r"RUN: got 'nowhere', which holds neither cells\.sqlite"),
        (["text", "--to", "results/small"], "RUN: store: cannot use 'text/cells.sqlite'"),
        (["empty", "--to", "results/small"], "RUN: 'empty' holds no finished cells"),
        (["run", "--to", "run/cells.sqlite"], "--to: cannot write to 'run/cells.sqlite'"),
        (["run", "--to", "run"], "--to: got 'run', the folder of a run; accepted is another one for a published table"),
        (["run", "--to", "empty"], "--to: got 'empty', the folder of a run"),
        (["run", "--to", ""], "--to: got ''"),
        (["", "--to", "results/small"], "RUN: got ''"),
        (["run", "--to", "hollow"], r"--to: cannot read 'hollow/rows\.csv' \(it is empty"),
        (["@nope", "--to", "results/small"], "@FILE: cannot read 'nope'"),
        (["@taken", "--to", "results/small"], r"@FILE: cannot read 'taken' \(Is a directory"),
        (["run", "--to", "taken"], r"--to: cannot write 'taken/rows\.csv': it is a folder"),
        (["run", "--to", "damaged"], r"--to: cannot read 'damaged/rows\.csv' \(its columns"),
        (["run"], "required: --to"),
        ([], "required: RUN"),
    ],
)
def test_bad_input_is_one_line_and_status_2(call, runs, words, message):
    for name in ("run", "empty"):
        shutil.copytree(runs / name, name)
    for name, content in (
        ("text/cells.sqlite", "no database " * 200),
        ("damaged/rows.csv", "a,b\n1,2\n"),
        ("hollow/rows.csv", ""),
    ):
        Path(name).parent.mkdir()
        Path(name).write_text(content)
    Path("taken/rows.csv").mkdir(parents=True)
    status, output, error = call("publish", *words)
    assert (status, output, len(error.splitlines())) == (2, "", 1), error
    assert re.search(message, error), error
    assert not Path("results").exists()
