"""Vietoris–Rips persistence against brute force and every library at hand: values and pairs."""

from __future__ import annotations

import contextlib
import itertools
import math
from unittest import mock

import gudhi
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ripser import ripser

from corel import PersistenceDiagram, vr_persistence
from corel.persistence import filtration, metric, pairing, vietoris_rips
from corel.persistence.metric import pairwise_lengths
from corel.persistence.spanning_tree import death_times, merge_edges

ALGORITHMS = ["auto", "reduction"]
NORMS = [1.0, 2.0, math.inf, 3.0]


@st.composite
def clouds(draw, max_points: int = 16) -> torch.Tensor:
    """Gaussian, on a small grid (ties), with duplicates, all equal, on a circle, or with lengths that span 10¹²."""
    n, d = draw(st.integers(1, max_points)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["gauss", "grid", "duplicates", "equal", "circle", "span"]))
    x = rng.normal(size=(n, d))
    if kind == "grid":
        x = rng.integers(0, 3, (n, d)).astype(float)
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 2), n)]
    elif kind == "equal":
        x[:] = x[0]
    elif kind == "circle":
        angle = 2 * math.pi * np.arange(n) / n
        x = np.stack((np.cos(angle), np.sin(angle)), 1).round(3)
    elif kind == "span":
        x *= 10.0 ** rng.uniform(-6, 6, (n, 1))
    return torch.from_numpy(x).to(draw(st.sampled_from([torch.float32, torch.float64])))


def brute_force(lengths: np.ndarray, max_dim: int, max_length: float) -> list[list[tuple]]:
    """Algorithm 2 on the whole boundary matrix: (birth simplex, death simplex or None) of each dimension."""
    value = {}
    for size in range(1, max_dim + 3):
        for simplex in itertools.combinations(range(len(lengths)), size):
            longest = max((lengths[i, j] for i, j in itertools.combinations(simplex, 2)), default=0.0)
            if longest <= max_length and longest < math.inf:
                value[simplex] = longest
    order = sorted(value, key=lambda s: (value[s], len(s), s))
    place = {simplex: index for index, simplex in enumerate(order)}
    columns, owner = {}, {}
    for j, simplex in enumerate(order):
        column = {place[face] for face in itertools.combinations(simplex, len(simplex) - 1) if face}
        while column and max(column) in owner:
            column ^= columns[owner[max(column)]]
        if column:
            owner[max(column)] = j
            columns[j] = column
    pairs: list[list[tuple]] = [[] for _ in range(max_dim + 1)]
    for i, simplex in enumerate(order):
        dim = len(simplex) - 1
        if dim > max_dim or i in columns:
            continue
        death = order[owner[i]] if i in owner else None
        if dim == 0 or death is None or value[death] > value[simplex]:
            pairs[dim].append((simplex, death))
    return pairs


def as_set(diagram: PersistenceDiagram) -> set[tuple]:
    return {
        (tuple(birth), None if death[0] < 0 else tuple(death))
        for birth, death in zip(diagram.birth_simplices.tolist(), diagram.death_simplices.tolist(), strict=True)
    }


def values(diagram: PersistenceDiagram) -> list[tuple[float, float]]:
    return sorted(map(tuple, diagram.points.tolist()))


def longest_edge(simplex, lengths: np.ndarray) -> tuple[int, int]:
    return max(itertools.combinations(sorted(simplex), 2), key=lambda edge: (lengths[edge], edge))


def gudhi_tree(lengths: np.ndarray, max_dim: int, max_length: float) -> gudhi.SimplexTree:
    tree = gudhi.SimplexTree.create_from_array(lengths, max_filtration=max_length)
    tree.expansion(max_dim + 1)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=-1, persistence_dim_max=True)
    return tree


def off_diagonal(intervals, dim: int) -> list[tuple[float, float]]:
    return sorted(tuple(x) for x in intervals.tolist() if dim == 0 or x[1] > x[0])


