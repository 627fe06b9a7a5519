"""Pictures: names are text in them, and two of them stand on one page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.analysis import charts, comparison

NAMES = ["<img src=x onerror=alert(1)>", r"$\frac{1$ & {label} \n", "_hidden"]


def means(names=NAMES, classes=("cat", "<b>dog</b>", "$x$")) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(enumerate(classes)), names=["class", "class_name"])
    return pd.DataFrame(np.linspace(0.4, 1, len(names) * len(classes)).reshape(-1, len(names)), index, list(names))


def table(names=NAMES) -> pd.DataFrame:
    rows = [
        {"label": name, "name": f"{name}, m = {m}", "m": m, "auc_mean": 0.7 + 0.01 * k, "auc_std": 0.01, "low": 0.65,
         "high": 0.8, "paper_auc": 0.72, "authors_auc": math.nan, "seconds": 0.1 * 10**k}
        for k, name in enumerate(names) for m in (20, 120)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def every_chart() -> dict[str, Figure]:
    look = charts.looks(NAMES)
    return {
        "intervals": charts.intervals(table(), look),
        "heat map": charts.heat_map(means()),
        "over m": charts.over_m(table(), look),
        "seconds": charts.cost(table(), "seconds", look),
        "ranks": charts.critical_difference(comparison.ranks(means()), look),
        "gallery": charts.gallery([(name, np.zeros((2, 3, 32, 32), np.uint8), None) for name in NAMES]),
    }


@pytest.fixture(scope="module")
def pictures() -> dict[str, str]:
    return {name: charts.inline_svg(figure, name) for name, figure in every_chart().items()}


@pytest.mark.parametrize("name", ["intervals", "heat map", "over m", "seconds", "ranks", "gallery"])
def test_names_are_text(pictures, name):
    tree = ElementTree.fromstring(pictures[name])
    shown = "\n".join("".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text"))
    for expected in ("<img sr", "ert(1)>", "$", "_hidden"):  # the middle of a long name may be left out
        assert expected in shown
    assert tree.attrib["aria-label"] == name
    assert not {element.tag.rpartition("}")[2] for element in tree.iter()} & {"img", "script", "foreignObject"}


def test_pictures_of_one_page_share_no_identifier(pictures):
    identifiers = [identifier for svg in pictures.values() for identifier in re.findall(r'\bid="([^"]+)"', svg)]
    assert identifiers
    assert len(set(identifiers)) == len(identifiers)
    for svg in pictures.values():
        assert "<style" not in svg
        assert "<metadata" not in svg


def test_the_same_numbers_give_the_same_picture(pictures):
    assert charts.inline_svg(charts.heat_map(means()), "heat map") == pictures["heat map"]


def test_looks_tell_methods_apart_and_ours_is_first():
    look = charts.looks(["dsebm", "corel", *(f"method {k}" for k in range(20))])
    assert len({(style.colour, style.marker, style.dashes) for style in look.values()}) == 22
    assert look["corel"] == charts.looks(["corel"])["corel"]


def test_a_heat_map_of_many_classes_stays_small():
    classes = [f"class {k}" for k in range(200)]
    figure = charts.heat_map(means(["a", "b"], classes))
    assert figure.get_figheight() < 11
    assert len(figure.axes[0].texts) == 0


def test_what_is_not_there_is_a_dash_in_the_heat_map():
    frame = means(["a", "b"])
    frame.iloc[0, 0] = math.nan
    assert "–" in [text.get_text() for text in charts.heat_map(frame).axes[0].texts]


def test_ranks_without_tests_are_refused():
    with pytest.raises(ValueError, match="three methods"):
        charts.critical_difference(comparison.ranks(means(["a", "b"])), charts.looks(["a", "b"]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (math.nan, "–"),
        (5e-7, "0.5 µs"),
        (2e-5, "20 µs"),
        (0.0009997, "1 ms"),
        (0.0015, "1.5 ms"),
        (59, "59 s"),
        (90, "1.5 min"),
        (7200, "2 h"),
        (4_321_440, "1,200 h"),
    ],
)
def test_seconds_have_the_unit_that_suits_them(value, text):
    assert charts.seconds(value) == text


def test_long_names_lose_their_middle():
    assert charts.short("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"
    assert charts.short("two\nlines") == "two lines"


def test_figures_are_saved_as_png_and_pdf(tmp_path):
    charts.save({"a": charts.heat_map(means())}, tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"a.png", "a.pdf"}
    assert (tmp_path / "figures" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures" / "a.pdf").read_bytes().startswith(b"%PDF")
