"""Pictures of diagrams, and what other libraries draw of them."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import gudhi
import matplotlib
import numpy as np
import persim
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import corel
from corel import PersistenceDiagram, vr_persistence

SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [5.0, 0.0]])


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


@pytest.fixture(autouse=True)
def _no_window():
    with matplotlib.rc_context():
        pyplot.switch_backend("agg")
        yield
        pyplot.close("all")


@pytest.fixture(scope="module")
def diagrams():
    """Four components that merge and one that lives for ever, one loop, no cavity."""
    return vr_persistence(SQUARE, max_dim=2)


def finished(ax):
    """``ax`` after its figure has been laid out and drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ax.figure.canvas.draw()
    return ax


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def points(ax) -> list[np.ndarray]:
    """Data of the lines that are points, the finite and those at infinity, as drawn."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_linestyle() == "None"]


def bars(ax) -> list[list]:
    return [[segment.tolist() for segment in collection.get_segments()] for collection in ax.collections]


def test_diagram(diagrams, ax):
    assert corel.plot_diagram(diagrams, ax) is ax
    finished(ax)
    zero, never, one, two = points(ax)
    assert zero.tolist() == [[0, 1], [0, 1], [0, 1], [0, 4]]
    assert one.tolist() == [[1, 2]]
    assert len(two) == 0
    assert legend(ax) == ["dimension 0", "dimension 1", "dimension 2: no classes"]
    # classes that never die are on the line that is marked as infinity, above all others, and in sight
    (mark,) = (text for text in ax.texts if text.get_text() == "∞")
    (at_infinity,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    heights = [line.get_transform().transform(line.get_xydata())[:, 1] for line in ax.get_lines()]
    (height,) = {*at_infinity.get_transform().transform(at_infinity.get_xydata())[:, 1]}
    assert mark.get_transform().transform(mark.get_position())[1] == pytest.approx(height)
    assert never[:, 0].tolist() == [0]
    assert sum((np.isclose(of_line, height)).all() for of_line in heights if len(of_line)) == 2
    assert ax.transData.transform((0, 4))[1] < height < ax.transAxes.transform((0, 1))[1]


def test_barcode(diagrams, ax):
    assert corel.plot_barcode(diagrams, ax) is ax
    finished(ax)
    zero, one, two = bars(ax)
    end = ax.get_xlim()[1]
    assert end > 4
    deaths = [1, 1, 1, 4, end]
    assert zero == [[[0, height], [death, height]] for height, death in enumerate(deaths)]
    assert one == [[[1, 5], [2, 5]]]
    assert two == []
    (arrow,) = ax.get_lines()
    assert arrow.get_marker() == ">"
    assert arrow.get_xydata().tolist() == [[end, 4]]
    assert legend(ax) == ["dimension 0", "dimension 1", "dimension 2: no classes"]
    box = ax.get_legend().get_window_extent()
    assert box.y0 >= ax.get_window_extent().y1  # above the axes, where it hides no bar
    assert ax.get_ylim()[0] < 0
    assert ax.get_ylim()[1] > 5


def test_a_diagram_draws_itself(diagrams, ax):
    assert diagrams[1].plot(ax) is ax
    assert [each.tolist() for each in points(finished(ax))] == [[[1, 2]]]
    assert ax.get_xlim()[0] < 1 < ax.get_xlim()[1]
    assert ax.get_ylim()[0] < 2 < ax.get_ylim()[1]
    other = Figure().add_subplot()
    assert diagrams[1].plot_barcode(other) is other
    assert bars(finished(other)) == [[[[1, 0], [2, 0]]]]


def test_axes_of_a_new_figure(diagrams):
    one, two = diagrams[0].plot(), diagrams[0].plot_barcode()
    assert one.figure is not two.figure
    finished(one)
    finished(two)


def test_a_second_diagram_in_the_same_axes_leaves_the_first_in_sight(diagrams, ax):
    diagrams[0].plot(ax)
    diagrams[1].plot(ax)
    assert legend(finished(ax)) == ["dimension 0", "dimension 1"]
    for x, y in ((0, 1), (0, 4), (1, 2)):
        assert ax.get_xlim()[0] < x < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < y < ax.get_ylim()[1]


@pytest.mark.parametrize("plot", [corel.plot_diagram, corel.plot_barcode])
def test_nothing_to_see_is_said(diagrams, plot):
    for nothing, labels in ((diagrams[2], ["dimension 2: no classes"]), ([], None)):
        ax = finished(plot(nothing, Figure(layout="constrained").add_subplot()))
        assert [text.get_text() for text in ax.texts] == ["no classes"]
        assert (legend(ax) if ax.get_legend() else None) == labels


@pytest.mark.parametrize("plot", [corel.plot_diagram, corel.plot_barcode])
@pytest.mark.parametrize("cloud", [torch.zeros(1, 2), torch.zeros(4, 2), 1e-30 * SQUARE.double(), 1e30 * SQUARE])
def test_degenerate_clouds_are_drawn(cloud, plot):
    for layout in ("constrained", "tight"):
        axes = Figure(layout=layout).subplots(1, 2)
        for ax in axes:
            plot(vr_persistence(cloud, max_dim=1), ax)
        finished(axes[0])


def test_style_is_that_of_matplotlib(diagrams, ax):
    corel.plot_diagram(diagrams, ax, c="#123456", ms=11)
    drawn = [line for line in ax.get_lines() if line.get_linestyle() == "None"]
    assert {(to_hex(line.get_color()), line.get_markersize()) for line in drawn} == {("#123456", 11)}
    other = corel.plot_barcode(diagrams, Figure().add_subplot(), color="#123456", lw=7)
    assert {to_hex(colour) for bar in other.collections for colour in bar.get_color()} == {"#123456"}
    assert to_hex(other.get_lines()[0].get_color()) == "#123456"
    assert {width for bar in other.collections for width in bar.get_linewidth()} == {7}


def test_dimensions_differ_in_colour_and_in_marker(ax):
    empty = torch.zeros(0, 2)
    many = [PersistenceDiagram(dim, empty, empty.long(), empty.long()) for dim in range(9)]
    lines = corel.plot_diagram(many, ax).get_lines()
    looks = [(line.get_color(), line.get_marker()) for line in lines if line.get_linestyle() == "None"]
    assert len({colour for colour, _ in looks[:7]}) == len({marker for _, marker in looks[:7]}) == 7
    assert looks[7:] == looks[:2]


@pytest.mark.parametrize("plot", [corel.plot_diagram, corel.plot_barcode])
@pytest.mark.parametrize("wrong", [torch.zeros(3, 2), np.zeros((3, 2)), "diagram", 3, [torch.zeros(3, 2)], [None]])
def test_bad_diagrams(wrong, plot, ax):
    with pytest.raises(
        TypeError, match=r"^diagrams: got .*; accepted are a PersistenceDiagram, and sequences of them$"
    ):
        plot(wrong, ax)
    assert not ax.has_data()


@pytest.mark.parametrize("plot", [corel.plot_diagram, corel.plot_barcode])
def test_bad_axes(diagrams, plot):
    with pytest.raises(TypeError, match=r"^ax: got 'left'; accepted are matplotlib's Axes, and None$"):
        plot(diagrams, "left")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy(dtype):
    cloud = SQUARE.to(dtype).requires_grad_()
    for diagram in vr_persistence(cloud, max_dim=2):
        array = diagram.numpy()
        assert array.shape == (len(diagram), 2)
        assert array.tolist() == diagram.points.tolist()
        assert torch.from_numpy(array).dtype == dtype


def test_persim_draws_it(diagrams):
    some = [diagram.numpy() for diagram in diagrams[:2]]
    figure, ax = pyplot.subplots()
    persim.plot_diagrams(some, ax=ax)
    zero, one = (collection.get_offsets().data for collection in ax.collections)
    assert zero[:4].tolist() == [[0, 1], [0, 1], [0, 1], [0, 4]]
    assert one.tolist() == [[1, 2]]
    assert ax.get_legend() is not None
    persim.plot_diagrams(diagrams[1].numpy(), ax=figure.add_subplot())
    assert persim.bottleneck(some[1], some[1]) == 0


def test_gudhi_draws_it(diagrams, monkeypatch):
    monkeypatch.setattr(gudhi.persistence_graphical_tools, "_gudhi_matplotlib_use_tex", False)
    together = [pair for diagram in diagrams for pair in diagram.to_gudhi()]
    assert together == [(0, (0.0, 1.0))] * 3 + [(0, (0.0, 4.0)), (0, (0.0, math.inf)), (1, (1.0, 2.0))]
    ax = gudhi.plot_persistence_diagram(together)
    drawn = {tuple(point) for line in ax.get_lines() if line.get_linestyle() == "None" for point in line.get_xydata()}
    assert {(0, 1), (0, 4), (1, 2)} <= drawn
    assert legend(ax) == ["0", "1"]
    ax = gudhi.plot_persistence_barcode(together)
    assert sorted((bar.get_x(), bar.get_width()) for bar in ax.patches)[:4] == [(0, 1), (0, 1), (0, 1), (0, 4)]
    assert legend(ax) == ["0", "1"]
    gudhi.plot_persistence_barcode(diagrams[0].to_gudhi())


def test_diagrams_without_pictures_import_no_matplotlib():
    program = """
import sys, torch, corel
diagram = corel.vr_persistence(torch.zeros(3, 2))[0]
print(diagram.numpy().shape, diagram.to_gudhi()[0], "matplotlib" in sys.modules)
from matplotlib.figure import Figure
diagram.plot(Figure().add_subplot())
print("matplotlib.pyplot" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert run.stdout == "(3, 2) (0, (0.0, 0.0)) False\nFalse\n"
