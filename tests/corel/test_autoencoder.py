"""The branched autoencoder against the paper's description and plain dense layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from corel import Autoencoder, BranchedLinear, ConnectivityLoss


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))
def test_branched_linear_is_a_block_diagonal_linear_layer(branches, inputs, outputs, batch):
    layer = BranchedLinear(branches * inputs, branches * outputs, branches).double()
    dense = nn.Linear(branches * inputs, branches * outputs).double()
    with torch.no_grad():
        dense.weight.copy_(torch.block_diag(*layer.weight).T)
        dense.bias.copy_(layer.bias.flatten())
    x = torch.randn(batch, branches * inputs, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense(x))


def test_only_the_blocks_are_stored():
    layer = BranchedLinear(2048, 160, 16)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 2048 * 10 + 160
    assert layer.weight.shape == (16, 128, 10)


def test_blocks_start_as_linear_layers_of_their_own_inputs():
    torch.manual_seed(0)
    layer = BranchedLinear(2048, 160, 16)
    bound = 1 / 128**0.5
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_branches_do_not_see_each_other():
    layer = BranchedLinear(12, 6, 3)
    x = torch.randn(5, 12)
    y = x.clone()
    y[:, 4:8] += 1
    changed = (layer(x) != layer(y)).any(0)
    assert changed.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("sizes", [(10, 6, 4), (12, 7, 3), (0, 6, 3), (12, 6, 0), (12, 6, -3)])
def test_branched_linear_refuses(sizes):
    with pytest.raises(ValueError, match=r"branches|in_features"):
        BranchedLinear(*sizes)


@pytest.mark.parametrize("wrong", [True, 1.0, "2", None])
def test_branched_linear_refuses_what_is_no_integer(wrong):
    for place, name in enumerate(("in_features", "out_features", "branches")):
        sizes = [12, 6, 3]
        sizes[place] = wrong
        with pytest.raises(TypeError, match=f"^{name}: got {wrong!r}; accepted are integers of at least 1"):
            BranchedLinear(*sizes)


def test_integers_of_numpy():
    layer = BranchedLinear(np.int64(4), np.int32(4), np.uint8(2))
    assert repr(layer) == "BranchedLinear(in_features=4, out_features=4, branches=2)"
    assert Autoencoder(np.int64(4), np.int64(2), filters=np.array([4, 8]))(torch.rand(1, 3, 32, 32))[1].shape == (1, 8)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 3), ValueError, r"got shape \(2, 3\); accepted is \(b, 4\)"),
        (torch.zeros(2, 2, 2), ValueError, r"got shape \(2, 2, 2\); accepted is \(b, 4\)"),
        (torch.zeros(4), ValueError, r"got shape \(4,\); accepted is \(b, 4\)"),
        (torch.tensor(1.0), ValueError, r"got shape \(\); accepted is \(b, 4\)"),
        (torch.zeros(2, 4).double(), TypeError, "got dtype torch.float64; accepted is torch.float32"),
        (torch.zeros(2, 4, dtype=torch.int64), TypeError, "got dtype torch.int64; accepted is torch.float32"),
        (torch.zeros(2, 4).to_sparse(), TypeError, "got a tensor of layout torch.sparse_coo"),
        (np.zeros((2, 4), np.float32), TypeError, "got ndarray; accepted are tensors"),
        (None, TypeError, "got NoneType; accepted are tensors"),
    ],
)
def test_branched_linear_refuses_other_inputs(x, error, message):
    with pytest.raises(error, match=f"^x: {message}"):
        BranchedLinear(4, 4, 2)(x)


def test_no_images_give_no_codes():
    assert BranchedLinear(4, 6, 2)(torch.zeros(0, 4)).shape == (0, 6)
    reconstructed, z = Autoencoder(4, 2, filters=(4, 8))(torch.zeros(0, 3, 32, 32))
    assert reconstructed.shape == (0, 3, 32, 32)
    assert z.shape == (0, 8)


def test_other_dtypes_under_autocast_and_after_conversion():
    model = Autoencoder(4, 2, filters=(4, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(2, 3, 32, 32))[1].dtype == torch.bfloat16
        assert model(torch.rand(2, 3, 32, 32).bfloat16())[1].dtype == torch.bfloat16
        with pytest.raises(TypeError, match=r"x: got dtype torch\.float64; accepted is torch\.float32"):
            model(torch.rand(2, 3, 32, 32).double())
    assert model.double()(torch.rand(2, 3, 32, 32).double())[1].dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match=r"accepted is torch\.float64"):
        model(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("layer", "x"), [(Autoencoder(4, 2), torch.rand(4, 3, 32, 32)), (BranchedLinear(4, 4, 2), torch.rand(2, 4))]
)
def test_meta_and_nested_tensors(layer, x):
    with pytest.raises(TypeError, match="x: got a tensor on the meta device"):
        layer(x.to("meta"))
    with pytest.raises(TypeError, match="x: got a nested tensor"):
        layer(torch.nested.nested_tensor([x[0], x[1]]))
    found = layer.to("meta")(x.to("meta"))
    assert all(part.is_meta for part in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize(
    ("layer", "x"),
    [(Autoencoder(4, 2), torch.rand(4, 3, 32, 32)), (BranchedLinear(4, 4, 2), torch.rand(4, 4)),
     (ConnectivityLoss(branches=2), torch.rand(4, 6))],
)  # fmt: skip
def test_export_with_any_batch_size(layer, x):
    batch = torch.export.Dim("b", min=3)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: batch},)).module()
    other = torch.cat([x, x[:3] / 2])
    torch.testing.assert_close(exported(other), layer(other))


def test_sizes_of_the_paper():
    model = Autoencoder()
    assert sum(p.numel() for p in model.encoder.parameters()) == 113_888
    sizes = [[p.numel() for p in layer.parameters()] for layer in [*model.encoder, *model.decoder]]
    assert [size for size in sizes if size] == [
        [3 * 32 * 9, 32], [32 * 64 * 9, 64], [64 * 128 * 9, 128], [2048 * 10, 160],
        [160 * 128, 2048], [128 * 64 * 9, 64], [64 * 32 * 9, 32], [32 * 3 * 9, 3],
    ]  # fmt: skip
    # 16 masks of dense matrices, as the released code keeps them, make the paper's number of the whole autoencoder
    dense = 2 * (2048 * 160) + (160 + 2048)
    branched = sum(p.numel() for m in model.modules() if isinstance(m, BranchedLinear) for p in m.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert 800_000 < total - branched + dense < 900_000
    kinds = [type(layer).__name__ for layer in [*model.encoder, *model.decoder]]
    assert kinds == [
        "Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU", "Flatten", "BranchedLinear",
        "BranchedLinear", "Unflatten", "ConvTranspose2d", "ReLU", "ConvTranspose2d", "ReLU", "ConvTranspose2d",
    ]  # fmt: skip
    assert all(layer.negative_slope == 0.01 for layer in model.encoder if isinstance(layer, nn.LeakyReLU))


@pytest.mark.parametrize(("branches", "dim"), [(16, 10), (32, 5), (1, 160), (8, 3)])
def test_shapes(branches, dim):
    reconstructed, z = Autoencoder(branches, dim)(torch.rand(2, 3, 32, 32))
    assert reconstructed.shape == (2, 3, 32, 32)
    assert z.shape == (2, branches * dim)


def test_other_channels_and_depth():
    model = Autoencoder(4, 2, in_channels=1, filters=(8, 16))
    assert model(torch.rand(3, 1, 32, 32))[0].shape == (3, 1, 32, 32)


def test_code_has_branches_from_their_own_part_of_the_features():
    model = Autoencoder()
    assert model.encoder[-1].branches == model.decoder[0].branches == 16


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 32, 32), (3, 32, 32)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"x: got shape .*accepted is \(b, 3, 32, 32\)"):
        Autoencoder()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "dtype torch.uint8"),
        (torch.zeros(2, 3, 32, 32).double(), "dtype torch.float64"),
        (torch.zeros(2, 3, 32, 32).half(), "dtype torch.float16"),
        (np.zeros((2, 3, 32, 32), np.float32), "ndarray"),
        (None, "NoneType"),
    ],
)
def test_other_kinds_of_images_are_refused(images, given):
    with pytest.raises(TypeError, match=f"^x: got {given}; accepted (is|are tensors of dtype) torch.float32"):
        Autoencoder(4, 2, filters=(4, 8))(images)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"branches": 0}, ValueError, "branches: got 0; accepted are integers of at least 1"),
        ({"branches": -1}, ValueError, "branches: got -1; accepted are integers of at least 1"),
        ({"branches": 7}, ValueError, "branches: got 7; it must divide 2048"),
        ({"branches": "x"}, TypeError, "branches: got 'x'; accepted are integers of at least 1"),
        ({"branches": 1.0}, TypeError, "branches: got 1.0; accepted are integers of at least 1"),
        ({"branch_dim": True}, TypeError, "branch_dim: got True; accepted are integers of at least 1"),
        ({"in_channels": None}, TypeError, "in_channels: got None; accepted are integers of at least 1"),
        ({"filters": 3}, TypeError, "filters: got 3; accepted are 1 to 5 integers of at least 1"),
        ({"filters": None}, TypeError, "filters: got None; accepted are 1 to 5 integers"),
        ({"filters": "abc"}, TypeError, "filters: got 'abc'; accepted are 1 to 5 integers"),
        ({"filters": (4, True)}, TypeError, r"filters: got \(4, True\); accepted are 1 to 5 integers"),
        ({"filters": (4, 0)}, ValueError, r"filters: got \(4, 0\); accepted are 1 to 5 integers"),
        ({"filters": (4,) * 6}, ValueError, r"filters: got \(4, 4, 4, 4, 4, 4\); accepted are 1 to 5 integers"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Autoencoder(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"branches": 7}, {"branches": 0}, {"branch_dim": 0}, {"in_channels": 0}, {"filters": ()}]
)
def test_impossible_shapes_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        Autoencoder(**arguments)