# ---------------------------------------------------------------------------------------------- exactness


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    clouds(10),
    st.sampled_from(NORMS),
    st.integers(0, 2),
    st.sampled_from([None, 0.0, 0.6, math.inf]),
    st.sampled_from(ALGORITHMS),
)
def test_pairs_are_those_of_the_definition(points, p, max_dim, reach, algorithm):
    lengths = pairwise_lengths(points, p)
    radius = float(lengths.amax(1).amin())
    max_length = None if reach is None else reach * radius if reach < math.inf else math.inf
    if max_length is not None and 0 < max_length < math.inf:
        max_length = float(torch.tensor(max_length, dtype=points.dtype))
    diagrams = vr_persistence(points, p=p, max_dim=max_dim, max_length=max_length, algorithm=algorithm)
    expected = brute_force(lengths.numpy(), max_dim, radius if max_length is None else max_length)
    for dim, diagram in enumerate(diagrams):
        assert diagram.dim == dim
        assert as_set(diagram) == set(expected[dim])
        assert len(diagram) == len(expected[dim])
        for (birth, death), value in zip(
            zip(diagram.birth_simplices.tolist(), diagram.death_simplices.tolist(), strict=True),
            diagram.points.tolist(),
            strict=True,
        ):
            assert value[0] == lengths[birth][:, birth].max()
            assert value[1] == (math.inf if death[0] < 0 else lengths[death][:, death].max())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(clouds(16), st.sampled_from(NORMS), st.integers(0, 2), st.sampled_from(ALGORITHMS))
def test_values_are_those_of_gudhi_and_ripser(points, p, max_dim, algorithm):
    lengths = pairwise_lengths(points, p)
    radius = float(lengths.amax(1).amin())
    diagrams = vr_persistence(points, p=p, max_dim=max_dim, algorithm=algorithm)
    tree = gudhi_tree(lengths.numpy(), max_dim, radius)
    # ripser computes in float32
    rounded = [np.asarray(d, dtype=np.float32) for d in ripser(lengths.numpy(), max_dim, distance_matrix=True)["dgms"]]
    for dim, diagram in enumerate(diagrams):
        assert values(diagram) == off_diagonal(tree.persistence_intervals_in_dimension(dim), dim)
        ours = diagram.points.numpy().astype(np.float32)
        ours, theirs = (sorted(map(tuple, x[x[:, 1] > x[:, 0]].tolist())) for x in (ours, rounded[dim]))
        assert ours == theirs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pairs_are_those_of_gudhi(seed, algorithm):
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(18, 2 + seed % 3)))
    lengths = pairwise_lengths(points).numpy()
    radius = lengths.max(1).min()
    pairs = gudhi_tree(lengths, 2, radius).persistence_pairs()
    for dim, diagram in enumerate(vr_persistence(points, max_dim=2, algorithm=algorithm)):
        # the vertex that is born is arbitrary where all are born at 0, and so is one of simplices of equal length
        theirs = set()
        for birth, death in pairs:
            if len(birth) != dim + 1 or not death:
                continue
            death_edge = longest_edge(death, lengths)
            birth_edge = longest_edge(birth, lengths) if dim else None
            if birth_edge != death_edge:
                theirs.add((birth_edge, death_edge))
        finite = diagram.death_simplices[:, 0] >= 0
        ours = {
            (longest_edge(birth, lengths) if dim else None, longest_edge(death, lengths))
            for birth, death in zip(
                diagram.birth_simplices[finite].tolist(), diagram.death_simplices[finite].tolist(), strict=True
            )
        }
        assert ours == theirs


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_dionysus(seed):
    dionysus = pytest.importorskip("dionysus")
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(15, 3)))
    lengths = pairwise_lengths(points)
    condensed = lengths[tuple(torch.triu_indices(15, 15, 1))].numpy()
    complex_ = dionysus.fill_rips(condensed, 2, float(lengths.amax(1).amin()))
    matrix = dionysus.homology_persistence(complex_)
    theirs = set()
    for i, simplex in enumerate(complex_):
        j = matrix.pair(i)
        if simplex.dimension() > 1 or (j != matrix.unpaired and j < i):
            continue
        birth, death = tuple(simplex), None if j == matrix.unpaired else tuple(complex_[j])
        if death is None or complex_[j].data > simplex.data:
            theirs.add((birth, death))
    lengths = lengths.numpy()
    for dim, diagram in enumerate(vr_persistence(points, max_dim=1)):
        ours = {(b, d and longest_edge(d, lengths)) for b, d in as_set(diagram)}
        assert ours == {(b, d and longest_edge(d, lengths)) for b, d in theirs if len(b) == dim + 1}


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_giotto_ph(seed):
    gph = pytest.importorskip("gph")
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(24, 3)).astype(np.float32))
    lengths = pairwise_lengths(points).numpy()
    result = gph.ripser_parallel(lengths, 1, metric="precomputed", return_generators=True, n_threads=1)
    zero, one = vr_persistence(points, max_dim=1)
    assert {tuple(sorted(e)) for e in result["gens"][0][:, 1:].tolist()} == {
        tuple(e) for e in zero.death_simplices.tolist() if e[0] >= 0
    }
    theirs = {(tuple(sorted(g[:2])), tuple(sorted(g[2:]))) for g in result["gens"][1][0].tolist()}
    assert {(b, longest_edge(d, lengths)) for b, d in as_set(one)} == theirs


