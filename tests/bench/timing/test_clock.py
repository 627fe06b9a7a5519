"""How contenders are timed, and what is reported of their times."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bench.timing import clock, report
from bench.timing.clock import Clock
from bench.timing.contenders import BATCH, DIMENSION_1_TASK, GRADIENT, ONE_CLOUD, Contender, of_clouds
from bench.timing.peers import Ready

CPU = torch.device("cpu")


def draw(generator, n):
    return generator.normal(size=(1, n, 2))


def test_ours_is_timed_in_all_its_forms():
    others = [Ready("ripser", len, None), Ready("batched", len, len)]
    names = {(c.task, c.name) for c in of_clouds(100, 1.0, CPU, others)}
    assert {
        (ONE_CLOUD, "corel merge_edges, float64"),
        (ONE_CLOUD, "corel vr_persistence, reduction"),
        (ONE_CLOUD, "ripser"),
        (GRADIENT, "corel ConnectivityLoss, forward + backward"),
        (BATCH, "corel death_times, batched, forward + backward"),
        (BATCH, "ripser, one by one"),
        (BATCH, "batched, batched"),
        (DIMENSION_1_TASK, "corel vr_persistence, reduction"),
        (DIMENSION_1_TASK, "ripser"),
    } <= names
    assert {(c.task, c.name) for c in of_clouds(100_000, 1.0, CPU, [])} == {
        (ONE_CLOUD, "corel merge_edges, float32"),
        (ONE_CLOUD, "corel death_times, float32"),
        (GRADIENT, "corel death_times, forward + backward"),
    }


def recorded(monkeypatch, seconds):
    """Two contenders whose calls seem to take ``seconds`` each, and what they were given, in order."""
    seen: list[tuple[str, float]] = []

    def pretend(self, contender, points, size):
        contender.call(points)
        return seconds

    monkeypatch.setattr(Clock, "_timed", pretend)
    return [Contender(ONE_CLOUD, n, lambda x, n=n: seen.append((n, float(x.sum())))) for n in "ab"], seen


def test_every_contender_gets_the_same_inputs_in_turns(monkeypatch):
    contenders, seen = recorded(monkeypatch, 2 * clock.LOOP)
    found = Clock(CPU, 4, 10.0).time(contenders, draw, 8)
    turns = [seen[i : i + 2] for i in range(0, len(seen), 2)]
    assert len(turns) == 5  # one of them to warm up
    assert all({name for name, _ in turn} == {"a", "b"} for turn in turns)
    assert all(len({total for _, total in turn}) == 1 for turn in turns)
    assert len({total for _, total in seen}) == 5
    assert [len(c.seconds) for c in found] == [4, 4]


def test_short_calls_are_timed_on_a_new_input_after_others_of_their_like(monkeypatch):
    contenders, seen = recorded(monkeypatch, clock.LOOP / 4)
    Clock(CPU, 3, 10.0).time(contenders, draw, 8)
    for name in "ab":
        totals = [total for other, total in seen if other == name]
        assert [totals.count(total) for total in dict.fromkeys(totals)] == [1, 4, 4, 1]  # warm-up; each then loops once


def test_what_would_take_too_long_is_left_out_and_named(monkeypatch):
    given = {"linear": [], "quadratic": []}

    def pretend(self, contender, points, size):
        given[contender.name].append(points.shape[1])
        return (points.shape[1] / 1024) ** (1 + list(given).index(contender.name))

    monkeypatch.setattr(Clock, "_timed", pretend)
    timer = Clock(CPU, 1, 20.0)
    found = timer.time([Contender(ONE_CLOUD, name, len) for name in given], draw, 8192)
    assert [contender.name for contender in found] == ["linear"]
    assert timer.notes == ["one cloud, 8192 points: quadratic left out, about 64 s a call"]
    assert [max(n for n in sizes if n < 8192) for sizes in given.values()] == [4096, 4096]


def test_a_peer_that_fails_is_left_out_and_named():
    def fails(points):
        raise TypeError("not of\nthis dimension")

    timer = Clock(CPU, 2, 10.0)
    found = timer.time([Contender(ONE_CLOUD, "fails", fails), Contender(ONE_CLOUD, "works", len)], draw, 8)
    assert [contender.name for contender in found] == ["works"]
    assert timer.notes == ["one cloud, 8 points: fails left out, it failed: not of this dimension"]
    with pytest.raises(TypeError, match="dimension"):
        timer.time([Contender(ONE_CLOUD, "corel", fails)], draw, 8)


def test_medians_quartiles_and_ratios():
    ours = Contender(ONE_CLOUD, "corel x", len, steps=2, seconds=[2.0, 4.0, 6.0, 8.0, 10.0])
    others = [Contender(ONE_CLOUD, "fast", len, seconds=[6.0]), Contender(ONE_CLOUD, "ripser", len, seconds=[30.0])]
    alone = Contender(GRADIENT, "corel y", len, seconds=[1.0])
    table = report.rows(64, [ours, *others, alone], metric="L1")
    row, other = table.iloc[0], table.iloc[3]
    assert (row["median_ms"], row["lower_quartile_ms"], row["upper_quartile_ms"]) == (3000, 2000, 4000)
    assert (row["faster_than_ripser"], row["faster_than_best_peer"], row["best_peer"]) == (10, 2, "fast")
    assert (row["size"], row["metric"]) == (64, "L1")
    assert math.isnan(other["faster_than_ripser"])
    assert math.isnan(other["faster_than_best_peer"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are kept by Linux")
def test_memory_grows_with_the_input_only():
    small, large = (clock.extra_memory(n, 10, 1.0, CPU) for n in (2_000, 20_000))
    assert -1 < small < 50  # the kernel counts pages in batches
    assert 0 < large < 50
