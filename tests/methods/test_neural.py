"""What the neural baselines share: training by a seed, its resumption and its failure; bfloat16 by autocast; and
independence of PyTorch's global settings.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

import methods
from corel._device import standard_torch
from methods import neural
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


def make(name: str, seed: int = 1, **changes: object) -> NeuralMethod:
    method = methods.create(name, device="cpu", seed=seed, **SMALL[name] | changes)
    assert isinstance(method, NeuralMethod)
    return method


def fit(name: str, seed: int = 1, **changes: object) -> NeuralMethod:
    return make(name, seed, **changes).fit(TRAIN)


def test_every_baseline_with_a_network_is_here() -> None:
    assert {name for name in methods.available() if issubclass(methods.resolve(name), NeuralMethod)} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_and_the_global_random_state_does_not(name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit(name, seed=3).score_samples(TEST)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(fit(name, seed=3).score_samples(TEST), first)
    assert not np.array_equal(fit(name, seed=4).score_samples(TEST), first)


@pytest.mark.parametrize(("name", "changes"), KINDS)
def test_an_interrupted_training_goes_on_to_the_same_scores(name: str, changes: dict, tmp_path, monkeypatch) -> None:
    epochs = {"pretraining_epochs": 2, "epochs": 2} if name == "deep-svdd" else {"epochs": 4}
    step, calls, stop_at = torch.optim.Adam.step, [], math.inf

    def count(self):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(neural, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(torch.optim.Adam, "step", count)
    expected = fit(name, **changes, **epochs).score_samples(TEST)
    steps = len(calls)
    each = steps // 4
    assert each >= 2
    for stop_at in (2 * each, steps):  # the last steps of an epoch in the midst and of the last one
        calls.clear()
        folder = tmp_path / f"{stop_at}"
        for _ in range(3):  # interrupted, resumed, and found finished
            method = make(name, **changes, **epochs)
            method.checkpoint_dir = folder
            if not calls:
                with pytest.raises(KeyboardInterrupt):
                    method.fit(TRAIN)
                assert len(calls) == stop_at
            else:
                np.testing.assert_array_equal(method.fit(TRAIN).score_samples(TEST), expected)
                assert len(calls) == steps + each  # of what was done before, one epoch alone is done again


@pytest.mark.parametrize("name", SMALL)
def test_a_loss_that_is_not_finite_ends_the_training(name: str) -> None:
    with pytest.raises(methods.NonFiniteLossError, match=rf"^{name}: the loss of \w+ is (nan|-?inf) in epoch \d$"):
        fit(name, lr=1e30, epochs=2)


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
    start = threading.Barrier(len(names), timeout=60)

    def together(name: str) -> np.ndarray:
        start.wait()
        return fit(name).score_samples(TEST)

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(together, names))
    np.testing.assert_array_equal(found, expected)


def test_convolutions_on_a_gpu_are_in_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with standard_torch():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 == before
