"""``bench.report``: a page from a run, from published rows and from both; what cannot be read is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import publish, report, table1
from bench.analysis import gallery
from bench.engine.command_line import run as run_command

pytestmark = pytest.mark.page


WORDS = ["--datasets", "folder:images", "--methods", "mean_colour.py:MeanColour", "--train-per-class", "4"]
WORDS += ["--runs", "2", "--workers", "1", "--data-root", "data", "--out", "run"]


@pytest.fixture(scope="module")
def run_once(tmp_path_factory, write_experiment) -> Path:
    """A finished run without a page."""
    place = tmp_path_factory.mktemp("report")
    write_experiment(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("bench.analysis.page.write", lambda *_, **__: None)
        assert table1.main(WORDS) == 0
    return place / "run"


@pytest.fixture
def run(run_once: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(run_once, tmp_path / "run")


def test_a_run_a_published_table_and_a_table_make_the_same_page(tmp_path: Path, write_experiment, monkeypatch, capsys):
    write_experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert table1.main(WORDS) == 0
    run = tmp_path / "run"
    by_table1 = (run / "page" / "index.html").read_text(encoding="utf-8")
    assert report.main([str(run), "--out", str(tmp_path / "one")]) == 0
    assert publish.main([str(run), "--to", str(tmp_path / "published")]) == 0
    assert report.main([str(tmp_path / "published"), str(run), "--out", str(tmp_path / "two")]) == 0
    pages = [(tmp_path / name / "index.html").read_text(encoding="utf-8") for name in ("one", "two")]
    assert "6 cells, 0 failed; open" in capsys.readouterr().out
    for html in (by_table1, *pages):
        assert "mean_colour.py:MeanColour (oracle)" in html
        assert "images" in html
    assert pages[0].count("<svg") == pages[1].count("<svg") == by_table1.count("<svg") == 3


def test_the_page_lies_within_the_first_run(run: Path, monkeypatch):
    shutil.rmtree(run / "page")
    monkeypatch.chdir(run.parent)
    (run.parent / "runs").symlink_to(run)
    assert report.main([]) == 0
    assert {path.name for path in (run / "page").iterdir()} == {"index.html", "report.md", "constraints.txt", "figures"}


def test_images_that_a_run_has_kept_are_shown(run: Path):
    images = np.zeros((1, 8, 3, 32, 32), np.uint8)
    np.savez(run / gallery.FILE, about="a method", classes=["red"], originals=images[:, 0], most=images, least=images,
             reconstructions=images[:, 0], most_in_class=[[True] * 8], least_in_class=[[False] * 8])  # fmt: skip
    assert report.main([str(run)]) == 0
    assert "Originals beside reconstructions" in (run / "page" / "index.html").read_text(encoding="utf-8")


def test_images_of_a_run_that_has_kept_none(run: Path, tmp_path: Path, monkeypatch, capsys):
    """They are made of its cache and data, or it is said why not."""
    asked = []

    def write(path, cells, cache, load, device):
        asked.append((path, len(cells), cache, device))
        raise ValueError("the data is not here")

    monkeypatch.setattr(gallery, "write", write)
    out = tmp_path / "out"
    assert report.main([str(run), "--out", str(out), "--device", "cpu"]) == 0
    assert asked == [(out / gallery.FILE, 6, run / "cache", "cpu")]
    assert "no images of the method at work: the data is not here\n" in capsys.readouterr().out
    monkeypatch.setattr(gallery, "write", lambda path, *_: path)
    assert report._gallery([str(run)], pd.DataFrame(), out, "data", "cpu") == (out / gallery.FILE, "")
    shutil.rmtree(run / "cache")
    assert report._gallery([str(run)], pd.DataFrame(), out, "data", "cpu") == (None, "")


def test_what_cannot_be_read_or_written_is_one_line(run: Path, monkeypatch, capfd):
    monkeypatch.chdir(run.parent)
    for arguments, said in (
        (["nowhere"], "RUN: got 'nowhere', which holds neither"),
        (["."], "RUN: got '.', which holds neither"),
        ([""], "RUN: got ''"),
        (["run", "--out", ""], "--out: got ''"),
        (["run", "--out", "run/cells.sqlite"], "--out: cannot write to"),
    ):
        capfd.readouterr()
        assert run_command(report.PROGRAM, report.main, arguments) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"bench.report: error: {said}")
