"""Merge edges and death times of matrices of distances, against Kruskal's algorithm, other libraries and points."""

from __future__ import annotations

import math

import gudhi
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import squareform
from torch.autograd import forward_ad

from corel import death_times, merge_edges, vr_persistence
from corel.persistence.metric import pairwise_lengths
from corel.persistence.reference import reference_merge_edges_of_distances

DTYPES = [torch.float32, torch.float64]


@st.composite
def matrices(draw, max_points: int = 24, lead: bool = False, infinite: bool = True) -> torch.Tensor:
    """Of points, without a triangle inequality, with ties everywhere, all 0, or with lengths of infinity."""
    n = draw(st.integers(1, max_points))
    shape = (*draw(st.lists(st.integers(0, 3), max_size=2)), n, n) if lead else (n, n)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kinds = ["points", "any", "ties", "equal", "span"] + ["infinite"] * infinite
    kind = draw(st.sampled_from(kinds))
    x = rng.random(shape)
    if kind == "points":
        x = np.linalg.norm(x[..., :, None, :3] - x[..., None, :, :3], axis=-1)
    elif kind == "ties":
        x = rng.integers(0, 3, shape)
    elif kind == "equal":
        x = np.zeros(shape)
    elif kind == "span":
        x = 10.0 ** rng.uniform(-30, 30, shape)
    elif kind == "infinite":
        x = np.where(rng.random(shape) < 0.8, math.inf, rng.integers(0, 4, shape))
    above = torch.from_numpy(np.array(x, dtype=float)).to(draw(st.sampled_from(DTYPES))).triu(1)
    return above + above.mT


def kruskal(lengths: np.ndarray) -> list[list[int]]:
    """The definition: take edges by (length, i, j), skip those that close a cycle."""
    component, tree = list(range(len(lengths))), []
    for _, i, j in sorted((lengths[a, b], a, b) for b in range(len(lengths)) for a in range(b)):
        if component[i] != component[j]:
            tree.append([i, j])
            old, new = component[j], component[i]
            component = [new if c == old else c for c in component]
    return tree


@settings(deadline=None, derandomize=True, max_examples=200)
@given(matrices())
def test_tree_is_kruskals_and_deaths_are_entries(matrix):
    edges, deaths = merge_edges(distances=matrix), death_times(distances=matrix)
    assert edges.dtype == torch.int64
    assert edges.shape == (len(matrix) - 1, 2)
    assert edges.tolist() == kruskal(matrix.numpy())
    assert deaths.dtype == matrix.dtype
    assert torch.equal(deaths, matrix[edges[:, 0], edges[:, 1]])
    assert (deaths[:-1] <= deaths[1:]).all()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(matrices(lead=True))
def test_batches_and_torch_operations(matrix):
    edges, deaths = merge_edges(distances=matrix), death_times(distances=matrix)
    n = matrix.shape[-1]
    assert edges.shape == (*matrix.shape[:-2], n - 1, 2)
    assert deaths.shape == edges.shape[:-1]
    flat = matrix.reshape(math.prod(matrix.shape[:-2]), n, n)
    assert torch.equal(reference_merge_edges_of_distances(flat).reshape(edges.shape), edges)
    for one, tree in zip(flat, edges.reshape(len(flat), n - 1, 2), strict=True):
        assert torch.equal(merge_edges(distances=one), tree)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(matrices(max_points=12), st.sampled_from([None, 0.0, 1.0]))