@settings(max_examples=60, deadline=None, derandomize=True)
@given(clouds(24), st.sampled_from(NORMS), st.sampled_from([None, 0.5]))
def test_tree_and_reduction_agree_to_the_last_entry(points, p, reach):
    max_length = None if reach is None else reach * float(pairwise_lengths(points, p).max())
    (tree,) = vr_persistence(points, p=p, max_length=max_length, algorithm="spanning-tree")
    (reduced,) = vr_persistence(points, p=p, max_length=max_length, algorithm="reduction")
    (matrix,) = vr_persistence(distances=pairwise_lengths(points, p), max_length=max_length)
    for other in (reduced, matrix):
        assert tree.points.equal(other.points)
        assert tree.birth_simplices.equal(other.birth_simplices)
        assert tree.death_simplices.equal(other.death_simplices)
    if reach is None:
        assert tree.points[:-1, 1].equal(death_times(points, p))
        assert tree.death_simplices[:-1].equal(merge_edges(points, p))


CIRCLE = [[math.cos(angle), math.sin(angle)] for angle in torch.arange(60) * (math.tau / 60)]


@pytest.mark.parametrize("max_length", [None, 0.8])
@pytest.mark.parametrize(
    ("points", "max_dim"),
    [
        (torch.from_numpy(np.random.default_rng(3).normal(size=(150, 10)) / 5), 1),
        (torch.from_numpy(np.random.default_rng(4).normal(size=(40, 3)) / 2), 3),
        (torch.cartesian_prod(torch.arange(9.0), torch.arange(9.0)) / 9, 2),  # ties
        (torch.tensor(CIRCLE), 2),  # long columns
    ],
    ids=["gaussian", "dimension 3", "grid", "circle"],
)
def test_the_compiled_reduction_and_algorithm_3_agree_to_the_last_entry(points, max_dim, max_length):
    compiled = vr_persistence(points, p=2.0, max_dim=max_dim, max_length=max_length)
    with contextlib.ExitStack() as stack:  # no compiled function has a part in it
        for module in (filtration, metric, vietoris_rips):
            stack.enter_context(mock.patch.object(module, "is_plain_cpu", return_value=False))
        parallel = vr_persistence(points, p=2.0, max_dim=max_dim, max_length=max_length, algorithm="reduction")
    assert sum(len(diagram.points) for diagram in compiled[1:]) > 0
    for one, other in zip(compiled, parallel, strict=True):
        assert one.points.equal(other.points)
        assert one.birth_simplices.equal(other.birth_simplices)
        assert one.death_simplices.equal(other.death_simplices)


