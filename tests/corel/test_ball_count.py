"""Eq. 6 against its definition, and the conventions of scikit-learn."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from corel import BallCount


def by_definition(stored: np.ndarray, z: np.ndarray, radius: float, branches: int, p: float) -> np.ndarray:
    dim = z.shape[1] // branches
    counts = np.zeros(len(z))
    for index, point in enumerate(z):
        for other in stored:
            for branch in range(branches):
                part = slice(branch * dim, (branch + 1) * dim)
                length = np.linalg.norm(point[part].astype(np.float64) - other[part].astype(np.float64), ord=p)
                counts[index] += length <= radius
    return counts


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.integers(1, 12) | st.sampled_from([31, 32, 33, 65]),  # around the size of groups of tiles
    st.integers(0, 9),
    st.integers(1, 4),
    st.integers(1, 12),
    st.sampled_from([1.0, 2.0, math.inf, 3.0]),
    st.sampled_from([np.float32, np.float64]),
)
def test_counts_are_those_of_the_definition(seed, m, n, branches, dim, p, dtype):
    # whole coordinates: distances are exact for p = 1 and ∞, so that points on the sphere count
    generator = np.random.default_rng(seed)
    stored = generator.integers(-3, 4, (m, branches * dim)).astype(dtype)
    z = generator.integers(-3, 4, (n, branches * dim)).astype(dtype)
    radius = float(generator.integers(0, 8)) + (0.25 if p not in (1.0, math.inf) else 0.0)
    counts = BallCount(radius, branches, p).fit(stored).score_samples(z)
    assert counts.dtype == np.float64
    np.testing.assert_array_equal(counts, by_definition(stored, z, radius, branches, p))


def test_decisions_are_scores_less_the_offset():
    model = BallCount(radius=1.0, branches=2).fit([[0.0, 0.0], [0.5, 5.0]])
    z = [[0.0, 0.0], [0.0, 9.0], [7.0, 5.0], [7.0, 9.0]]
    assert model.offset_ == 0.5
    assert model.score_samples(z).tolist() == [3.0, 2.0, 1.0, 0.0]
    decisions = model.decision_function(z)
    assert decisions.dtype == np.float64
    assert decisions.tolist() == [2.5, 1.5, 0.5, -0.5]
    assert model.predict(z).tolist() == [1, 1, 1, -1]


def test_ball_is_closed():
    model = BallCount(radius=2.0).fit(np.zeros((1, 2), np.float32))
    at, above = np.float32(2.0), np.nextafter(np.float32(2.0), np.float32(3))
    np.testing.assert_array_equal(model.score_samples(np.array([[at, 0], [above, 0]], np.float32)), [1, 0])


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1.0, 1e15, 1e25, 1e37])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_squares_neither_vanish_nor_overflow(scale, p):
    # float32 squares of most of these scales are 0 or infinite; lengths are whole numbers of them
    stored = (np.array([[0, 0], [3, 0], [0, -4], [5, 0], [8, 0]]) * scale).astype("f")
    model = BallCount(radius=4.5 * scale, p=p).fit(stored)
    np.testing.assert_array_equal(model.score_samples(np.zeros((1, 2), "f")), [3])
    wide = stored.astype("d") * scale**4  # squares of some are beyond float64 too
    model = BallCount(radius=4.5 * scale**5, p=p).fit(wide)
    np.testing.assert_array_equal(model.score_samples(np.zeros((1, 2))), [3])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_radius_of_zero_counts_equal_points_alone(p):
    stored = np.array([[0, 0], [1e-40, 0], [0, 1e-30], [0, 0]], "f")
    np.testing.assert_array_equal(BallCount(radius=0, p=p).fit(stored).score_samples(stored), [2, 1, 1, 2])


def test_radius_beyond_the_dtype_holds_everything():
    z = np.array([[0.0], [1e38], [-3e38]], "f")
    np.testing.assert_array_equal(BallCount(radius=1e300).fit(z).score_samples(z), [3, 3, 3])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_counts(threads):
    generator = np.random.default_rng(0)
    stored, z = generator.normal(size=(120, 160)), generator.normal(size=(3000, 160))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        counts = BallCount(9.0, 16).fit(stored.astype("f")).score_samples(z.astype("f"))
    finally:
        torch.set_num_threads(before)
    parts = torch.from_numpy(z.astype("f")).view(-1, 16, 10).transpose(0, 1)
    own = torch.from_numpy(stored.astype("f")).view(-1, 16, 10).transpose(0, 1)
    expected = (torch.cdist(parts.double(), own.double(), p=1) <= 9.0).sum((0, 2)).double().numpy()
    np.testing.assert_array_equal(counts, expected)
    assert 0 < counts.mean() < 16 * 120


def test_tensors_and_half_precision():
    stored, z = torch.randn(5, 4), torch.randn(7, 4)
    expected = BallCount(2.0).fit(stored.numpy()).score_samples(z.numpy())
    np.testing.assert_array_equal(BallCount(2.0).fit(stored).score_samples(z.requires_grad_()), expected)
    half = BallCount(2.0).fit(stored.bfloat16()).score_samples(z.bfloat16())
    np.testing.assert_array_equal(
        half, BallCount(2.0).fit(stored.bfloat16().float()).score_samples(z.bfloat16().float())
    )


def test_torch_path_agrees_with_the_kernels():
    generator = np.random.default_rng(1)
    stored, z = generator.integers(-3, 4, (30, 12)).astype("f"), generator.integers(-3, 4, (50, 12)).astype("f")
    for p in (1.0, math.inf):
        model = BallCount(4.0, 3, p).fit(stored)
        in_torch = model._count_in_torch(torch.from_numpy(z), torch.from_numpy(stored))
        np.testing.assert_array_equal(model.score_samples(z), in_torch)


def test_no_samples_give_no_scores():
    for p in (1.0, 3.0):
        assert BallCount(p=p).fit(np.zeros((2, 4))).score_samples(np.zeros((0, 4))).shape == (0,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # of what needs SCIPY_ARRAY_API
def test_scikit_learns_own_checks():
    check_estimator(BallCount())


def test_columns_are_compared_by_name():
    z = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    model = BallCount(1.0, 2).fit(z)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(z[["b", "a"]])


@pytest.mark.parametrize("form", ["array", "column", "one point", "tensor", "read-only"])
@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_a_model_owns_what_it_stores(form, dtype, p):
    memory = np.random.default_rng(0).normal(size=(1 if form == "one point" else 20, 1 if form == "column" else 4))
    memory = memory.astype(dtype)
    given = memory.view()
    if form == "tensor":
        given = torch.from_numpy(memory)
    if form == "read-only":
        given.flags.writeable = False
    z = memory.copy()
    model = BallCount(0.1, p=p).fit(given)
    before = model.score_samples(z)
    memory[:] = 100
    np.testing.assert_array_equal(model.score_samples(z), before)
    np.testing.assert_array_equal(model.stored_, z)


def test_scikit_learn_conventions():
    model = BallCount(radius=1.5, branches=2)
    assert model.get_params() == {"radius": 1.5, "branches": 2, "p": 1.0}
    z = np.random.default_rng(0).normal(size=(20, 4))
    with pytest.raises(NotFittedError):
        model.score_samples(z)
    assert model.fit(z) is model
    assert model.n_features_in_ == 4
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.score_samples(z), model.score_samples(z))
    assert not hasattr(clone(model), "stored_")
    far = np.full((1, 4), 100.0)
    assert model.predict(np.concatenate([z[:1], far])).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("parameters", "z", "message"),
    [
        ({"radius": -1.0}, np.zeros((2, 4)), "radius: got -1.0"),
        ({"radius": math.nan}, np.zeros((2, 4)), "radius: got nan"),
        ({"branches": 0}, np.zeros((2, 4)), "branches: got 0"),
        ({"branches": 3}, np.zeros((2, 4)), "branches: got 3, which does not divide the 4 columns"),
        ({"p": 0.5}, np.zeros((2, 4)), "p: got 0.5"),
        ({}, np.zeros((0, 4)), "Z: got no points"),
        ({}, np.zeros(4), r"Z: got shape \(4,\); accepted is \(n, n_features\)"),
        ({}, np.zeros((3, 0)), r"Z: got 0 feature\(s\) \(shape=\(3, 0\)\)"),
        ({}, torch.zeros(3, 0), r"Z: got 0 feature\(s\) \(shape=\(3, 0\)\)"),
        ({}, np.zeros((2, 4), complex), "Z: got dtype complex128"),
        ({}, np.full((2, 4), "a", object), "Z: got dtype object with an element that is no number"),
        ({}, [[10**400, 1, 2, 3]], "Z: got dtype object with an element that is no number"),
        ({}, [[1.0], [1.0, 2.0]], r"Z: got a ragged list; accepted is \(n, n_features\)"),
        ({}, np.full((2, 2), np.finfo(np.longdouble).max), "Z: got NaN or infinity"),
        ({}, np.array([[math.nan]]), "Z: got NaN or infinity"),
        ({}, np.array([[math.inf]]), "Z: got NaN or infinity"),
    ],
)
def test_bad_input(parameters, z, message):
    with pytest.raises(ValueError, match=message):
        BallCount(**parameters).fit(z)


@pytest.mark.parametrize(
    ("parameters", "z", "message"),
    [
        ({"radius": True}, np.zeros((2, 4)), "radius: got True; accepted are finite numbers of at least 0"),
        ({"radius": "2"}, np.zeros((2, 4)), "radius: got '2'"),
        ({"branches": True}, np.zeros((2, 4)), "branches: got True; accepted are integers of at least 1"),
        ({"branches": 2.0}, np.zeros((2, 4)), "branches: got 2.0"),
        ({"p": True}, np.zeros((2, 4)), "p: got True"),
        ({}, torch.zeros(2, 4).to_sparse(), "Z: got a tensor of layout torch.sparse_coo"),
        ({}, torch.zeros(2, 4, device="meta"), "Z: got a tensor on the meta device"),
        ({}, torch.nested.nested_tensor([torch.zeros(2, 4)]), "Z: got a nested tensor"),
        ({}, torch.zeros(2, 4).to(torch.float8_e4m3fn), "Z: got torch.float8_e4m3fn"),
        ({}, torch.zeros(2, 4, dtype=torch.complex64), "Z: got torch.complex64"),
        (
            {},
            scipy.sparse.csr_matrix(np.zeros((2, 4))),
            "Z: got csr_matrix, which is sparse; accepted are dense arrays",
        ),
        ({}, np.full((2, 4), {}, object), "Z: got dtype object with an element that is no number"),
        ({}, None, "Z: got NoneType"),
    ],
)
def test_wrong_types(parameters, z, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        BallCount(**parameters).fit(z)


def test_other_forms_of_the_same_numbers():
    z = np.random.default_rng(0).integers(-3, 4, (9, 4))
    expected = BallCount(2.0, 2).fit(z.astype(np.float64)).score_samples(z.astype(np.float64))
    for form in (
        z.tolist(),
        z,
        z.astype(object),
        pd.DataFrame(z),
        z.astype(">f8"),
        z.astype(np.longdouble),
        z.astype(np.float16),
        torch.from_numpy(z),
    ):
        np.testing.assert_array_equal(BallCount(np.int32(2), np.int64(2)).fit(form).score_samples(form), expected)


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_a_changed_parameter_counts_from_the_next_fit_on(p):
    z = np.random.default_rng(0).normal(size=(20, 4))
    model = BallCount(1.5, 2, p).fit(z)
    expected = model.score_samples(z)
    model.set_params(radius=4.0, branches=1, p=math.inf)
    np.testing.assert_array_equal(model.score_samples(z), expected)
    changed = BallCount(4.0, 1, math.inf).fit(z).score_samples(z)
    np.testing.assert_array_equal(model.fit(z).score_samples(z), changed)
    assert (changed != expected).any()


def test_wrong_columns_and_kind():
    model = BallCount().fit(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="X has 3 features, but BallCount is expecting 4 features as input"):
        model.score_samples(np.zeros((1, 3)))
    with pytest.raises(TypeError, match="Z: got dtype"):
        model.score_samples(np.array([["a", "b", "c", "d"]]))
