"""What holds for every method: AUC of an easy problem, of no information, and of identical images; few images."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

import methods
from bench.engine.protocol import auc
from methods import NonFiniteLossError, OneClassMethod

FILTERS = (4, 8, 8)
SMALL = {
    "corel": {"epochs": 6, "batch_size": 20, "branches": 4, "branch_dim": 4, "eta": 2.0},
    "ocsvm-cae": {"representation": 8, "filters": FILTERS, "epochs": 8, "batch_size": 8},
    "deep-svdd": {
        "filters": FILTERS, "representation_dim": 16, "pretraining_epochs": 4, "epochs": 6, "batch_size": 10,
        "pretraining_lr": 1e-3, "lr": 1e-3,
    },
    "dagmm": {"filters": (8, 16, 32), "epochs": 20, "batch_size": 8},
    "dsebm": {"representation": 8, "filters": FILTERS, "epochs": 8, "batch_size": 8},
    "adt": {"width": 1, "downsample": 4, "epochs": 2},
    "patch-lda": {"filters": 8, "components": 64, "ridge": 0.1},
    "sklearn:IsolationForest": {},
    "sklearn:OneClassSVM": {},
    "pyod:ECOD": {},
}  # fmt: skip
#: What makes Patch-LDA fast where the scores themselves do not matter.
FEW_PATCHES = {"patch-lda": {"patches": (6, 4), "stride": 6, "grid": 2, "mirror": False}}
TRAINED = ["ocsvm-cae", "deep-svdd", "dagmm", "dsebm", "adt"]


def test_no_built_in_method_is_forgotten() -> None:
    assert set(methods.available()) <= set(SMALL)


def images(count: int, seed: int, stripes: bool = True) -> np.ndarray:
    """A bright bar and a corner, upright or across, on noise: neither is a rotation, flip or shift of the other."""
    generator = np.random.default_rng(seed)
    pattern = np.zeros((32, 32))
    pattern[:, 4:10] = pattern[24:30, 4:24] = 130
    if not stripes:
        pattern = np.zeros((32, 32))
        pattern[13:19] = pattern[:, 13:19] = 130
    return np.clip(60 + pattern + generator.normal(0, 15, (count, 3, 32, 32)), 0, 255).astype(np.uint8)


TRAIN = images(40, 1)
TEST = np.concatenate([images(60, 2), images(60, 3, stripes=False)])
IN_CLASS = np.arange(120) < 60


def make(name: str, **changes: object) -> OneClassMethod:
    if name.startswith("pyod:") and importlib.util.find_spec("pyod") is None:
        pytest.skip("PyOD is not installed")
    return methods.create(name, device="cpu", **SMALL[name] | changes)


def with_auxiliary(name: str, **changes: object) -> OneClassMethod:
    method = make(name, **changes)
    return method.fit_auxiliary(np.concatenate([TRAIN, TEST])) if method.needs_auxiliary else method


def fit(method: OneClassMethod, train: np.ndarray) -> OneClassMethod:
    return method.fit(method.prepare(train))


def variants(method: OneClassMethod, test: np.ndarray) -> dict[str, np.ndarray]:
    return method.score_variants(method.prepare(test))


@pytest.mark.parametrize("name", SMALL)
def test_aucs_of_an_easy_problem_of_shuffled_labels_and_of_identical_images(name: str) -> None:
    """One test, because tests that share a fitted method may run in processes that would each fit it."""
    method = fit(with_auxiliary(name), TRAIN)
    shuffled = np.random.default_rng(0).permutation(IN_CLASS)
    deviation = math.sqrt(121 / (12 * 60 * 60))  # of the AUC under the null hypothesis
    for variant, scores in variants(method, TEST).items():
        assert max(auc(IN_CLASS, row) for row in np.atleast_2d(scores)) > 0.9, variant
        aucs = [auc(shuffled, row) for row in np.atleast_2d(scores)]
        if variant == "oracle":
            # what picking by test labels buys where there is nothing to find
            assert 0.5 <= max(aucs) < 0.5 + 5 * deviation
        else:
            assert aucs[0] == pytest.approx(0.5, abs=3.5 * deviation), variant
    for variant, scores in variants(method, np.repeat(TEST[:1], 40, axis=0)).items():
        for row in np.atleast_2d(scores):
            assert auc(np.arange(40) % 2 == 0, row) == 0.5, variant


@pytest.mark.parametrize("name", SMALL)
def test_one_two_and_constant_images(name: str) -> None:
    method = with_auxiliary(name, **FEW_PATCHES.get(name, {}))
    for train in (TRAIN[:1], TRAIN[:2], np.full((6, 3, 32, 32), 90, np.uint8)):
        fresh = method if method.needs_auxiliary else make(name)
        for scores in variants(fit(fresh, train), TEST[50:70]).values():
            assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", TRAINED)
def test_a_last_step_that_ruins_the_weights_is_a_divergence(name: str, monkeypatch) -> None:
    step = torch.optim.Adam.step

    def ruin(self, *arguments):
        step(self, *arguments)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(math.nan)

    monkeypatch.setattr(torch.optim.Adam, "step", ruin)
    changes = {"epochs": 1, "batch_size": 10_000} | ({"pretraining_epochs": 0} if name == "deep-svdd" else {})
    method = methods.create(name, device="cpu", **SMALL[name] | changes)
    with pytest.raises(NonFiniteLossError, match=rf"{name}: \w+ ended in weights"):
        method.fit(TRAIN)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_no_uint8_image_is_refused(name: str) -> None:
    """Scores of images in [0, 1] are finite and wrong."""
    once = {setting: 1 for setting in ("epochs", "pretraining_epochs") if setting in SMALL[name]}
    method = fit(with_auxiliary(name, **once, **FEW_PATCHES.get(name, {})), TRAIN[:2])
    for wrong, error in [
        (TEST / 255, TypeError),
        (TEST.astype(np.int64), TypeError),
        (TEST[:, :1], ValueError),  # grey
        (TEST[0], ValueError),  # one image
    ]:
        with pytest.raises(error, match=r"features: got .*accepted is"):
            variants(method, wrong)
    if name in TRAINED:
        with pytest.raises(ValueError, match=r"features: got shape \(0, 3, 32, 32\); accepted is .* n ≥ 1"):
            variants(method, TEST[:0])
