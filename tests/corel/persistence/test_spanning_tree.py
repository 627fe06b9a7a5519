"""Merge edges and death times against brute force and every library at hand, on friendly and on adversarial clouds."""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import multiprocessing
import warnings
from types import ModuleType
from unittest.mock import patch

import gudhi
import numpy as np
import pytest
import ripser
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import squareform
from torch.autograd import forward_ad

from corel import ConnectivityLoss, death_times, merge_edges, vr_persistence
from corel.persistence.kernels import cpu, large_clouds, lockstep, small_clouds
from corel.persistence.kernels.edges import sort_tree
from corel.persistence.kernels.vectors import LANES
from corel.persistence.metric import edge_lengths, pairwise_lengths
from corel.persistence.reference import reference_merge_edges, reference_merge_edges_of_distances

NORMS = [1.0, 2.0, math.inf, 3.0, 1.25]
DTYPES = [torch.float32, torch.float64]


def kruskal(lengths: np.ndarray) -> list[tuple[int, int]]:
    """The definition: take edges by (length, i, j), skip those that close a cycle."""
    n = len(lengths)
    component = list(range(n))
    tree = []
    for _, i, j in sorted((lengths[a, b], a, b) for a in range(n) for b in range(a + 1, n)):
        if component[i] != component[j]:
            tree.append((i, j))
            old, new = component[j], component[i]
            component = [new if c == old else c for c in component]
    return tree


