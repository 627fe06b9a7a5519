"""ADT: the 72 transformations, both scores and training."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.special import log_softmax

import methods
from methods.adt import ADT, TRANSFORMATIONS, ADTSettings, source_pixels, transformed
from methods.dirichlet import fit_dirichlet

SMALL = ADTSettings(width=1, downsample=4, epochs=1)


def shapes(n: int, upright: bool, seed: int) -> np.ndarray:
    """An L, or a T lying on its side, of random place, on noise."""
    rng = np.random.default_rng(seed)
    images = rng.normal(60, 15, size=(n, 3, 32, 32))
    for image in images:
        top, left = rng.integers(2, 8, size=2)
        if upright:
            image[:, top : top + 22, left : left + 5] += 150
            image[:, top + 17 : top + 22, left : left + 16] += 150
        else:
            image[:, top : top + 22, left + 9 : left + 14] += 150
            image[:, top + 8 : top + 13, left : left + 22] += 150
    return images.clip(0, 255).astype(np.uint8)


def test_paper_settings() -> None:
    paper = dataclasses.asdict(methods.create("adt", "paper", device="cpu").settings)
    published = {"depth": 10, "width": 4, "downsample": 1, "epochs": 3, "batch_size": 128, "lr": 1e-3, "l2": 2.5e-4}
    assert paper | published == paper
    assert paper["score"] == "dirichlet"
    assert paper["autocast"] is False


def test_order_of_the_transformations() -> None:
    assert len(TRANSFORMATIONS) == 72
    assert TRANSFORMATIONS[:5] == (
        (False, 0, 0, 0),
        (False, 0, 0, 1),
        (False, 0, 0, 2),
        (False, 0, 0, 3),
        (False, 0, -8, 0),
    )
    assert TRANSFORMATIONS[12] == (False, -8, 0, 0)
    assert TRANSFORMATIONS[36] == (True, 0, 0, 0)
    assert len(set(TRANSFORMATIONS)) == 72


def test_transformations_are_scipy_s_image_by_image() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, size=(3, 3, 32, 32)).astype(np.float32)
    sources = source_pixels(32)
    expected_order = itertools.product((False, True), (0, -8, 8), (0, -8, 8), range(4))
    for index, (flip, shift_x, shift_y, quarter_turns) in enumerate(expected_order):
        result = transformed(torch.from_numpy(images), sources[index].repeat(3, 1)).numpy()
        for image, actual in zip(images, result, strict=True):
            expected = image.transpose(1, 2, 0)
            if flip:
                expected = np.fliplr(expected)
            expected = scipy.ndimage.shift(expected, (-shift_x, -shift_y, 0), order=1, mode="reflect")
            expected = np.rot90(expected, quarter_turns)
            np.testing.assert_allclose(actual.transpose(1, 2, 0), expected, atol=1e-6)


def test_each_image_of_a_batch_takes_its_own_transformation() -> None:
    images, sources, chosen = torch.rand(6, 3, 32, 32), source_pixels(32), torch.tensor([5, 71, 0, 40, 5, 13])
    together = transformed(images, sources[chosen])
    alone = [transformed(image[None], sources[own][None]) for image, own in zip(images, chosen, strict=True)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("downsample", [2, 4, 8])
def test_downsampling_commutes_with_the_transformations(downsample: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(2, 3, 32, 32)).astype(np.uint8)
    large = torch.from_numpy(images).float() / 127.5 - 1
    small = ADT(dataclasses.replace(SMALL, downsample=downsample), device="cpu")._inputs(images)
    for large_source, small_source in zip(source_pixels(32), source_pixels(32 // downsample), strict=True):
        expected = torch.nn.functional.avg_pool2d(transformed(large, large_source.repeat(2, 1)), downsample)
        torch.testing.assert_close(transformed(small, small_source.repeat(2, 1)), expected, atol=1e-6, rtol=0)


def test_scores_from_first_principles() -> None:
    train, test = shapes(7, True, 0), shapes(5, False, 1)
    method = ADT(SMALL, device="cpu").fit(train)

    @torch.inference_mode()
    def log_probabilities(images: np.ndarray, source: torch.Tensor) -> np.ndarray:
        inputs = transformed(method._inputs(images), source.repeat(len(images), 1))
        return log_softmax(method._net(inputs).numpy().astype(np.float64), axis=1)

    dirichlet, softmax = np.zeros(5), np.zeros(5)
    for own, source in enumerate(source_pixels(8)):
        alpha = fit_dirichlet(log_probabilities(train, source).mean(axis=0))
        log_p = log_probabilities(test, source)
        dirichlet += ((alpha - 1) * log_p).sum(axis=1)
        softmax += np.exp(log_p[:, own]) / 72
    variants = method.score_variants(test)
    assert list(variants) == ["dirichlet", "softmax"]
    np.testing.assert_allclose(variants["dirichlet"], dirichlet, rtol=1e-3)
    np.testing.assert_allclose(variants["softmax"], softmax, rtol=1e-4)
    np.testing.assert_array_equal(method.score_samples(test), variants["dirichlet"])


def test_the_settings_choose_the_score() -> None:
    train, test = shapes(4, True, 0), shapes(5, False, 1)
    variants = ADT(dataclasses.replace(SMALL, score="softmax"), device="cpu").fit(train).score_variants(test)
    assert list(variants) == ["softmax", "dirichlet"]
    expected = ADT(SMALL, device="cpu").fit(train).score_variants(test)
    assert all(np.array_equal(variants[name], expected[name]) for name in expected)


def test_l2_enters_the_gradient_as_in_keras(monkeypatch) -> None:
    optimizers = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (optimizers.append(self), step(self))[1])
    method = ADT(SMALL, device="cpu").fit(shapes(1, True, 0))
    (group,) = optimizers[0].param_groups
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in method._net.parameters()}
    weight = torch.tensor([0.5, -2.0], requires_grad=True)
    (SMALL.l2 * weight.square().sum()).backward()
    torch.testing.assert_close(group["weight_decay"] * weight.detach(), weight.grad)
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-7)


def test_the_number_of_threads_stays() -> None:
    threads = torch.get_num_threads()
    ADT(SMALL, device="cpu").fit(shapes(1, True, 0)).score_samples(shapes(1, False, 1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("m", [1, 2])
def test_few_images(m: int) -> None:
    variants = ADT(SMALL, device="cpu").fit(shapes(m, True, 0)).score_variants(shapes(3, True, 1))
    assert all(np.isfinite(scores).all() for scores in variants.values())


def test_constant_images() -> None:
    images = np.full((3, 3, 32, 32), 200, np.uint8)
    method = ADT(SMALL, device="cpu").fit(images)
    variants = method.score_variants(np.concatenate([images, shapes(2, True, 0)]))
    for scores in variants.values():
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores[:3], scores[0], rtol=1e-4)


@pytest.mark.parametrize(
    "setting",
    [
        {"depth": 9},
        {"width": 0},
        {"downsample": 3},
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
    ],
)
def test_bad_settings_are_named(setting: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        ADTSettings(**setting)


@pytest.mark.parametrize(
    ("features", "error"),
    [
        (np.zeros((0, 3, 32, 32), np.uint8), ValueError),
        (np.zeros((4, 3, 28, 28), np.uint8), ValueError),
        (np.zeros((4, 3, 32, 32), np.float32), TypeError),
    ],
)
def test_bad_features_are_named(features: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error, match="features"):
        ADT(SMALL, device="cpu").fit(features)
