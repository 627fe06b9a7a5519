"""Winograd's convolution against the definition, in float64."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from methods._winograd import WinogradConv2d
from methods.wide_resnet import FastWideResNet, WideResNet, _Stage


def last(features: torch.Tensor) -> torch.Tensor:
    return features.float().contiguous(memory_format=torch.channels_last)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    stride=st.sampled_from([1, 2]),
    images=st.integers(1, 9),
    channels=st.sampled_from([8, 16, 24, 256]),
    out_channels=st.sampled_from([32, 96]),
    tiles=st.integers(1, 4),
    with_residual=st.booleans(),
    precision=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 2**32),
)
def test_convolution_normalisation_and_relu(
    stride: int,
    images: int,
    channels: int,
    out_channels: int,
    tiles: int,
    with_residual: bool,
    precision: str,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    features = normal(images, channels, 4 * stride * tiles, 4 * stride * tiles)
    weight = normal(out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    scale, shift = normal(out_channels), normal(out_channels)
    residual = normal(images, out_channels, 4 * tiles, 4 * tiles) if with_residual else torch.zeros(1).double()
    padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
    expected = functional.conv2d(functional.pad(features, padding), weight, stride=stride) + residual
    expected = functional.relu(expected * scale[:, None, None] + shift[:, None, None])
    convolve = WinogradConv2d(weight.float(), scale.float(), shift.float(), stride, precision)
    dtype = getattr(torch, precision)
    result = convolve(last(features).to(dtype), last(residual).to(dtype) if with_residual else None)
    assert result.dtype == dtype
    if precision == "float32":
        torch.testing.assert_close(result.double(), expected, atol=1e-4, rtol=1e-4)
    else:
        # A sum of products of unit variance, each factor rounded to 8 bits; the transforms enlarge what is lost.
        error = (result.double() - expected).square().mean().sqrt() / scale.square().mean().sqrt()
        assert 0 < error < 0.03 or not expected.any()


def test_features_of_another_precision_are_refused() -> None:
    convolve = WinogradConv2d(torch.zeros(32, 8, 3, 3), torch.ones(32), torch.zeros(32), 1, "bfloat16")
    with pytest.raises(TypeError, match=r"features: got torch\.float32; accepted is torch\.bfloat16"):
        convolve(last(torch.zeros(1, 8, 4, 4)))


def test_products_without_the_instruction_for_bfloat16_are_the_same(tmp_path) -> None:
    program = """
import sys, torch
from methods._winograd import WinogradConv2d, multiplies_bfloat16
x, weight, one = torch.randn(2, 16, 8, 8), torch.randn(32, 16, 3, 3), torch.ones(32)
result = WinogradConv2d(weight, one, one, 1, "bfloat16")(x.bfloat16().contiguous(memory_format=torch.channels_last))
torch.save((x, weight, result, multiplies_bfloat16()), sys.argv[1])
"""
    path = tmp_path / "result.pt"
    plain = os.environ | {"NUMBA_CPU_NAME": "x86-64-v3" if platform.machine() == "x86_64" else "generic"}
    subprocess.run([sys.executable, "-c", program, path], env=plain | {"NUMBA_CACHE_DIR": str(tmp_path)}, check=True)
    x, weight, result, native = torch.load(path)
    assert not native
    one = torch.ones(32)
    here = WinogradConv2d(weight, one, one, 1, "bfloat16")(x.bfloat16().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(here, result, atol=1e-2, rtol=1e-2)  # some sums round to another bfloat16


@pytest.mark.parametrize("side", [16, 32])
@torch.no_grad()
def test_the_fast_network_gives_the_logits_of_the_plain_one(side: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = WideResNet(72, width=2)
        for name, tensor in net.state_dict().items():  # statistics and scales as after a training
            if "norm" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 * (not name.endswith("bias")))
        images = last(torch.rand(5, 3, side, side) * 2 - 1)
    net = net.eval().to(memory_format=torch.channels_last)
    expected = net(images)
    fast = FastWideResNet(net, side)(images)[:, 0, 0]
    torch.testing.assert_close(fast, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_networks_with_identity_shortcuts_are_refused() -> None:
    with pytest.raises(ValueError, match="identity shortcuts"):
        FastWideResNet(WideResNet(72, width=1))


@pytest.mark.parametrize(("side", "shifts"), [(32, (0, 8, 16)), (16, (0, 4, 8)), (32, (0, 3)), (48, (0, 4, 20))])
@torch.no_grad()
def test_crops_of_one_image_share_work_but_not_their_borders(side: int, shifts: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = WideResNet(10, width=2).eval()
        images = last(torch.rand(2, 3, side + max(shifts), side + max(shifts)) * 2 - 1)
    fast = FastWideResNet(net, side, shifts)(images)
    assert fast.shape == (2, len(shifts), len(shifts), 10)
    for i, top in enumerate(shifts):
        for j, left in enumerate(shifts):
            expected = net(images[:, :, top : top + side, left : left + side])
            torch.testing.assert_close(fast[:, i, j], expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_nine_crops_cost_less_than_nine_images() -> None:
    stages = [_Stage(8, [0, 8, 16]), _Stage(4, [0, 4, 8]), _Stage(2, [0, 2, 4])]
    assert [len(stage.owners) for stage in stages] == [16, 10, 6]  # instead of 24, 12 and 6 along each side


def test_sides_that_are_no_multiple_of_sixteen_are_refused() -> None:
    with pytest.raises(ValueError, match="side: got 24"):
        FastWideResNet(WideResNet(72, width=2), 24)
