"""The runtime study as a command: what it leaves, and how it ends."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bench.engine.command_line import run
from bench.runtime import FILES, PARTIAL, main
from bench.timing import clock, contenders, peers


@pytest.fixture
def quick(monkeypatch):
    """A study of ripser and ours, with little training."""
    ready = [peers.Ready("ripser", peers.ripser(1.0), None)]
    monkeypatch.setattr(peers, "installed", lambda p: (ready, {"ripser": "1"}, ["other: not installed (why)"]))
    monkeypatch.setattr(contenders, "IMAGES_SHAPE", (100, 3, 32, 32))
    monkeypatch.setattr(contenders, "STEPS", 1)


def arguments(out, *more):
    return ["--sizes", "16", "8", "--repeats", "1", "--batch", "2", "--device", "cpu", "--out", str(out), *more]


def test_command_leaves_table_and_pictures(quick, tmp_path, capsys):
    assert main(arguments(tmp_path)) == 0
    table = pd.read_csv(tmp_path / "runtime.csv")
    assert set(table["size"]) == {8, 16, 100}
    tasks = {"one cloud", "gradient", "batch", "dimension 1", contenders.LOSS, contenders.TRAINING}
    assert set(table["task"]) == tasks
    assert (table["lower_quartile_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] > 0).all()
    own = table[(table["task"] == "one cloud") & table["contender"].str.startswith("corel")]
    assert (own["faster_than_ripser"] > 0).all()
    assert list(table[table["task"] == contenders.TRAINING]["best_peer"]) == 2 * [
        "plain PyTorch loop, reconstruction alone"
    ]
    given = f"--sizes 16 8 --repeats 1 --batch 2 --device cpu --out {tmp_path}"
    assert set(table["command"]) == {f"python -m bench.runtime {given}"}
    for column in ("machine", "device", "versions", "date", "points", "metric", "dim", "batch"):
        assert table[column].notna().all()
    assert "ripser 1" in table["versions"][0]
    assert [(tmp_path / name).read_bytes()[:4] for name in FILES[1:]] == [b"\x89PNG", b"%PDF"]
    out = capsys.readouterr().out
    assert "one cloud, 16 points (gaussian) in R^10, L1" in out
    assert "batch of 2 × 8 points (gaussian) in R^10, L1" in out
    assert "other: not installed (why)" in out


def test_other_points_and_another_norm(quick, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    assert main(arguments(tmp_path, "--points", str(tmp_path / "x.npy"), "--p", "2")) == 0
    table = pd.read_csv(tmp_path / "runtime.csv")
    of_clouds = table[~table["task"].isin([contenders.LOSS, contenders.TRAINING])]
    assert set(of_clouds["points"]) == {str(tmp_path / "x.npy")}
    assert (set(of_clouds["dim"]), set(of_clouds["metric"])) == ({3}, {"L2"})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("the machine goes down")])
def test_each_size_is_kept_before_the_next_one(quick, monkeypatch, tmp_path, capsys, error):
    whole = clock.Clock.time
    for name in FILES:
        (tmp_path / name).write_text("of an earlier study")

    def ended(self, found, draw, size):
        if size == 16:
            raise error
        return whole(self, found, draw, size)

    monkeypatch.setattr(clock.Clock, "time", ended)
    if isinstance(error, KeyboardInterrupt):
        assert run("bench.runtime", main, arguments(tmp_path)) == 130
        kept = f"bench.runtime: interrupted; what was measured is in {tmp_path / PARTIAL}"
        assert kept in capsys.readouterr().err
    else:
        with pytest.raises(ZeroDivisionError):
            main(arguments(tmp_path))
    assert set(pd.read_csv(tmp_path / PARTIAL)["size"]) == {8, 100}
    assert {(tmp_path / name).read_text() for name in FILES} == {"of an earlier study"}
    monkeypatch.setattr(clock.Clock, "time", whole)
    assert main(arguments(tmp_path)) == 0
    assert not (tmp_path / PARTIAL).exists()
    assert set(pd.read_csv(tmp_path / "runtime.csv")["size"]) == {8, 16, 100}


def test_a_limit_that_leaves_out_every_contender(quick, monkeypatch, tmp_path, capsys):
    whole = clock.Clock.time
    monkeypatch.setattr(
        clock.Clock, "time", lambda self, found, draw, size: [] if size == 16 else whole(self, found, draw, size)
    )
    assert run("bench.runtime", main, arguments(tmp_path, "--limit", "0.5")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--limit: got 0.5, but every call at 16 points is expected to take longer" in error
    assert set(pd.read_csv(tmp_path / PARTIAL)["size"]) == {8, 100}


def test_points_of_a_file_that_float32_cannot_compute_with(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.full((20, 3), 1e38))
    assert run("bench.runtime", main, arguments(tmp_path, "--points", str(tmp_path / "x.npy"))) == 2
    assert "--points: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--sizes", "1"],
        ["--sizes", "100001"],
        ["--repeats", "none"],
        ["--batch", "-1"],
        ["--batch", "1000000000000"],
        ["--dim", "1000000000000"],
        ["--limit", "nan"],
        ["--p", "3"],
        ["--points", "cube"],
        ["--points", "x.npy", "--dim", "3"],
        ["--points", "nothing-there.npy"],
        ["--device", "tpu"],
        ["--out", "FILE/below"],
        ["--out", "FOLDER"],
    ],
)
def test_what_cannot_be_is_one_line_and_status_2_before_anything_is_timed(monkeypatch, tmp_path, capsys, wrong):
    monkeypatch.setattr(clock.Clock, "time", lambda *arguments: pytest.fail("timed"))
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "runtime.pdf").mkdir(parents=True)
    places = {"FILE/below": str(tmp_path / "file" / "below"), "FOLDER": str(tmp_path / "folder")}
    try:
        status = run("bench.runtime", main, [*arguments(tmp_path), *(places.get(word, word) for word in wrong)])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1)
    assert f"bench.runtime: error: {'argument ' if 'argument' in err else ''}" in err
    assert wrong[0].removeprefix("--") in err


@pytest.mark.parametrize("command", ["runtime", "verify_pairings"])
def test_help_and_version_import_nothing_large(command):
    code = (
        f"import sys\nfrom bench.{command} import main\nfor option in ('--help', '--version', '--nonsense'):\n"
        "    try:\n        main([option])\n    except SystemExit as stop:\n        print('status', stop.code)\n"
        "print(sorted({'numpy', 'torch', 'pandas', 'matplotlib', 'corel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stdout.splitlines() if line.startswith(("status", "["))] == [
        "status 0", "status 0", "status 2", "[]"]  # fmt: skip
    assert done.stderr.count("\n") == 1
