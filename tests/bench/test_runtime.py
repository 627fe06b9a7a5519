"""The runtime study: that contenders compute the same, what is reported of their times, and how it ends."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import corel
from bench import runtime
from bench.timing import peers
from bench.engine.command_line import run
from bench.runtime import Contender, Study, contenders, main, summary, targets, time_size

CPU = torch.device("cpu")
INSTALLED, _, _ = peers.installed()


def deaths_of(name: str, result: object) -> np.ndarray:
    """Sorted finite deaths in what a peer returns."""
    if name in ("ripser", "giotto-ph"):
        deaths = result[0][:, 1]
    elif name in ("gudhi", "oineus"):
        deaths = np.asarray(result)[:, 1]
    elif name == "dionysus":
        deaths = np.array([point.death for point in result])
    elif name == "torch-topological":
        deaths = result[0].diagram[:, 1].numpy()
    elif name == "scipy minimum_spanning_tree":
        deaths = result
    else:  # linkages
        deaths = np.asarray(result)[:, 2]
    return np.sort(deaths[np.isfinite(deaths)])


@pytest.mark.parametrize("name", sorted(INSTALLED))
def test_peers_compute_what_ours_does(name):
    points = np.random.default_rng(0).normal(size=(40, 10))
    expected = corel.death_times(torch.from_numpy(points)).numpy()
    assert deaths_of(name, INSTALLED[name](points)) == pytest.approx(expected, rel=1e-5)


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(peers._PEERS, "nothing", ("no_such_module_anywhere", "nothing", lambda: None))
    found, versions, missing = peers.installed()
    assert "nothing" not in found
    assert "nothing" not in versions
    assert any(line.startswith("nothing: not installed") for line in missing)


def test_ours_is_timed_in_all_its_forms():
    names = {(c.task, c.name) for c in contenders(100, CPU, {"ripser": lambda x: None})}
    assert {
        ("one cloud", "corel merge_edges, float32"),
        ("one cloud", "corel merge_edges, float64"),
        ("one cloud", "corel death_times, float32"),
        ("one cloud", "corel death_times, float64"),
        ("one cloud", "corel vr_persistence, reduction"),
        ("one cloud", "ripser"),
        ("gradient", "corel death_times, forward + backward"),
        ("gradient", "corel ConnectivityLoss, forward"),
        ("gradient", "corel ConnectivityLoss, forward + backward"),
        ("batch", "corel death_times, batched"),
        ("batch", "corel death_times, batched, forward + backward"),
        ("batch", "ripser, one by one"),
        ("dimension 1", "corel vr_persistence, reduction"),
        ("dimension 1", "ripser"),
    } <= names
    large = {(c.task, c.name) for c in contenders(100_000, CPU, {})}
    assert large == {
        ("one cloud", "corel merge_edges, float32"),
        ("one cloud", "corel death_times, float32"),
        ("gradient", "corel death_times, forward + backward"),
    }


def recorded(monkeypatch, seconds):
    """Two contenders whose calls seem to take ``seconds`` each; what they were given, in order."""
    seen: list[tuple[str, float]] = []

    def make(name):
        return Contender("one cloud", name, lambda x: seen.append((name, float(x.sum()))))

    def pretend(contender, points, device):
        contender.call(points)
        return seconds

    monkeypatch.setattr(runtime, "contenders", lambda n, device, others: [make("a"), make("b")])
    monkeypatch.setattr(runtime, "timed", pretend)
    return seen


def test_every_contender_gets_the_same_inputs_in_turns(monkeypatch):
    seen = recorded(monkeypatch, seconds=2 * runtime.LOOP)
    found, skipped = time_size(8, 2, 3, 4, CPU, {}, {})
    turns = [seen[i : i + 2] for i in range(0, len(seen), 2)]
    assert len(turns) == 5  # one of them to warm up
    assert all({name for name, _ in turn} == {"a", "b"} for turn in turns)
    assert all(len({total for _, total in turn}) == 1 for turn in turns)
    assert len({total for _, total in seen}) == 5
    assert [len(c.seconds) for c in found] == [4, 4]
    assert skipped == []


def test_short_calls_are_timed_on_a_new_input_after_others_of_their_like(monkeypatch):
    seen = recorded(monkeypatch, seconds=runtime.LOOP / 4)
    found, _ = time_size(8, 2, 3, 3, CPU, {}, {})
    for name in "ab":
        totals = [total for other, total in seen if other == name]
        assert [totals.count(total) for total in dict.fromkeys(totals)] == [1, 4, 4, 1]  # warm-up; each then loops once
    assert [len(c.seconds) for c in found] == [3, 3]


def test_what_would_take_too_long_is_left_out_and_named(monkeypatch):
    called = []
    slow, own = (Contender("one cloud", name, called.append) for name in ("slow", "corel slow"))
    monkeypatch.setattr(runtime, "contenders", lambda n, device, others: [slow, own])
    expected = {("one cloud", "slow"): (100, 0.1), ("one cloud", "corel slow"): (100, 0.1)}
    found, skipped = time_size(1000, 2, 1, 1, CPU, {}, expected)
    assert found == [own]
    assert skipped == ["one cloud, 1000 points: slow left out, about 10 s a call"]
    assert expected["one cloud", "corel slow"][0] == 1000


def test_medians_quartiles_and_ratios():
    ours = Contender("one cloud", "corel x", len, seconds=[1.0, 2.0, 3.0, 4.0, 5.0])
    fast = Contender("one cloud", "fast", len, seconds=[6.0])
    ripser = Contender("one cloud", "ripser", len, seconds=[30.0])
    alone = Contender("gradient", "corel y", len, seconds=[1.0])
    table = summary(64, [ours, fast, ripser, alone])
    row, other = table.iloc[0], table.iloc[3]
    assert (row["median_ms"], row["lower_quartile_ms"], row["upper_quartile_ms"]) == (3000, 2000, 4000)
    assert (row["faster_than_ripser"], row["faster_than_best_peer"], row["best_peer"]) == (10, 2, "fast")
    assert row["points"] == 64
    assert math.isnan(other["faster_than_ripser"])
    assert math.isnan(other["faster_than_best_peer"])


def measured(rows: list[tuple[str, int, str, float, float, float]]) -> pd.DataFrame:
    columns = ["task", "points", "contender", "median_ms", "faster_than_ripser", "faster_than_best_peer"]
    return pd.DataFrame(rows, columns=columns)


def test_aims_are_judged_where_they_were_measured():
    table = measured(
        [
            ("one cloud", 128, "corel death_times, float32", 0.02, 50.0, 1.5),
            ("one cloud", 50_000, "corel merge_edges, float32", 2000.0, math.nan, math.nan),
            ("batch", 100, "corel death_times, batched", 0.1, 90.0, 3.0),
            (runtime.LOSS_TASK, 100, "corel ConnectivityLoss, forward + backward", 0.5, math.nan, math.nan),
        ]
    )
    lines = targets(table, {50_000: 120.0}, 0.01, CPU)
    assert lines == [
        "reached  128 points, death_times, float32, against ripser: 50 × (aim ≥ 40 ×)",
        "MISSED   128 points, death_times, float32, against the best peer: 1.5 × (aim ≥ 2 ×)",
        "reached  50000 points, merge_edges, float32: 2 s (aim ≤ 2.5 s)",
        "MISSED   50000 points, memory beyond the input: 120 MiB (aim ≤ 100 MiB)",
        "reached  batch of 100 points, against ripser: 90 × (aim ≥ 80 ×)",
        "MISSED   batch of 100 points, against the best peer: 3 × (aim ≥ 4 ×)",
        "reached  ConnectivityLoss 100 × 160, forward + backward: 0.5 ms (aim ≤ 0.7 ms)",
        "MISSED   ConnectivityLoss, part of a training step: 5 % (aim ≤ 3 %)",
    ]
    assert targets(measured([("one cloud", 32, "corel death_times, float32", 1.0, 1.0, 1.0)]), {}, 1.0, CPU) == []


@pytest.mark.skipif(not runtime.Path("/proc/self/clear_refs").exists(), reason="peaks are kept by Linux")
def test_memory_grows_with_the_input_only():
    small, large = (runtime.extra_memory(n, 10, CPU) for n in (2_000, 20_000))
    assert -1 < small < 50  # the kernel counts pages in batches
    assert 0 < large < 50


@pytest.fixture
def quick(monkeypatch):
    """A study of ripser and ours whose training step is not timed."""
    monkeypatch.setattr(runtime, "training_step", lambda device: 0.05)
    only = {"ripser": peers.ripser(0)}
    monkeypatch.setattr(peers, "installed", lambda: (only, {"ripser": "1"}, ["other: not installed (why)"]))


def test_command_leaves_table_and_picture(quick, tmp_path, capsys):
    assert (
        main(["--sizes", "16", "8", "--repeats", "3", "--batch", "2", "--device", "cpu", "--out", str(tmp_path)]) == 0
    )
    table = pd.read_csv(tmp_path / "runtime.csv")
    assert set(table["points"]) == {8, 16, 100}
    assert set(table["task"]) == {"one cloud", "gradient", "batch", "dimension 1", runtime.LOSS_TASK}
    assert (table["median_ms"] > 0).all()
    assert (table["lower_quartile_ms"] <= table["median_ms"]).all()
    own = table[(table["task"] == "one cloud") & table["contender"].str.startswith("corel")]
    assert (own["faster_than_ripser"] > 0).all()
    assert set(table["command"]) == {
        f"python -m bench.runtime --sizes 16 8 --repeats 3 --batch 2 --device cpu --out {tmp_path}"
    }
    for column in ("machine", "device", "versions", "date", "dim", "batch", "training_step_ms"):
        assert table[column].notna().all()
    assert "ripser 1" in table["versions"][0]
    assert (tmp_path / "runtime.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "one cloud, 16 points" in out
    assert "batch of 2 × 8 points" in out
    assert "other: not installed (why)" in out
    assert "training step of the autoencoder, batch 100: 50 ms" in out
    assert "ConnectivityLoss, part of a training step" in out


def test_interrupt_keeps_what_was_measured(quick, monkeypatch, tmp_path, capsys):
    whole = runtime.time_size

    def interrupted(n, *arguments):
        if n == 16:
            raise KeyboardInterrupt
        return whole(n, *arguments)

    monkeypatch.setattr(runtime, "time_size", interrupted)
    arguments = ["--sizes", "8", "16", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert run("bench.runtime", main, arguments) == 130
    err = capsys.readouterr().err
    assert f"bench.runtime: interrupted; what was measured is in {tmp_path / 'runtime.csv'}" in err
    assert set(pd.read_csv(tmp_path / "runtime.csv")["points"]) == {8, 100}


def test_each_size_is_kept_before_the_next_one(quick, monkeypatch, tmp_path):
    whole = runtime.time_size

    def killed(n, *arguments):
        if n == 16:
            raise RuntimeError("the machine goes down")
        return whole(n, *arguments)

    monkeypatch.setattr(runtime, "time_size", killed)
    with pytest.raises(RuntimeError, match="goes down"):
        main(["--sizes", "8", "16", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)])
    assert set(pd.read_csv(tmp_path / "runtime.csv")["points"]) == {8, 100}
    assert (tmp_path / "runtime.png").exists()


@pytest.mark.parametrize("name", ["runtime.csv", "runtime.png"])
def test_file_that_cannot_be_written_is_found_out_first(monkeypatch, tmp_path, capsys, name):
    monkeypatch.setattr(runtime, "training_step", lambda device: pytest.fail("measured"))
    (tmp_path / name).mkdir()
    assert run("bench.runtime", main, ["--sizes", "8", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert f"{name}': it is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sizes", "1"],
        ["--sizes", "0"],
        ["--sizes", "100001"],
        ["--sizes", "64", "--targets"],
        ["--repeats", "none"],
        ["--batch", "-1"],
    ],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("python -m bench.runtime: error: argument ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--device", "tpu"], ["--out", "FILE/below"]])
def test_what_cannot_be_is_one_line_and_status_2(arguments, capsys, tmp_path):
    (tmp_path / "file").touch()
    arguments = [str(tmp_path / "file" / "below") if a == "FILE/below" else a for a in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path)]
    assert run("bench.runtime", main, arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_table_of_a_study_is_all_that_was_timed():
    study = Study(CPU, 10, 16, "command", {}, 0.1, [measured([("a", 1, "x", 1.0, 1.0, 1.0)])] * 2)
    assert len(study.table()) == 2
