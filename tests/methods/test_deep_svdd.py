"""Deep-SVDD: input, network, centre rule and training."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import methods
from methods.deep_svdd import Decoder, DeepSVDD, DeepSVDDSettings, Encoder, centre_of, contrast_normalise

SMALL = DeepSVDDSettings(
    filters=(4, 8, 8),
    representation_dim=16,
    pretraining_epochs=3,
    pretraining_milestone=2,
    epochs=4,
    milestone=2,
    batch_size=16,
    pretraining_lr=1e-3,
    lr=1e-3,
)


def stripes(n: int, horizontal: bool, seed: int) -> np.ndarray:
    """Noisy stripes, across or upright, of random phase."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(32) * 0.8 + rng.uniform(0, 6.3, size=(n, 1)))
    images = np.repeat(wave[:, :, None] if horizontal else wave[:, None, :], 32, axis=2 if horizontal else 1)
    noisy = 128 + 60 * images[:, None] + rng.normal(0, 20, size=(n, 3, 32, 32))
    return noisy.clip(0, 255).astype(np.uint8)


def test_paper_settings() -> None:
    paper = dataclasses.asdict(methods.create("deep-svdd", "paper", device="cpu").settings)
    assert paper == {
        "autocast": False,
        "filters": (32, 64, 128),
        "representation_dim": 128,
        "pretraining_epochs": 350,
        "pretraining_milestone": 250,
        "epochs": 150,
        "milestone": 50,
        "batch_size": 200,
        "pretraining_lr": 1e-4,
        "lr": 1e-4,
        "weight_decay": 5e-7,
    }


def test_parameters_by_layer() -> None:
    assert [parameter.numel() for parameter in Encoder().parameters()] == [
        32 * 3 * 25,
        64 * 32 * 25,
        128 * 64 * 25,
        2048 * 128,
    ]
    assert [parameter.numel() for parameter in Decoder().parameters()] == [
        8 * 128 * 25,
        128 * 64 * 25,
        64 * 32 * 25,
        32 * 3 * 25,
    ]


def test_no_bias_anywhere() -> None:
    for module in nn.ModuleList([Encoder(), Decoder()]).modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.bias is None
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.weight is None
            assert module.bias is None
            assert module.eps == 1e-4
    assert not Encoder().eval()(torch.zeros(2, 3, 32, 32)).any()


def test_shapes() -> None:
    codes = Encoder()(torch.rand(2, 3, 32, 32))
    assert codes.shape == (2, 128)
    images = Decoder()(codes)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1


def test_contrast_normalisation_is_numpy_s() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(5, 3, 32, 32)).astype(np.uint8)
    result = contrast_normalise(torch.from_numpy(images).float()).numpy()
    for image, normalised in zip(images, result, strict=True):
        centred = image / 255 - (image / 255).mean()
        np.testing.assert_allclose(normalised, centred / np.abs(centred).mean(), atol=1e-5)


@pytest.mark.parametrize("scale", [1, 1 / 255])
@pytest.mark.parametrize("level", [0, 1, 77, 255])
def test_contrast_normalisation_of_constant_images(level: int, scale: float) -> None:
    image = torch.full((1, 3, 32, 32), float(level)) * scale
    assert not contrast_normalise(image).any()
    image[0, 0, 0, 0] += scale if level < 255 else -scale
    normalised = contrast_normalise(image)
    assert normalised.abs().mean().item() == pytest.approx(1, rel=1e-2)


def test_inputs_are_scaled_by_the_training_images() -> None:
    train, other = stripes(20, True, 0), np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32)).astype(np.uint8)
    method = DeepSVDD(dataclasses.replace(SMALL, pretraining_epochs=0, epochs=1), device="cpu").fit(train)
    normalised = contrast_normalise(torch.from_numpy(train).float())
    inputs = method._inputs(train)
    assert (inputs.min().item(), inputs.max().item()) == (0, 1)
    expected = (contrast_normalise(torch.from_numpy(other).float()) - normalised.min()) / (
        normalised.max() - normalised.min()
    )
    torch.testing.assert_close(method._inputs(other), expected)


