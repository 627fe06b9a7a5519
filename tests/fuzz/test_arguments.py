"""Arguments of the library, drawn at random: each call gives the right answer, or one line that names the argument.

``FUZZ_EXAMPLES=5000 python -m pytest tests/fuzz/test_arguments.py`` draws so many for each function.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from corel import BallCount, ConnectivityLoss, death_times, merge_edges, train_autoencoder, vr_persistence

sys.path.insert(0, str(Path(__file__).parent))
from drawing import examples, one_clear_line

sys.path.pop(0)

TENSOR_TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64,
    torch.int8, torch.float8_e4m3fn,
]  # fmt: skip
ARRAY_TYPES = ["f8", "f4", "f2", ">f8", ">f4", "g", "i8", "u1", "?", "c16", "O", "U3", "M8[s]", "V4"]
ACCEPTED_VALUES = ["plain"] * 6 + ["equal", "tiny", "negative"]
VALUES = [*ACCEPTED_VALUES, "huge", "NaN", "infinite"]


def numbers(shape: tuple[int, ...], values: str, seed: int) -> np.ndarray:
    """An array of float64 of some kind."""
    x = np.random.default_rng(seed).normal(size=(*shape, 1))[..., 0]  # an array, also without dimensions
    if values == "equal":
        return np.ones(shape)
    if values == "negative":
        return np.asarray(-np.abs(x))
    if values in ("huge", "tiny"):
        return np.asarray(x * (1e300 if values == "huge" else 1e-310))
    if values in ("NaN", "infinite") and x.size:
        x.flat[seed % x.size] = math.nan if values == "NaN" else -math.inf
    return x


CLOUDS = st.tuples(st.integers(1, 9), st.integers(1, 6))
BATCHES = CLOUDS | st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 4))
SHAPES = BATCHES | st.lists(st.integers(0, 5), max_size=5).map(tuple)


@st.composite
def tensors(
    draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES, accepted: bool = False
) -> torch.Tensor:
    """A tensor of any kind, or one that is accepted if its shape is."""
    values = draw(st.sampled_from(ACCEPTED_VALUES if accepted else VALUES))
    x = numbers(draw(shapes), values, draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([torch.float64, torch.float32] * 4 + TENSOR_TYPES[: 4 if accepted else None]))
    with np.errstate(all="ignore"):
        tensor = torch.from_numpy(x).to(dtype)
    kinds = ["plain"] * 6 + ["strided", "expanded", "gradient", "transposed"] + ["sparse", "meta"] * (not accepted)
    what = draw(st.sampled_from(kinds))
    if what == "strided" and tensor.dim():
        tensor = torch.stack((tensor, tensor), -1)[..., 0]
    elif what == "expanded" and tensor.dim():
        tensor = tensor[:1].expand(tensor.shape) if len(tensor) else tensor
    elif what == "sparse":
        tensor = tensor.to_sparse() if dtype is not torch.float8_e4m3fn else tensor
    elif what == "meta":
        tensor = tensor.to("meta")
    elif what == "gradient" and dtype.is_floating_point and dtype is not torch.float8_e4m3fn:
        tensor = tensor.requires_grad_()
    elif what == "transposed" and tensor.dim() >= 2:
        tensor = tensor.mT.contiguous().mT if accepted else tensor.mT  # the shape may be what makes it accepted
    return tensor


@st.composite
def arrays(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES, accepted: bool = False) -> Any:
    """An array, a table or a list of any kind, or one that is accepted if its shape is."""
    values = draw(st.sampled_from(ACCEPTED_VALUES if accepted else VALUES))
    x = numbers(draw(shapes), values, draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(["f8", "f4"] * 5 + ARRAY_TYPES[: 8 if accepted else None]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.zeros(x.shape, dtype) if dtype in ("V4", "M8[s]") else x.astype(dtype)
    kinds = ["array"] * 6 + ["list", "frame", "fortran", "reversed"] + ["masked", "matrix", "sparse"] * (not accepted)
    what = draw(st.sampled_from(kinds))
    if what == "list":
        return array.tolist()
    if what == "frame" and array.ndim == 2 and dtype not in ("V4",):
        return pd.DataFrame(array)
    if what == "fortran":
        return np.asfortranarray(array)
    if what == "masked":
        return np.ma.masked_array(array, mask=False)
    if what == "matrix" and array.ndim == 2:
        return np.asmatrix(array)
    if what == "sparse" and array.ndim == 2 and dtype in ("f8", "f4"):
        return scipy.sparse.csr_array(array)
    if what == "reversed" and array.ndim:
        return array[::-1]
    return array


JUNK = st.sampled_from(
    [
        None, True, False, "", "a", "two\nlines", "1", b"x", [], [1.0], [[1.0], [1.0, 2.0]], {}, {"a": 1}, (), object(),
        print, int, 1j, math.nan, math.inf, -math.inf, 0, -1, 10**400, -(10**30), 2**63, 1e308, 5e-324, np.float32(1.5),
        np.int64(2), np.bool_(True), np.array(1.0), np.array([1.0]), torch.tensor(1.0), torch.tensor([1, 2]), "\udcff",
        Path("x"), range(3), iter([1]), np.ma.masked, pd.NA, pd.NaT, np.datetime64("NaT"), lambda: 0,
    ]
)  # fmt: skip
NORMS = st.sampled_from([1, 1.0, 2, 2.0, math.inf, 3.0, 1.5, 1e9, np.float64(2)])


@st.composite
def arguments(
    draw: st.DrawFn, accepted: st.SearchStrategy[dict[str, Any]], anything: dict[str, st.SearchStrategy[Any]]
) -> dict[str, Any]:
    """Arguments that are accepted but for one, which in half of the examples is anything.

    Were all of them anything, hardly an example would give a result, and the first wrong one would hide the others.
    """
    odd = draw(st.sampled_from([None] * len(anything) + list(anything)))
    chosen = draw(accepted)
    return chosen if odd is None else {**chosen, odd: draw(anything[odd])}


@pytest.fixture
def results() -> Iterator[list[bool]]:
    """Whether each example gave a result: a third must, for the right answers are compared in these alone."""
    gave: list[bool] = []
    yield gave
    assert 3 * sum(gave) >= len(gave), f"{sum(gave)} results of {len(gave)} examples"


def called(names: str, function: Callable[[], Any], *others: type[Exception]) -> Any:
    """What ``function`` returns, or None where it raises a clear error that begins with one of ``names``."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            result = function()
        except (ValueError, TypeError, *others) as error:
            event("an error")
            text = one_clear_line(str(error))
            assert re.match(rf"({names})\b", text), text
            return None
    assert not heard, [str(warning.message) for warning in heard]
    event("a result")
    return result


