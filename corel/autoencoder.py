"""The branched convolutional autoencoder (§5, Fig. 3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corel import _checks

#: Side of the images that the autoencoder takes, in pixels (§5.1).
IMAGE_SIZE = 32
_filters = _checks.counts(1, 5)


class BranchedLinear(nn.Module):
    """Independent linear maps of consecutive parts of the input (the paper's I-Linear).

    Equal to a linear layer with a block-diagonal matrix; only the blocks are stored. Weights and biases start as those
    of :class:`torch.nn.Linear` with ``in_features / branches`` inputs.

    Parameters
    ----------
    in_features, out_features
        Sizes of input and output; branch k maps inputs [k·in/branches, (k+1)·in/branches) to the same part of the
        output.
    branches
        Number of branches; divides both.
    device, dtype
        Of the parameters; by default torch's.

    Raises
    ------
    ValueError, TypeError
        If ``branches`` does not divide both sizes, or a number is no integer of at least 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        branches: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_features = _checks.count("in_features", in_features)
        out_features = _checks.count("out_features", out_features)
        branches = _checks.count("branches", branches)
        if in_features % branches or out_features % branches:
            raise ValueError(
                f"branches: got {branches}, which does not divide both in_features {in_features} and "
                f"out_features {out_features}"
            )
        self.in_features, self.out_features, self.branches = in_features, out_features, branches
        inputs, outputs = in_features // branches, out_features // branches
        self.weight = nn.Parameter(torch.empty(branches, inputs, outputs, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(branches, 1, outputs, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly from ±1/√(inputs of a branch)."""
        bound = 1 / math.sqrt(self.in_features // self.branches)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_features) → (b, out_features), of the dtype of the weights.

        Raises
        ------
        ValueError, TypeError
            If ``x`` has another shape, or a dtype that is not the weights' (under autocast, any floating one but
            float64 is taken).
        """
        _check_input(x, self.weight, self.in_features)
        parts = x.reshape(x.shape[0], self.branches, self.in_features // self.branches).transpose(0, 1)
        return torch.baddbmm(self.bias, parts, self.weight).transpose(0, 1).reshape(x.shape[0], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, branches={self.branches}"


def _check_input(x: Tensor, weight: Any, *sizes: int) -> None:
    """Raise unless ``x`` is a tensor (b, *sizes), b ≥ 0, that a layer with this weight can take."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: got {type(x).__name__}; accepted are tensors of dtype {weight.dtype}")
    if x.is_nested or x.shape[1:] != sizes:
        _checks.check_dense("x", x)
        raise ValueError(f"x: got shape {tuple(x.shape)}; accepted is (b, {', '.join(map(str, sizes))})")
    if x.dtype != weight.dtype and not _casts(x, weight):
        raise TypeError(f"x: got dtype {x.dtype}; accepted is {weight.dtype}, that of the weights")
    # torch computes with a meta tensor and real weights, and returns memory that nobody wrote to
    if x.layout is not _checks.STRIDED or (x.is_meta and not weight.is_meta):
        _checks.check_dense("x", x)


def _casts(x: Tensor, weight: Tensor) -> bool:
    """Whether autocast computes with both dtypes: it leaves float64 as it is."""
    dtypes = (x.dtype, weight.dtype)
    enabled = torch.is_autocast_enabled(x.device.type)
    return enabled and x.is_floating_point() and torch.float64 not in dtypes


class Autoencoder(nn.Module):
    """Convolutional autoencoder with a branched code (§5, Fig. 3; layer sizes of the released code).

    The encoder has a 3×3 convolution of stride 2 per entry of ``filters``, LeakyReLU(0.01) after each, and a branched
    linear layer to the code; the decoder mirrors it with transposed convolutions, ReLU between them and nothing at the
    end. With the defaults the encoder has 113,888 parameters.

    Parameters
    ----------
    branches
        Number of branches of the code.
    branch_dim
        Dimension of each branch.
    in_channels
        Channels of the images.
    filters
        Filters of the encoder's convolutions, 1 to 5 of them.
    device, dtype
        Of the parameters; by default torch's.

    Raises
    ------
    ValueError, TypeError
        If ``branches`` does not divide the flattened output of the convolutions (2048 with the default filters), or
        a number is no integer of at least 1.
    """

    def __init__(
        self,
        branches: int = 16,
        branch_dim: int = 10,
        in_channels: int = 3,
        filters: Sequence[int] = (32, 64, 128),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        branches = _checks.count("branches", branches)
        branch_dim = _checks.count("branch_dim", branch_dim)
        in_channels = _checks.count("in_channels", in_channels)
        filters = _filters("filters", filters)
        self.branches, self.branch_dim, self.in_channels = branches, branch_dim, in_channels
        side = IMAGE_SIZE >> len(filters)
        flat = filters[-1] * side * side
        if flat % branches:
            raise ValueError(f"branches: got {branches}; it must divide {flat}, the flattened output of the filters")
        code = branches * branch_dim
        channels = [in_channels, *filters]
        down: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            down += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, device=device, dtype=dtype),
                nn.LeakyReLU(0.01),
            ]
        up: list[nn.Module] = []
        for before, after in itertools.pairwise(reversed(channels)):
            up += [
                nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1, device=device, dtype=dtype),
                nn.ReLU(),
            ]
        self.encoder = nn.Sequential(*down, nn.Flatten(), BranchedLinear(flat, code, branches, device, dtype))
        self.decoder = nn.Sequential(
            BranchedLinear(code, flat, branches, device, dtype),
            nn.Unflatten(1, (filters[-1], side, side)),
            *up[:-1],
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode images.

        Parameters
        ----------
        x
            (b, in_channels, 32, 32) of the dtype of the weights, in [0, 1]; b may be 0.

        Returns
        -------
        tuple of Tensor
            The reconstruction x̂, of the shape of ``x``, and the code z, (b, branches · branch_dim).

        Raises
        ------
        ValueError, TypeError
            If ``x`` has another shape, or a dtype that is not the weights' (under autocast, any floating one but
            float64 is taken).
        """
        _check_input(x, self.encoder[0].weight, self.in_channels, IMAGE_SIZE, IMAGE_SIZE)
        z = self.encoder(x)
        return self.decoder(z), z
