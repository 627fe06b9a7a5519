"""The page: every part is there, or what is missing is said; names are text; the rows come back out of it."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bench.analysis import charts, page
from bench.analysis.lines import lines
from bench.engine import published
from bench.engine.store import columns_of

pytestmark = pytest.mark.page

EVIL = "<img src=x onerror=alert(1)>"
SECTIONS = ("table", "classes", "m", "cost", "pairs", "work", "missing", "origin")


class Reader(HTMLParser):
    """Text of a page, by section and as a whole, and its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.section, self.inside, self.elements, self.text = "", "", [], {"": ""}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.text[self.section] = ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.text[self.section] += data


@pytest.fixture
def no_files(monkeypatch):
    """Leave out the files of the pictures, which take most of the time."""
    monkeypatch.setattr(charts, "save", lambda figures, folder: [])


@pytest.fixture
def read(tmp_path, no_files):
    """A function that writes the page of rows and reads it."""

    def write_and_read(rows: pd.DataFrame, trained: pd.DataFrame | None = None, **more) -> Reader:
        trained = pd.DataFrame(columns=list(columns_of("auxiliaries"))) if trained is None else trained
        return Reader(page.write(tmp_path / "page", rows, trained, **more).read_text(encoding="utf-8"))

    return write_and_read


def test_every_part_is_there(make_rows, read, tmp_path, monkeypatch):
    monkeypatch.undo()  # with the files of the pictures
    rows = make_rows(m=(20, 120), runs=2)
    trained = pd.DataFrame(
        [{"key": rows["auxiliary_key"].dropna().iloc[0], "seconds": 77, "auxiliary_title": "cifar100"}]
    )
    found = read(rows, trained, commands=["python -m bench.table1 --runs 2"], sources=["runs"])
    assert tuple(name for name in found.text if name) == SECTIONS
    table = found.text["table"]
    for expected in ("corel", "0.76", "0.7549", "within", "outside", "lam=20", "method", "f" * 64, "E1", "--auxiliary"):
        assert expected in table, expected
    pictures = [attributes["aria-label"] for tag, attributes in found.elements if tag == "svg"]
    for expected in (
        "AUC on",
        "AUC by class",
        "AUC over m",
        "AUC against seconds",
        "AUC against parameters",
        "Average ranks",
    ):
        assert any(name.startswith(expected) for name in pictures), expected
    assert "77 s, once, for what corel learns from cifar100" in found.text["cost"]
    assert "Without a number of them: dsebm" in found.text["cost"]
    assert "corel − dsebm" in found.text["pairs"]
    assert "gallery.npz" in found.text["work"]
    assert "Every line has all classes" in found.text["missing"]
    assert "python -m bench.table1 --datasets cifar10 --methods adt" in found.text["missing"]
    assert "--methods dagmm --train-per-class all --profile paper --set dagmm.mixture=code" in found.text["missing"]
    assert "torch==2.6" in found.text["origin"]
    for name in ("cifar10-auc", "cifar10-m120-by-class", "cifar10-over-m", "cifar10-m20-ranks", "cifar10-m120-seconds"):
        for kind in ("png", "pdf"):
            assert (tmp_path / "page" / "figures" / f"{name}.{kind}").stat().st_size > 1000
    assert "torch==2.6" in (tmp_path / "page" / "constraints.txt").read_text()


def test_a_line_has_the_numbers_of_the_table(make_rows):
    rows = make_rows(["corel"], runs=2, auc=lambda method, run, index: {"": 0.6 + 0.1 * index + 0.01 * run})
    (line,) = lines(rows)
    assert line.interval.mean == pytest.approx(0.705)
    assert line.std == pytest.approx(0.01 / math.sqrt(2))
    assert line.interval.high - line.interval.low == pytest.approx(2 * 4.302653 * 0.1 / math.sqrt(3), abs=1e-5)
    assert (line.paper, line.authors) == (0.76, 0.754935)
    assert (line.runs, line.classes, line.planned, line.failed) == (2, 3, 6, 0)
    assert line.seconds == 1.75


