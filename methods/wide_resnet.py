"""The wide residual network of the ADT baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from methods._norm import DebiasedBatchNorm2d
from methods._winograd import WinogradConv2d

# The reference's batch normalisation; it keeps 0.9 of the running average from a batch to the next.
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
        # An odd kernel at stride 1 pads both sides alike, and so inside the convolution, without a copy.
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
    in_channels
        Channels of the images.

    Raises
    ------
    ValueError
        If ``depth`` is not 6n + 4 with n ≥ 1.
    """

    def __init__(self, classes: int, *, depth: int = 10, width: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth: got {depth!r}; accepted are 10, 16, 22, … (6n + 4)")
        self.stem = Conv2dSame(in_channels, 16, 3)
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
        """(b, in_channels, h, w) float → (b, classes) logits, float32 also under autocast."""
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        means = functional.relu(self.norm(features), inplace=True).mean(dim=(2, 3), dtype=torch.float32)
        with torch.autocast(means.device.type, enabled=False):
            return self.head(means)


class _Stage:
    """The tiles of 4 pixels, along one side, of the features of several crops of an image, each kept once.

    Crops that overlap have the same features wherever the zeros around the crops are out of sight. All convolutions of
    a block together see 3 pixels, so that a crop's first and last tile are its own and the others belong to the image.

    Parameters
    ----------
    tiles
        Of each crop.
    shifts
        Where each crop starts, in pixels of this stage; perhaps between two of them.
    """

    def __init__(self, tiles: int, shifts: Sequence[float]) -> None:
        self.tiles = tiles
        self.index: dict[tuple[int, int], int] = {}
        self.owners: list[tuple[int, int]] = []  # a crop and its tile for each one kept
        kept: dict[tuple[str, float], int] = {}
        for crop, shift in enumerate(shifts):
            for tile in range(tiles):
                own = tile in (0, tiles - 1) or shift != int(shift)
                place = (f"crop {crop}", tile) if own else ("image", shift + 4 * tile)
                if place not in kept:
                    kept[place] = len(self.owners)
                    self.owners.append((crop, tile))
                self.index[crop, tile] = kept[place]

    def pixel(self, crop: int, pixel: int) -> int:
        """Where a crop's pixel is kept; −1 outside the crop."""
        return 4 * self.index[crop, pixel // 4] + pixel % 4 if 0 <= pixel < 4 * self.tiles else -1

    def windows(self) -> np.ndarray:
        """What each tile sees of this stage itself at stride 1, (kept tiles, 6) int64."""
        return np.array([[self.pixel(crop, 4 * tile + i) for i in range(-1, 5)] for crop, tile in self.owners])

    def windows_of(self, before: _Stage) -> np.ndarray:
        """What each tile sees of the stage before at stride 2, (kept tiles, 9) int64."""
        return np.array([[before.pixel(crop, 8 * tile + i) for i in range(9)] for crop, tile in self.owners])


class FastWideResNet:
    """A :class:`WideResNet` of depth 10 and width 2 or more, in evaluation mode on the CPU, on crops of images.

    The 3×3 convolutions of the blocks, nearly all of the work, go by Winograd's algorithm; each takes the batch
    normalisation and ReLU after it along. What overlapping crops have in common is computed once: for nine crops of
    32 × 32, 8 pixels apart, that is 56 % of the first block and 31 % of the second. Logits agree with the network's
    to the rounding of ``precision``.

    Parameters
    ----------
    net
        Depth 10, width 2 or more.
    side
        Of the crops, a multiple of 16.
    shifts
        The rows at which crops start, and the columns as well, ascending.
    precision
        Of features and of the factors of products up to the last layer, "float32" or "bfloat16".
    """

    def __init__(
        self, net: WideResNet, side: int = 32, shifts: Sequence[int] = (0,), precision: str = "float32"
    ) -> None:
        blocks = [block for block in net.blocks if isinstance(block, ResidualBlock)]
        if any(block.shortcut is None for block in blocks):
            raise ValueError("net: has identity shortcuts; accepted is depth 10 and width 2 or more")
        if side % 16 or side < 16:
            raise ValueError(f"side: got {side!r}; accepted are multiples of 16")
        norms = [block.norm1 for block in blocks] + [net.norm]
        stages = [_Stage(side // (4 << level), [shift / (1 << level) for shift in shifts]) for level in range(3)]
        self.crops, self.head = len(shifts), net.head
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]

        # The first convolution is a matrix product: the windows of 6 × 6 pixels of its tiles by their 4 × 4 outputs.
        tiles, width = len(stages[0].owners), side + shifts[-1] + 1  # the last row and column are zeros
        seen = np.full((tiles, 6), width - 1)
        for row, (crop, tile) in enumerate(stages[0].owners):
            for i in range(6):
                if 0 <= 4 * tile + i - 1 < side:
                    seen[row, i] = shifts[crop] + 4 * tile + i - 1
        self.first_windows = torch.from_numpy((seen[:, None, :, None] * width + seen[None, :, None, :]).reshape(-1))
        kernel = net.stem.weight.detach()
        channels, in_channels = kernel.shape[:2]
        scale, shift = self._affine(norms[0])
        matrix = kernel.new_zeros(6, 6, in_channels, 4, 4, channels)
        for row in range(4):
            for column in range(4):
                scaled = (kernel * scale[:, None, None, None]).permute(2, 3, 1, 0)
                matrix[row : row + 3, column : column + 3, :, row, column] = scaled
        self.first_matrix = matrix.reshape(in_channels * 36, 16 * channels).to(self.dtype)
        self.first_shift = shift.repeat(16).to(self.dtype)

        self.stages: list[tuple[WinogradConv2d, np.ndarray, Tensor, np.ndarray, WinogradConv2d, np.ndarray]] = []
        for level, (block, norm) in enumerate(zip(blocks, norms[1:], strict=True)):
            assert block.shortcut is not None
            conv1 = WinogradConv2d(
                block.conv1.weight.detach(), *self._affine(block.norm2), block.conv1.stride[0], precision
            )
            conv2 = WinogradConv2d(block.conv2.weight.detach(), *self._affine(norm), precision=precision)
            windows = stages[level].windows() if level == 0 else stages[level].windows_of(stages[level - 1])
            # At stride 2 the shortcut takes the pixels at the upper left of each window.
            chosen = np.arange(4 * tiles) if level == 0 else windows[:, 0:8:2].reshape(-1)
            shortcut = block.shortcut.weight.detach()[:, :, 0, 0].t().contiguous().to(self.dtype)
            self.stages.append((conv1, windows, shortcut, chosen, conv2, stages[level].windows()))
        last = stages[-1]
        self.last_tiles = torch.tensor(
            [last.index[crop, tile] for crop in range(self.crops) for tile in range(last.tiles)]
        )

    @staticmethod
    def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """What the batch normalisation multiplies by and adds."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        return scale, (norm.bias - norm.running_mean * scale).detach()

    def __call__(self, images: Tensor) -> Tensor:
        """(b, in_channels, h, w) float32 → (b, crops, crops, classes) logits of the crops by row and column."""
        count, channels = images.shape[:2]
        pixels = functional.pad(images.to(self.dtype), (0, 1, 0, 1)).permute(0, 2, 3, 1).reshape(count, -1, channels)
        windows = pixels.index_select(1, self.first_windows).view(-1, 36 * channels)
        outputs = torch.addmm(self.first_shift, windows, self.first_matrix).relu_()
        tiles = math.isqrt(len(windows) // count)
        features = outputs.view(count, tiles, tiles, 4, 4, -1).transpose(2, 3)
        features = features.reshape(count, 4 * tiles, 4 * tiles, -1).permute(0, 3, 1, 2)
        for conv1, windows1, shortcut, chosen, conv2, windows2 in self.stages:
            residual = (_grid(features, chosen) @ shortcut).permute(0, 3, 1, 2)
            features = conv2(conv1(features, windows=windows1), residual, windows2)
        in_tiles = features.permute(0, 2, 3, 1).unflatten(2, (-1, 4)).unflatten(1, (-1, 4))
        tile_means = in_tiles.mean(dim=(2, 4), dtype=torch.float32)
        of_crops = tile_means.index_select(1, self.last_tiles).index_select(2, self.last_tiles)
        return self.head(of_crops.unflatten(2, (self.crops, -1)).unflatten(1, (self.crops, -1)).mean(dim=(2, 4)))


def _grid(features: Tensor, lines: np.ndarray) -> Tensor:
    """Some rows and the same columns: (b, c, s, s), channels last → (b, n, n, c)."""
    side = features.shape[2]
    pixels = features.permute(0, 2, 3, 1).reshape(len(features), side * side, -1)
    if len(lines) < side or not np.array_equal(lines, np.arange(side)):
        pixels = pixels.index_select(1, torch.from_numpy((lines[:, None] * side + lines).reshape(-1)))
    return pixels.view(len(features), len(lines), len(lines), -1)
