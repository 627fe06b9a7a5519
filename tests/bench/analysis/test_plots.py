"""The figures: that each line can be told from the others, and that the same rows give the same bytes."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from bench.analysis import plots
from bench.timing.peers import PEERS

NAMES = ["corel death_times, float32", "corel vr_persistence, reduction", *(peer.name for peer in PEERS)]


@pytest.fixture(scope="module")
def table():
    rows = [
        {"task": "one cloud", "size": size, "contender": name, "median_ms": size * (1 + 0.001 * index)}
        for index, name in enumerate(NAMES)
        for size in (32, 64, 128)
        if (name, size) != ("gudhi", 128)
    ]
    rows.append({"task": "one cloud", "size": 32, "contender": "corel merge_edges, float32", "median_ms": 1.0})
    rows.append({"task": "training step, 100 images", "size": 100, "contender": "corel x", "median_ms": 40.0})
    table = pd.DataFrame(rows).assign(points="gaussian", dim=10, metric="L1", command="command", machine="machine")
    return table.assign(lower_quartile_ms=table["median_ms"], upper_quartile_ms=2 * table["median_ms"])


def test_each_line_has_a_colour_and_a_marker_of_its_own_and_ours_are_heavier():
    styles = plots._styles(NAMES)
    assert len({style["color"] for style in styles.values()}) == len(NAMES)
    faces = {(style["marker"], style.get("markerfacecolor") == "white") for style in styles.values()}
    assert len(faces) == len(NAMES)
    widths = [style["linewidth"] for style in styles.values()]
    assert min(widths[:2]) > max(widths[2:])


def test_names_at_the_ends_do_not_overlap(table):
    figure = plots.runtime(table)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() in NAMES]
    assert len(boxes) == len(NAMES)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    assert figure.axes[0].get_title(loc="left") == (
        "0-dimensional Rips persistence of one cloud: gaussian, $\\mathbb{R}^{10}$, L1"
    )


@pytest.mark.filterwarnings("error")
def test_one_size_alone_has_a_plot(table, tmp_path):
    plots.save(plots.runtime(table[table["size"].isin([100, 128])]), tmp_path / "one.png")


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_same_rows_same_bytes(table, tmp_path, kind, start):
    for name in "ab":
        plots.save(plots.runtime(table), tmp_path / f"{name}.{kind}")
    content = (tmp_path / f"a.{kind}").read_bytes()
    assert content.startswith(start)
    assert content == (tmp_path / f"b.{kind}").read_bytes()
