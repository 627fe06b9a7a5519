"""The cost of a table of many classes, on sizes that take no time."""

from __future__ import annotations

import importlib
import multiprocessing
import re
import signal

import numpy as np
import pandas as pd
import pytest

from bench import scale
from bench.engine.command_line import run
from bench.timing import synthetic_codes
from bench.timing.synthetic_codes import Size, extrapolate, growth


def command(*arguments: str) -> int:
    try:
        return run("bench.scale", scale.main, arguments)
    except SystemExit as stop:
        return int(stop.code)


@pytest.fixture
def in_this_process(monkeypatch, tmp_path):
    """Run sizes here, not in processes of their own, which takes seconds each."""
    ran = []

    def alone(size, **how):
        folder = tmp_path / f"run{len(ran)}"
        folder.mkdir()
        ran.append(size)
        return synthetic_codes.run(size, folder, **{**how, "progress": False})

    monkeypatch.setattr(synthetic_codes, "run_alone", alone)
    return ran


def test_every_size_is_run_and_written(in_this_process, tmp_path, capsys):
    words = ["--size", "6x40x3", "--base", "2x20x2", "--threads", "1", "--out", str(tmp_path / "out")]
    assert command(*words) == 0
    output = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "scale.csv")
    sizes = [Size(*row) for row in table.loc[table["part"] != "extrapolated", ["classes", "test", "m"]].to_numpy()]
    assert in_this_process == sizes
    assert [(s.classes, s.test, s.m) for s in sizes] == [
        (2, 20, 2), (4, 20, 2), (8, 20, 2), (16, 20, 2), (2, 40, 2), (2, 80, 2), (2, 160, 2), (2, 20, 4), (2, 20, 8),
        (2, 20, 16), (6, 40, 3),
    ]  # fmt: skip
    measured = table[table["part"] != "extrapolated"]
    assert (measured[["seconds", "cpu_seconds", "gib"]] > 0).all().all()
    assert measured["auc"].between(0.3, 1).all()
    assert table["command"].str.startswith("python -m bench.scale").all()
    for name in ("powers of classes", "powers of test", "powers of m", "extrapolated to 6 classes"):
        assert name in output


def test_a_size_alone(in_this_process, tmp_path, capsys):
    """Then --base does not matter."""
    words = ["--size", "6x40x3", "--no-growth", "--base", "2x15x1", "--threads", "1", "--out", str(tmp_path / "out")]
    assert command(*words) == 0
    assert in_this_process == [Size(6, 40, 3)]
    assert pd.read_csv(tmp_path / "out" / "scale.csv")["part"].tolist() == ["whole"]
    output = capsys.readouterr().out
    assert "powers of" not in output
    assert "extrapolated" not in output


def test_what_was_measured_is_kept_until_the_last_size_is_done(monkeypatch, tmp_path, capsys):
    def alone(size, **how):
        if size.test == 40:
            raise KeyboardInterrupt
        return synthetic_codes.Cost(1.0, 1.0, 1.0, 0.5)

    monkeypatch.setattr(synthetic_codes, "run_alone", alone)
    (tmp_path / "scale.csv").write_text("of an earlier study")
    assert command("--base", "2x20x2", "--out", str(tmp_path)) == 130
    partial = tmp_path / scale.PARTIAL
    assert f"interrupted; what was measured is in {partial}" in capsys.readouterr().err
    assert list(pd.read_csv(partial)["classes"]) == [2, 4, 8, 16]
    assert (tmp_path / "scale.csv").read_text() == "of an earlier study"


def test_the_scores_are_ball_counts_and_depend_on_the_seed_alone(in_this_process, tmp_path):
    size, how = Size(3, 60, 40), {"workers": 1, "threads": 1, "progress": False}
    first, again, other = (synthetic_codes.run_alone(size, seed=seed, **how).auc for seed in (0, 0, 1))
    assert first == again != other
    assert first > 0.5  # classes differ


def test_a_process_of_its_own(tmp_path):
    how = {"seed": 0, "workers": 1, "threads": 1, "progress": False}
    assert synthetic_codes.run_alone(Size(2, 10, 2), **how).gib > 0
    here, there = multiprocessing.Pipe(duplex=False)
    before = signal.getsignal(signal.SIGTERM)
    synthetic_codes._answer(there, Size(2, 10, 0), tmp_path, how)
    signal.signal(signal.SIGTERM, before)
    assert "accepted are 1 to 0" in str(here.recv())


def test_a_process_that_ends_is_one_line(monkeypatch, capfd, tmp_path):
    (tmp_path / "ends_at_once.py").write_text("import os\n\ndef answer(*_):\n    os._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)  # that process has the same path
    monkeypatch.setattr(synthetic_codes, "_answer", importlib.import_module("ends_at_once").answer)
    assert command("--size", "2x10x2", "--no-growth", "--threads", "1", "--out", str(tmp_path / "out")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.match(
        r"bench\.scale: error: out of memory \(the process of .* ended: could not allocate memory\?\)", line
    )


def test_extrapolation_finds_the_terms_that_cost():
    sizes = [Size(c, t, m) for c, t, m in [(50, 5000, 60), (100, 5000, 60), (400, 5000, 60), (50, 10000, 60),
             (50, 40000, 60), (50, 5000, 120), (50, 5000, 480)]]  # fmt: skip

    def seconds(s: Size) -> float:
        return 3 + 0.02 * s.classes + 4e-9 * s.classes * s.test * s.m

    table = pd.DataFrame([{**vars(s), "seconds": seconds(s), "cpu_seconds": 2 * seconds(s),
                           "gib": 0.5 + 1e-6 * s.classes * s.m + 1e-7 * s.test} for s in sizes])  # fmt: skip
    whole = Size(1000, 50_000, 120)
    found = extrapolate(table, whole)
    assert found["seconds"] == pytest.approx(seconds(whole), rel=1e-3)
    assert found["cpu_seconds"] == pytest.approx(2 * seconds(whole), rel=1e-3)
    assert found["gib"] == pytest.approx(0.5 + 0.12 + 0.005, rel=1e-3)
    assert growth([1, 2, 4], np.array([3.0, 12.0, 48.0])) == pytest.approx(2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "5x3x1"], "--size: got '5x3x1'"),
        (["--size", "many"], "--size: got 'many'"),
        (["--base", "2x2x0"], "--base: got '2x2x0'"),
        (["--base", "2x15x1"], "--base: got 2x15x1; accepted are at least 8 test codes per class"),
        (["--seed", "-1"], "--seed: got '-1'"),
        (["--out", ""], "--out: got ''"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message, capsys):
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error
