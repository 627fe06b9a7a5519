"""The clouds that pairings are checked on, and that differences are found."""

from __future__ import annotations

import gudhi
import pytest
import ripser
import torch

import corel
from bench.timing import agreement
from bench.timing.agreement import SIZES, SIZES_INTERPRETED, TIED, UNTIED, Cloud, differences, draw_cloud, edges_on

ON_CPU = edges_on(torch.device("cpu"))


def test_clouds_are_as_promised():
    clouds = [draw_cloud(3, index) for index in range(500)]
    assert {c.points.dtype for c in clouds} == {torch.float32, torch.float64}
    assert {c.p for c in clouds} == {1.0, 2.0, float("inf")}
    small = [c for c in clouds if len(c.points) <= 64]
    sizes, dims = zip(*(c.points.shape for c in small), strict=True)
    assert (min(sizes), max(sizes), min(dims), max(dims)) == (1, 64, 1, 24)
    assert {c.kind for c in small[::5]} <= {*TIED, *UNTIED}
    assert {c.kind for c in small} == {*TIED, *UNTIED}
    assert sorted(len(c.points) > 1024 for c in clouds)[-6:] == [False, True, True, True, True, True]
    assert len(clouds[499].points) >= 4000
    large = [draw_cloud(3, 500 * number + 499) for number in range(6)]
    assert {c.kind for c in large} == {*TIED, *UNTIED} - {"one point"}
    assert draw_cloud(3, 17).points.equal(clouds[17].points)
    assert not draw_cloud(4, 18).points[:1].equal(clouds[18].points[:1])
    assert {len(draw_cloud(3, index, SIZES_INTERPRETED).points) <= 1056 for index in range(500)} == {True}


@pytest.mark.parametrize("index", [1, 7, 20, 40, 761])  # the last one is a single point
def test_no_difference(index):
    assert differences(draw_cloud(0, index), gudhi, ripser.ripser, ON_CPU, reduce=True) == []


@pytest.mark.parametrize("kind", ["clusters", "grid", "duplicates"])
def test_no_difference_in_clouds_that_peers_get_the_short_edges_of(kind):
    index = next(i for i in range(99, 100_000, 100) if draw_cloud(0, i, (SIZES[0], (65, 150), (65, 150))).kind == kind)
    assert differences(draw_cloud(0, index, (SIZES[0], (65, 150), (65, 150))), gudhi, ripser.ripser, ON_CPU) == []


@pytest.mark.parametrize("n", [30, 100])
def test_wrong_results_are_found(monkeypatch, n):
    cloud = Cloud(torch.randn(n, 3, generator=torch.Generator().manual_seed(n)), 1.0, "gaussian")
    reversed_batch = differences(cloud, gudhi, ripser.ripser, lambda x, p: ON_CPU(x, p).flip(-1))
    assert reversed_batch == ["merge edges of a batch differ from those of one cloud on the CPU"]

    deaths, edges, persistence = corel.death_times, corel.merge_edges, corel.vr_persistence
    for wrong in (lambda x, p: 0.9 * deaths(x, p), lambda x, p: deaths(x, p).nextafter(deaths(x, p) + 1)):
        monkeypatch.setattr(corel, "death_times", wrong)
        found = differences(cloud, gudhi, ripser.ripser, ON_CPU)
        assert {"deaths differ from gudhi's", "deaths differ from ripser's"} <= set(found)
    monkeypatch.setattr(corel, "death_times", deaths)

    monkeypatch.setattr(corel, "merge_edges", lambda x, p: edges(x, p).roll(1, -2)[..., 1:, :])
    found = differences(cloud, gudhi, ripser.ripser, ON_CPU)
    assert found == ["searches in a k-d tree give another tree", "merge edges differ from gudhi's"]
    monkeypatch.setattr(corel, "merge_edges", edges)

    if n <= SIZES[0][1]:
        monkeypatch.setattr(corel, "vr_persistence", lambda x, **kw: persistence(2 * x, **kw))
        found = differences(cloud, gudhi, ripser.ripser, ON_CPU, reduce=True)
        assert "diagram of dimension 0 differs from gudhi's" in found


def test_the_interpreter_is_asked_for_first(monkeypatch):
    knobs = pytest.importorskip("triton").knobs
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET: got "):
        agreement.interpreted_edges()
