"""Patch-LDA: one dictionary per key, codes that depend on the image alone, and scores that a formula gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import methods
from corel import BallCount, death_times
from methods import patch_lda
from methods.patch_lda import PatchLDA, PatchLDASettings

IMAGES = np.random.default_rng(0).integers(0, 256, (140, 3, 32, 32), dtype=np.uint8)
SMALL = PatchLDASettings(images=120, filters=3, patches=(6, 4), stride=6, grid=2, components=20, copies=0)


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    """Each batch is filled up with black images: smaller ones cost less, and leave some images to a second."""
    with patch.object(patch_lda, "BATCH", 100):
        yield


def learned(settings: PatchLDASettings = SMALL, images: np.ndarray = IMAGES, seed: int = 0, path=None) -> PatchLDA:
    return PatchLDA(settings, seed=seed, device="cpu").fit_auxiliary(images, path=path)


@pytest.fixture(scope="module")
def method() -> PatchLDA:
    return learned()


@pytest.fixture(scope="module")
def codes(method) -> np.ndarray:
    return method.prepare(IMAGES)


def test_the_same_seed_gives_the_same_bits(codes) -> None:
    np.testing.assert_array_equal(learned().prepare(IMAGES), codes)
    assert not np.array_equal(learned(seed=1).prepare(IMAGES), codes)


def test_codes_depend_on_the_image_alone(method, codes) -> None:
    assert codes.shape == (140, 20)
    assert codes.dtype == np.float32
    order = np.random.default_rng(1).permutation(140)
    np.testing.assert_array_equal(method.prepare(IMAGES[order]), codes[order])
    np.testing.assert_array_equal(method.prepare(IMAGES[101:103]), codes[101:103])
    assert method.prepare(IMAGES[:0]).shape == (0, 20)


def test_settings_of_pytorch_change_nothing() -> None:
    settings = dataclasses.replace(SMALL, copies=30)

    def scores() -> np.ndarray:
        made = learned(settings)
        codes = made.prepare(IMAGES)
        return made.fit(codes[:20]).score_samples(codes)

    expected = scores()
    try:
        torch.set_default_device("meta")  # a tensor that lands there by mistake has no numbers
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            changed = scores()
    finally:
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(changed, expected)


def test_a_single_component_with_copies() -> None:
    codes = learned(dataclasses.replace(SMALL, components=1, copies=30)).prepare(IMAGES)
    assert codes.shape == (140, 1)
    assert np.isfinite(codes).all()


def test_a_mirror_image_has_the_same_code(method, codes) -> None:
    np.testing.assert_allclose(method.prepare(IMAGES[:9, ..., ::-1]), codes[:9], atol=1e-4)


def test_features_are_thresholded_correlations_averaged_over_fields() -> None:
    settings = dataclasses.replace(SMALL, mirror=False, patches=(6,), filters=6)
    method = learned(settings)
    kernel = method._learned["6"].numpy().astype(float)
    image = IMAGES[3].astype(float)
    expected = np.zeros((2, 2, 2, 6))
    for row in range(5):
        for column in range(5):
            patch = image[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6].ravel()
            y = ((patch - patch.mean()) / np.sqrt(patch.var() + 10)) @ kernel
            for i in {row // 3, (row + 1) // 3}:  # the middle of five belongs to both fields
                for j in {column // 3, (column + 1) // 3}:
                    expected[0, i, j] += np.maximum(y - 0.25, 0) / 9
                    expected[1, i, j] += np.maximum(-y - 0.25, 0) / 9
    features = next(method._features(IMAGES[3:4]))[0].numpy().reshape(4, 2, 6)
    np.testing.assert_allclose(features, np.log(expected.reshape(2, 4, 6).transpose(1, 0, 2) + 0.05), atol=1e-4)


def test_scores_are_the_discriminant_against_the_background() -> None:
    """With all components, the product of codes is that of features under the inverse regularised correlation."""
    method = learned(dataclasses.replace(SMALL, components=48))
    features = np.concatenate([part.numpy() for part in method._features(IMAGES)])[:140].astype(np.float64)
    chosen = np.sort(np.random.default_rng(0).permutation(140)[:120])
    standard = (features - features[chosen].mean(0)) / features[chosen].std(0)
    correlation = np.cov(standard[chosen].T, bias=True)
    shrunk = correlation + 0.003 * np.linalg.eigvalsh(correlation)[-1] * np.eye(48)
    products = standard @ np.linalg.solve(shrunk, standard[:5].T)
    lengths = np.sqrt(np.einsum("ij,ij->i", standard, np.linalg.solve(shrunk, standard.T).T))
    weights = products / lengths[:5]
    codes = method.prepare(IMAGES)
    scores = method.fit(codes[:5]).score_variants(codes)
    np.testing.assert_allclose(scores["lda"], weights.mean(1), atol=2e-3)
    density = np.log(np.exp(14 * weights / lengths[:, None]).sum(1))
    np.testing.assert_allclose(scores["density"], density, atol=5e-3)
    np.testing.assert_array_equal(method.score_samples(codes), scores["density"])
    np.testing.assert_array_equal(method.score_samples(codes[7:9]), scores["density"][7:9])


def test_codes_are_whitened_by_what_changes_between_copies(codes) -> None:
    settings = dataclasses.replace(SMALL, copies=120, damping=1e-3)
    method = learned(settings)
    np.testing.assert_array_equal(learned(settings).prepare(IMAGES), method.prepare(IMAGES))
    chosen = np.sort(np.random.default_rng(0).permutation(140)[:120])
    change = method.prepare(IMAGES[chosen]) - method.prepare(method._changed(IMAGES[chosen]))
    np.testing.assert_allclose(np.cov(change.T, bias=True), np.eye(20), atol=0.01)
    # a linear map of the codes without copies, with one kernel: distances differ, what they can tell apart does not
    fitted = np.linalg.lstsq(codes, method.prepare(IMAGES), rcond=None)[0]
    np.testing.assert_allclose(codes @ fitted, method.prepare(IMAGES), atol=1e-3)


def test_copies_are_cropped_and_recoloured() -> None:
    method = PatchLDA(SMALL, device="cpu")
    grey = np.full((50, 3, 32, 32), 128, np.uint8)
    grey[:, :, :16] = 60
    copies = method._changed(grey)
    assert copies.dtype == np.uint8
    assert copies.shape == grey.shape
    np.testing.assert_array_equal(copies[:, 0], copies[:, 1])  # no colour comes from none
    assert len({copy.tobytes() for copy in copies}) > 30
    np.testing.assert_array_equal(copies, PatchLDA(SMALL, device="cpu")._changed(grey))
    assert not np.array_equal(copies, PatchLDA(SMALL, seed=1, device="cpu")._changed(grey))


def test_a_file_is_loaded_and_one_of_another_key_or_damaged_is_not(tmp_path, monkeypatch, codes) -> None:
    runs = []
    learn = PatchLDA._learn
    monkeypatch.setattr(PatchLDA, "_learn", lambda self, images: runs.append(1) or learn(self, images))
    path = tmp_path / "auxiliary" / "key"
    np.testing.assert_array_equal(learned(path=path).prepare(IMAGES), codes)
    np.testing.assert_array_equal(learned(path=path).prepare(IMAGES), codes)
    assert len(runs) == 1
    torch.load(path, weights_only=True)
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(learned(path=path).prepare(IMAGES), codes)
    few = IMAGES[:40]
    learned(path=path, images=few)
    learned(path=path, images=few, seed=1)
    learned(path=path, images=255 - few, seed=1)
    learned(dataclasses.replace(SMALL, ridge=0.1), path=path, images=255 - few, seed=1)
    assert len(runs) == 6


def test_order_of_the_verbs(codes) -> None:
    with pytest.raises(ValueError, match="fit_auxiliary first"):
        PatchLDA(SMALL, device="cpu").prepare(IMAGES)
    with pytest.raises(ValueError, match="call fit first"):
        PatchLDA(SMALL, device="cpu").score_samples(codes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 0}, "filters: got 0"),
        ({"patches": (4, 33)}, r"patches: got \(4, 33\)"),
        ({"ridge": 0.0}, "ridge: got 0.0"),
        ({"concentration": 0.0}, "concentration: got 0.0"),
        ({"crop": 1.5}, "crop: got 1.5"),
        ({"crop": 0}, "crop: got 0"),
        ({"damping": 0.0}, "damping: got 0.0"),
        ({"images": 0}, "images: got 0"),
    ],
)
def test_bad_settings(change, message) -> None:
    with pytest.raises(ValueError, match=f"^{message}; accepted are"):
        PatchLDASettings(**change)


def test_digits_are_told_apart() -> None:
    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[:, None], 3, axis=1)
    train, test, labels = images[:1300], images[1300:], data.target[1300:]
    method = methods.create("patch-lda", "quick", device="cpu").fit_auxiliary(train)
    train_codes, test_codes = method.prepare(train), method.prepare(test)
    aucs, by_mean_image = [], []
    for digit in range(10):
        own = np.flatnonzero(data.target[:1300] == digit)[:100]
        aucs.append(roc_auc_score(labels == digit, method.fit(train_codes[own]).score_samples(test_codes)))
        distances = ((test - train[own].mean(0)) ** 2).sum((1, 2, 3))
        by_mean_image.append(roc_auc_score(labels == digit, -distances))
    assert np.mean(aucs) > max(0.97, np.mean(by_mean_image))


@pytest.mark.parametrize("layer", [{}, {"hidden": 30, "unit": True}])
def test_the_example_with_branches_on_top(layer) -> None:
    """examples/patch_corel.py: the ball count is that of its codes at η, and the loss makes η the length of deaths."""
    path = Path(__file__).parents[2] / "examples" / "patch_corel.py"
    settings = {
        **dataclasses.asdict(SMALL),
        "branches": 2,
        "branch_dim": 3,
        "epochs": 90,
        "lr": 0.01,
        "eta": 1.5,
        **layer,
    }
    deaths = {}
    for lam in (0.0, 20.0):
        method = methods.create(str(path), device="cpu", lam=lam, **settings).fit_auxiliary(IMAGES)
        features = method.prepare(IMAGES)
        assert features.shape == (140, 12)
        codes = torch.from_numpy(features[:, :6])
        deaths[lam] = death_times(codes[:100].view(100, 2, 3).transpose(0, 1)).mean().item()
        np.testing.assert_array_equal(method.prepare(IMAGES[101:103]), features[101:103])
    assert abs(deaths[20.0] - 1.5) < min(0.3, abs(deaths[0.0] - 1.5))
    scores = method.fit(features[:5]).score_variants(features)
    balls = BallCount(radius=1.5, branches=2).fit(features[:5, :6]).score_samples(features[:, :6])
    np.testing.assert_array_equal(scores["ball"], balls)
    np.testing.assert_array_equal(method.score_samples(features), balls)
    assert set(scores) == {"ball", "density", "lda"}