def test_larger_cloud_in_dimension_1_beside_ripser():
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(128, 10)).astype(np.float32))
    lengths = pairwise_lengths(points).numpy()
    theirs = ripser(lengths, 1, distance_matrix=True)["dgms"][1]
    one = vr_persistence(points, max_dim=1)[1]
    assert len(one) > 40
    assert values(one) == sorted(map(tuple, theirs.tolist()))


def test_sphere_has_its_void():
    octahedron = torch.cat((torch.eye(3), -torch.eye(3)))
    diagrams = vr_persistence(octahedron, p=2.0, max_dim=2)
    assert diagrams[1].points.shape == (0, 2)
    # √2 to the diameter, which encloses
    assert diagrams[2].points.tolist() == [[pytest.approx(math.sqrt(2)), 2.0]]
    open_ended = vr_persistence(octahedron, p=2.0, max_dim=2, max_length=1.5)
    assert open_ended[2].points[0, 1] == math.inf
    assert open_ended[2].death_simplices.tolist() == [[-1, -1, -1, -1]]


def test_chunks_do_not_show(monkeypatch):
    points = torch.from_numpy(np.random.default_rng(2).normal(size=(25, 3)))
    whole = vr_persistence(points, max_dim=2, algorithm="reduction")
    monkeypatch.setattr(pairing, "_CHUNK", 60)
    monkeypatch.setattr(filtration, "_CHUNK", 60)
    for a, b in zip(whole, vr_persistence(points, max_dim=2, algorithm="reduction"), strict=True):
        assert a.points.equal(b.points)
        assert a.death_simplices.equal(b.death_simplices)


# ---------------------------------------------------------------------------------------------- conventions


def test_order_of_classes_and_essential_ones():
    line = torch.tensor([[0.0], [1.0], [10.0], [13.0], [30.0]])
    (diagram,) = vr_persistence(line, max_length=5.0)
    assert diagram.points.tolist() == [[0, 1], [0, 3], [0, math.inf], [0, math.inf], [0, math.inf]]
    assert diagram.birth_simplices.tolist() == [[1], [3], [0], [2], [4]]
    assert diagram.death_simplices.tolist() == [[0, 1], [2, 3], [-1, -1], [-1, -1], [-1, -1]]


def test_duplicates_die_at_zero_in_dimension_0_only():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    zero, one = vr_persistence(points, max_dim=1)
    assert zero.points[:, 1].tolist() == [0, 0, 1, 1, 1, math.inf]
    assert one.points.tolist() == [[1, 2]]


def test_missing_edges_are_never_joined():
    inf = math.inf
    distances = torch.tensor([[0, 1, inf, inf], [1, 0, inf, inf], [inf, inf, 0, 2], [inf, inf, 2, 0]])
    for algorithm in ALGORITHMS:
        (diagram,) = vr_persistence(distances=distances, algorithm=algorithm)
        assert diagram.points.tolist() == [[0, 1], [0, 2], [0, inf], [0, inf]]
        assert diagram.birth_simplices.tolist() == [[1], [3], [0], [2]]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "spanning-tree"])
def test_points_whose_distance_overflows_are_never_joined(algorithm):
    (diagram,) = vr_persistence(torch.tensor([[-3e38], [3e38], [-3e38]]), algorithm=algorithm)
    assert diagram.points.tolist() == [[0, 0], [0, math.inf], [0, math.inf]]
    assert diagram.death_simplices.tolist() == [[0, 2], [-1, -1], [-1, -1]]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "spanning-tree"])
