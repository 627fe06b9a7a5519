"""Algorithm 3 against the standard algorithm, and what its proof promises of every step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corel.persistence.filtration import edge_order, vietoris_rips_filtration
from corel.persistence.reduction import SparseColumns, reduce


def sparse(columns: list[set[int]], shuffle: np.ndarray | None = None) -> SparseColumns:
    """The matrix with the given sets of rows as its columns, left to right; stored in another order on demand."""
    order = np.arange(len(columns)) if shuffle is None else shuffle
    rows = [row for j in order for row in sorted(columns[j])]
    return SparseColumns(
        torch.as_tensor(order),
        torch.tensor([len(columns[j]) for j in order], dtype=torch.int64),
        torch.tensor(rows, dtype=torch.int64),
    )


def dense(matrix: SparseColumns) -> list[set[int]]:
    """Columns in the order in which they are stored."""
    count, rows = matrix.columns(torch.arange(len(matrix)))
    return [set(part.tolist()) for part in rows.split(count.tolist())]


def standard_lows(columns: list[set[int]]) -> list[int]:
    """Algorithm 2 of the paper."""
    columns, owner, lows = [set(column) for column in columns], {}, []
    for j, column in enumerate(columns):
        while column and max(column) in owner:
            column ^= columns[owner[max(column)]]
        if column:
            owner[max(column)] = j
        lows.append(max(column, default=-1))
    return lows


@st.composite
def matrices(draw) -> list[set[int]]:
    rows = draw(st.sampled_from([1, 3, 8, 20]))
    return draw(st.lists(st.sets(st.integers(0, rows - 1)), min_size=1, max_size=20))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(matrices(), st.integers(0, 2**31), st.booleans())
def test_lows_are_those_of_the_standard_algorithm(columns, seed, huge_rows):
    if huge_rows:  # numbers whose product with a number of columns does not fit into 64 bits
        columns = [{row + 2**61 for row in column} for column in columns]
    shuffle = np.random.default_rng(seed).permutation(len(columns))
    matrix = sparse(columns, shuffle)
    reduce(matrix)
    low = torch.empty_like(matrix.low)
    low[torch.as_tensor(shuffle)] = matrix.low
    assert low.tolist() == standard_lows(columns)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(matrices())
def test_every_step_is_definition_5_and_what_the_lemma_proves(columns):
    matrix = sparse(columns)
    while True:
        before, low = dense(matrix), matrix.low.tolist()
        assert low == [max(column, default=-1) for column in before]
        sharing = {row: [j for j in range(len(low)) if low[j] == row] for row in set(low) - {-1}}
        expected = {(js[0], j) for js in sharing.values() for j in js[1:]}
        sources, targets = matrix.additions()
        pairs = list(zip(sources.tolist(), targets.tolist(), strict=True))
        assert set(pairs) == expected
        assert len(pairs) == len(expected)
        if not pairs:
            break
        # condition (i): no column is both source and target; condition (ii): every target has one source
        assert not set(sources.tolist()) & set(targets.tolist())
        assert len(set(targets.tolist())) == len(targets)
        matrix.add(sources, targets)
        after = dense(matrix)
        for j in set(range(len(columns))) - set(targets.tolist()):
            assert after[j] == before[j]
        for source, target in pairs:
            assert after[target] == before[target] ^ before[source]
            assert matrix.low[target] < low[target]
    nonzero = matrix.low[matrix.low >= 0]
    assert len(nonzero.unique()) == len(nonzero)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("ties", [False, True])
def test_reduces_boundary_matrices_of_filtered_complexes(dim, ties):
    points = torch.randn(11, 3, generator=torch.Generator().manual_seed(dim))
    lengths = torch.cdist(points, points, p=1.0, compute_mode="donot_use_mm_for_euclid_dist")
    lengths = (lengths + lengths.T) / 2
    if ties:
        lengths = lengths.ceil()
    filtration = vietoris_rips_filtration(edge_order(lengths, float(lengths.max())), dim)
    faces = filtration[dim - 2].vertices.tolist() if dim > 1 else [[point] for point in range(11)]
    row = {tuple(face): index for index, face in enumerate(faces)}
    boundary = [
        {row[(*simplex[:k], *simplex[k + 1 :])] for k in range(dim + 1)}
        for simplex in filtration[dim - 1].vertices.tolist()
    ]
    matrix = sparse([set(column) for column in boundary])
    reduce(matrix)
    assert matrix.low.tolist() == standard_lows(boundary)
    # the complex is a full simplex, cut at dim: every cycle of dimension dim − 1 is filled
    assert int((matrix.low >= 0).sum()) == math.comb(10, dim)


def test_columns_may_be_added_on_the_way():
    columns = [{0, 2}, {1, 2}, {2, 3}, {0, 1, 3}]
    matrix = sparse([columns[1], columns[3]])
    matrix.position = torch.tensor([1, 3])
    matrix.append(torch.tensor([0, 2]), torch.tensor([2, 2]), torch.tensor([0, 2, 2, 3]))
    reduce(matrix)
    low = dict(zip(matrix.position.tolist(), matrix.low.tolist(), strict=True))
    assert [low[j] for j in range(4)] == standard_lows(columns)


def test_memory_of_replaced_entries_is_given_back():
    rng = np.random.default_rng(0)
    columns = [set(rng.choice(300, 150, replace=False).tolist()) for _ in range(300)]
    matrix = sparse(columns)
    largest = 0
    sources, targets = matrix.additions()
    while len(targets):
        matrix.add(sources, targets)
        largest = max(largest, len(matrix._rows))
        sources, targets = matrix.additions()
    assert matrix.low.tolist() == standard_lows(columns)
    assert largest <= 2**16 + 4 * 300 * 300


def test_no_columns():
    matrix = sparse([])
    reduce(matrix)
    assert len(matrix) == 0
    matrix = sparse([set(), set()])
    reduce(matrix)
    assert matrix.low.tolist() == [-1, -1]