def test_deaths_are_those_of_diagrams_and_of_gudhi(matrix, max_length):
    deaths = death_times(distances=matrix)
    kept = deaths[(deaths < math.inf) & (deaths <= (math.inf if max_length is None else max_length))]
    for algorithm in ("spanning-tree", "reduction"):
        (diagram,) = vr_persistence(distances=matrix, algorithm=algorithm, max_length=max_length)
        assert torch.equal(diagram.points[: len(kept), 1], kept)
        assert torch.equal(diagram.death_simplices[: len(kept)], merge_edges(distances=matrix)[: len(kept)])
        assert (diagram.points[len(kept) :, 1] == math.inf).all()
    tree = gudhi.SimplexTree.create_from_array(matrix.double().numpy(), max_filtration=math.inf)
    tree.compute_persistence(min_persistence=-1, persistence_dim_max=True)
    of_gudhi = np.sort(tree.persistence_intervals_in_dimension(0)[:, 1])
    assert np.array_equal(of_gudhi[np.isfinite(of_gudhi)], deaths[deaths < math.inf].double().numpy())


@settings(deadline=None, derandomize=True, max_examples=60)
@given(matrices(infinite=False).filter(lambda matrix: len(matrix) > 1))
def test_deaths_are_scipys(matrix):
    deaths, array = death_times(distances=matrix).double().numpy(), matrix.double().numpy()
    assert np.array_equal(linkage(squareform(array), "single")[:, 2], deaths)
    if array[np.triu_indices(len(array), 1)].min() > 1e-7:  # scipy takes shorter lengths for no edges
        assert np.array_equal(np.sort(minimum_spanning_tree(array).data), deaths)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf, 3.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(600, 3), (5, 2, 40, 6)])
def test_distances_of_points_give_what_the_points_give(shape, dtype, p):
    points = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    points[..., ::5, :] = points[..., 1::5, :].round()
    matrix = pairwise_lengths(points, p)
    assert torch.equal(merge_edges(distances=matrix), merge_edges(points, p))
    assert torch.equal(death_times(distances=matrix), death_times(points, p))


def test_any_number_of_threads():
    matrix = pairwise_lengths(torch.randn(40, 120, 3, generator=torch.Generator().manual_seed(0)))
    expected, threads = merge_edges(distances=matrix), torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            assert torch.equal(merge_edges(distances=matrix), expected)
    finally:
        torch.set_num_threads(threads)


