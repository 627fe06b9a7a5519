"""The statements of §4: the formulas by hand, and on sets small enough to look at every subset."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from corel.theory import alpha_beta, annulus_entropy_bound, density_degree, max_batch_size, required_sample_size

RADII = st.tuples(st.floats(0.1, 10), st.floats(0.01, 10), st.floats(0.05, 1.95)).map(
    lambda t: (t[0], t[0] + t[1], t[0] * t[2])
)  # α, β > α, ε < 2α


def lengths(points: np.ndarray, p: float = 1.0) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], ord=p, axis=-1)


def subsets_alpha_beta(points: np.ndarray, b: int) -> tuple[float, float]:
    """α and β such that the deaths of every subset of b points lie in [α, β]."""
    spans = [alpha_beta(points[list(chosen)]) for chosen in itertools.combinations(range(len(points)), b)]
    return min(a for a, _ in spans), max(b for _, b in spans)


def connected(points: np.ndarray, epsilon: float) -> bool:
    near = lengths(points) <= epsilon
    reached = near[0]
    for _ in points:
        reached = near[reached].any(0)
    return bool(reached.all())


@st.composite
def integer_sets(draw, least=2, most=8, dims=(1, 2, 3)):
    """Distinct points of a small integer grid: lengths are exact, and there are ties."""
    d = draw(st.sampled_from(dims))
    points = draw(st.sets(st.tuples(*[st.integers(0, 6)] * d), min_size=least, max_size=most))
    return np.array(sorted(points), dtype=np.float64)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(integer_sets())
def test_alpha_is_the_least_length_and_beta_just_connects(points):
    alpha, beta = alpha_beta(points)
    assert alpha == lengths(points)[~np.eye(len(points), dtype=bool)].min()
    assert connected(points, beta)
    assert not connected(points, beta - 0.5)


def test_alpha_and_beta_of_batches_hold_for_each_of_them():
    batches = torch.randn(3, 2, 7, 4, generator=torch.Generator().manual_seed(0))
    spans = [alpha_beta(batch, p=2.0) for batch in batches.flatten(0, 1)]
    assert alpha_beta(batches, p=2.0) == (min(a for a, _ in spans), max(b for _, b in spans))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(integer_sets(least=1), st.floats(0.5, 9), st.sampled_from([1.0, 2.0, math.inf]))
def test_density_degree_is_that_of_the_definition(points, epsilon, p):
    neighbours = (lengths(points, p) <= epsilon) & ~np.eye(len(points), dtype=bool)
    assert density_degree(points, epsilon, p) == neighbours.sum(1).min()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1.0, 2.0, 2.5, math.inf])
def test_a_set_is_dense_at_its_beta_and_not_below(dtype, p):
    # the largest death comes from the same lengths as the count: they must agree to the last bit
    for seed in range(20):
        pair = np.random.default_rng(seed).normal(size=(2, 5)).astype(dtype)
        _, beta = alpha_beta(pair, p)
        assert density_degree(pair, beta, p) == 1
        assert density_degree(pair, float(np.nextafter(dtype(beta), dtype(0))), p) == 0


@settings(derandomize=True, deadline=None, max_examples=40)
@given(integer_sets(least=3), st.data())
def test_corollary_1_on_every_subset(points, data):
    b = data.draw(st.integers(2, len(points)))
    _, beta = subsets_alpha_beta(points, b)
    assert density_degree(points, beta) >= len(points) - b + 1


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RADII, st.integers(1, 12))
def test_bound_is_the_formula_of_lemma_2(radii, n):
    alpha, beta, epsilon = radii
    expected = (2 * beta / epsilon + 1) ** n - (2 * alpha / epsilon - 1) ** n
    assert annulus_entropy_bound(alpha, beta, epsilon, n) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("alpha", "beta", "epsilon", "n"), [(1.0, 2.0, 1.0, 1), (1.0, 1.5, 1.5, 2), (2.0, 3.0, 1.0, 2), (1, 2, 0.75, 3)]
)
def test_no_packing_of_the_annulus_exceeds_the_bound(alpha, beta, epsilon, n):
    axis = np.linspace(-beta, beta, 33)
    grid = np.stack(np.meshgrid(*[axis] * n), -1).reshape(-1, n)
    size = np.abs(grid).sum(1)
    annulus = grid[(alpha <= size) & (size <= beta)]
    packed: list[np.ndarray] = []
    for point in annulus:
        if all(np.abs(point - other).sum() >= epsilon for other in packed):
            packed.append(point)
    assert 2 <= len(packed) <= annulus_entropy_bound(alpha, beta, epsilon, n)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RADII, st.integers(1, 200), st.integers(2, 500))
def test_sample_size_is_the_smallest_that_satisfies_eq_5(radii, n, b):
    alpha, beta, eta = radii
    m = required_sample_size(alpha, beta, eta, n, b)
    bound = (2 * Fraction(beta) / Fraction(eta) + 1) ** n - (2 * Fraction(alpha) / Fraction(eta) - 1) ** n
    assert m - b + 1 > bound
    assert not (m - 1) - b + 1 > bound


@settings(derandomize=True, deadline=None, max_examples=40)
@given(integer_sets(least=3), st.data())
def test_separated_sets_are_smaller_than_eq_5_says(points, data):
    b = data.draw(st.integers(2, len(points)))
    alpha, beta = subsets_alpha_beta(points, b)
    assume(alpha < beta)
    # α is the least length of the set, which is therefore η-separated for η = α
    assert len(points) < required_sample_size(alpha, beta, alpha, points.shape[1], b)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(integer_sets(least=5, most=9), st.data())
def test_remark_2_on_every_subset(points, data):
    b = data.draw(st.integers(2, (len(points) + 1) // 2))
    points = points[: 2 * b - 1]
    alpha, beta = subsets_alpha_beta(points, b)
    assume(alpha < beta)
    assert b <= max_batch_size(alpha, beta, points.shape[1])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RADII, st.integers(1, 200))
def test_batch_size_is_the_largest_that_satisfies_remark_2(radii, n):
    alpha, beta, _ = radii
    bound = (2 * Fraction(beta) / Fraction(alpha) + 1) ** n - 1
    assert max_batch_size(alpha, beta, n) <= bound < max_batch_size(alpha, beta, n) + 1


def test_large_dimensions_neither_overflow_nor_round():
    assert annulus_entropy_bound(1.0, 2.0, 1.0, 2000) == math.inf
    assert max_batch_size(1.0, 2.0, 2000) == 5**2000 - 1
    assert required_sample_size(1.0, 2.0, 1.0, 2000, 100) == 5**2000 - 1 + 100


def test_other_forms_of_the_same_numbers():
    points = np.array([[0.0, 1.0], [3.0, 1.0], [3.5, 7.0]])
    read_only = points.copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forms = [points[::-1], points[:, ::-1], points.astype(">f8"), points.astype(">f4"), np.asfortranarray(points)]
        for form in (*forms, points.astype(np.longdouble), read_only):
            assert alpha_beta(form) == (3.0, 6.5)
            assert density_degree(form, 6.5) == 1
    assert required_sample_size(np.float32(1.0), 2, Fraction(1), np.int64(2), np.int64(10)) == 34


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: alpha_beta(np.zeros((1, 2))), ValueError, r"points: got shape \(1, 2\); at least two"),
        (lambda: alpha_beta(np.array([[0.0], [math.nan]])), ValueError, "points: got NaN or infinity"),
        (lambda: alpha_beta(np.zeros((2, 2), int)), TypeError, "points: got dtype int64"),
        (lambda: alpha_beta([[0.0], [1.0]]), TypeError, "points: got list"),
        (lambda: alpha_beta(np.zeros((2, 2), object)), TypeError, "points: got dtype object; accepted are floating"),
        (lambda: alpha_beta(np.array([["a"], ["b"]])), TypeError, "points: got dtype <U1; accepted are floating"),
        (lambda: alpha_beta(np.zeros((2, 2), ">i4")), TypeError, "points: got dtype >i4"),
        (lambda: density_degree(np.zeros((2, 2), object), 1.0), TypeError, "points: got dtype object"),
        (lambda: density_degree(torch.zeros(2, 2).to_sparse(), 1.0), TypeError, "points: got a tensor of layout"),
        (lambda: density_degree(np.zeros((2, 2)), True), TypeError, "epsilon: got True"),
        (lambda: alpha_beta(np.zeros((2, 2)), p=0.5), ValueError, "p: got 0.5"),
        (lambda: density_degree(np.zeros((2, 2, 2)), 1.0), ValueError, r"accepted is \(n, d\)"),
        (lambda: density_degree(np.zeros((2, 2)), 0.0), ValueError, "epsilon: got 0.0"),
        (lambda: density_degree(np.zeros((2, 2)), "1"), TypeError, "epsilon: got '1'"),
        (lambda: annulus_entropy_bound(1.0, 1.0, 1.0, 2), ValueError, "beta: got 1.0; .* above alpha = 1.0"),
        (lambda: annulus_entropy_bound(1.0, 2.0, 2.0, 2), ValueError, "epsilon: got 2.0; .* below 2 · alpha = 2.0"),
        (lambda: annulus_entropy_bound(1.0, 2.0, 1.0, 0), ValueError, "n: got 0"),
        (lambda: annulus_entropy_bound(math.nan, 2.0, 1.0, 2), ValueError, "alpha: got nan"),
        (lambda: annulus_entropy_bound(1.0, math.inf, 1.0, 2), ValueError, "beta: got inf"),
        (lambda: required_sample_size(1.0, 2.0, 3.0, 2, 10), ValueError, "eta: got 3.0"),
        (lambda: required_sample_size(1.0, 2.0, 1.0, 2, 1), ValueError, "b: got 1"),
        (lambda: required_sample_size(1.0, 2.0, 1.0, 2, 10.0), TypeError, "b: got 10.0"),
        (lambda: max_batch_size(0.0, 2.0, 2), ValueError, "alpha: got 0.0"),
        (lambda: max_batch_size(1.0, 2.0, 1.5), TypeError, "n: got 1.5"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
