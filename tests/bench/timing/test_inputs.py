"""The points that the runtime study is given."""

from __future__ import annotations

import numpy as np
import pytest

from bench.timing.inputs import KINDS, from_file


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dim", [1, 2, 10])
def test_kinds_have_the_shape_and_repeat(kind, dim):
    points = KINDS[kind](np.random.default_rng(0), 50, dim)
    assert (points.shape, points.dtype) == ((50, dim), np.float64)
    assert np.array_equal(points, KINDS[kind](np.random.default_rng(0), 50, dim))


def test_a_sheet_has_two_dimensions_and_clusters_lie_apart():
    rng = np.random.default_rng(0)
    x = KINDS["sheet"](rng, 20_000, 10)
    near = x[np.abs(x - x[0]).max(1) < 0.1] - x[0]
    variances = np.linalg.svd(near - near.mean(0), compute_uv=False) ** 2
    assert variances[:2].sum() > 0.98 * variances.sum()
    y = KINDS["clusters"](rng, 1_000, 10)
    lengths = np.linalg.norm(y[:, None] - y, axis=2)
    assert ((lengths < 9) | (lengths > 12)).mean() > 0.99


def test_rows_of_a_file(tmp_path):
    rows = np.arange(40, dtype=np.int32).reshape(20, 2)
    np.save(tmp_path / "x.npy", rows)
    draw, dim = from_file(str(tmp_path / "x.npy"), 20)
    assert dim == 2
    points = draw(np.random.default_rng(0), 20, dim)
    assert points.dtype == np.float64
    assert np.array_equal(np.sort(points, axis=0), rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"text", "cannot read"),
        (np.zeros(3), "holds no"),
        (np.zeros((3, 0)), "holds no"),
        (np.zeros((3, 2), dtype=complex), "holds no"),
        (np.array([[1.0], [2.0], [np.nan]]), "NaN or infinite"),
        (np.zeros((2, 2)), r"--sizes: got 3, but .* has 2 rows"),
    ],
)
def test_a_file_that_cannot_serve(tmp_path, content, message):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ValueError, match=message):
        from_file(str(path), 3)
