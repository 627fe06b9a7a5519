"""Lengths: values to the last bit, extreme scales, subgradients where there is no gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch.autograd import forward_ad

from corel.persistence.metric import check_p, edge_lengths, norm, pairwise_lengths

NORMS = [1.0, 2.0, math.inf, 3.0, 1.5]


def _scipy(x: np.ndarray, p: float) -> np.ndarray:
    return cdist(x, x, "chebyshev") if p == math.inf else cdist(x, x, "minkowski", p=p)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_lengths_agree_with_scipy(p, dtype, rtol):
    x = torch.randn(30, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(pairwise_lengths(x, p), _scipy(x.double().numpy(), p), rtol=rtol)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 12), st.sampled_from(["float32", "float64"]), st.integers(0, 2**31))
def test_sums_are_rounded_in_the_order_of_coordinates(d, dtype, seed):
    u = np.random.default_rng(seed).normal(size=(50, d)).astype(dtype)
    taxicab, squares = np.zeros(50, dtype), np.zeros(50, dtype)
    for k in range(d):
        taxicab = taxicab + np.abs(u[:, k])
        squares = squares + u[:, k] * u[:, k]
    assert np.array_equal(norm(torch.from_numpy(u), 1.0).numpy(), taxicab)
    assert np.array_equal(norm(torch.from_numpy(u), 2.0).numpy(), np.sqrt(squares))


@pytest.mark.parametrize("p", NORMS)
def test_edges_and_pairs_give_the_same_bits(p):
    x = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0))
    i, j = torch.triu_indices(20, 20, 1)
    edges = torch.stack((i, j), -1).expand(3, -1, 2)
    pairs = pairwise_lengths(x, p)
    assert torch.equal(edge_lengths(x, edges, p), pairs[:, i, j])
    assert torch.equal(pairs, pairs.mT)
    assert not pairs.diagonal(dim1=-2, dim2=-1).any()
    with_gradient = pairwise_lengths(x.clone().requires_grad_(), p)
    assert torch.equal(with_gradient.detach(), pairs)
    assert torch.equal(torch.stack([pairwise_lengths(cloud.T.contiguous().T, p) for cloud in x]), pairs)


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [(torch.float32, [1e-45, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 4e37]), (torch.float64, [5e-324, 1e-200, 1e200, 2e307])],
)
@pytest.mark.parametrize("p", NORMS)
def test_neither_overflow_nor_underflow(dtype, scales, p):
    for scale in scales:
        side = torch.tensor([3.0, 4.0], dtype=dtype) * scale
        expected = math.hypot(*side.tolist()) if p == 2 else float(np.linalg.norm([3.0, 4.0], p)) * scale
        length = norm(side, p).item()
        unit = np.spacing(side.numpy().max())  # subnormal lengths are multiples of the least number
        assert abs(length - expected) <= 4 * unit + 1e-6 * (0 if dtype is torch.float64 else expected)


@pytest.mark.parametrize("p", NORMS)
def test_gradients(p):
    x = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pairwise_lengths(x, p)[:, 0, 1:], x)
    assert torch.autograd.gradgradcheck(lambda x: pairwise_lengths(x, p)[:, 0, 1:], x)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_at_equal_points_is_zero(p, order):
    x = torch.ones(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(pairwise_lengths(x, p).sum(), x, create_graph=True)
    if order == 2 and gradient.requires_grad:
        (gradient,) = torch.autograd.grad(gradient.sum(), x)
    assert not gradient.any()


def test_gradient_under_p1_is_zero_along_equal_coordinates():
    x = torch.tensor([[0.0, 5.0], [2.0, 5.0]], requires_grad=True)
    edge_lengths(x, torch.tensor([[0, 1]])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("p", NORMS)
def test_torch_func_and_compile(p):
    x = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = norm(x, p)
    assert torch.equal(torch.func.vmap(lambda u: norm(u, p))(x), expected)
    assert torch.equal(torch.compile(norm, backend="aot_eager", fullgraph=True)(x, p), expected)
    by_func = torch.func.vmap(torch.func.grad(lambda u: norm(u, p).sum()))(x)
    x.requires_grad_()
    (by_autograd,) = torch.autograd.grad(norm(x, p).sum(), x)
    torch.testing.assert_close(by_func, by_autograd)


@pytest.mark.parametrize("p", [0.5, 0, -1, math.nan, -math.inf])
def test_p_that_is_no_norm(p):
    with pytest.raises(ValueError, match="p: got"):
        check_p(p)


@pytest.mark.parametrize("p", ["one", "1", b"1", None, [1], True, np.array(2.0)])
def test_p_that_is_no_number(p):
    with pytest.raises(TypeError, match="p: got"):
        check_p(p)


@pytest.mark.parametrize("p", NORMS)
def test_forward_mode(p):
    x, tangent = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensordot(torch.autograd.functional.jacobian(lambda x: pairwise_lengths(x, p), x), tangent, 2)
    torch.testing.assert_close(torch.func.jvp(lambda x: pairwise_lengths(x, p), (x,), (tangent,))[1], expected)
    with forward_ad.dual_level():
        lengths, derivative = forward_ad.unpack_dual(pairwise_lengths(forward_ad.make_dual(x, tangent), p))
    assert torch.equal(lengths, pairwise_lengths(x, p))
    assert derivative is not None
    torch.testing.assert_close(derivative, expected)
