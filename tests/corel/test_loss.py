"""The connectivity loss against its definition, and its gradient against Theorem 2."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from corel import ConnectivityLoss, death_times
from corel.loss import connectivity_loss
from corel.persistence.metric import pairwise_lengths
from corel.persistence.reference import reference_merge_edges

NORMS = [1.0, 2.0, math.inf, 3.0]


def _codes(b: int, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(b, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.integers(1, 20),
    st.sampled_from([(6, 1), (6, 2), (6, 6), (10, 5)]),
    st.sampled_from(NORMS),
    st.sampled_from(["mean", "sum"]),
    st.integers(0, 2**31),
)
def test_definition(b, columns, p, reduction, seed):
    n, branches = columns
    z = _codes(b, n, seed)
    total = 0.0
    for branch in z.split(n // branches, dim=1):
        edges = reference_merge_edges(branch[None], p)[0]
        total += (1.5 - pairwise_lengths(branch, p)[edges[:, 0], edges[:, 1]]).abs().sum().item()
    if reduction == "mean":
        total /= branches
    loss = ConnectivityLoss(1.5, branches, p, reduction)(z)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_gradient_is_theorem_2(p):
    z, eta = _codes(12, 4), 2.0
    expected = torch.zeros_like(z)
    for i, j in reference_merge_edges(z[None], p)[0].tolist():
        u = z[i] - z[j]
        length = torch.linalg.vector_norm(u, p)
        slope = u.sign() if p == 1 else u / length
        expected[i] += torch.sign(length - eta) * slope
        expected[j] -= torch.sign(length - eta) * slope
    z.requires_grad_()
    connectivity_loss(z, eta, p=p).backward()
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize(("branches", "reduction"), [(1, "mean"), (3, "sum"), (3, "mean")])
def test_gradcheck(p, branches, reduction):
    z = _codes(7, 6).requires_grad_()
    loss = ConnectivityLoss(1.0, branches, p, reduction)
    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


@pytest.mark.parametrize("p", NORMS)
def test_no_gradient_at_equal_points_or_at_eta(p):
    z = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]], requires_grad=True)
    loss = ConnectivityLoss(2.0, p=p)(z)
    assert loss.item() == 2.0
    loss.backward()
    assert z.grad is not None
    assert not z.grad.any()


def test_single_code_has_no_loss():
    z = torch.ones(1, 4, requires_grad=True)
    loss = ConnectivityLoss(branches=2)(z)
    loss.backward()
    assert loss.item() == 0.0
    assert z.grad is not None
    assert not z.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_autocast(dtype):
    z = _codes(10, 4).to(dtype).requires_grad_()
    loss = connectivity_loss(z, branches=2)
    assert loss.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    loss.backward()
    assert z.grad is not None
    assert z.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(connectivity_loss(z, branches=2), loss)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(p, backend):
    torch._dynamo.reset()  # each norm is a program of its own, and there is a limit to their number
    z = _codes(9, 6).requires_grad_()
    loss = ConnectivityLoss(1.0, 2, p)
    compiled = torch.compile(loss, backend=backend, fullgraph=True)(z)
    torch.testing.assert_close(compiled, loss(z))
    (gradient,) = torch.autograd.grad(compiled, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(z), z)[0])


@pytest.mark.parametrize("p", NORMS)
def test_a_traced_program_computes_with_the_numbers_it_is_given(p):
    def step(z):
        loss = ConnectivityLoss(1.0, 2, p)(z)
        return loss.detach(), torch.autograd.grad(loss, z)[0]

    program = make_fx(step)(_codes(9, 6).requires_grad_())
    z = _codes(9, 6, 1).requires_grad_()
    torch.testing.assert_close(program(z), step(z))


def test_torch_func():
    z = torch.stack([_codes(9, 6, seed) for seed in range(3)])
    loss = ConnectivityLoss(1.0, 2)
    losses = torch.func.vmap(loss)(z)
    gradients = torch.func.vmap(torch.func.grad(loss))(z)
    for one, value, gradient in zip(z, losses, gradients, strict=True):
        one = one.clone().requires_grad_()
        torch.testing.assert_close(loss(one), value)
        torch.testing.assert_close(torch.autograd.grad(loss(one), one)[0], gradient)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_forward_mode_and_hessian(p, reduction):
    z, tangent = _codes(14, 6).view(2, 7, 6)
    loss = ConnectivityLoss(1.0, 2, p, reduction)
    gradient, hessian = torch.func.grad(loss)(z), torch.autograd.functional.hessian(loss, z)
    with forward_ad.dual_level():
        value, derivative = forward_ad.unpack_dual(loss(forward_ad.make_dual(z, tangent)))
    torch.testing.assert_close(value, loss(z))
    assert derivative is not None
    torch.testing.assert_close(derivative, (gradient * tangent).sum())
    torch.testing.assert_close(torch.func.jvp(loss, (z,), (tangent,))[1], derivative)
    torch.testing.assert_close(torch.func.hessian(loss)(z), hessian)


def test_upstream_gradient_and_strides():
    base = _codes(6, 12)
    z = base.T[::2].contiguous().requires_grad_()
    strided = base.T[::2].detach().requires_grad_()
    assert not strided.is_contiguous()
    (-3 * connectivity_loss(z, branches=3)).backward()
    (-3 * connectivity_loss(strided, branches=3)).backward()
    assert torch.equal(z.grad, strided.grad)
    (plain,) = torch.autograd.grad(connectivity_loss(z, branches=3), z)
    torch.testing.assert_close(z.grad, -3 * plain)


def test_same_bits_with_any_number_of_threads():
    z, threads, seen = _codes(200, 160, dtype=torch.float32).requires_grad_(), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            loss = connectivity_loss(z, branches=16)
            seen.append((loss.item(), torch.autograd.grad(loss, z)[0]))
    finally:
        torch.set_num_threads(threads)
    for loss, gradient in seen[1:]:
        assert loss == seen[0][0]
        assert torch.equal(gradient, seen[0][1])


def test_descent_pulls_deaths_to_eta():
    z = _codes(30, 4).mul(5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.02)
    before = (death_times(z) - 2).abs().mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        connectivity_loss(z).backward()
        optimizer.step()
    assert (death_times(z) - 2).abs().mean().item() < 0.2 * before


def test_module_shows_its_settings():
    text = repr(ConnectivityLoss(eta=1.0, branches=4, p=math.inf, reduction="sum"))
    assert text == "ConnectivityLoss(eta=1.0, branches=4, p=inf, reduction='sum')"


@pytest.mark.parametrize(
    ("settings_", "error", "name"),
    [
        ({"eta": 0}, ValueError, "eta"),
        ({"eta": -1.0}, ValueError, "eta"),
        ({"eta": math.inf}, ValueError, "eta"),
        ({"eta": math.nan}, ValueError, "eta"),
        ({"eta": "2"}, TypeError, "eta"),
        ({"branches": 0}, ValueError, "branches"),
        ({"branches": 1.5}, TypeError, "branches"),
        ({"branches": True}, TypeError, "branches"),
        ({"p": 0.5}, ValueError, "p"),
        ({"reduction": "max"}, ValueError, "reduction"),
        ({"reduction": np.array(["mean", "sum"])}, TypeError, "reduction"),
        ({"reduction": None}, TypeError, "reduction"),
        ({"eta": True}, TypeError, "eta"),
        ({"eta": 10**400}, ValueError, "eta"),
        ({"p": True}, TypeError, "p"),
        ({"p": "2"}, TypeError, "p"),
    ],
)
def test_bad_settings(settings_, error, name):
    with pytest.raises(error, match=f"^{name}: got"):
        ConnectivityLoss(**settings_)
    with pytest.raises(error, match=f"^{name}: got"):
        connectivity_loss(torch.zeros(3, 4), **settings_)


@pytest.mark.parametrize(
    ("z", "error"),
    [
        (torch.zeros(4), ValueError),
        (torch.zeros(2, 3, 4), ValueError),
        (torch.zeros(0, 4), ValueError),
        (torch.zeros(3, 0), ValueError),
        (torch.full((3, 4), math.nan), ValueError),
        (torch.zeros(3, 4, dtype=torch.int32), TypeError),
        (np.zeros((3, 4)), TypeError),
        (torch.zeros(3, 4).to_sparse(), TypeError),
        (torch.zeros(3, 4, device="meta"), TypeError),
        (torch.zeros(3, 4).to(torch.float8_e4m3fn), TypeError),
    ],
)
def test_bad_codes(z, error):
    with pytest.raises(error, match=r"^z: got"):
        connectivity_loss(z)


def test_codes_that_are_not_finite_are_named_under_transforms_too():
    with pytest.raises(ValueError, match=r"^z: got NaN or infinity"):
        torch.func.grad(ConnectivityLoss())(torch.full((3, 4), math.inf))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4)])
def test_the_shape_of_codes_is_named(shape):
    with pytest.raises(ValueError, match=rf"^z: got shape {re.escape(str(shape))}; accepted is \(b, n\)$"):
        ConnectivityLoss()(torch.zeros(shape))


def test_large_integers_are_numbers():
    z = torch.rand(10, 4)
    assert ConnectivityLoss(eta=10**20)(z) == ConnectivityLoss(eta=1e20)(z)


def test_numbers_of_numpy_and_fractions():
    z = _codes(9, 6)
    loss = ConnectivityLoss(np.float32(1.5), np.int64(2), np.float64(2.0), np.str_("sum"))
    assert repr(loss) == "ConnectivityLoss(eta=1.5, branches=2, p=2.0, reduction='sum')"
    assert torch.equal(loss(z), connectivity_loss(z, Fraction(3, 2), 2, 2, "sum"))


def test_branches_that_do_not_divide():
    with pytest.raises(ValueError, match="branches: got 3; it must divide the 4 columns"):
        connectivity_loss(torch.zeros(5, 4), branches=3)
