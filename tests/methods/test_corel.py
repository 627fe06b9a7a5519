"""Ours: training once per key, codes that depend on the image alone, and scores of Eq. 6."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import methods
import methods.corel as module
from corel import Autoencoder, BallCount, train_autoencoder
from methods.base import NonFiniteLossError
from methods.corel import Corel, CorelSettings, history_path

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
SMALL = CorelSettings(epochs=2, batch_size=16, branches=4, branch_dim=3)


@pytest.fixture
def trainings(monkeypatch):
    """The keyword arguments of every call of a training that trains nothing: each gives other weights."""
    calls: list[dict] = []

    def untrained(images, **arguments):
        calls.append(arguments)
        if arguments["checkpoint"] is not None:
            arguments["checkpoint"].parent.mkdir(exist_ok=True)
            arguments["checkpoint"].touch()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(len(calls))
            autoencoder = Autoencoder(arguments["branches"], arguments["branch_dim"])
        return autoencoder.eval(), pd.DataFrame({"epoch": [1], "iteration": [1]})

    monkeypatch.setattr(module, "train_autoencoder", untrained)
    return calls


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    return np.repeat(large[:, None], 3, axis=1), data.target


def test_the_paper_profile_is_the_papers():
    paper = Corel.profiles["paper"]
    assert dataclasses.asdict(paper) == {
        "eta": 2.0, "lam": 20.0, "branches": 16, "branch_dim": 10, "epochs": 50, "batch_size": 100, "lr": 1e-3,
        "reduction": "mean", "radius": None,
    }  # fmt: skip
    quick = dataclasses.asdict(Corel.profiles["quick"])
    assert quick.pop("epochs") < 50
    assert all(quick[name] == value for name, value in dataclasses.asdict(paper).items() if name != "epochs")


def test_settings_reach_the_training(trainings):
    settings = dataclasses.replace(SMALL, eta=1.5, lam=3.0, lr=2e-3, reduction="sum")
    Corel(settings, seed=7, device="cpu").fit_auxiliary(IMAGES)
    (arguments,) = trainings
    shaping = {name: value for name, value in dataclasses.asdict(settings).items() if name != "radius"}
    assert {name: arguments[name] for name in shaping} == shaping
    assert arguments["seed"] == 7
    assert arguments["progress"] is False


def test_codes_are_the_encoders_and_depend_on_the_image_alone(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 10)
    method = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES)
    codes = method.prepare(IMAGES)
    assert codes.shape == (64, 12)
    assert codes.dtype == np.float32
    with torch.inference_mode():
        expected = method._autoencoder.encoder(torch.from_numpy(IMAGES).float() / 255).numpy()
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-5)
    # other neighbours in the batch, and a last batch that is not full
    order = np.random.default_rng(1).permutation(64)
    np.testing.assert_array_equal(method.prepare(IMAGES[order]), codes[order])
    np.testing.assert_array_equal(method.prepare(IMAGES[33:36]), codes[33:36])
    assert method.prepare(IMAGES[:0]).shape == (0, 12)


def test_memory_mapped_images(tmp_path):
    np.save(tmp_path / "i.npy", IMAGES)
    mapped = np.load(tmp_path / "i.npy", mmap_mode="r")
    method = Corel(SMALL, device="cpu").fit_auxiliary(mapped)
    np.testing.assert_array_equal(
        method.prepare(mapped), Corel(SMALL, device="cpu").fit_auxiliary(IMAGES).prepare(IMAGES)
    )


@pytest.mark.parametrize("radius", [None, 0.7])
def test_scores_are_ball_counts_of_codes(radius):
    method = Corel(dataclasses.replace(SMALL, radius=radius, eta=1.5), device="cpu")
    codes = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    assert method.fit(codes[:20]) is method
    expected = BallCount(1.5 if radius is None else radius, branches=4).fit(codes[:20]).score_samples(codes)
    np.testing.assert_array_equal(method.score_samples(codes), expected)
    assert expected[:20].min() >= 4
    np.testing.assert_array_equal(method.encode(codes), codes)
    (variants,) = method.score_variants(codes).items()
    assert variants[0] == ""
    np.testing.assert_array_equal(variants[1], expected)


def test_global_settings_of_pytorch_do_not_change_a_loaded_encoder(tmp_path, trainings):
    path = tmp_path / "encoder.pt"
    expected = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path).prepare(IMAGES)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")  # on which nothing can be computed
        with torch.autocast("cpu", torch.bfloat16):
            codes = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path).prepare(IMAGES)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert len(trainings) == 1
    np.testing.assert_array_equal(codes, expected)


def test_the_history_is_kept_beside_the_encoder(tmp_path):
    settings = {name: value for name, value in dataclasses.asdict(SMALL).items() if name != "radius"}
    _, history = train_autoencoder(IMAGES, **settings, seed=3, device="cpu", progress=False)
    Corel(SMALL, seed=3, device="cpu").fit_auxiliary(IMAGES, path=tmp_path / "key")
    kept = pd.read_csv(history_path(tmp_path / "key"))
    assert list(kept) == list(history)
    pd.testing.assert_frame_equal(kept.drop(columns="seconds"), history.drop(columns="seconds"), check_exact=True)


def test_trained_once_and_loaded_after(tmp_path, trainings):
    path = tmp_path / "auxiliary" / "key"
    first = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["key", "key.history.csv"]  # no checkpoint any more
    again = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path)
    other_radius = Corel(dataclasses.replace(SMALL, radius=9.0), device="cpu").fit_auxiliary(IMAGES, path=path)
    assert len(trainings) == 1
    np.testing.assert_array_equal(again.prepare(IMAGES), first.prepare(IMAGES))
    np.testing.assert_array_equal(other_radius.prepare(IMAGES), first.prepare(IMAGES))


@pytest.mark.parametrize("change", [{"lam": 1.0}, {"epochs": 3}, {"branch_dim": 2}, {"reduction": "sum"}])
def test_file_of_other_settings_is_not_used(tmp_path, trainings, change):
    path = tmp_path / "key"
    codes = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path).prepare(IMAGES)
    settings = dataclasses.replace(SMALL, **change)
    other = Corel(settings, device="cpu").fit_auxiliary(IMAGES, path=path).prepare(IMAGES)
    assert len(trainings) == 2
    assert not np.array_equal(other, codes)
    loaded = Corel(settings, device="cpu").fit_auxiliary(IMAGES, path=path)
    assert len(trainings) == 2
    np.testing.assert_array_equal(loaded.prepare(IMAGES), other)


def test_without_a_file_every_call_trains(trainings):
    method = Corel(SMALL, device="cpu")
    codes = method.fit_auxiliary(IMAGES).prepare(IMAGES)
    assert not np.array_equal(method.fit_auxiliary(255 - IMAGES).prepare(IMAGES), codes)
    assert len(trainings) == 2


def test_file_of_another_seed_of_other_images_or_damaged_is_not_used(tmp_path, trainings):
    path = tmp_path / "key"
    Corel(SMALL, seed=1, device="cpu").fit_auxiliary(IMAGES, path=path)
    Corel(SMALL, seed=2, device="cpu").fit_auxiliary(IMAGES, path=path)
    Corel(SMALL, seed=2, device="cpu").fit_auxiliary(255 - IMAGES, path=path)
    path.write_bytes(path.read_bytes()[:1000])
    Corel(SMALL, seed=2, device="cpu").fit_auxiliary(255 - IMAGES, path=path)
    assert len(trainings) == 4
    torch.load(path, weights_only=True)


def test_interrupted_training_goes_on(tmp_path, monkeypatch):
    from corel import training

    path = tmp_path / "key"
    whole = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES).prepare(IMAGES)
    run_epoch = training._Trainer.run_epoch

    def stop(self, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        run_epoch(self, epoch, *rest)

    monkeypatch.setattr(training._Trainer, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["key.checkpoint"]
    ran: list[int] = []

    def count(self, epoch, *rest):
        ran.append(epoch)
        run_epoch(self, epoch, *rest)

    monkeypatch.setattr(training._Trainer, "run_epoch", count)
    resumed = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES, path=path).prepare(IMAGES)
    assert ran == [2]
    np.testing.assert_array_equal(resumed, whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key", "key.history.csv"]


def test_auxiliary_settings_leave_the_radius_out():
    one = Corel(SMALL, device="cpu").auxiliary_settings()
    two = Corel(dataclasses.replace(SMALL, radius=5.0), device="cpu").auxiliary_settings()
    assert one == two
    assert set(dataclasses.asdict(SMALL)) - {"radius"} <= set(one)
    assert one != Corel(dataclasses.replace(SMALL, eta=5.0), device="cpu").auxiliary_settings()


def test_divergence_is_the_benchmarks_error():
    with pytest.raises(NonFiniteLossError, match=r"corel: .*not finite in epoch 1"):
        Corel(dataclasses.replace(SMALL, lr=1e30), device="cpu").fit_auxiliary(IMAGES)


def test_order_of_the_verbs():
    method = Corel(SMALL, device="cpu")
    with pytest.raises(ValueError, match="fit_auxiliary first"):
        method.prepare(IMAGES)
    with pytest.raises(ValueError, match="call fit first"):
        method.score_samples(np.zeros((1, 12), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta: got 0.0"),
        ({"branches": 7}, "branches: got 7"),
        ({"branch_dim": 0}, "branch_dim: got 0"),
        ({"epochs": 0}, "epochs: got 0"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=f"^{message}; accepted are"):
        CorelSettings(**change)


def test_digits_are_told_apart():
    images, labels = digits()
    train, test = images[:1300], images[1300:]
    method = methods.create("corel", "quick", device="cpu", epochs=4).fit_auxiliary(train)
    train_codes, test_codes = method.prepare(train), method.prepare(test)
    aucs = []
    for digit in range(10):
        method.fit(train_codes[labels[:1300] == digit][:100])
        aucs.append(roc_auc_score(labels[1300:] == digit, method.score_samples(test_codes)))
    assert np.mean(aucs) > 0.85


def test_parameters_are_those_of_the_encoder():
    assert methods.create("corel").parameters() == 113_888  # the block-diagonal encoder of the paper's settings
    assert methods.create("sklearn:IsolationForest@corel").parameters() == 113_888
    assert methods.create("sklearn:IsolationForest").parameters() is None


def test_the_example_that_whitens_codes():
    """examples/whitened_mean.py: its encoder is that of corel, and scores are cosines after whitening."""
    path = Path(__file__).parents[2] / "examples" / "whitened_mean.py"
    values = dataclasses.asdict(SMALL)
    method = methods.create(str(path), device="cpu", **values, ridge=0.5).fit_auxiliary(IMAGES)
    corel = Corel(SMALL, device="cpu").fit_auxiliary(IMAGES)
    codes = corel.prepare(IMAGES).astype(np.float64)
    covariance = np.cov(codes.T)
    ridge = 0.5 * np.linalg.eigvalsh(covariance)[-1] * np.eye(12)
    inverse = np.linalg.inv(covariance + ridge)
    features = method.prepare(IMAGES)
    np.testing.assert_array_equal(method.prepare(IMAGES[5:7]), features[5:7])
    a, b = codes[3] - codes.mean(0), codes[4] - codes.mean(0)
    cosine = a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))
    np.testing.assert_allclose(features[3].astype(np.float64) @ features[4], cosine, atol=1e-5)
    scores = method.fit(features[:5]).score_samples(features)
    np.testing.assert_allclose(scores, features @ features[:5].mean(0), atol=1e-5)
