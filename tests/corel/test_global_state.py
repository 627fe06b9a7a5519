"""What torch was told to do by default changes nothing: every tensor is created with its dtype and device said."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from corel import (
    Autoencoder,
    BallCount,
    ConnectivityLoss,
    death_times,
    merge_edges,
    theory,
    train_autoencoder,
    vr_persistence,
)
from corel.persistence.metric import norm, pairwise_lengths
from corel.persistence.reference import reference_merge_edges

NORMS = (1.0, 2.0, 3.0, math.inf)
POINTS = np.random.default_rng(0).normal(size=(12, 4))


@pytest.fixture(params=["dtype", "device", "no gradients", "inference"])
def changed(request: pytest.FixtureRequest) -> Iterator[None]:
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    try:
        if request.param == "dtype":
            torch.set_default_dtype(torch.float64)
        if request.param == "device":
            torch.set_default_device("meta")  # a tensor that lands there by mistake has no numbers
        if request.param == "no gradients":
            torch.set_grad_enabled(False)
        with torch.inference_mode() if request.param == "inference" else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        torch.set_grad_enabled(gradients)


def persistence() -> Iterator[torch.Tensor]:
    for dtype in ("f", "d"):
        x = torch.from_numpy(POINTS.astype(dtype))
        for p in NORMS:
            yield from (merge_edges(x, p), death_times(x, p), norm(x, p), pairwise_lengths(x, p))
            yield reference_merge_edges(x[None], p)
            yield ConnectivityLoss(branches=2, p=p)(x)
            yield death_times(x[None].bfloat16(), p)
            for algorithm in ("auto", "reduction"):
                for diagram in vr_persistence(x, p=p, max_dim=2, algorithm=algorithm):
                    yield from (diagram.points, diagram.birth_simplices, diagram.death_simplices)
        yield from (diagram.points for diagram in vr_persistence(distances=pairwise_lengths(x), max_dim=1))


def models() -> Iterator[np.ndarray]:
    for form in (POINTS, POINTS.astype("f"), torch.from_numpy(POINTS)):
        for p in NORMS:
            yield BallCount(1.0, 2, p).fit(form).score_samples(form)
    yield np.array(theory.alpha_beta(POINTS))
    yield np.array(theory.density_degree(torch.from_numpy(POINTS), 3.0))


def training() -> Autoencoder:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    settings = {"epochs": 2, "batch_size": 10, "branches": 2, "branch_dim": 2}
    return train_autoencoder(images, **settings, progress=False, device="cpu")[0]


EXPECTED = list(persistence()), list(models())


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """Made under the defaults: a fixture of a module comes before ``changed``."""
    return training().state_dict()


def test_persistence(changed):
    found = list(persistence())
    assert [x.device.type for x in found] == ["cpu"] * len(EXPECTED[0])
    for one, other in zip(found, EXPECTED[0], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_models(changed):
    for one, other in zip(models(), EXPECTED[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_training(trained, changed):
    weights = training().state_dict()
    assert list(weights) == list(trained)
    for name, weight in weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, trained[name]), name


def test_training_in_full_precision(trained) -> None:
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            weights = training().state_dict()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert all(torch.equal(weight, trained[name]) for name, weight in weights.items())