def test_one_point(algorithm):
    (diagram,) = vr_persistence(torch.zeros(1, 3), algorithm=algorithm)
    assert diagram.points.tolist() == [[0, math.inf]]
    assert diagram.birth_simplices.tolist() == [[0]]
    assert diagram.death_simplices.tolist() == [[-1, -1]]
    if algorithm != "spanning-tree":
        higher = vr_persistence(torch.zeros(1, 3), max_dim=2, algorithm=algorithm)
        assert [d.birth_simplices.shape for d in higher] == [(1, 1), (0, 2), (0, 3)]
        assert [d.death_simplices.shape for d in higher] == [(1, 2), (0, 3), (0, 4)]


def test_half_precision_is_computed_in_single():
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).half()
    for a, b in zip(vr_persistence(points, max_dim=1), vr_persistence(points.float(), max_dim=1), strict=True):
        assert a.points.dtype == torch.float32
        assert a.points.equal(b.points)


# ---------------------------------------------------------------------------------------------- gradients


def finite_values(diagrams: list[PersistenceDiagram]) -> torch.Tensor:
    points = torch.cat([d.points for d in diagrams])
    return points[points.isfinite()]


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_with_respect_to_points(p, algorithm):
    points = torch.from_numpy(np.random.default_rng(3).normal(size=(14, 3))).requires_grad_()
    diagrams = vr_persistence(points, p=p, max_dim=2, algorithm=algorithm)
    assert len(diagrams[1]) > 0
    assert torch.autograd.gradcheck(
        lambda x: finite_values(vr_persistence(x, p=p, max_dim=2, algorithm=algorithm)), points, eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 10, 160])
def test_distances_of_cdist(d, dtype):
    points = torch.randn(60, d, dtype=dtype, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(points, points)  # of more than 25 points by products of matrices: not exact
    above = distances.triu(1)
    for algorithm in ("auto", "reduction"):
        for one, other in zip(
            vr_persistence(distances=distances, max_dim=1, algorithm=algorithm),
            vr_persistence(distances=above + above.T, max_dim=1, algorithm=algorithm),
            strict=True,
        ):
            assert torch.equal(one.points, other.points)
            assert torch.equal(one.death_simplices, other.death_simplices)


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float64, 2**-24), (torch.float32, 2**-9.5), (torch.bfloat16, 2**-7)]
)
def test_what_counts_as_rounding(dtype, rounding):
    exact = pairwise_lengths(torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    exact[0, 1] = exact[1, 0] = exact.max() / 2
    within, beyond, diagonal = exact.clone(), exact.clone(), exact.clone()
    within[1, 0] += 0.4 * rounding * exact.max()
    within[2, 2] = 0.9 * rounding * exact.max()
    within[3, 4] = within[4, 3] = math.inf
    beyond[1, 0] += 1.5 * rounding * exact.max()
    diagonal[2, 2] = 1.1 * rounding * exact.max()
    (diagram,) = vr_persistence(distances=within.to(dtype))
    above = within.to(dtype).triu(1)
    assert torch.equal(diagram.points, vr_persistence(distances=above + above.T)[0].points)
    with pytest.raises(ValueError, match=r"^distances: got .* at \(0, 1\) but .* at \(1, 0\)"):
        vr_persistence(distances=beyond.to(dtype))
    with pytest.raises(ValueError, match=r"^distances: got .* at \(2, 2\)"):
        vr_persistence(distances=diagonal.to(dtype))


def test_gradients_with_respect_to_distances_go_to_the_longest_edges():
    points = torch.from_numpy(np.random.default_rng(4).normal(size=(14, 2)))
    distances = pairwise_lengths(points).requires_grad_()
    diagrams = vr_persistence(distances=distances, max_dim=1)
    assert len(diagrams[1]) > 0
    finite_values(diagrams).sum().backward()
    expected, lengths = torch.zeros_like(distances), distances.detach().numpy()
    for diagram in diagrams:
        for birth, death in as_set(diagram):
            for simplex in (birth, death):
                if simplex is not None and len(simplex) > 1:
                    expected[longest_edge(simplex, lengths)] += 1
    assert distances.grad.equal(expected)


def test_subgradient_is_zero_at_equal_points_and_ties_go_to_the_last_edge():
    points = torch.zeros(5, 2, requires_grad=True)
    finite_values(vr_persistence(points, max_dim=1, p=2.0)).sum().backward()
    assert points.grad.equal(torch.zeros(5, 2))

    square = torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]], dtype=torch.float64)
    square.requires_grad_()
    (_, one) = vr_persistence(distances=square, max_dim=1)
    assert (one.birth_simplices.tolist(), one.death_simplices.tolist()) == ([[2, 3]], [[0, 2, 3]])
    one.points[0, 1].backward()
    assert square.grad.nonzero().tolist() == [[0, 2]]