def test_variants_and_settings_are_lines_of_their_own(make_rows):
    rows = pd.concat(
        [
            make_rows(["adt"], auc=lambda *_: {"dirichlet": 0.8, "softmax": 0.7}),
            make_rows(["corel"]),
            make_rows(["corel"], changes={"lam": 0.0}),
        ],
        ignore_index=True,
    )
    assert [line.name for line in lines(rows)] == [
        "adt (dirichlet)",
        "adt (softmax)",
        "corel (lam=20)",
        "corel (lam=0)",
    ]


def test_the_same_rows_give_the_same_page(make_rows, tmp_path, no_files):
    rows, trained = make_rows(), pd.DataFrame(columns=list(columns_of("auxiliaries")))
    one, two = (page.write(tmp_path / name, rows, trained).read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_page_carries_its_rows(make_rows, read, tmp_path):
    rows = make_rows(planned=[("corel", 1, 2)])
    (link,) = [a["href"] for tag, a in read(rows).elements if tag == "a" and a.get("download") == "rows.csv.gz"]
    text = gzip.decompress(base64.b64decode(link.partition("base64,")[2]))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "rows.csv").write_bytes(text)
    again = published.read_rows(tmp_path / "again").cells
    finished = rows[rows["aucs"].notna()].reset_index(drop=True)
    for column in ("key", "aucs", "settings", "seeds", "class_name", "fit_seconds", "command"):
        assert again[column].tolist() == finished[column].tolist()


def test_names_are_text_everywhere(make_rows, read, tmp_path):
    names = [EVIL, "$\\frac{1$ {label} `code` | pipe", "_a*b_ [link](javascript:1)"]
    rows = make_rows(names, m=(20, 120), classes=[EVIL, "$x", "</script><script>alert(2)</script>"], dataset="folder:x",
                     dataset_title=f"{EVIL} (folder)", failed={(EVIL, 1, 2): f"broken: {EVIL}"})  # fmt: skip
    found = read(rows, sources=[EVIL], commands=[f"python -m bench.table1 --methods '{EVIL}'"])
    tags = {tag for tag, _ in found.elements}
    assert "img" not in tags
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    for section in ("", "table", "missing", "origin"):
        assert EVIL in found.text[section]
    markdown = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    assert "<img" not in re.sub(r"(?m)^    .*$|``.*?``", "", markdown)  # in code it is text already
    rows_of_table = [line for line in markdown.splitlines() if line.startswith("| ") and "pipe" in line]
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in rows_of_table if " − " not in line}) == 1
    assert "[link](" not in markdown


def test_an_empty_store_says_so(make_rows, read, tmp_path):
    found = read(make_rows(methods=()))
    for section in ("table", "classes", "m", "cost", "pairs"):
        assert "There is no finished cell" in found.text[section]
    assert "there are no rows" in found.text["missing"]
    assert "no finished cell" in (tmp_path / "page" / "report.md").read_text()


def test_one_method_one_class_one_run(make_rows, read):
    found = read(make_rows(["corel"], runs=1, classes=["cat"]))
    assert "–" in found.text["table"]
    assert "a curve needs two numbers of training images; there is 120" in found.text["m"]
    assert "--train-per-class 50 120 250" in found.text["m"]
    assert "There is one method only, corel" in found.text["pairs"]
    assert "no critical differences" in found.text["pairs"]


def test_few_classes_cannot_be_significant_and_the_page_says_so(make_rows, read):
    assert (
        "p is at least 0.25: after Holm's correction for 2 pairs none can be below 0.05"
        in read(make_rows()).text["pairs"]
    )


def test_ties_everywhere(make_rows, read):
    found = read(make_rows(auc=lambda *_: {"": 0.5}))
    assert "equal in every class: Wilcoxon's test is undefined" in found.text["pairs"]
    assert "there are no ranks" in found.text["pairs"]