def test_rounding_is_forgiven_and_entries_above_the_diagonal_count():
    points = torch.randn(3, 60, 160, generator=torch.Generator().manual_seed(0))
    matrix = torch.cdist(points, points)  # by products of matrices: neither symmetric nor 0 on the diagonal
    assert not torch.equal(matrix, matrix.mT)
    above = matrix.triu(1)
    edges = merge_edges(distances=matrix)
    assert torch.equal(edges, merge_edges(distances=above + above.mT))
    assert torch.equal(edges[1], merge_edges(distances=matrix[1]))
    assert torch.equal(death_times(distances=matrix), death_times(distances=above + above.mT))
    assert torch.equal(edges, merge_edges(distances=matrix.mT.contiguous().mT))
    (diagram,) = vr_persistence(distances=matrix[1])
    assert torch.equal(diagram.death_simplices[:-1], edges[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    matrix = pairwise_lengths(torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    deaths = death_times(distances=matrix)
    assert deaths.dtype == torch.float32
    assert torch.equal(deaths, death_times(distances=matrix.float()))
    assert torch.equal(merge_edges(distances=matrix), merge_edges(distances=matrix.float()))
    deaths.sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.dtype == dtype


# ---------------------------------------------------------------------------------------------- derivatives


def exact_matrices(*shape: int) -> torch.Tensor:
    points = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return pairwise_lengths(points, 2.0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(matrices(lead=True))
def test_gradient_goes_to_the_entry_above_the_diagonal(matrix):
    matrix.requires_grad_()
    deaths, n = death_times(distances=matrix), matrix.shape[-1]
    weights = 1 + torch.arange(deaths.numel(), dtype=matrix.dtype).view(deaths.shape)
    (gradient,) = torch.autograd.grad(deaths, matrix, weights)
    expected = torch.zeros(math.prod(matrix.shape[:-2]), n, n, dtype=matrix.dtype)
    edges = merge_edges(distances=matrix).reshape(len(expected), n - 1, 2)
    for one, tree, weight in zip(expected, edges, weights.reshape(len(expected), n - 1), strict=True):
        one[tree[:, 0], tree[:, 1]] = weight
    assert torch.equal(gradient, expected.view(matrix.shape))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_chain_rule_gives_the_gradient_of_the_points(p):
    points = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (through,) = torch.autograd.grad(death_times(distances=pairwise_lengths(points, p)).square().sum(), points)
    torch.testing.assert_close(through, torch.autograd.grad(death_times(points, p).square().sum(), points)[0])


def of_entries(above: torch.Tensor) -> torch.Tensor:
    """Deaths as a function of the entries above the diagonal alone, so that all steps of a difference are symmetric."""
    rows, columns = torch.triu_indices(6, 6, 1)
    index = torch.zeros(6, 6, dtype=torch.int64)
    index[rows, columns] = index[columns, rows] = torch.arange(15)
    return death_times(distances=above[..., index] * (1 - torch.eye(6, dtype=above.dtype)))


def test_gradcheck():
    rows, columns = torch.triu_indices(6, 6, 1)
    above = exact_matrices(2, 6, 3)[..., rows, columns].requires_grad_()
    assert torch.autograd.gradcheck(of_entries, above, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda above: of_entries(above).square(), above)


def test_second_derivatives_in_every_mode():
    def energy(matrix: torch.Tensor) -> torch.Tensor:
        return death_times(distances=matrix).pow(3).sum()

    matrix = exact_matrices(5, 3)
    expected = torch.autograd.functional.hessian(energy, matrix)
    assert expected.count_nonzero() == 4
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(outer(inner(energy))(matrix), expected)


def test_forward_mode():
    matrix, tangent = exact_matrices(3, 7, 2), exact_matrices(3, 7, 5)
    edges = merge_edges(distances=matrix)
    expected = torch.stack([one[tree[:, 0], tree[:, 1]] for one, tree in zip(tangent, edges, strict=True)])
    value, derivative = torch.func.jvp(lambda matrix: death_times(distances=matrix), (matrix,), (tangent,))
    assert torch.equal(value, death_times(distances=matrix))
    assert torch.equal(derivative, expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(matrix, tangent)
        assert torch.equal(merge_edges(distances=dual), edges)
        assert torch.equal(forward_ad.unpack_dual(death_times(distances=dual)).tangent, expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend):
    torch._dynamo.reset()
    matrix = exact_matrices(3, 9, 4).requires_grad_()

    def both(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return merge_edges(distances=matrix), death_times(distances=matrix)

    edges, deaths = torch.compile(both, backend=backend, fullgraph=True)(matrix)
    assert torch.equal(edges, merge_edges(distances=matrix))
    assert torch.equal(deaths, death_times(distances=matrix))
    weights = torch.arange(24.0, dtype=torch.float64).view(3, 8)
    (compiled,) = torch.autograd.grad(deaths, matrix, weights)
    assert torch.equal(compiled, torch.autograd.grad(death_times(distances=matrix), matrix, weights)[0])


def test_torch_func():
    matrix = exact_matrices(4, 2, 9, 3)
    edges, deaths = merge_edges(distances=matrix), death_times(distances=matrix)
    assert torch.equal(torch.func.vmap(lambda matrix: merge_edges(distances=matrix))(matrix), edges)
    by_vmap = torch.func.vmap(lambda matrix: death_times(distances=matrix), in_dims=1)(matrix)
    assert torch.equal(by_vmap, deaths.transpose(0, 1))
    by_func = torch.func.vmap(torch.func.grad(lambda matrix: death_times(distances=matrix).square().sum()))(matrix)
    matrix.requires_grad_()
    assert torch.equal(by_func, torch.autograd.grad(death_times(distances=matrix).square().sum(), matrix)[0])


# ---------------------------------------------------------------------------------------------- arguments

MATRIX = torch.zeros(3, 3)


def with_entry(value: float, *place: int) -> torch.Tensor:
    matrix = torch.ones(2, 3, 3) - torch.eye(3)
    matrix[place] = value
    return matrix


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "^points, distances: got neither"),
        ({"points": torch.zeros(3, 2), "distances": MATRIX}, TypeError, "^points, distances: got both"),
        ({"distances": MATRIX, "p": 0.5}, ValueError, "^p: got 0.5"),
        ({"distances": MATRIX.numpy()}, TypeError, "^distances: got ndarray"),
        ({"distances": MATRIX.long()}, TypeError, "^distances: got torch.int64"),
        ({"distances": MATRIX.to_sparse()}, TypeError, "^distances: got a tensor of layout torch.sparse_coo"),
        ({"distances": MATRIX.to("meta")}, TypeError, "^distances: got a tensor on the meta device"),
        ({"distances": MATRIX[0]}, ValueError, r"^distances: got shape \(3,\); accepted is \(…, n, n\), n ≥ 1"),
        ({"distances": MATRIX[:2]}, ValueError, r"^distances: got shape \(2, 3\)"),
        ({"distances": torch.zeros(2, 0, 0)}, ValueError, r"^distances: got shape \(2, 0, 0\)"),
        ({"distances": with_entry(math.nan, 1, 2, 0)}, ValueError, r"^distances: got NaN at \(1, 2, 0\)"),
        ({"distances": with_entry(math.nan, 1, 2, 2)}, ValueError, r"^distances: got NaN at \(1, 2, 2\)"),
        ({"distances": with_entry(-1e-9, 1, 0, 2)}, ValueError, r"^distances: got a negative length at \(1, 0, 2\)"),
        ({"distances": with_entry(-math.inf, 0, 0, 1)}, ValueError, r"^distances: got a negative .* \(0, 0, 1\)"),
        ({"distances": with_entry(2, 1, 2, 0)}, ValueError, r"got 1 at \(1, 0, 2\) but 2 at \(1, 2, 0\), .*mT\) / 2$"),
        ({"distances": with_entry(math.inf, 1, 0, 1)}, ValueError, r"got inf at \(1, 0, 1\) but 1 at \(1, 1, 0\)"),
        ({"distances": with_entry(1, 1, 2, 2)}, ValueError, r"^distances: got 1 at \(1, 2, 2\), more than rounding"),
        ({"distances": torch.tensor([[3.0]])}, ValueError, r"^distances: got 3 at \(0, 0\), more than rounding"),
    ],
)
def test_bad_arguments(arguments, error, message):
    for function in (merge_edges, death_times):
        with pytest.raises(error, match=message) as raised:
            function(**arguments)
        assert "\n" not in str(raised.value)


def test_rounding_is_measured_matrix_by_matrix():
    small = torch.ones(2, 2) - torch.eye(2)
    small[1, 0] += 0.01
    with pytest.raises(ValueError, match=r"at \(1, 0, 1\) but"):
        merge_edges(distances=torch.stack((1000 * (torch.ones(2, 2) - torch.eye(2)), small)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_minus_cosine(dtype):
    """Rounding makes the diagonal, which is not read, negative; a negative length above it is still an error."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(50, 10, generator=generator, dtype=dtype))
    matrix = 1 - directions @ directions.T
    matrix.fill_diagonal_(-torch.finfo(dtype).eps)
    clean = matrix.triu(1) + matrix.triu(1).T
    assert torch.equal(death_times(distances=matrix), death_times(distances=clean))
    (diagram,) = vr_persistence(distances=matrix)
    assert torch.equal(diagram.points, vr_persistence(distances=clean)[0].points)
    for place in ((3, 3), (2, 5)):
        wrong = matrix.clone()
        wrong[place] = -0.5
        with pytest.raises(ValueError, match=r"distances: got (-0\.5|a negative length) at "):
            death_times(distances=wrong)
