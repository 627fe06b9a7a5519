"""Command lines and results, drawn at random: each is run, or refused in one line with status 2.

``FUZZ_EXAMPLES=2000 python -m pytest tests/fuzz/test_command_lines.py`` draws so many for each test.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from bench import publish, runtime, table1, verify_pairings
from bench.engine.command_line import run

sys.path.insert(0, str(Path(__file__).parent))
from drawing import examples, one_clear_line

sys.path.pop(0)

METHOD = """
from methods import OneClassMethod


class Mean(OneClassMethod):
    name = "mean"

    def fit(self, features):
        self.mean = features.mean()
        return self

    def score_samples(self, features):
        return -abs(features.mean(axis=(1, 2, 3)) - self.mean)
"""


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a method, files of arguments, an array and a finished run."""
    before = os.getcwd()
    folder = tmp_path_factory.mktemp("place")
    os.chdir(folder)
    Path("m.py").write_text(METHOD)
    Path("words").write_text("--classes 0 1\n--runs 1\n")
    Path("bytes").write_bytes(b"\xff\xfe\0")
    np.save("points.npy", np.random.default_rng(0).normal(size=(9, 2)))
    words = ["--methods", "m.py", "--classes", "0", "1", "--runs", "1", "--out", "run", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        # the files of the pictures take longer than all else; the page itself is still made of whatever the rows hold
        patch.setattr("bench.analysis.charts.save", lambda figures, folder: None)
        assert call("table1", words)[0] == 0
        assert call("publish", ["run", "--to", "published"])[0] == 0
        yield folder
    os.chdir(before)


MODULES = {"table1": table1, "publish": publish, "runtime": runtime, "verify_pairings": verify_pairings}


def call(program: str, words: Sequence[str]) -> tuple[int, str, str]:
    """Run a command in this process: its status, and what it said on both streams."""
    output, error = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            status = run(f"bench.{program}", MODULES[program].main, list(words))
        except SystemExit as stop:
            status = stop.code
        for stream in (output, error):
            stream.flush()
    assert isinstance(status, int)
    return status, output.buffer.getvalue().decode(), error.buffer.getvalue().decode()  # type: ignore[attr-defined]


def check(program: str, words: Sequence[str], refused: bool | None = None) -> int:
    """Run a command; what it refuses, it refuses in one line. Returns its status."""
    before = set(os.listdir())
    status, output, error = call(program, words)
    event(f"status {status}")
    if status == 2:
        assert output == ""
        said = [line for line in re.split(r"[\r\n]+", error) if line and not line.startswith("decoding")]
        assert len(said) == 1, error
        assert re.match(rf"(python -m )?bench\.{program}: error: \S", one_clear_line(said[0]))
    else:
        assert status == 0, (status, error)
        assert refused is not True, words
    assert "Traceback" not in output + error
    for name in set(os.listdir()) - before:  # the next example finds things as this one did
        # a folder that was asked for: --data-root "" is this one
        assert name in ("out", "data", "runs", ".cache") or any(word.startswith(name) for word in words), name
        shutil.rmtree(name)
    shutil.rmtree("out", ignore_errors=True)
    return status


JUNK = st.sampled_from(
    [
        "", " ", "-1", "0", "1", "2", "1e9", "1" * 400, "nan", "inf", "-", "--", "---", "@", "@nowhere", "@words",
        "@bytes", "@.", "None", "all", "digits", "corel", "m.py", "m.py:Mean", "m.py:None", "no.py", ".py", "..", "/",
        "folder:", "folder:.", "folder:/dev/zero", "sklearn:", "sklearn:PCA", "pyod:", "sklearn:IsolationForest",
        "sklearn:isolationforest@corel", "sklearn:IsolationForest@m.py", "@corel", "x@y@z", "--runs", "--help=1",
        "--version=1", "-h=1", "--set", "corel.lam", "corel.lam=", "corel.lam=nan", "corel.lam=1", "corel.=1", "=",
        "corel.branches=3", "corel.branches=[]", "corel.epochs=10**9", "m.py.x=1", "m.py.=", "corel.eta=__import__",
        "deep-svdd.filters=(1,2,3)", "deep-svdd.filters=((((", "a\nb", "a\rb", "\x1b[2J", "\u2028", "é", "\udcff",
        "\udcff.py", "<b>", "x" * 5000, "run", "published", "points.npy", "bytes", "m.py:Mean:Mean", "tcp://127.0.0.1:9",
    ]
)  # fmt: skip
#: An option of table1 with values that are mostly accepted.
GOOD = st.sampled_from(
    [
        ["--datasets", "digits"], ["--methods", "m.py"], ["--methods", "m.py:Mean", "corel"], ["--set", "corel.lam=1"],
        ["--train-per-class", "5"], ["--train-per-class", "5", "all"], ["--test-images", "50"], ["--runs", "2"],
        ["--auxiliary", "digits"], ["--classes", "0", "3"], ["--profile", "paper"], ["--profile", "quick"],
        ["--from", "published"], ["--from", "run"], ["--retry-failed"], ["--limit-hours", "1e-9"], ["--workers", "1"],
        ["--threads", "1"], ["--seed", "-5"], ["--device", "cpu"], ["--out", "run"], ["--list"], ["@words"],
    ]
)  # fmt: skip
OPTIONS = [
    "--datasets", "--methods", "--set", "--train-per-class", "--test-images", "--auxiliary", "--runs", "--classes",
    "--profile", "--from", "--retry-failed", "--limit-hours", "--workers", "--threads", "--seed", "--device", "--out",
    "--data-root", "--list", "--scheduler",
]  # fmt: skip
BAD = st.tuples(st.sampled_from(OPTIONS), st.lists(JUNK | st.text(max_size=6), max_size=3)).map(lambda o: [o[0], *o[1]])


@examples(60)
@given(
    st.lists(GOOD | BAD, max_size=4),
    st.lists(JUNK, max_size=1),
    st.sampled_from([["--dry-run"], ["--limit-hours", "1e-9"]]),
)
def test_table1(options: list[list[str]], loose: list[str], last: list[str]) -> None:
    """Nothing is computed: either nothing may be, or there is no time for it."""
    words = [word for option in options for word in option] + loose
    # "--lim=…" and the like are options, too: the last one counts
    check("table1", ["--out", "out", *words, "--workers", "1", *last])


@examples(40)
@given(st.lists(JUNK | st.sampled_from(["run", "published"]), max_size=3), JUNK | st.sampled_from(["out", "out/x"]))
def test_publish(runs: list[str], to: str) -> None:
    if to in ("run", "published", ".", "..", "/", " ", "1", "0", "2", "-1"):
        to = "out"
    check("publish", [*runs, "--to", to])


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["--sizes", "--points", "--dim", "--p", "--repeats", "--batch", "--limit", "--device", "--out"]
            ),
            st.lists(JUNK | st.text(max_size=4), max_size=2),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_runtime_and_verify_pairings(options: list[tuple[str, list[str]]]) -> None:
    """What is accepted would take minutes: the last word is wrong."""
    words = [word for option, values in options for word in (option, *values)]
    for wrong in (["--points", "bytes.npy"], ["--sizes", "10", "--points", "points.npy"], ["--device", "tpu"]):
        check("runtime", ["--out", "out", *words, *wrong], refused=True)
    check("verify_pairings", [*words, "--device", "tpu"], refused=True)