def test_centre_rule() -> None:
    outputs = torch.tensor([[0.3, 0.02, -0.02, -0.5, 0.0, 0.1], [0.5, 0.04, -0.06, -0.7, 0.0, 0.1]])
    expected = torch.tensor([0.4, 0.1, -0.1, -0.6, 0.1, 0.1])
    torch.testing.assert_close(centre_of(outputs), expected)


def test_score_is_the_negative_squared_distance_to_the_centre() -> None:
    method = DeepSVDD(SMALL, device="cpu").fit(stripes(20, True, 0))
    images = stripes(30, False, 1)
    codes = method.encode(images)
    assert codes.shape == (30, 16)
    assert codes.dtype == np.float32
    scores = method.score_samples(images)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, -((codes - method._centre.numpy()) ** 2).sum(axis=1), rtol=1e-5)


def test_centre_is_the_mean_of_the_outputs_before_the_one_class_training(monkeypatch) -> None:
    train = stripes(20, True, 0)
    trained = DeepSVDD(SMALL, device="cpu").fit(train)
    train_all = DeepSVDD._train
    monkeypatch.setattr(
        DeepSVDD,
        "_train",
        lambda self, phase, *args, **kwargs: None if phase == "training" else train_all(self, phase, *args, **kwargs),
    )
    pretrained = DeepSVDD(SMALL, device="cpu").fit(train)
    torch.testing.assert_close(trained._centre, centre_of(torch.from_numpy(pretrained.encode(train))))


def test_training_brings_the_class_nearer_to_the_centre() -> None:
    train = stripes(64, True, 0)
    short = DeepSVDD(dataclasses.replace(SMALL, epochs=1), device="cpu").fit(train)
    long = DeepSVDD(dataclasses.replace(SMALL, epochs=12, milestone=12), device="cpu").fit(train)
    assert long.score_samples(train).mean() > short.score_samples(train).mean()


@pytest.mark.parametrize("m", [1, 2, 5, 17])
def test_few_images(m: int) -> None:
    scores = DeepSVDD(SMALL, device="cpu").fit(stripes(m, True, 0)).score_samples(stripes(5, True, 1))
    assert np.isfinite(scores).all()


def test_constant_images() -> None:
    images = np.full((6, 3, 32, 32), 200, np.uint8)
    method = DeepSVDD(SMALL, device="cpu").fit(images)
    scores = method.score_samples(np.concatenate([images, np.zeros_like(images), stripes(3, True, 0)]))
    assert np.isfinite(scores).all()
    assert np.unique(scores[:12]).size == 1


@pytest.mark.parametrize(
    "setting",
    [
        {"filters": (1, 2)},
        {"representation_dim": 20},
        {"representation_dim": 0},
        {"epochs": 0},
        {"milestone": 0},
        {"batch_size": 0},
        {"lr": 0.0},
    ],
)
def test_bad_settings_are_named(setting: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        DeepSVDDSettings(**setting)


@pytest.mark.parametrize(
    ("features", "error"),
    [
        (np.zeros((0, 3, 32, 32), np.uint8), ValueError),
        (np.zeros((4, 32, 32, 3), np.uint8), ValueError),
        (np.zeros((4, 3072), np.uint8), ValueError),
        (np.zeros((4, 3, 32, 32), np.float32), TypeError),
    ],
)
def test_bad_features_are_named(features: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error, match="features"):
        DeepSVDD(SMALL, device="cpu").fit(features)


def test_the_quick_profile_on_few_images() -> None:
    method = methods.create("deep-svdd", "quick", device="cpu").fit(stripes(30, True, 0))
    assert method.score_samples(stripes(4, True, 1)).shape == (4,)