# ---------------------------------------------------------------------------------------------- arguments

CLOUD, MATRIX = torch.zeros(3, 2), torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "points, distances: got neither"),
        ({"points": CLOUD, "distances": MATRIX}, ValueError, "points, distances: got both"),
        ({"points": [[0.0]]}, TypeError, "points: got list"),
        ({"points": CLOUD.int()}, TypeError, "points: got torch.int32"),
        ({"points": torch.zeros(2, 3, 2)}, ValueError, r"points: got shape \(2, 3, 2\)"),
        ({"points": torch.zeros(0, 2)}, ValueError, "at least one point"),
        ({"points": torch.tensor([[math.nan]])}, ValueError, "points: got NaN or infinity"),
        ({"points": torch.tensor([[math.inf]])}, ValueError, "points: got NaN or infinity"),
        ({"points": CLOUD, "p": 0.5}, ValueError, "p: got 0.5"),
        ({"points": CLOUD, "max_dim": -1}, ValueError, "max_dim: got -1"),
        ({"points": CLOUD, "max_dim": 1.0}, TypeError, "max_dim: got 1.0"),
        ({"points": CLOUD, "max_dim": True}, TypeError, "max_dim: got True"),
        ({"points": CLOUD, "max_dim": np.float64(1)}, TypeError, "max_dim: got np.float64"),
        ({"points": CLOUD, "max_length": True}, TypeError, "max_length: got True"),
        ({"points": CLOUD, "max_length": "1"}, TypeError, "max_length: got '1'"),
        ({"points": CLOUD, "algorithm": None}, TypeError, "algorithm: got None; accepted are 'auto'"),
        ({"points": CLOUD[0]}, ValueError, r"points: got shape \(\d,\); accepted is \(n, d\)"),
        ({"points": CLOUD.to_sparse()}, TypeError, "points: got a tensor of layout torch.sparse_coo"),
        ({"points": CLOUD.to("meta")}, TypeError, "points: got a tensor on the meta device"),
        ({"distances": MATRIX.to_sparse()}, TypeError, "distances: got a tensor of layout torch.sparse_coo"),
        ({"distances": MATRIX.to("meta")}, TypeError, "distances: got a tensor on the meta device"),
        ({"points": CLOUD, "max_length": -1.0}, ValueError, "max_length: got -1.0"),
        ({"points": CLOUD, "max_length": math.nan}, ValueError, "max_length: got nan"),
        ({"points": CLOUD, "max_length": "far"}, TypeError, "max_length: got 'far'"),
        ({"points": CLOUD, "algorithm": "magic"}, ValueError, "algorithm: got 'magic'"),
        ({"points": CLOUD, "algorithm": "spanning-tree", "max_dim": 1}, ValueError, "max_dim: got 1"),
        ({"distances": [[0.0]]}, TypeError, "distances: got list"),
        ({"distances": MATRIX.long()}, TypeError, "distances: got torch.int64"),
        ({"distances": torch.zeros(2, 3)}, ValueError, r"distances: got shape \(2, 3\)"),
        ({"distances": torch.zeros(0, 0)}, ValueError, r"distances: got shape \(0, 0\)"),
        ({"distances": torch.tensor([[0.0, -1.0], [-1.0, 0.0]])}, ValueError, r"negative length at \(0, 1\)"),
        (
            {"distances": torch.tensor([[0.0, 1.0], [2.0, 0.0]])},
            ValueError,
            r"got 1 at \(0, 1\) but 2 at \(1, 0\), .* \(distances \+ distances.mT\) / 2",
        ),
        (
            {"distances": torch.tensor([[0.0, 1.0], [1.0, 3.0]])},
            ValueError,
            r"got 3 at \(1, 1\), .*zero_\(\)",
        ),
        ({"distances": torch.tensor([[0.0, math.nan], [math.nan, 0.0]])}, ValueError, "got NaN"),
        ({"points": torch.randn(400, 2), "max_dim": 6}, ValueError, "max_dim: got 6 or more for 400 points"),
        ({"points": torch.zeros(20_000, 2), "max_dim": 1}, MemoryError, "20000 points"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        vr_persistence(**arguments)


def test_numbers_of_numpy_and_lengths_of_torch():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    plain = vr_persistence(points, max_dim=1, max_length=1.0)
    other = vr_persistence(points, max_dim=np.int64(1), max_length=death_times(points)[-1], algorithm=np.str_("auto"))
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one.points, two.points)


