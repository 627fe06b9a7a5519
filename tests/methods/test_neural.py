"""What the neural baselines share: bfloat16 by autocast, and independence of PyTorch's global settings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

import methods
from corel._device import standard_torch
from methods.neural import NeuralMethod

FILTERS = (4, 8, 8)
SMALL = {
    "adt": {"width": 1, "downsample": 8, "epochs": 1},
    "dagmm": {"filters": FILTERS, "epochs": 2, "batch_size": 8},
    "deep-svdd": {
        "filters": FILTERS, "representation_dim": 16, "pretraining_epochs": 1, "epochs": 1, "batch_size": 8,
        "pretraining_lr": 1e-3, "lr": 1e-3,
    },
    "dsebm": {"representation": 8, "filters": FILTERS, "epochs": 2, "batch_size": 8},
    "ocsvm-cae": {"representation": 8, "filters": FILTERS, "epochs": 2, "batch_size": 8},
}  # fmt: skip
KINDS = [*((name, {}) for name in SMALL), ("dagmm", {"mixture": "code"})]
GENERATOR = np.random.default_rng(0)
TRAIN, TEST = (GENERATOR.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8) for n in (12, 20))


def fit(name: str, **changes: object) -> NeuralMethod:
    method = methods.create(name, device="cpu", seed=1, **SMALL[name] | changes)
    assert isinstance(method, NeuralMethod)
    return method.fit(TRAIN)


def test_every_baseline_with_a_network_is_here() -> None:
    assert {name for name in methods.available() if issubclass(methods.resolve(name), NeuralMethod)} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_autocast(name: str, monkeypatch) -> None:
    seen: set[tuple[bool, torch.dtype]] = set()
    conv2d = functional.conv2d

    def remember(x, weight, *args, **options):
        assert weight.dtype == torch.float32
        result = conv2d(x, weight, *args, **options)
        seen.add((torch.is_grad_enabled(), result.dtype))
        return result

    monkeypatch.setattr(functional, "conv2d", remember)
    expected = fit(name).score_variants(TEST)
    assert seen == {(training, torch.float32) for training in (True, False)}
    seen.clear()
    rounded = fit(name, autocast=True).score_variants(TEST)
    assert seen == {(training, torch.bfloat16) for training in (True, False)}
    for variant, scores in rounded.items():
        assert np.isfinite(scores).all()
        assert scores.dtype == np.float64
        assert not np.array_equal(scores, expected[variant]), variant


def test_autocast_stays_near_float32() -> None:
    """One network: its weights are drawn in float32 whatever the setting, and a tiny rate leaves them."""
    exact, rounded = (fit("deep-svdd", lr=1e-12, pretraining_lr=1e-12, autocast=cast) for cast in (False, True))
    codes, near = exact.encode(TEST), rounded.encode(TEST)
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, codes, atol=0.05 * np.abs(codes).max())


@pytest.mark.parametrize(("name", "changes"), KINDS)
def test_global_settings_of_pytorch_change_nothing(name: str, changes: dict) -> None:
    expected = fit(name, **changes).score_variants(TEST)
    state = (torch.get_default_dtype(), torch.get_float32_matmul_precision())
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")  # on which nothing can be computed
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            scores = fit(name, **changes).score_variants(TEST)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_float32_matmul_precision() == "medium"
        assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(state[0])
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.set_float32_matmul_precision(state[1])
    assert list(scores) == list(expected)
    assert all(np.array_equal(scores[variant], expected[variant]) for variant in expected)


def test_fits_in_threads_are_those_alone() -> None:
    names = ("dsebm", "dagmm")  # both draw from the global generator as they train
    expected = [fit(name).score_samples(TEST) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(lambda name: fit(name).score_samples(TEST), names))
    np.testing.assert_array_equal(found, expected)


def test_convolutions_on_a_gpu_are_in_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with standard_torch():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 == before