def symmetric(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix as distances, mostly accepted ones: symmetric and, of plain numbers, not negative."""
    if matrix.layout is not torch.strided or matrix.dtype not in (torch.float64, torch.float32):
        return matrix
    return (matrix - matrix.mT).abs() if len(matrix) % 3 else matrix + matrix.mT


SQUARES = st.integers(1, 7).map(lambda n: (n, n))


def distance_matrices() -> st.SearchStrategy[torch.Tensor]:
    """Matrices that are accepted."""
    return tensors(SQUARES, accepted=True).map(lambda matrix: (matrix - matrix.mT).abs())


def length(x: np.ndarray, p: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return cdist(x, x, "chebyshev") if p == math.inf else cdist(x, x, "minkowski", p=p)


def deaths_of(x: np.ndarray, p: float) -> np.ndarray:
    """Death times of one cloud by scipy: lengths are shifted, since scipy takes a 0 for no edge."""
    lengths = length(x, p)
    tree = minimum_spanning_tree(np.triu(lengths + 1, 1)).tocoo()
    return np.sort(lengths[tree.row, tree.col])


def comparable(x: np.ndarray, p: float) -> bool:
    """Whether rounding in scipy leaves numbers to compare: no overflow, no underflow, no giant powers."""
    size = np.abs(x[x != 0])
    return p in (1.0, 1.5, 2.0, 3.0, math.inf) and (size.size == 0 or (size.max() < 1e100 and size.min() > 1e-100))


@examples(120)
@given(
    arguments(
        st.fixed_dictionaries({"points": tensors(BATCHES, accepted=True), "p": NORMS}),
        {"points": tensors() | JUNK | arrays(), "p": JUNK},
    )
)
def test_merge_edges_and_death_times(results: list[bool], given_: dict[str, Any]) -> None:
    points, p = given_["points"], given_["p"]
    edges = called("points|p", lambda: merge_edges(points, p))
    deaths = called("points|p", lambda: death_times(points, p))
    assert (edges is None) == (deaths is None)
    results.append(edges is not None)
    if edges is None:
        return
    *lead, n, d = points.shape
    assert edges.shape == (*lead, n - 1, 2)
    assert edges.dtype == torch.int64
    assert deaths.shape == (*lead, n - 1)
    assert deaths.requires_grad == points.requires_grad
    if not deaths.isfinite().all():  # lengths beyond the dtype
        assert points.detach().abs().max() > 1e30
        return
    assert (deaths[..., 1:] >= deaths[..., :-1]).all()
    assert (edges[..., 0] < edges[..., 1]).all()
    count = math.prod(lead)
    wide = points.detach().double().reshape(count, n, d).numpy()
    tolerance = 1e-9 if points.dtype == torch.float64 else 1e-4
    for cloud, own, tree in zip(
        wide, deaths.detach().reshape(count, n - 1), edges.reshape(count, n - 1, 2), strict=True
    ):
        if not comparable(cloud, float(p)):
            continue
        expected = deaths_of(cloud, float(p))
        np.testing.assert_allclose(own.double().numpy(), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            np.sort(length(cloud, float(p))[*tree.numpy().T]), expected, rtol=tolerance, atol=tolerance
        )


@examples(100)
@given(
    arguments(
        st.tuples(
            # exactly one of them is accepted
            st.fixed_dictionaries({"points": tensors(CLOUDS, accepted=True), "distances": st.none()})
            | st.fixed_dictionaries({"points": st.none(), "distances": distance_matrices()}),
            st.sampled_from(
                [
                    {"max_dim": 0, "algorithm": "spanning-tree"},
                    *(
                        {"max_dim": dim, "algorithm": algorithm}
                        for dim in range(3)
                        for algorithm in ("auto", "reduction")
                    ),
                ]
            ),
            st.fixed_dictionaries({"p": NORMS, "max_length": st.none() | st.floats(0, 3)}),
        ).map(lambda parts: {name: value for part in parts for name, value in part.items()}),
        {
            "points": st.none() | tensors() | JUNK,
            "distances": st.none() | tensors(SQUARES).map(symmetric) | JUNK,
            "p": JUNK,
            "max_dim": st.integers(0, 2) | JUNK,
            "max_length": JUNK,
            "algorithm": st.sampled_from(["auto", "spanning-tree", "reduction"]) | JUNK,
        },
    )
)
def test_vr_persistence(results: list[bool], given_: dict[str, Any]) -> None:
    points, distances, p, max_dim, max_length = (
        given_[name] for name in ("points", "distances", "p", "max_dim", "max_length")
    )
    diagrams = called("|".join(given_), lambda: vr_persistence(**given_), MemoryError)
    results.append(diagrams is not None)
    if diagrams is None:
        return
    assert [diagram.dim for diagram in diagrams] == list(range(int(max_dim) + 1))
    source = points if distances is None else distances
    n = len(source)
    if max_length is None:
        assert len(diagrams[0].points) == n
    for diagram in diagrams:
        birth, death = diagram.points.detach().unbind(1)
        assert (birth <= death).all()
        assert len(diagram.birth_simplices) == len(diagram.death_simplices) == len(diagram.points)
    if distances is None and max_length is None and source.detach().abs().max() < 1e30:
        finite = diagrams[0].points.detach()[:-1, 1]
        torch.testing.assert_close(finite, death_times(points, p).detach(), rtol=1e-5, atol=0)


def points_of(columns: int) -> st.SearchStrategy[Any]:
    """Points that are accepted, with so many columns."""
    shapes = st.tuples(st.integers(1, 9), st.just(columns))
    return arrays(shapes, accepted=True) | tensors(shapes, accepted=True)


@examples(120)
@given(
    arguments(
        st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 3), (4, 2), (6, 1), (6, 2), (6, 3)]).flatmap(
            lambda size: st.fixed_dictionaries(
                {
                    "stored": points_of(size[0]),
                    "z": points_of(size[0]) | st.none(),
                    "radius": st.floats(0, 5) | st.sampled_from([1, 2]),
                    "branches": st.just(size[1]),
                    "p": NORMS,
                }
            )
        ),
        {
            "stored": arrays() | tensors() | JUNK,
            "z": arrays() | tensors() | JUNK,
            "radius": JUNK,
            "branches": st.sampled_from([1, 2, 3]) | JUNK,
            "p": JUNK,
        },
    )
)
def test_ball_count(results: list[bool], given_: dict[str, Any]) -> None:
    stored, z, radius, branches, p = (given_[name] for name in ("stored", "z", "radius", "branches", "p"))
    results.append(False)  # so far
    model = called("Z|radius|branches|p", lambda: BallCount(radius, branches, p).fit(stored))
    if model is None:
        return
    z = stored if z is None else z
    scores = called(r"Z|X has \d+ features|The feature names|X does not have", lambda: model.score_samples(z))
    if scores is None:
        return
    results[-1] = True
    own, other = (np.asarray(x, np.float64) if not isinstance(x, torch.Tensor)
                  else x.detach().double().numpy() for x in (stored, z))  # fmt: skip
    assert scores.shape == (len(other),)
    assert scores.dtype == np.float64
    if not (comparable(own, float(p)) and comparable(other, float(p))):
        return
    dim = own.shape[1] // int(branches)
    least, most = np.zeros(len(other)), np.zeros(len(other))
    for start in range(0, own.shape[1], dim):
        a, b = other[:, start : start + dim], own[:, start : start + dim]
        lengths = cdist(a, b, "chebyshev") if float(p) == math.inf else cdist(a, b, "minkowski", p=float(p))
        # a point this close to the sphere is on either side by rounding
        edge = 1e-4 * (1 + float(radius))
        least += (lengths < float(radius) - edge).sum(1)
        most += (lengths <= float(radius) + edge).sum(1)
    assert (least <= scores).all()
    assert (scores <= most).all()


@examples(120)
@given(
    arguments(
        st.fixed_dictionaries(
            {
                "z": tensors(st.tuples(st.integers(1, 9), st.sampled_from([2, 4, 6])), accepted=True),
                "eta": st.floats(0.1, 5),
                "branches": st.sampled_from([1, 1, 2]),
                "p": NORMS,
                "reduction": st.sampled_from(["mean", "sum"]),
            }
        ),
        {"z": tensors() | JUNK | arrays(), "eta": JUNK, "branches": JUNK, "p": JUNK, "reduction": JUNK},
    )
)
def test_connectivity_loss(results: list[bool], given_: dict[str, Any]) -> None:
    z, eta, branches, p, reduction = (given_[name] for name in ("z", "eta", "branches", "p", "reduction"))
    loss = called("|".join(given_), lambda: ConnectivityLoss(eta=eta, branches=branches, p=p, reduction=reduction)(z))
    results.append(loss is not None)
    if loss is None:
        return
    assert loss.shape == ()
    if loss.requires_grad:
        loss.backward()
        if z.detach().abs().max() < 1e30:
            assert z.grad.isfinite().all()
    wide = z.detach().double().numpy()
    if not comparable(wide, float(p)):
        return
    parts = np.split(wide, int(branches), axis=1)
    each = [np.abs(deaths_of(np.ascontiguousarray(part), float(p)) - float(eta)).sum() for part in parts]
    expected = np.mean(each) if reduction == "mean" else np.sum(each)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@st.composite
def images(draw: st.DrawFn, accepted: bool = False) -> Any:
    """Images that are accepted, or also nearly, or not at all."""
    others = [(0, 3, 32, 32), (4, 3, 32, 31), (4, 1, 32, 32), (3, 32, 32)]
    shape = draw(st.sampled_from([(4, 3, 32, 32)] * 4 + others * (not accepted)))
    x = np.random.default_rng(0).random(shape)
    dtypes = ["u1", "f4", "f8", ">f4", "f2", "g", "i8", "?", "c8", "O", "U2"]
    dtype = draw(st.sampled_from(dtypes[: 3 if accepted else None]))
    array = (x * 255).astype(dtype) if dtype in ("u1", "i8") else x.astype(dtype)
    if not accepted and array.dtype.kind == "f" and array.size and draw(st.integers(0, 3)) == 0:
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([math.nan, math.inf, -0.5, 1.5, 1e300]))
    form = draw(st.sampled_from(["array", "array", "tensor"] + ["list"] * (not accepted)))
    if form == "tensor" and array.dtype.isnative and array.dtype.kind in "fuib?" and array.dtype.itemsize <= 8:
        return torch.from_numpy(array)
    return array.tolist()[:1] if form == "list" else array


@examples(40)
@given(
    arguments(
        st.fixed_dictionaries(
            {"x": images(accepted=True), "branches": st.sampled_from([1, 2]), "epochs": st.just(1)},
            optional={
                "eta": st.floats(0.1, 5),
                "lam": st.floats(0, 50),
                "branch_dim": st.sampled_from([1, 2]),
                "batch_size": st.sampled_from([1, 2, 4]),
                "lr": st.just(1e-3),
                "reduction": st.sampled_from(["mean", "sum"]),
                "seed": st.integers(-(2**63), 2**64 - 1),
                "device": st.sampled_from(["auto", "cpu"]),
                "checkpoint": st.none(),
            },
        ),
        {
            "x": images() | JUNK | arrays(),
            "eta": JUNK,
            "lam": JUNK,
            "branches": st.sampled_from([3, 4096]) | JUNK,
            "branch_dim": JUNK,
            "epochs": JUNK.filter(lambda value: not isinstance(value, int) or value <= 2),
            "batch_size": st.just(5) | JUNK,
            "lr": st.just(1e30) | JUNK,
            "reduction": JUNK,
            "seed": st.integers(-(2**65), 2**65) | JUNK,
            "device": st.sampled_from(["cuda:77", "cpu:1", "meta", "tpu"]) | JUNK,
            "checkpoint": st.sampled_from(["", "/", "/proc/none/x", "\0", "x" * 300, 3]),
        },
    )
)
def test_train_autoencoder(results: list[bool], given_: dict[str, Any]) -> None:
    x = given_["x"]
    chosen = {"branches": 2, "branch_dim": 1, "epochs": 1, "batch_size": 2, "device": "cpu", **given_}
    del chosen["x"]
    state = torch.get_rng_state()
    found = called(
        "images|train_autoencoder|" + "|".join(chosen) + "|eta|lam|lr|reduction|seed|checkpoint",
        lambda: train_autoencoder(x, progress=False, **chosen),
        FloatingPointError,
    )
    assert torch.equal(torch.get_rng_state(), state)
    results.append(found is not None)
    if found is not None:
        model, history = found
        assert len(history) == len(x) // chosen["batch_size"] * chosen["epochs"]
        assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())
