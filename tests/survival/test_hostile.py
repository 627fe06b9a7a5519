"""What strangers may leave: results, trained networks, decoded images, names. None of it is run, or hurts others."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import re
import shutil
import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
from bench import data, table1
from bench.engine.cells import printable

sys.path.insert(0, str(Path(__file__).parent))
from small import METHOD, without_times, write_images

sys.path.pop(0)

ROOT = Path(bench.__file__).parents[1]


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")


@functools.cache
def all_calls() -> dict[str, dict[str, list[ast.Call]]]:
    """Where our code calls which function, by its name as it is written and by file."""
    found: dict[str, dict[str, list[ast.Call]]] = {}
    for path in (path for package in ("bench", "methods", "corel") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                files = found.setdefault(ast.unparse(node.func), {})
                files.setdefault(path.relative_to(ROOT).as_posix(), []).append(node)
    return found


def calls(name: str) -> dict[str, list[ast.Call]]:
    """Where our code calls a function of this name, by file."""
    return all_calls().get(name, {})


def test_nothing_is_loaded_in_a_way_that_runs_code():
    """CIFAR's own files are pickles, read after their checksum; a worker unpickles what its driver sends."""
    assert set(calls("pickle.loads")) == {"bench/data/cifar.py", "bench/engine/cluster.py"}
    for name in (
        "pickle.load",
        "pickle.Unpickler",
        "joblib.load",
        "pd.read_pickle",
        "eval",
        "exec",
        "yaml.load",
        "os.system",
    ):
        assert not calls(name), name
    assert not calls("torch.jit.load")
    assert calls("torch.load")
    for uses in calls("torch.load").values():
        assert all({k.arg: ast.unparse(k.value) for k in use.keywords}.get("weights_only") == "True" for use in uses)
    assert calls("np.load")
    for uses in calls("np.load").values():
        for use in uses:  # NumPy refuses pickles unless told otherwise
            assert {k.arg: ast.unparse(k.value) for k in use.keywords}.get("allow_pickle", "False") == "False"


def test_names_that_look_like_html(tmp_path, call):
    names = ["<img src=x onerror=alert(1)>", "a|b`c", "a & b"]
    colours = [(200, 60, 60), (60, 200, 60), (60, 60, 200)]
    folder = tmp_path / "<script>alert(2)<" / "script>"
    write_images(folder, dict(zip(names, colours, strict=True)))
    for name, text in (
        ("<b>.py", METHOD),
        ("<i>.py", METHOD.replace("self.mean = features.mean(axis=(0, 2, 3))", "raise KeyError('<u>')")),
    ):
        (tmp_path / name).write_text(text)
    words = ["--datasets", f"folder:{folder}", "--methods", "<b>.py", "<i>.py", "--train-per-class", "4", "--runs", "1"]
    status, output, error = call("table1", *words, "--out", "<out>")
    assert status == 1, error
    assert "failed: <i>.py on folder:" in output
    assert call("publish", "<out>", "--to", "<p>")[0] == 0
    for file in (tmp_path / "<out>" / "table1.md", tmp_path / "<p>" / "table1.md"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"<\w", text), text
        assert "&lt;b&gt;.py" in text
        assert "a|b" not in "".join(line for line in text.splitlines() if line.startswith("|"))
    # what others read as a table, and the rows, have the names as they are
    assert names[0] in (tmp_path / "<out>" / "cells.csv").read_text(encoding="utf-8")


WORDS = ["--datasets", "folder:images", "--methods", "m.py", "--train-per-class", "4", "--runs", "1"]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """A folder with a finished run, and the images and the method beside it."""
    place = tmp_path_factory.mktemp("hostile")
    write_images(place / "images", {"a": (60, 60, 200), "b": (60, 200, 60)})
    (place / "m.py").write_text(METHOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("bench.analysis.page.write", lambda *_, **__: None)
        assert table1.main([*WORDS, "--workers", "1", "--data-root", "data", "--out", "run"]) == 0
    return place


@pytest.fixture
def run(tmp_path, call, run_once):
    """A copy of that folder, in which commands are called; returns the words of its run."""
    shutil.copytree(run_once, tmp_path, dirs_exist_ok=True)
    return WORDS


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER INSERT ON cells BEGIN DELETE FROM auxiliaries; END"],
        ["ALTER TABLE cells RENAME TO others", "CREATE VIEW cells AS SELECT * FROM others"],
        ["CREATE TABLE others (x)"],
        ["CREATE INDEX i ON cells (hex(key))"],
    ],
)
def test_a_store_with_more_than_tables_of_results_is_refused(tmp_path, call, run, statements):
    change(tmp_path / "run" / "cells.sqlite", *statements)
    before = (tmp_path / "run" / "cells.sqlite").read_bytes()
    for words in (["publish", "run", "--to", "p"], ["table1", *run, "--from", "run", "--out", "o"],
                  ["table1", *run, "--out", "run"], ["table1", *run, "--out", "run", "--dry-run"]):  # fmt: skip
        status, output, error = call(*words)
        assert (status, output) == (2, "")
        assert re.search(r"store: cannot use '.*cells.sqlite' \(it holds '\w+', which is no table of results\)", error)
    assert (tmp_path / "run" / "cells.sqlite").read_bytes() == before