def gudhi_pairing(lengths: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Finite deaths of dimension 0, sorted, and the edges that cause them."""
    complex_ = gudhi.SimplexTree.create_from_array(lengths, max_filtration=math.inf)
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=-1, persistence_dim_max=True)
    edges = [sorted(death) for birth, death in complex_.persistence_pairs() if len(birth) == 1 and death]
    deaths = complex_.persistence_intervals_in_dimension(0)[:, 1]
    return np.sort(deaths[np.isfinite(deaths)]), edges


@st.composite
def clouds(draw, max_points: int = 24, lead: bool = False, min_points: int = 1, batch: int = 0) -> torch.Tensor:
    """Gaussian, on a small grid (ties), with duplicates, all equal, on a line, or with lengths that span 10¹²."""
    n, d = draw(st.integers(min_points, max_points)), draw(st.integers(1, 8))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), n, d) if lead else (n, d)
    if batch:
        shape = draw(st.integers(1, batch)), *shape
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["gauss", "grid", "duplicates", "equal", "line", "span", "negative zero"]))
    x = rng.normal(size=shape)
    if kind == "grid":
        x = rng.integers(0, 3, shape)
    elif kind == "duplicates":
        x = x[..., rng.integers(0, max(1, n // 3), n), :]
    elif kind == "equal":
        x = np.broadcast_to(x[..., :1, :], shape)
    elif kind == "line":
        x = rng.integers(0, 9, (*shape[:-1], 1)) * np.ones(d)
    elif kind == "span":
        x = x * 10.0 ** rng.uniform(-6, 6, (*shape[:-1], 1))
    elif kind == "negative zero":
        x = rng.choice([-0.0, 0.0, 1.0], shape)
    scale = draw(st.sampled_from([1.0, 1.0, 1e-30, 1e30]))
    return torch.from_numpy(np.array(x * scale, dtype=float)).to(draw(st.sampled_from(DTYPES)))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(clouds(), st.sampled_from(NORMS))
def test_tree_is_kruskals(x, p):
    lengths = pairwise_lengths(x, p)
    tree = kruskal(lengths.numpy())
    edges = merge_edges(x, p)
    assert edges.dtype == torch.int64
    assert edges.shape == (len(x) - 1, 2)
    assert [tuple(edge) for edge in edges.tolist()] == tree
    deaths = death_times(x, p)
    assert deaths.dtype == x.dtype
    assert torch.equal(deaths, lengths[edges[:, 0], edges[:, 1]])
    assert (deaths.diff() >= 0).all()


@settings(deadline=None, derandomize=True, max_examples=150)
@given(clouds(), st.sampled_from(NORMS))
def test_deaths_are_gudhis_and_pairs_where_lengths_differ(x, p):
    lengths = pairwise_lengths(x, p).numpy()
    deaths, edges = gudhi_pairing(lengths.astype(float))
    assert np.array_equal(death_times(x, p).double().numpy(), deaths)
    if len(np.unique(lengths[np.triu_indices(len(x), 1)])) == len(x) * (len(x) - 1) // 2:
        assert sorted(merge_edges(x, p).tolist()) == sorted(edges)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_deaths_are_those_of_the_other_libraries(p):
    x = torch.randn(80, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    lengths = pairwise_lengths(x, p).numpy()
    deaths = death_times(x, p).numpy()
    assert np.array_equal(np.sort(minimum_spanning_tree(lengths).data), deaths)
    assert np.array_equal(linkage(squareform(lengths), "single")[:, 2], deaths)
    of_ripser = ripser.ripser(lengths, distance_matrix=True, maxdim=0)["dgms"][0][:, 1]
    np.testing.assert_array_equal(np.sort(of_ripser[np.isfinite(of_ripser)]), deaths.astype(np.float32))


def test_deaths_and_pairs_are_dionysus():
    dionysus = pytest.importorskip("dionysus")
    x = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    lengths = pairwise_lengths(x, 2.0).numpy()
    filtration = dionysus.fill_rips(squareform(lengths), 1, float(lengths.max()))
    persistence = dionysus.homology_persistence(filtration)
    pairs = [
        (filtration[persistence.pair(i)].data, sorted(filtration[persistence.pair(i)]))
        for i, simplex in enumerate(filtration)
        if simplex.dimension() == 0 and persistence.pair(i) != persistence.unpaired
    ]
    pairs.sort()
    assert [edge for _, edge in pairs] == merge_edges(x, 2.0).tolist()
    np.testing.assert_allclose([death for death, _ in pairs], death_times(x, 2.0), rtol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(clouds(max_points=40, lead=True), st.sampled_from(NORMS))
def test_batches_and_reference(x, p):
    edges, deaths = merge_edges(x, p), death_times(x, p)
    flat = x.reshape(-1, *x.shape[-2:])
    assert torch.equal(edges, reference_merge_edges(flat, p).reshape(edges.shape))
    assert torch.equal(deaths, edge_lengths(x, edges, p))
    for cloud, tree in zip(flat, edges.reshape(len(flat), -1, 2), strict=True):
        assert torch.equal(merge_edges(cloud, p), tree)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(clouds(min_points=8, max_points=400), st.sampled_from(NORMS), st.integers(1, 5))
def test_blocks_change_nothing(x, p, threads):
    whole, lengths = cpu.spanning_trees(x, p)
    tree, deaths = np.empty_like(whole), np.empty_like(lengths)
    with patch.multiple(cpu, _BLOCK=max(1, x.numel() // 4), _SMALLEST_BLOCK=2, _LARGE_FOR_THREADS=0):
        assert cpu._tree_in_blocks(x.numpy(), tree, deaths, p, threads)
    assert np.array_equal(tree, whole)
    assert np.array_equal(deaths, lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5000, 4), (40, 100, 10), (2, 1700, 10)])
def test_any_number_of_threads(shape, dtype):
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[..., 1::7, :] = x[..., ::7, :][..., : x[..., 1::7, :].shape[-2], :]  # some duplicates
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append((merge_edges(x), death_times(x)))
    finally:
        torch.set_num_threads(threads)
    for edges, deaths in results[1:]:
        assert torch.equal(edges, results[0][0])
        assert torch.equal(deaths, results[0][1])


def _trees(kernel: ModuleType, p: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch, n, _ = x.shape
    edges, lengths = np.empty((batch, n - 1, 2), np.int64), np.empty((batch, n - 1), x.dtype)
    assert kernel.spanning_trees(p, x, 0, batch, edges, lengths)
    return edges, lengths


@settings(deadline=None, derandomize=True, max_examples=400)
@given(clouds(50, batch=40), st.sampled_from([1.0, 2.0, math.inf]), st.sampled_from([1.0, 1e-300, 1e300]))
def test_clouds_in_step_have_the_trees_of_clouds_one_by_one(x, p, scale):
    if x.dtype == torch.float64 and not (x * scale).isinf().any():
        x = x * scale  # squares underflow, lengths overflow
    expected, deaths = _trees(small_clouds, p, x.contiguous().numpy())
    edges, lengths = _trees(lockstep, p, x.contiguous().numpy())
    assert np.array_equal(edges, expected)
    assert lengths.tobytes() == deaths.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", NORMS)
def test_tree_of_a_cloud_does_not_depend_on_its_batch(p, dtype):
    x = torch.randn(150, 4, 20, dtype=dtype, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1)[:, ::2]
    x = torch.cat((x, x.mul(2).round(), x[:10, :1].expand(10, 75, 4)))
    alone = [(merge_edges(cloud, p), death_times(cloud, p)) for cloud in x]
    edges, deaths = (torch.stack(each) for each in zip(*alone, strict=True))
    threads = torch.get_num_threads()
    try:
        for number, worth in ((1, 10**9), (2, 0), (5, 0)):
            torch.set_num_threads(number)
            with patch.object(cpu, "_WORTH_THREADS", worth):
                for first, stop in ((0, 50), (0, 16), (3, 20), (1, 10), (7, 48), (40, 45), (49, 50)):
                    assert torch.equal(merge_edges(x[first:stop], p), edges[first:stop])
                    assert torch.equal(death_times(x[first:stop], p), deaths[first:stop])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("shape", "threads", "count"),
    [
        ((16, 512, 10), 1, 16),
        ((16, 512, 10), 2, 0),
        ((32, 512, 10), 2, 32),
        ((16, 513, 2), 1, 0),
        ((16, 64, 128), 1, 16),
        ((16, 65, 128), 1, 0),
        ((25, 20, 3), 2, 25),
        ((24, 20, 3), 2, 16),
        ((8, 20, 3), 1, 0),
        ((17, 1, 1), 1, 16),
        ((33, 2, 5), 1, 32),
    ],
)
def test_which_clouds_of_a_batch_advance_in_step(shape, threads, count):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with (
        patch.object(torch, "get_num_threads", return_value=threads),
        patch.object(lockstep, "spanning_trees", wraps=lockstep.spanning_trees) as kernel,
    ):
        edges = merge_edges(x)
    assert sum(call.args[3] - call.args[2] for call in kernel.call_args_list) == count
    assert torch.equal(edges, torch.stack([merge_edges(cloud) for cloud in x]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cloud", [0, 15, 19, 20])
def test_one_bad_coordinate_in_a_batch(cloud, bad):
    x = torch.randn(21, 9, 3, generator=torch.Generator().manual_seed(0))
    x[cloud, 8, 2] = bad
    with pytest.raises(ValueError, match="points: got NaN or infinity"):
        merge_edges(x)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(clouds(70, min_points=2), st.sampled_from(NORMS), st.sampled_from([1, 3]), st.sampled_from([1.0, 1e-300, 1e300]))
def test_searches_in_a_k_d_tree_give_the_same(x, p, threads, scale):
    if x.dtype == torch.float64 and not (x * scale).isinf().any():
        x = x * scale  # squares underflow, lengths overflow
    expected, deaths = cpu.spanning_trees(x, p)
    edges, lengths = np.empty_like(expected), np.empty_like(deaths)
    cpu.tree_by_searches(cpu.Searches(x.numpy(), p, threads), edges, lengths)
    assert np.array_equal(edges, expected)
    assert np.array_equal(lengths, deaths)


def _apart(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Clusters of some leaves each, with more between them than within: many points have no near ones outside."""
    return rng.integers(0, 4, (n, 1)) * 100.0 + rng.normal(size=(n, d))


DRAWS = {
    "gauss": lambda n, d, rng: rng.normal(size=(n, d)),
    "grid": lambda n, d, rng: rng.integers(0, 7, (n, d)),  # ties everywhere
    "duplicates": lambda n, d, rng: rng.normal(size=(n, d))[rng.integers(0, 1 + n // 20, n)],  # more than are listed
    "equal": lambda n, d, rng: np.ones((n, d)),
    "apart": _apart,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_searches_in_full_leaves_and_others_give_the_same(draw, p, dtype):
    rng = np.random.default_rng(0)
    tiny = 1e-20 if dtype == torch.float32 else 1e-150  # squares, or some of them, are too small or too large
    for n, scale in itertools.product((9, 10, 15, 16, 17, 32, 33, 49, 200), (1.0, tiny, 1 / tiny)):
        x = torch.from_numpy(draw(n, int(rng.integers(1, 5)), rng) * scale).to(dtype)
        expected = cpu.spanning_trees(x, p)
        for threads in (1, 3):
            edges, lengths = np.empty_like(expected[0]), np.empty_like(expected[1])
            cpu.tree_by_searches(cpu.Searches(x.numpy(), p, threads), edges, lengths)
            assert np.array_equal(edges, expected[0])
            assert np.array_equal(lengths, expected[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_k_d_tree(draw, dtype):
    rng = np.random.default_rng(0)
    largest = np.finfo(dtype).max / 201  # what is furthest apart is too far for a difference
    for n, threads, scale in itertools.product((1, 16, 17, 48, 49, 2000), (1, 2, 5), (1, largest)):
        d = int(rng.integers(1, 4))
        cloud = np.clip(draw(n, d, rng), -200, 200).astype(dtype) * dtype(scale)
        names, tiles, nodes, boxes = cpu.Searches(cloud, 2.0, threads).tree
        points = cloud[names]
        assert np.array_equal(np.sort(names), np.arange(n))
        assert np.array_equal(tiles.swapaxes(1, 2).reshape(-1, d)[:n], points)
        leaves = []
        for node, (first, stop) in enumerate(nodes):
            if first < stop:
                within = points[first * LANES : stop * LANES]
                assert np.array_equal(boxes[node], [within.min(0), within.max(0)])
            if stop - first == 1:
                leaves.append(first)
            elif stop > first:
                (_, middle), (start, end) = nodes[2 * node + 1 : 2 * node + 3]
                assert (nodes[2 * node + 1, 0], middle, end) == (first, start, stop)
                assert (boxes[2 * node + 1, 1] <= boxes[2 * node + 2, 0]).any()  # there is a plane between them
        assert sorted(leaves) == list(range(len(tiles)))


def test_of_few_points_in_many_dimensions_no_tree_of_all_is_grown():
    x = np.random.default_rng(0).normal(size=(8000, 10)).astype(np.float32)
    with patch.object(cpu, "Searches", wraps=cpu.Searches) as searches:
        merge_edges(torch.from_numpy(x))
    assert [len(call.args[0]) for call in searches.call_args_list] == [2000]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 40, 128, 129, 5000])
def test_edges_of_a_tree_are_sorted_by_length_and_ends(n, dtype):
    rng = np.random.default_rng(0)
    edges = rng.permutation(n) << 32 | rng.integers(0, 2**31, n)
    tiny = np.finfo(dtype).smallest_subnormal
    for lengths in (
        rng.exponential(size=n),
        rng.choice([0.0, -0.0, tiny, 1.0, np.inf], n),
        np.full(n, 2.0),
        10.0 ** rng.uniform(-30, 30, n),
    ):
        keys = lengths.astype(dtype)
        pairs, chosen, order = np.empty((n, 2), np.int64), np.empty(n, dtype), np.lexsort((edges, keys))
        sort_tree(edges.copy(), keys.copy(), pairs, chosen)
        assert np.array_equal(pairs, np.stack((edges >> 32, edges & 0xFFFFFFFF), 1)[order])
        assert np.array_equal(chosen, keys[order])


def _sheet(n: int, generator: np.random.Generator) -> np.ndarray:
    return generator.uniform(size=(n, 2)) @ generator.normal(size=(2, 10))


@pytest.mark.parametrize(
    ("draw", "p", "short"),
    [
        (lambda n, g: g.normal(size=(n, 2)), 2.0, True),
        (lambda n, g: g.integers(0, 60, (n, 2)).astype(np.float32), 3.0, True),  # ties and duplicates
        (_sheet, 2.0, True),
        (lambda n, g: g.normal(size=(n, 10)), 2.0, False),
        (lambda n, g: g.integers(0, 20, (n, 1)) * 9.0 + g.normal(size=(n, 10)), 2.0, True),  # clusters
    ],
    ids=["plane", "grid", "sheet", "R10", "clusters"],
)
def test_what_a_large_cloud_is_like_decides_how_its_tree_is_found(draw, p, short):
    cloud = torch.from_numpy(draw(9000, np.random.default_rng(0)))
    with patch.object(torch, "get_num_threads", return_value=2):  # the choice depends on their number
        edges = merge_edges(cloud, p)
        with patch.object(cpu, "tree_by_searches", wraps=cpu.tree_by_searches) as searches:
            assert torch.equal(merge_edges(cloud, p), edges)
        assert searches.called == short
        with patch.object(cpu, "_LARGE_FOR_SEARCHES", 10**9):
            assert torch.equal(merge_edges(cloud, p), edges)


def test_large_cloud_against_scipy():
    x = torch.randn(3000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lengths = pairwise_lengths(x)
    assert np.array_equal(np.sort(minimum_spanning_tree(lengths.numpy()).data), death_times(x).numpy())


def _deaths_in_child(x: np.ndarray) -> np.ndarray:
    torch.set_num_threads(2)
    return death_times(torch.from_numpy(x)).numpy()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform")
def test_after_fork_and_from_many_threads():
    x = torch.randn(32, 100, 10, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = death_times(x)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for deaths in pool.map(lambda _: death_times(x), range(32)):
                assert torch.equal(deaths, expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's warning about fork beside threads
            context = multiprocessing.get_context("fork")
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as processes:
                for deaths in processes.map(_deaths_in_child, [x.numpy()] * 3):
                    assert np.array_equal(deaths, expected.numpy())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("shape", [(7, 1), (2, 1, 6, 3)])
def test_gradcheck(p, shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: death_times(x, p), x)
    assert torch.autograd.gradgradcheck(lambda x: death_times(x, p), x)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(clouds(max_points=12), st.sampled_from([1.0, 2.0, 3.0]))
def test_gradient_is_that_of_torch_operations(x, p):
    x.requires_grad_()
    weights = torch.linspace(-1, 2, len(x) - 1, dtype=x.dtype)
    edges = merge_edges(x, p)
    (fused,) = torch.autograd.grad(death_times(x, p) @ weights, x)
    (plain,) = torch.autograd.grad(edge_lengths(x, edges, p) @ weights, x, allow_unused=True)
    assert fused.isfinite().all()
    torch.testing.assert_close(fused, torch.zeros_like(x) if plain is None else plain)


@pytest.mark.parametrize("p", NORMS)
def test_gradient_at_equal_points_is_zero(p):
    x = torch.ones(5, 3, requires_grad=True)
    death_times(x, p).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_strides_do_not_matter():
    base = torch.randn(10, 4, 20, generator=torch.Generator().manual_seed(0))
    x = base.permute(1, 2, 0)[:, ::2]
    assert not x.is_contiguous()
    assert torch.equal(merge_edges(x), merge_edges(x.contiguous()))
    x = x.requires_grad_()
    weights = torch.arange(9.0).expand(4, 9)
    (gradient,) = torch.autograd.grad(death_times(x), x, weights)
    y = x.detach().contiguous().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(death_times(y), y, weights)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    deaths = death_times(x)
    assert deaths.dtype == torch.float32
    assert torch.equal(deaths, death_times(x.float()))
    deaths.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x.detach().float()
        assert torch.equal(death_times(y, 2.0), death_times(y, 2.0).float())
        assert death_times(y, 2.0).dtype == torch.float32


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(p, backend):
    torch._dynamo.reset()  # each norm is a program of its own, and there is a limit to their number
    x = torch.randn(3, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return merge_edges(x, p), death_times(x, p)

    edges, deaths = torch.compile(both, backend=backend, fullgraph=True)(x)
    assert torch.equal(edges, merge_edges(x, p))
    assert torch.equal(deaths, death_times(x, p))
    weights = torch.arange(24.0, dtype=torch.float64).view(3, 8)
    (compiled,) = torch.autograd.grad(deaths, x, weights)
    torch.testing.assert_close(compiled, torch.autograd.grad(death_times(x, p), x, weights)[0])


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_torch_func_of_something_else(p, requires_grad):
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=requires_grad)
    factors = torch.tensor([1.0, 2.0], dtype=torch.float64)
    loss = ConnectivityLoss(branches=2, p=p)
    for function in (lambda x: death_times(x, p).sum(), loss):
        value = function(x)
        torch.testing.assert_close(torch.func.grad(lambda factor, f=function: factor * f(x))(factors[0]), value)
        mapped = torch.vmap(lambda factor, f=function: factor * f(x))(factors)
        torch.testing.assert_close(mapped, factors * value)


@pytest.mark.parametrize("p", NORMS)
def test_torch_func(p):
    x = torch.randn(4, 2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.func.vmap(lambda x: merge_edges(x, p))(x), merge_edges(x, p))
    assert torch.equal(torch.func.vmap(lambda x: death_times(x, p), in_dims=1)(x), death_times(x, p).transpose(0, 1))
    by_func = torch.func.vmap(torch.func.grad(lambda x: death_times(x, p).sum()))(x)
    x.requires_grad_()
    torch.testing.assert_close(by_func, torch.autograd.grad(death_times(x, p).sum(), x)[0])


@pytest.mark.parametrize("p", NORMS)
def test_an_infinite_upstream_gradient_at_equal_points(p):
    """As of a root or a logarithm: the gradient is that of the other edges, never NaN."""
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)

    def roots(points):
        return death_times(points, p).sqrt().sum()

    (expected,) = torch.autograd.grad(roots(x), x)
    assert torch.isfinite(expected).all()
    assert expected[2].abs().sum() > 0
    compiled = torch.compile(roots, backend="aot_eager")
    in_filtration = vr_persistence(x, p=p)[0].points[:-1, 1].sqrt().sum()
    for (found,) in (
        torch.autograd.grad(roots(x), x, create_graph=True),
        torch.autograd.grad(compiled(x), x),
        (torch.func.grad(roots)(x.detach()),),
        torch.autograd.grad(in_filtration, x),
    ):
        torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("p", NORMS)
def test_forward_mode(p):
    x, tangent = torch.randn(2, 3, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(lambda x: death_times(x, p), x)
    expected = torch.tensordot(jacobian, tangent, 3)
    torch.testing.assert_close(torch.func.jvp(lambda x: death_times(x, p), (x,), (tangent,))[1], expected)
    for primal in (x, x.clone().requires_grad_()):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(primal, tangent)
            assert torch.equal(merge_edges(dual, p), merge_edges(x, p))
            deaths, derivative = forward_ad.unpack_dual(death_times(dual, p))
        assert torch.equal(deaths, death_times(x, p))
        assert derivative is not None
        torch.testing.assert_close(derivative, expected)


@pytest.mark.parametrize("p", NORMS)
def test_second_derivatives_in_every_mode(p):
    def energy(x: torch.Tensor) -> torch.Tensor:
        return death_times(x, p).square().sum()

    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.functional.hessian(energy, x)
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(outer(inner(energy))(x), expected)


def test_one_point_and_empty_batch():
    assert merge_edges(torch.zeros(1, 3)).shape == (0, 2)
    assert death_times(torch.zeros(2, 1, 3, requires_grad=True)).shape == (2, 0)
    assert merge_edges(torch.zeros(0, 5, 3)).shape == (0, 4, 2)
    assert death_times(torch.zeros(0, 2, 5, 3, requires_grad=True)).shape == (0, 2, 4)


@pytest.mark.parametrize("p", NORMS)
def test_overflowing_lengths_are_infinite_and_still_a_tree(p):
    x = torch.tensor([[-3e38, 0.0], [3e38, 0.0], [-3e38, 0.0], [2.9e38, 0.0]])
    assert merge_edges(x, p).tolist() == [[0, 2], [1, 3], [0, 1]]
    assert death_times(x, p)[-1] == math.inf
    assert torch.equal(pairwise_lengths(x, p)[0, 1:], torch.tensor([math.inf, 0.0, math.inf]))
    many = x[torch.randint(4, (1500,), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(merge_edges(many, p), reference_merge_edges(many[None], p)[0])


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, 40, 1300])
def test_screening_rules_out_nothing_that_matters(d, dtype, offset):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, d, dtype=dtype, generator=generator) + offset
    x[50:100] = torch.randint(-2, 3, (50, d), generator=generator).to(dtype)
    x[100:120] = x[:20]
    edges, lengths = np.empty(299, np.int64), np.empty(299, x.numpy().dtype)
    assert large_clouds.tree_of_blocks(1.0, x.numpy(), 0, 300, 0, 300, edges, lengths)
    tree = sorted(zip(lengths.tolist(), edges >> 32, edges & 0xFFFFFFFF, strict=True))
    expected = reference_merge_edges_of_distances(pairwise_lengths(x, 1.0)[None])[0]
    assert [[i, j] for _, i, j in tree] == expected.tolist()


@pytest.mark.parametrize(
    ("points", "error"),
    [
        (torch.zeros(4), ValueError),
        (torch.tensor(1.0), ValueError),
        (torch.zeros(0, 3), ValueError),
        (torch.zeros(3, 0), ValueError),
        (torch.tensor([[0.0], [math.nan]]), ValueError),
        (torch.tensor([[[0.0, 1.0], [1.0, math.inf]]]), ValueError),
        (torch.tensor([[-math.inf]]), ValueError),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError),
        (torch.zeros(3, 2, dtype=torch.bool), TypeError),
        (torch.zeros(3, 2, dtype=torch.complex64), TypeError),
        (np.zeros((3, 2)), TypeError),
        ([[0.0, 1.0]], TypeError),
        (torch.zeros(3, 2).to_sparse(), TypeError),
        (torch.zeros(3, 2).half().to_sparse(), TypeError),
        (torch.zeros(3, 2, device="meta"), TypeError),
        (torch.nested.nested_tensor([torch.zeros(3, 2)]), TypeError),
        (torch.zeros(3, 2).to(torch.float8_e5m2), TypeError),
    ],
)
@pytest.mark.parametrize("function", [merge_edges, death_times])
def test_bad_points(function, points, error):
    with pytest.raises(error, match="points: got"):
        function(points)


@pytest.mark.parametrize(
    ("p", "error"), [(0.99, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_bad_p(p, error):
    with pytest.raises(error, match="p: got"):
        merge_edges(torch.zeros(3, 2), p)


@pytest.mark.parametrize("shape", [(6, 3), (2, 6, 4)])
def test_views_of_the_opposite_sign(shape):
    """Tensors with torch's negative bit, as imaginary parts of conjugates have: no memory that NumPy could read."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    view = torch._neg_view(x)
    assert view.is_neg()
    assert torch.equal(death_times(view), death_times(-x))
    assert torch.equal(merge_edges(view), merge_edges(-x))
    lengths = pairwise_lengths(x)
    assert torch.equal(merge_edges(distances=torch._neg_view(-lengths)), merge_edges(distances=lengths))
    for one, other in zip(vr_persistence(view.flatten(0, -2)), vr_persistence(-x.flatten(0, -2)), strict=True):
        assert torch.equal(one.points, other.points)


@pytest.mark.parametrize("p", NORMS)
def test_batches_of_gradients(p):
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    deaths, each = death_times(x, p), torch.eye(5, dtype=torch.float64)
    expected = torch.stack([torch.autograd.grad(deaths, x, row, retain_graph=True)[0] for row in each])
    (batched,) = torch.autograd.grad(deaths, x, each, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(batched, expected)
    mapped = torch.func.vmap(lambda row: torch.autograd.grad(deaths, x, row, retain_graph=True)[0])(each)
    torch.testing.assert_close(mapped, expected)
    jacobian = torch.autograd.functional.jacobian(lambda y: death_times(y, p), x.detach(), vectorize=True)
    torch.testing.assert_close(jacobian, expected)