@pytest.mark.parametrize("options", [{}, {"max_dim": 1}, {"algorithm": "reduction"}])
def test_a_longest_length_is_rounded_as_lengths_are(options):
    for points, length in ((torch.tensor([[0.0], [0.1]]), 0.1), (torch.tensor([[0.0], [0.5]]), 2**70)):
        assert vr_persistence(points, max_length=length, **options)[0].points[0].tolist() == [0.0, points[1].item()]
        diagram = vr_persistence(distances=pairwise_lengths(points), max_length=2.0**70, **options)[0]
        assert diagram.points[0].tolist() == [0.0, points[1].item()]


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2000, 3)])
@pytest.mark.parametrize("call", [death_times, merge_edges, vr_persistence])
def test_freed_memory_is_not_read(call, shape):
    points = torch.randn(shape[-2:] if call is vr_persistence else shape)
    points.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="points: got a tensor whose memory was freed"):
        call(points)


@pytest.mark.parametrize("max_dim", [0, 1])
@pytest.mark.parametrize("given", ["points", "distances"])
def test_transforms_of_torch_func(max_dim, given):
    """Tensors within them have no numbers for a kernel to read."""
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def total(x):
        source = {"points": x} if given == "points" else {"distances": (x[:, None] - x).abs().sum(-1)}
        diagrams = vr_persistence(**source, max_dim=max_dim)
        finite = [diagram.points[diagram.points[:, 1] < math.inf] for diagram in diagrams]
        return sum((part[:, 1] ** 2 - part[:, 0]).sum() for part in finite)

    leaf = points.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(total)(points), expected)
    tangent = torch.randn_like(points)
    value, slope = torch.func.jvp(total, (points,), (tangent,))
    torch.testing.assert_close(value, total(points))
    torch.testing.assert_close(slope, (expected * tangent).sum())


@pytest.mark.parametrize("max_dim", [0, 1])
@pytest.mark.parametrize("given", ["points", "distances"])
def test_torch_func_of_something_else(max_dim, given):
    """The cloud is not wrapped, but operations on it go through the transform."""
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    source = {"points": points} if given == "points" else {"distances": (points[:, None] - points).abs().sum(-1)}

    def total(factor):
        return factor * sum(diagram.points[:, 0].sum() for diagram in vr_persistence(**source, max_dim=max_dim))

    one = torch.tensor(1.0, dtype=torch.float64)
    expected = total(one)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(total)(one), expected)
    torch.testing.assert_close(torch.func.jvp(total, (one,), (one,))[1], expected)


def test_norm_by_position_as_in_death_times():
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(vr_persistence(points, 2.0)[0].points, vr_persistence(points, p=2.0)[0].points)
