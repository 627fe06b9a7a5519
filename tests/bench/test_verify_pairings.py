"""The check of pairings: what it draws, what it finds, and how it ends."""

from __future__ import annotations

import re
import sys

import gudhi
import pytest
import ripser
import torch

from bench import verify_pairings
from bench.engine.command_line import run
from bench.verify_pairings import differences, draw_cloud, main


def test_clouds_are_as_promised():
    clouds = [draw_cloud(3, index) for index in range(400)]
    assert {c.points.dtype for c in clouds} == {torch.float32, torch.float64}
    assert {c.p for c in clouds} == {1.0, 2.0, float("inf")}
    sizes, dims = zip(*(c.points.shape for c in clouds), strict=True)
    assert (min(sizes), max(sizes), min(dims), max(dims)) == (1, 64, 1, 12)
    tied = [c for c in clouds if c.kind != "unlike lengths"]
    assert len(tied) == 80
    assert {c.kind for c in tied} == {"grid", "duplicates", "duplicates on a grid", "one point"}
    again = draw_cloud(3, 17)
    assert again.points.equal(clouds[17].points)
    assert draw_cloud(4, 17).points.shape != again.points.shape or not draw_cloud(4, 17).points.equal(again.points)


def test_no_difference(capsys):
    assert main(["--clouds", "60", "--seed", "5", "--ripser"]) == 0
    assert re.match(
        r"0 of 60 clouds differ from gudhi [\d.]+ and ripser \(12 with ties or duplicates; seed 5\)\n",
        capsys.readouterr().out,
    )


def test_wrong_deaths_and_edges_are_found(monkeypatch, capsys):
    cloud = next(c for c in (draw_cloud(0, i) for i in range(1, 50)) if len(c.points) > 9)
    assert differences(cloud, gudhi, ripser.ripser, True) == []

    deaths = verify_pairings.death_times
    monkeypatch.setattr(verify_pairings, "death_times", lambda x, p: deaths(x, p).nextafter(deaths(x, p) + 1))
    assert differences(cloud, gudhi, ripser.ripser, False)[0] == "deaths differ from gudhi's"
    monkeypatch.setattr(verify_pairings, "death_times", deaths)

    edges = verify_pairings.merge_edges
    monkeypatch.setattr(verify_pairings, "merge_edges", lambda x, p: edges(x, p).roll(1, 0)[1:])
    assert differences(cloud, gudhi, None, False) == ["merge edges differ from gudhi's"]

    assert main(["--clouds", "30"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^\d+ of 30 clouds differ", out, re.MULTILINE)
    assert re.search(
        r"^cloud \d+ \(\d+ points in R\^\d+, p = \w+, float\d\d, .*\): merge edges differ", out, re.MULTILINE
    )
    # every one is counted, some are described
    assert out.count("\ncloud ") < 10 < int(re.search(r"^(\d+) of 30", out, re.MULTILINE)[1])


def test_wrong_reduction_is_found(monkeypatch):
    cloud = next(c for c in (draw_cloud(0, i) for i in range(1, 50)) if len(c.points) > 30)
    persistence = verify_pairings.vr_persistence
    monkeypatch.setattr(verify_pairings, "vr_persistence", lambda x, **kw: persistence(2 * x, **kw))
    found = differences(cloud, gudhi, None, True)
    assert "diagram of dimension 0 differs from gudhi's" in found


@pytest.mark.parametrize("arguments", [["--clouds", "0"], ["--clouds", "many"], ["--seed", "-1"], ["--nonsense"]])
def test_bad_arguments_are_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("python -m bench.verify_pairings: error: ")
    assert err.count("\n") == 1


def test_interrupt_says_how_far_it_got(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_pairings, "differences", interrupted)
    assert run("bench.verify_pairings", main, ["--clouds", "5"]) == 130
    assert "bench.verify_pairings: interrupted; 0 of 0 clouds differ" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "message"), [("gudhi", f"{verify_pairings.PROGRAM} needs gudhi: pip install "),
                                                  ("ripser", "--ripser needs ripser: pip install ")])  # fmt: skip
def test_peer_that_is_not_installed(monkeypatch, capsys, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    assert run("bench.verify_pairings", main, ["--clouds", "1", "--ripser"]) == 2
    err = capsys.readouterr().err
    assert f"{message}'corel[peers]'" in err
    assert err.count("\n") == 1
