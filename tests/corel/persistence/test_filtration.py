"""The Vietoris–Rips filtration against its definition."""

from __future__ import annotations

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corel.persistence import filtration
from corel.persistence.filtration import edge_order, enclosing_radius, vietoris_rips_filtration


@st.composite
def length_matrices(draw) -> torch.Tensor:
    """Symmetric, with a zero diagonal; small integers (ties and zeros) or reals, some of them infinite."""
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    lengths = rng.integers(0, 5, (n, n)).astype(float) if draw(st.booleans()) else rng.random((n, n))
    lengths[rng.random((n, n)) < draw(st.sampled_from([0.0, 0.2]))] = math.inf
    upper = np.triu(lengths, 1)
    return torch.from_numpy(upper + upper.T).to(draw(st.sampled_from([torch.float32, torch.float64])))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(length_matrices(), st.integers(0, 3), st.sampled_from([0.0, 0.5, 2.0, math.inf]), st.booleans())
def test_simplices_and_their_order_are_those_of_the_definition(lengths, max_dim, max_length, compiled):
    with mock.patch.object(filtration, "is_plain_cpu", return_value=compiled):
        order = edge_order(lengths, max_length)
    found = vietoris_rips_filtration(order, max_dim)
    assert len(found) == max_dim
    n, d = len(lengths), lengths.numpy()
    for dim, simplices in enumerate(found, 1):
        expected = []
        for vertices in itertools.combinations(range(n), dim + 1):
            longest = max(d[i, j] for i, j in itertools.combinations(vertices, 2))
            if longest <= max_length and longest < math.inf:
                expected.append((longest, vertices))
        expected.sort()
        assert simplices.vertices.tolist() == [list(vertices) for _, vertices in expected]
        ranks = {value: rank for rank, value in enumerate(sorted({0.0, *(e[0] for e in expected)}))}
        by_level = {level: value for level, (value, _) in zip(simplices.level.tolist(), expected, strict=True)}
        assert len(by_level) == len({e[0] for e in expected})
        assert sorted(by_level) == sorted(by_level, key=lambda level: ranks[by_level[level]])
    assert order.place.equal(order.place.T)
    assert order.level.equal(order.level.T)


def test_edges_of_one_length_come_in_the_order_of_their_vertices():
    lengths = 1.0 - torch.eye(4)
    assert edge_order(lengths, 1.0).edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert edge_order(lengths, 0.5).edges.shape == (0, 2)


def test_enclosing_radius():
    line = torch.tensor([0.0, 1.0, 5.0])
    assert enclosing_radius((line[:, None] - line).abs()) == 4.0
    assert enclosing_radius(torch.zeros(1, 1)) == 0.0


def test_chunks_do_not_show(monkeypatch):
    lengths = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    lengths = (lengths + lengths.T).fill_diagonal_(0)
    whole = vietoris_rips_filtration(edge_order(lengths, 1.2), 3)
    monkeypatch.setattr(filtration, "_CHUNK", 30)
    for a, b in zip(whole, vietoris_rips_filtration(edge_order(lengths, 1.2), 3), strict=True):
        assert a.vertices.equal(b.vertices)
        assert a.level.equal(b.level)


def test_absurd_filtrations_are_refused_before_they_are_built(monkeypatch):
    with pytest.raises(MemoryError, match=r"20000 points has 199990000 edges"):
        filtration.check_edges(20_000)
    order = edge_order(1.0 - torch.eye(30), 1.0)
    monkeypatch.setattr(filtration, "MAX_SIMPLICES", 4000)
    with pytest.raises(MemoryError, match=r"4060 simplices of dimension 2.*max_length"):
        vietoris_rips_filtration(order, 2)
