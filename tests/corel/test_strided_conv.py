"""The autoencoder's fast gradients against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corel import Autoencoder, _strided_conv


def channels_last(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(size, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [(1, 16, 2, 2), (3, 24, 4, 10), (2, 16, 6, 2)])
def test_gradients_are_those_of_the_plain_layer(transposed: bool, size: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    layer: nn.Module = (
        nn.ConvTranspose2d(size[1], 17, 3, 2, 1, output_padding=1) if transposed else nn.Conv2d(size[1], 17, 3, 2, 1)
    )
    layers = nn.Sequential(layer).double().to(memory_format=torch.channels_last)
    x = channels_last(*size)
    assert _strided_conv._is_fast(layer, x)
    out, expected = _strided_conv.forward(layers, x), layers(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(expected)
    inputs = [x, *layers.parameters()]
    for own, plain in zip(
        torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(own, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.Conv2d(16, 16, 5, 2, 2),
        nn.Conv2d(16, 16, 3, 2, 1, bias=False),
        nn.Conv2d(16, 16, 3, 2, 1, groups=2),
        nn.ConvTranspose2d(16, 16, 3, 2, 1),
        nn.Conv2d(16, 16, 3, 2, 1, dilation=2),
    ],
)
def test_other_layers_are_left_alone(layer: nn.Module) -> None:
    assert not _strided_conv._is_fast(layer, channels_last(2, 16, 8, 8))
    assert not _strided_conv._is_fast(nn.Conv2d(16, 16, 3, 2, 1), channels_last(2, 16, 7, 8))


def test_the_autoencoder_s_gradients() -> None:
    torch.manual_seed(0)
    model = Autoencoder().double().to(memory_format=torch.channels_last)
    x = torch.rand(5, 3, 32, 32, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    reconstructed, code = model(x)
    parameters = list(model.parameters())
    expected = torch.autograd.grad((reconstructed - x).abs().sum() + code.square().sum(), parameters)
    code = _strided_conv.forward(model.encoder, x)
    reconstructed = _strided_conv.forward(model.decoder, code)
    own = torch.autograd.grad((reconstructed - x).abs().sum() + code.square().sum(), parameters)
    for a, b in zip(own, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