def test_somebody_elses_database_is_not_written_to(tmp_path, call, run):
    (tmp_path / "o").mkdir()
    change(tmp_path / "theirs.sqlite", "CREATE TABLE bookmarks (x)")
    before = (tmp_path / "theirs.sqlite").read_bytes()
    (tmp_path / "o" / "cells.sqlite").symlink_to(tmp_path / "theirs.sqlite")
    assert call("table1", *run, "--out", "o")[0] == 2
    assert (tmp_path / "theirs.sqlite").read_bytes() == before


def leave_journal(path: Path, victim: Path) -> None:
    """Beside a store, a journal that is to be rolled back, and that names ``victim`` as the journal of several."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    for number in range(300):  # more than is kept in memory
        connection.execute(
            "INSERT INTO auxiliaries SELECT ?, ?, '', '{}', '', '', '', 0, 0, '', 0, '{}', '', '', ''",
            (str(number), "x" * 500),
        )
    journal, content = Path(f"{path}-journal").read_bytes(), path.read_bytes()
    connection.rollback()
    connection.close()
    (page,) = struct.unpack(">I", journal[24:28])
    name = os.fsencode(victim)
    end = struct.pack(">I", 0x40000000 // page + 1) + name + struct.pack(">II", len(name), sum(name))
    path.write_bytes(content)
    Path(f"{path}-journal").write_bytes(journal + end + bytes.fromhex("d9d505f920a163d7"))


def test_a_journal_deletes_no_other_file(tmp_path, call, run):
    """SQLite deletes the file that a journal of several databases names, once it has rolled that journal back."""
    store, victim = tmp_path / "run" / "cells.sqlite", tmp_path / "precious"
    victim.write_text("precious")
    leave_journal(store, victim)
    for words in (["publish", "run", "--to", "p"], ["table1", *run, "--out", "run"], ["table1", *run, "--from", "run"]):
        status, _, error = call(*words)
        assert status == 2
        assert "(its journal names another file)" in error
    assert victim.read_text() == "precious"
    # the test would notice: SQLite itself does it
    with sqlite3.connect(store) as connection:
        connection.execute("SELECT count(*) FROM cells").fetchone()
    assert not victim.exists()


def test_what_a_killed_run_left_half_written_is_rolled_back(tmp_path, call, run):
    store = tmp_path / "run" / "cells.sqlite"
    leave_journal(store, tmp_path / "none")
    journal = Path(f"{store}-journal").read_bytes()
    Path(f"{store}-journal").write_bytes(journal[: -16 - 4 - len(os.fsencode(tmp_path / "none"))])
    status, output, error = call("table1", *run, "--out", "run")
    assert status == 0, error
    assert "0 cells run (0 failed), 2 taken" in output


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("settings", "[]", "column 'settings': got '\\[\\]'; accepted are objects in JSON"),
        ("seeds", '{"base": "x"}', "column 'seeds'"),
        ("versions", b"\x80\x04.", "column 'versions'"),
        ("class_name", b"\xff", "column 'class_name': got .*; accepted are strings"),
        ("command", "python -m bench.table1 '", "command: cannot read .* as words of a shell"),
    ],
)
def test_values_that_are_none_are_named(tmp_path, call, run, column, value, message):
    connection = sqlite3.connect(tmp_path / "run" / "cells.sqlite")
    with connection:
        connection.execute(f"UPDATE cells SET {column} = ?", (value,))
    connection.close()
    status, output, error = call("publish", "run", "--to", "p")
    assert (status, output) == (2, "")
    assert re.search(message, error), error
    assert not (tmp_path / "p").exists()


def test_a_terminal_obeys_no_name(tmp_path, call, run):
    change(tmp_path / "run" / "cells.sqlite", "UPDATE cells SET dataset_title = 'a\x1b[2J\nb', method = 'c\u2028d'")
    assert call("publish", "run", "--to", "p")[0] == 0
    status, output, _ = call("publish", "p", "--to", "q")
    assert status == 0
    assert r"a\x1b[2J\nb" in output
    assert r"c\u2028d" in output
    assert printable("ä\x1b\ud800\udce4\n") == r"ä\x1b\ud800\xe4\n"


def test_files_of_a_training_and_features_that_a_stranger_left(tmp_path, call):
    """Whatever lies in the place of what is kept between runs: no code of it runs, and the numbers are ours."""
    write_images(tmp_path / "images", {"a": (60, 60, 200), "b": (60, 200, 60)})
    words = ["--datasets", "folder:images", "--methods", "corel", "--train-per-class", "4", "--runs", "1"]
    words += ["--set", "corel.epochs=1", "--set", "corel.batch_size=4", "--out", "out"]
    status, _, error = call("table1", *words)
    assert status == 0, error
    expected = without_times(tmp_path / "out" / "cells.csv")
    ran = tmp_path / "ran"
    (encoder,) = (tmp_path / "out" / "cache" / "auxiliary").glob("*[0-9a-f]")
    features = sorted((tmp_path / "out" / "cache" / "features").glob("*.npy"))
    assert len(features) == 2
    torch.save({"key": Runs(ran), "weights": Runs(ran)}, encoder)
    torch.save({"key": Runs(ran), "parts": Runs(ran)}, encoder.with_name(f"{encoder.name}.checkpoint"))
    took = json.loads(encoder.with_name(f"{encoder.name}.json").read_text())
    for number, file in enumerate(features):
        if number:
            file.write_bytes(pickle.dumps(Runs(ran)))
        else:
            np.save(file, np.array([Runs(ran)] * len(np.load(file)), dtype=object), allow_pickle=True)
    (tmp_path / "out" / "cells.sqlite").unlink()
    encoder.with_name(f"{encoder.name}.json").write_text(json.dumps({**took, "seconds": "<b>", "versions": {"a": []}}))
    status, output, error = call("table1", *words)
    assert status == 0, error
    assert "2 cells run (0 failed)" in output
    assert without_times(tmp_path / "out" / "cells.csv") == expected
    assert not ran.exists()


@pytest.mark.parametrize(
    "change",
    [{"seconds": "x"}, {"seconds": -1.0}, {"seconds": 1e999}, {"versions": {"a": 1}}, {"threads": None}, {"a": 1}],
)
def test_a_sidecar_that_says_something_else_is_not_used(tmp_path, change):
    from bench.engine import tasks

    whole = {"seconds": 1.5, "threads": 1, "device": "cpu", "versions": {"torch": "2"}, "git_commit": "a"}
    (tmp_path / "x.json").write_text(json.dumps(whole))
    assert tasks._training(tmp_path / "x") == whole
    for content in ({**whole, **change}, [whole], {}):
        (tmp_path / "x.json").write_text(json.dumps(content))
        assert tasks._training(tmp_path / "x") is None


@pytest.mark.parametrize("classes", [["\x1b[2J", "b"], [1, 2], ["a", "a"], {"a": 0, "b": 1}, "ab", ["a", ["b"]]])
def test_decoded_images_of_a_stranger(tmp_path, classes):
    """In a data root that is shared, whoever can write there can put a cache that agrees with itself."""
    from bench.data import cache

    write_images(tmp_path / "images", {"a": (60, 60, 200), "b": (60, 200, 60)})

    def load() -> data.Dataset:
        return data.load(f"folder:{tmp_path / 'images'}", data_root=tmp_path / "data", progress=False)

    dataset = load()
    path = dataset.folder / "description.json"
    description = json.loads(path.read_text())
    description.update(classes=classes, fingerprint=cache._fingerprint(dataset.folder, classes))
    path.write_text(json.dumps({**description, "checksum": cache._checksum(description)}))
    assert load() == dataset
    assert load().classes == ("a", "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("name", ["description.json", "train-images.npy", "test-labels.npy"])
def test_a_pipe_among_decoded_images_is_not_read(tmp_path, name):
    write_images(tmp_path / "images", {"a": (60, 60, 200), "b": (60, 200, 60)})
    dataset = data.load(f"folder:{tmp_path / 'images'}", data_root=tmp_path / "data", progress=False)
    (dataset.folder / name).unlink()
    os.mkfifo(dataset.folder / name)
    assert data.load(f"folder:{tmp_path / 'images'}", data_root=tmp_path / "data", progress=False) == dataset