def test_failed_and_planned_cells(make_rows, read):
    failed = {("dsebm", run, index): "dsebm: the loss of epoch 3 is nan" for run in range(2) for index in range(3)}
    found = read(make_rows(failed=failed, planned=[("adt", 1, 0), ("adt", 1, 1)]))
    assert "6 failed" in found.text[""]
    assert "failed" in found.text["table"]
    assert "dsebm: the loss of epoch 3 is nan" in found.text["missing"]
    assert "dsebm on cifar10, m = 120: 0 of 6 cells, 6 failed" in found.text["missing"]
    assert "adt on cifar10, m = 120: 4 of 6 cells" in found.text["missing"]
    assert "2 of 6 draws are left out" in found.text["pairs"]
    assert "nan" not in found.text["table"]
    assert "nan" not in {attributes.get("data-v") for _, attributes in found.elements}  # the table is sorted by them
    assert "threads: 1," in found.text["origin"]


def test_nothing_but_failures(make_rows, read):
    failed = {("corel", 0, 0): "corel: diverged"}
    found = read(make_rows(["corel"], runs=1, classes=["cat"], failed=failed))
    assert "There is no finished cell; 1 ended in an error" in found.text["classes"]
    assert "corel: diverged" in found.text["missing"]


def test_runs_that_others_have_are_missing(make_rows, read):
    rows = pd.concat([make_rows(["corel"], runs=3), make_rows(["dsebm"], runs=1)], ignore_index=True)
    missing = read(rows).text["missing"]
    assert "dsebm on cifar10, m = 120: 3 of 9 cells" in missing
    assert "--runs 3" in missing


def test_variants_of_a_score_lack_the_same_cells_once(make_rows, read):
    rows = pd.concat(
        [make_rows(["corel"], runs=2), make_rows(["adt"], runs=1, auc=lambda *_: {"dirichlet": 0.8, "softmax": 0.7})],
        ignore_index=True,
    )
    missing = read(rows).text["missing"]
    assert missing.count("adt on cifar10, m = 120: 3 of 6 cells") == 1


def test_part_of_the_test_images_is_said(make_rows, read):
    table = read(make_rows(["corel"], test_images=500)).text["table"]
    assert "500 of 1,000 test images" in table
    assert "0.76 " not in table


def test_two_datasets_whose_titles_make_the_same_name(make_rows, read):
    rows = pd.concat(
        [make_rows(["corel"], dataset=name, dataset_title=name) for name in ("folder:a/b", "folder:a:b")],
        ignore_index=True,
    )
    found = read(rows)
    names = [attributes["id"] for tag, attributes in found.elements if tag == "figure"]
    assert len(names) == len(set(names)) == 8


def test_thousands_of_cells_stay_small(make_rows, tmp_path, no_files):
    rows = make_rows(["corel"], runs=5, classes=[f"class {k}" for k in range(400)])
    trained = pd.DataFrame(columns=list(columns_of("auxiliaries")))
    path = page.write(tmp_path / "page", rows, trained)
    assert path.stat().st_size < 1_000_000
    assert "The first 1000 of 2000 cells" in path.read_text()


def test_images_of_the_method_at_work(make_rows, read, tmp_path):
    images = np.zeros((2, 8, 3, 32, 32), np.uint8)
    arrays = {
        "about": "corel on digits", "classes": np.array(["cat", "dog"]), "originals": images[:, 0],
        "reconstructions": images[:, 1], "most": images, "least": images, "most_in_class": np.ones((2, 8), bool),
        "least_in_class": np.zeros((2, 8), bool),
    }  # fmt: skip
    path = tmp_path / "gallery.npz"
    np.savez(path, **arrays)
    found = read(make_rows(["corel"]), gallery=path)
    labels = [attributes["aria-label"] for tag, attributes in found.elements if tag == "svg"]
    assert {"Originals beside reconstructions", "Most and least in-class"} <= set(labels)
    path.write_bytes(b"PK no archive")
    assert "gallery.npz cannot be read" in read(make_rows(["corel"]), gallery=path).text["work"]


def test_cells_of_several_machines_are_told_apart(make_rows, read):
    rows = make_rows(["corel"])
    rows.loc[0, "device"] = "cuda (another)"
    rows.loc[1, "versions"] = json.dumps({"torch": "2.7"})
    found = read(rows)
    assert "Times of different machines do not compare" in found.text["cost"]
    for expected in ("E1: 1 cell, cuda (another)", "E2: 1 cell, cpu (example)", "E3: 4 cells, cpu (example)"):
        assert expected in found.text["origin"]
