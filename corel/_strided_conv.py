"""Convolutions of stride 2 on the CPU as matrix products, for the training of the autoencoder.

PyTorch's own gradients of these convolutions, and its transposed convolutions, reach about half of the processor's
speed in matrix products, although they need no more arithmetic. Every 3×3 window of a channels-last image is three
runs of consecutive numbers, so that copying the windows into the rows of a matrix is cheap.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def forward(layers: nn.Sequential, x: Tensor) -> Tensor:
    """``layers(x)``, faster where ``x`` is on the CPU. Cannot be differentiated twice."""
    for layer in layers:
        if _is_fast(layer, x):
            x = x.contiguous(memory_format=torch.channels_last)
            x = _fast[type(layer)].apply(x, layer.weight, layer.bias)
        else:
            x = layer(x)
    return x


def _is_fast(layer: nn.Module, x: Tensor) -> bool:
    return (
        isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        and type(layer) in _fast
        and x.device.type == "cpu"
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
        and layer.groups == 1
        and layer.bias is not None
        and (
            layer.output_padding == (1, 1)
            if isinstance(layer, nn.ConvTranspose2d)
            # windows of few channels are short runs; odd sizes have half a window at the end
            else x.shape[1] >= 16 and x.shape[2] % 2 == x.shape[3] % 2 == 0
        )
    )


def _pixels(x: Tensor) -> Tensor:
    """(b, c, h, w), channels last → (b · h · w, c), without a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _images(rows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`_pixels`."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """(n, c, 3, 3) → (n, 9c), in the order of :func:`_windows`."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _windows(x: Tensor) -> Tensor:
    """(b, c, 2s, 2s) → (b · s · s, 9c): the windows of a 3×3 convolution of stride 2 and padding 1."""
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, height + 1, width + 1, channels)
    padded[:, 1:, 1:] = x.permute(0, 2, 3, 1)
    image, row, pixel, _ = padded.stride()
    windows = padded.as_strided((batch, height // 2, width // 2, 3, 3 * channels), (image, 2 * row, 2 * pixel, row, 1))
    return windows.reshape(-1, 9 * channels)


def _fold(windows: Tensor, height: int, width: int) -> Tensor:
    """The adjoint of :func:`_windows`: (b · s · s, 9c) → (b, c, 2s, 2s), the sum over all windows of a pixel."""
    w = windows.view(-1, height // 2, width // 2, 3, 3, windows.shape[1] // 9)
    batch, rows, columns, _, _, channels = w.shape
    out = windows.new_empty(batch, rows, 2, columns, 2, channels)
    # Pixels of even row or column are in the middle of one window; those of odd ones at the end of one window and at
    # the start of the next.
    out[:, :, 0, :, 0] = w[:, :, :, 1, 1]
    out[:, :, 0, :, 1] = w[:, :, :, 1, 2]
    out[:, :, 0, :-1, 1] += w[:, :, 1:, 1, 0]
    out[:, :, 1, :, 0] = w[:, :, :, 2, 1]
    out[:, :-1, 1, :, 0] += w[:, 1:, :, 0, 1]
    out[:, :, 1, :, 1] = w[:, :, :, 2, 2]
    out[:, :, 1, :-1, 1] += w[:, :, 1:, 2, 0]
    out[:, :-1, 1, :, 1] += w[:, 1:, :, 0, 2]
    out[:, :-1, 1, :-1, 1] += w[:, 1:, 1:, 0, 0]
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _weight_gradient(windows: Tensor, pixels: Tensor) -> Tensor:
    """(r, 9c) and (r, n) → (n, c, 3, 3)."""
    return (windows.t() @ pixels).view(3, 3, -1, pixels.shape[1]).permute(3, 2, 0, 1)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        pixels = _pixels(gradient)
        of_x = _fold(pixels @ _matrix(weight), *x.shape[2:]) if ctx.needs_input_grad[0] else None
        return of_x, _weight_gradient(_windows(x), pixels), pixels.sum(0)


class _ConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        # Every pixel is at one of these four places of exactly one window.
        biases = bias.new_zeros(3, 3, len(bias))
        biases[1:, 1:] = bias
        return _fold(torch.addmm(biases.view(-1), _pixels(x), _matrix(weight)), 2 * x.shape[2], 2 * x.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        windows = _windows(gradient)
        of_x = _images(windows @ _matrix(weight).t(), *x.shape[2:])
        return of_x, _weight_gradient(windows, _pixels(x)), gradient.sum((0, 2, 3))


_fast: dict[type[nn.Module], Any] = {nn.Conv2d: _Conv, nn.ConvTranspose2d: _ConvTranspose}
