"""The wide residual network of the ADT baseline."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.batch_norm import DebiasedBatchNorm2d

# Keras has BatchNormalization(momentum=0.9, epsilon=1e-5); PyTorch's momentum is 1 − 0.9.
_EPS, _MOMENTUM = 1e-5, 0.1


class Conv2dSame(nn.Conv2d):
    """A convolution without bias whose zero padding is TensorFlow's "same".

    At stride 2, an even input gets its odd row and column of padding at the end, where PyTorch's ``padding=1``
    would put it at the start. Weights are drawn from N(0, 2 / fan-in) (He et al.).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=False)
        nn.init.normal_(self.weight, std=math.sqrt(2 / (in_channels * kernel_size**2)))

    def forward(self, images: Tensor) -> Tensor:
        """(b, in, h, w) → (b, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        # An odd kernel at stride 1 pads both sides alike, which the convolution itself can do, without a copy.
        if stride == 1:
            return functional.conv2d(images, self.weight, padding=kernel // 2)
        vertical, horizontal = (max(kernel - (side % stride or stride), 0) for side in images.shape[2:])
        if vertical or horizontal:
            padding = (horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2)
            images = functional.pad(images, padding)
        return functional.conv2d(images, self.weight, stride=stride)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each after batch normalisation and ReLU, and a shortcut.

    Where the number of channels changes, the shortcut is a 1×1 convolution of the first activation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = DebiasedBatchNorm2d(in_channels, _EPS, _MOMENTUM)
        self.conv1 = Conv2dSame(in_channels, out_channels, 3, stride)
        self.norm2 = DebiasedBatchNorm2d(out_channels, _EPS, _MOMENTUM)
        self.conv2 = Conv2dSame(out_channels, out_channels, 3)
        self.shortcut = None if in_channels == out_channels else Conv2dSame(in_channels, out_channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(b, in, h, w) → (b, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        activation = functional.relu(self.norm1(features), inplace=True)
        residual = self.conv2(functional.relu(self.norm2(self.conv1(activation)), inplace=True))
        return residual.add_(features if self.shortcut is None else self.shortcut(activation))


class WideResNet(nn.Module):
    """Wide residual network with pre-activation (Zagoruyko and Komodakis, 2016), as Golan and El-Yaniv set it up.

    A 3×3 convolution to 16 channels; three groups of (depth − 4) / 6 blocks with 16, 32 and 64 times ``width``
    channels, the second and third group at stride 2; batch normalisation, ReLU, the mean over all pixels, and a
    linear layer.

    Parameters
    ----------
    classes
        Number of logits.
    depth
        6n + 4 for n blocks per group.
    width
        Factor on the channels of the three groups.

    Raises
    ------
    ValueError
        If ``depth`` is not 6n + 4 with n ≥ 1.
    """

    def __init__(self, classes: int, *, depth: int = 10, width: int = 4) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth: got {depth!r}; accepted are 10, 16, 22, … (6n + 4)")
        self.stem = Conv2dSame(3, 16, 3)
        blocks: list[ResidualBlock] = []
        channels = 16
        for group, out_channels in enumerate((16 * width, 32 * width, 64 * width)):
            for index in range((depth - 4) // 6):
                blocks.append(ResidualBlock(channels, out_channels, stride=2 if group > 0 and index == 0 else 1))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.norm = DebiasedBatchNorm2d(channels, _EPS, _MOMENTUM)
        self.head = nn.Linear(channels, classes)
        nn.init.uniform_(self.head.weight, -1 / math.sqrt(channels), 1 / math.sqrt(channels))
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) float → (b, classes) logits, float32 also under autocast."""
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        means = functional.relu(self.norm(features), inplace=True).mean(dim=(2, 3), dtype=torch.float32)
        with torch.autocast(means.device.type, enabled=False):
            return self.head(means)