@st.composite
def damage(draw: st.DrawFn, size: int) -> list[tuple[int, str, bytes]]:
    """Changes of a file: where, how, and with what."""
    kinds = st.sampled_from(["write", "zero", "insert", "delete", "cut", "repeat"])
    texts = st.binary(min_size=1, max_size=12) | st.sampled_from(
        [
            b'"',
            b",",
            b"\n",
            b"\r\n",
            b"nan",
            b"1e999",
            b"-1",
            b"null",
            b"{}",
            b"[]",
            b"\xff",
            b"\0",
            b"\xe2\x80\xa8",
            b"9" * 400,
        ]
    )
    return draw(st.lists(st.tuples(st.integers(0, size - 1), kinds, texts), min_size=1, max_size=4))


def damaged(content: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    result = bytearray(content)
    for at, kind, text in changes:
        if kind == "write":
            result[at : at + len(text)] = text
        elif kind == "zero":
            result[at : at + len(text)] = bytes(len(text))
        elif kind == "insert":
            result[at:at] = text
        elif kind == "delete":
            del result[at : at + len(text)]
        elif kind == "cut":
            del result[at:]
        else:
            result += result[at:]
    return bytes(result)


@examples(60)
@given(st.data(), st.sampled_from(["rows.csv", "cells.sqlite"]))
def test_damaged_results(data: st.DataObject, name: str) -> None:
    """Of a published table, or of a run: what reads them says so, or takes them as they are."""
    source = Path("published" if name == "rows.csv" else "run", name)
    content = source.read_bytes()
    shutil.rmtree("damaged", ignore_errors=True)
    Path("damaged").mkdir()
    Path("damaged", name).write_bytes(damaged(content, data.draw(damage(len(content)))))
    check("publish", ["damaged", "--to", "out"])
    words = ["--methods", "m.py", "--classes", "0", "1", "--runs", "1", "--workers", "1", "--limit-hours", "1e-9"]
    check("table1", [*words, "--out", "out", "--from", "damaged"])
    if name == "cells.sqlite":
        shutil.copytree("damaged", "out")
        check("table1", [*words, "--out", "out"])
    assert source.read_bytes() == content


COLUMNS = [
    "aucs", "settings", "changes", "seeds", "versions", "class_name", "train_per_class", "finished", "command",
    "auxiliary", "profile", "method", "test_images", "dataset",
]  # fmt: skip


@examples(30)
@given(st.data(), st.sampled_from(COLUMNS))
def test_values_of_rows_that_somebody_changed(data: st.DataObject, column: str) -> None:
    value = data.draw(
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
        | st.sampled_from(["{}", "[]", "null", '{"base": []}', '{"base": "x"}', '{"": 1}', '{"": 1e999}', "1" * 400,
                           '{"a": {"b": []}}', "a\nb", "\x1b[2J", "<script>", "python -m x '", "[[[["])
    )  # fmt: skip
    shutil.rmtree("damaged", ignore_errors=True)
    shutil.copytree("run", "damaged")
    with contextlib.closing(sqlite3.connect("damaged/cells.sqlite")) as connection:
        try:
            with connection:
                connection.execute(f"UPDATE cells SET {column} = ?", (value,))
        except sqlite3.IntegrityError:
            return
    check("publish", ["damaged", "--to", "out"])
    words = ["--methods", "m.py", "--classes", "0", "1", "--runs", "1", "--workers", "1"]
    shutil.rmtree("out", ignore_errors=True)
    shutil.copytree("damaged", "out")
    check("table1", [*words, "--out", "out", "--limit-hours", "1e-9"])
    check("table1", [*words, "--out", "out", "--from", "damaged", "--dry-run"])
