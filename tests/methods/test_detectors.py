"""Classical detectors as methods: orientation, seeds, encoders, memory, and every error on the way."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import ensemble, neighbors, svm
from sklearn.base import BaseEstimator, OutlierMixin

import methods
from bench.engine.protocol import auc
from methods import OneClassMethod, detectors

SKLEARN = ["IsolationForest", "LocalOutlierFactor", "OneClassSVM", "KernelDensity"]
PYOD = ["ECOD", "COPOD", "IForest", "KNN", "LOF", "PCA", "OCSVM", "KDE", "INNE"]
needs_pyod = pytest.mark.skipif(not importlib.util.find_spec("pyod"), reason="PyOD is not installed")


def draw(seed: int, count: int, level: int) -> np.ndarray:
    """Noisy images that share a pattern at some level of contrast."""
    generator = np.random.default_rng(seed)
    pattern = np.random.default_rng(0).normal(0, 1, (3, 32, 32))
    return np.clip(128 + level * pattern + generator.normal(0, 20, (count, 3, 32, 32)), 0, 255).astype(np.uint8)


TRAIN = draw(1, 30, 20)
TEST = np.concatenate([draw(2, 15, 20), draw(3, 15, -20)])
IN_CLASS = np.arange(30) < 15

# Two encoders: one is trained per class, one on auxiliary images. Both write down what is asked of them.
ENCODERS = """
import dataclasses
import numpy as np
from methods import OneClassMethod

@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 8
    n_estimators: int = 1

class PerClass(OneClassMethod):
    name = "per-class"
    version = 4
    profiles = {"paper": Settings(), "quick": Settings(size=4)}

    def __init__(self, settings=None, *, seed=0, device="auto"):
        super().__init__(settings, seed=seed, device=device)
        self.calls = []

    def fit(self, features):
        self.calls.append(("fit", self.checkpoint_dir, self.progress))
        self.mean = features.mean(axis=0)
        return self

    def score_samples(self, features):
        return -np.abs(self.encode(features)).sum(axis=1)

    def encode(self, features):
        size = self.settings.size
        centred = (features - self.mean) / 255
        return centred[:, :, :size, :size].reshape(len(features), -1).astype(np.float32)

class Shared(PerClass):
    name = "shared"
    needs_auxiliary = True
    profiles = {"paper": Settings(), "quick": Settings(size=4)}

    def fit_auxiliary(self, images, *, path=None):
        self.calls.append(("auxiliary", path, self.progress))
        self.scale = images.std()
        return self

    def prepare(self, images):
        return images.reshape(len(images), -1)[:, :20] / np.float32(self.scale)

    def fit(self, features):
        return self

    def encode(self, features):
        return features
"""


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("encoders") / "encoders.py"
    path.write_text(ENCODERS)
    return str(path)


@pytest.mark.parametrize("name", [f"sklearn:{name}" for name in SKLEARN])
def test_sklearn_detectors_separate_raw_pixels(name):
    method = methods.create(name, "quick", seed=0, device="cpu")
    features = method.prepare(TRAIN)
    assert features is TRAIN
    scores = method.fit(features).score_samples(TEST)
    assert scores.shape == (30,)
    assert scores.dtype == np.float64
    assert auc(IN_CLASS, scores) > 0.95


@needs_pyod
@pytest.mark.parametrize("name", [f"pyod:{name}" for name in PYOD])
def test_pyod_detectors_separate_codes(name, encoders):
    method = methods.create(f"{name}@{encoders}:PerClass", seed=0, device="cpu")
    assert auc(IN_CLASS, method.fit(TRAIN).score_samples(TEST)) > 0.85


@pytest.mark.parametrize("name", ["EllipticEnvelope", "SGDOneClassSVM", "GaussianMixture", "PCA", "FactorAnalysis"])
def test_other_sklearn_estimators_score_codes(name, encoders):
    method = methods.create(f"sklearn:{name}@{encoders}:Shared", "quick", seed=0, device="cpu")
    features = method.fit_auxiliary(TRAIN).prepare(np.concatenate([TRAIN, TEST]))
    scores = method.fit(features[:30]).score_samples(features[30:])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 20


def test_scores_are_the_librarys_own():
    rows = (TRAIN / np.float32(255)).reshape(30, -1), (TEST / np.float32(255)).reshape(30, -1)
    for name, peer in [
        ("IsolationForest", ensemble.IsolationForest(n_estimators=50, random_state=5)),
        ("OneClassSVM", svm.OneClassSVM(nu=0.2)),
        ("LocalOutlierFactor", neighbors.LocalOutlierFactor(n_neighbors=7, novelty=True)),
    ]:
        settings = {"IsolationForest": {"n_estimators": 50}, "OneClassSVM": {"nu": 0.2}}.get(name, {"n_neighbors": 7})
        method = methods.create(f"sklearn:{name}", seed=5, device="cpu", **settings).fit(TRAIN)
        np.testing.assert_allclose(method.score_samples(TEST), peer.fit(rows[0]).score_samples(rows[1]), rtol=1e-12)


@needs_pyod
def test_pyod_scores_are_negated():
    from pyod.models.ecod import ECOD

    rows = (TRAIN / np.float32(255)).reshape(30, -1), (TEST / np.float32(255)).reshape(30, -1)
    scores = methods.create("pyod:ECOD", device="cpu").fit(TRAIN).score_samples(TEST)
    np.testing.assert_allclose(scores, -ECOD().fit(rows[0]).decision_function(rows[1]), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("sklearn:isolationforest", "sklearn:IsolationForest"),
        ("sklearn:ONECLASSSVM", "sklearn:OneClassSVM"),
        ("sklearn:kerneldensity", "sklearn:KernelDensity"),
        ("sklearn:factoranalysis", "sklearn:FactorAnalysis"),
        pytest.param("pyod:ecod", "pyod:ECOD", marks=needs_pyod),
        pytest.param("pyod:iforest", "pyod:IForest", marks=needs_pyod),
        pytest.param("pyod:deepsvdd", "pyod:DeepSVDD", marks=needs_pyod),
    ],
)
def test_names_in_any_case(given, name):
    method = methods.resolve(given)
    assert method.name == name
    assert method is methods.resolve(name)


@pytest.mark.parametrize(
    "name", ["sklearn:IsolationForest", pytest.param("pyod:AE1SVM", marks=needs_pyod),
             pytest.param("pyod:INNE", marks=needs_pyod)],
)  # fmt: skip
def test_seed_alone_decides(name, encoders):
    # AE1SVM takes no random_state and draws from the generators of NumPy and PyTorch.
    settings = {"epochs": 2} if name == "pyod:AE1SVM" else {}

    def scores(seed: int) -> np.ndarray:
        method = methods.create(f"{name}@{encoders}:PerClass", "quick", seed=seed, device="cpu", **settings)
        return method.fit(TRAIN).score_samples(TEST)

    first = scores(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    np.testing.assert_array_equal(first, scores(1))
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    np.testing.assert_array_equal(first, scores(1))
    assert not np.array_equal(first, scores(2))


def test_gpus_that_are_not_in_use_are_not_seeded():
    queued = list(torch.cuda._lazy_seed_tracker.get_calls())
    methods.create("sklearn:IsolationForest", seed=5, device="cpu").fit(TRAIN)
    assert list(torch.cuda._lazy_seed_tracker.get_calls()) == queued


def test_fits_in_threads_leave_the_random_states():
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    start = threading.Barrier(2, timeout=60)

    def together(seed: int) -> None:
        start.wait()
        methods.create("sklearn:IsolationForest", seed=seed, device="cpu").fit(TRAIN)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(together, (5, 6)))
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_seeds_beyond_32_bits():
    assert methods.create("sklearn:IsolationForest", seed=2**40 + 3).fit(TRAIN).detector.random_state == 3


def test_own_parameters_are_set():
    assert methods.create("sklearn:LocalOutlierFactor").fit(TRAIN).detector.novelty is True
    assert methods.create("sklearn:IsolationForest", seed=9).fit(TRAIN).detector.get_params()["random_state"] == 9
    assert methods.create("sklearn:IsolationForest").fit(TRAIN).detector.n_jobs == 1
    for own in ("random_state", "n_jobs", "novelty", "verbose"):
        with pytest.raises(TypeError, match=f"got '{own}'"):
            methods.create("sklearn:LocalOutlierFactor", **{own: 1})


@pytest.mark.parametrize(
    "name", [f"sklearn:{name}" for name in SKLEARN] + [pytest.param(f"pyod:{name}", marks=needs_pyod) for name in PYOD]
)
def test_settings_survive_the_way_through_a_dictionary(name, encoders):
    for full in (name, f"{name}@{encoders}:Shared"):
        made = methods.create(full, "quick", device="cpu")
        values = dataclasses.asdict(made.settings)
        stored = json.loads(json.dumps(values))  # as in a result
        assert methods.create(full, "quick", device="cpu", **stored).settings == made.settings
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made.settings, dataclasses.fields(made.settings)[0].name, 1)


def test_encoder_per_class_is_fitted_first(encoders, tmp_path):
    method = methods.create(f"sklearn:OneClassSVM@{encoders}:PerClass", "quick", seed=4, device="cpu")
    assert not method.needs_auxiliary
    assert method.prepare(TRAIN) is TRAIN
    method.checkpoint_dir, method.progress = tmp_path, True
    scores = method.fit(TRAIN).score_samples(TEST)
    assert method.encoder.calls == [("fit", tmp_path, True)]
    assert (method.encoder.seed, method.encoder.device.type, method.encoder.settings.size) == (4, "cpu", 4)
    peer = methods.create(f"{encoders}:PerClass", "quick", seed=4, device="cpu").fit(TRAIN)
    expected = svm.OneClassSVM().fit(peer.encode(TRAIN)).score_samples(peer.encode(TEST))
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_shared_encoder_is_the_methods_own(encoders, tmp_path):
    name = f"{encoders}:Shared"
    method = methods.create(f"sklearn:OneClassSVM@{name}", "quick", seed=4, device="cpu")
    peer = methods.create(name, "quick", seed=4, device="cpu")
    assert method.needs_auxiliary
    assert method.auxiliary_settings() == peer.auxiliary_settings()
    assert methods.source_digest(f"sklearn:OneClassSVM@{name}") == methods.source_digest(name) != ""
    method.progress = True
    assert method.fit_auxiliary(TRAIN, path=tmp_path / "file") is method
    assert method.encoder.calls == [("auxiliary", tmp_path / "file", True)]
    np.testing.assert_array_equal(method.prepare(TEST), peer.fit_auxiliary(TRAIN).prepare(TEST))
    # Another object, which never saw the auxiliary images, fits and scores the features.
    other = methods.create(f"sklearn:OneClassSVM@{name}", "quick", seed=8, device="cpu")
    features = method.prepare(TEST)
    expected = svm.OneClassSVM().fit(features[:15]).score_samples(features)
    np.testing.assert_allclose(other.fit(features[:15]).score_samples(features), expected, rtol=1e-12)


def test_settings_of_detector_and_encoder_do_not_mix(encoders):
    name = f"sklearn:IsolationForest@{encoders}:PerClass"
    made = methods.create(name, "quick", device="cpu", n_estimators=7, encoder={"n_estimators": 3})
    assert made.settings.n_estimators == 7
    assert made.encoder.settings.n_estimators == 3
    assert made.encoder.settings.size == 4
    with pytest.raises(TypeError, match=f"settings of '{name}, encoder': got 'depth'; it has size, n_estimators"):
        methods.create(name, encoder={"depth": 3})
    with pytest.raises(ValueError, match="profile: got 'fast'"):
        methods.create(name, "fast")


def test_version_changes_with_the_encoders(encoders):
    plain = methods.resolve("sklearn:IsolationForest").version
    assert methods.resolve(f"sklearn:IsolationForest@{encoders}:PerClass").version == plain + 4


def test_real_encoders_delegate():
    encoders = [name for name in methods.available() if methods.resolve(name).encode is not OneClassMethod.encode]
    for name in encoders:
        method = methods.create(f"sklearn:IsolationForest@{name}", "quick", device="cpu")
        peer = methods.create(name, "quick", device="cpu")
        assert method.needs_auxiliary == peer.needs_auxiliary
        assert method.auxiliary_settings() == peer.auxiliary_settings()
        assert method.settings.encoder == peer.settings


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("sklearn:Nothing", ValueError, r"method 'sklearn:Nothing': scikit-learn has no such detector; it has .*Isol"),
        ("sklearn:", ValueError, r"method 'sklearn:': scikit-learn has no such detector"),
        ("sklearn:LogisticRegression", ValueError, r"scikit-learn has no such detector"),
        ("sklearn:GridSearchCV", ValueError, r"scikit-learn has no such detector"),
        (
            "sklearn:IsolationForest@",
            ValueError,
            r"^'sklearn:IsolationForest@': its encoder: method: got ''",
        ),
        ("sklearn:IsolationForest@nothing", ValueError, r"@nothing': its encoder: method: got 'nothing'; available"),
        ("sklearn:OneClassSVM@adt", ValueError, r"'adt' has no representation to work on; those that have one are "),
        ("sklearn:OneClassSVM@sklearn:OneClassSVM", ValueError, r"'sklearn:OneClassSVM' has no representation"),
        pytest.param("pyod:Nothing", ValueError, r"PyOD has no such detector; it has ABOD, .*ECOD", marks=needs_pyod),
        pytest.param("pyod:DOMINANT", ValueError, r"PyOD has no such detector", marks=needs_pyod),
        pytest.param("pyod:DevNet", ValueError, r"DevNet cannot be used here, it also needs y", marks=needs_pyod),
        pytest.param("pyod:LSCP", ValueError, r"cannot be used here, it also needs detector_list", marks=needs_pyod),
    ],
)
def test_wrong_names(name, error, message):
    with pytest.raises(error, match=message) as caught:
        methods.create(name)
    assert "\n" not in str(caught.value)


def test_without_pyod_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyod", None)
    monkeypatch.setitem(sys.modules, "pyod.models", None)
    detectors._pyod_detectors.cache_clear()
    message = r"method 'pyod:absent' needs the package pyod, which is not installed: pip install pyod"
    with pytest.raises(ImportError, match=message):
        methods.create("pyod:absent")


@needs_pyod
def test_a_package_that_a_pyod_detector_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyod.models.copod", None)
    with pytest.raises(ImportError, match=r"method 'pyod:COPOD' needs the package pyod.models.copod"):
        methods.create("pyod:COPOD")


@needs_pyod
def test_one_pyod_detector_imports_no_other():
    code = (
        "import sys, methods; methods.create('pyod:KNN');"
        "print([name for name in sys.modules if name.startswith('pyod.models.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "pyod.models.knn" in shown
    assert "pyod.models.ecod" not in shown
    assert "pyod.models.alad" not in shown


@needs_pyod
def test_a_wrong_parameter_shows_when_the_method_is_made():
    with pytest.raises(ValueError, match=r"pyod:KNN could not be made with these settings: contamination must be in"):
        methods.create("pyod:KNN", contamination=2.0)


def test_a_wrong_parameter_of_scikit_learn_shows_before_anything_is_fitted():
    with pytest.raises(ValueError, match=r"sklearn:OneClassSVM could not be made with these settings: .*'nu'"):
        methods.create("sklearn:OneClassSVM", nu=3.0)


def test_one_image():
    with pytest.raises(ValueError, match=r"sklearn:LocalOutlierFactor could not fit to 1 rows of 3072 features: "):
        methods.create("sklearn:LocalOutlierFactor").fit(TRAIN[:1]).score_samples(TEST)
    scores = methods.create("sklearn:OneClassSVM").fit(TRAIN[:1]).score_samples(TEST)
    assert auc(IN_CLASS, scores) > 0.95


@pytest.mark.parametrize("name", [f"sklearn:{name}" for name in SKLEARN])
def test_constant_images_do_not_stop_a_detector(name):
    scores = methods.create(name, device="cpu").fit(np.full_like(TRAIN, 7)).score_samples(np.full_like(TEST, 7))
    assert auc(IN_CLASS, scores) == 0.5


def test_fewer_images_than_neighbours_is_quiet(recwarn):
    scores = methods.create("sklearn:LocalOutlierFactor", n_neighbors=20).fit(TRAIN[:10]).score_samples(TEST)
    assert auc(IN_CLASS, scores) > 0.9
    assert not recwarn.list


def test_singular_covariance_is_quiet_and_finite(encoders, recwarn):
    method = methods.create(f"sklearn:EllipticEnvelope@{encoders}:Shared", seed=0, device="cpu")
    features = method.fit_auxiliary(TRAIN).prepare(TRAIN[:15])
    assert np.isfinite(method.fit(features).score_samples(features)).all()
    assert not recwarn.list


class Fake(OutlierMixin, BaseEstimator):
    """Its scores are what a test puts into ``give``."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return self.give(X)


@pytest.fixture
def fake(monkeypatch):
    """A method on raw pixels whose detector scores by a given function."""

    def make(give):
        monkeypatch.setattr(ensemble, "Fake", Fake, raising=False)
        monkeypatch.setattr(Fake, "give", staticmethod(give), raising=False)
        return methods.create("sklearn:Fake", device="cpu").fit(TRAIN)

    return make


def test_undefined_scores_are_an_error(fake):
    with pytest.raises(ValueError, match="sklearn:Fake: 2 of 30 scores are not a number"):
        fake(lambda rows: np.where(np.arange(len(rows)) < 2, np.nan, 1.0)).score_samples(TEST)


def test_infinite_scores_keep_their_rank(fake):
    given = np.array([-np.inf, 3.0, np.inf, -5.0])
    for factor in (1.0, 1e200):
        scores = fake(lambda rows, factor=factor: given * factor).score_samples(TEST[:4])
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(np.argsort(scores), [0, 3, 1, 2])
        assert len(set(scores)) == 4


def test_wrong_number_of_scores(fake):
    with pytest.raises(ValueError, match="sklearn:Fake could not score 30 rows of 3072 features: it gave 3 scores"):
        fake(lambda rows: np.zeros(3)).score_samples(TEST)


def test_running_out_of_memory_is_not_the_detectors_fault(fake):
    def give(rows):
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        fake(give).score_samples(TEST)


@pytest.mark.parametrize("count", [4, 5, 12, 19])
def test_large_splits_are_scored_in_pieces(fake, monkeypatch, count):
    seen = SimpleNamespace(most=0)

    def give(rows):
        seen.most = max(seen.most, len(rows))
        return rows[:, :100].sum(axis=1)

    monkeypatch.setattr(detectors, "_ROWS", 4)
    scores = fake(give).score_samples(TEST[:count])
    np.testing.assert_allclose(scores, (TEST[:count].reshape(count, -1)[:, :100] / 255).sum(axis=1), rtol=1e-5)
    assert seen.most == 4


def test_scores_that_depend_on_each_other_are_those_of_one_call(fake, monkeypatch):
    def give(rows):
        return rows.sum(axis=1).argsort().argsort()

    expected = fake(give).score_samples(TEST)
    monkeypatch.setattr(detectors, "_ROWS", 4)
    np.testing.assert_array_equal(fake(give).score_samples(TEST), expected)


@needs_pyod
def test_ecod_scores_do_not_depend_on_the_size_of_pieces(monkeypatch):
    method = methods.create("pyod:ECOD", device="cpu").fit(TRAIN)
    expected = method.score_samples(TEST)
    monkeypatch.setattr(detectors, "_ROWS", 8)
    np.testing.assert_array_equal(method.score_samples(TEST), expected)


def test_memory_mapped_images(tmp_path: Path):
    np.save(tmp_path / "images.npy", TEST)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    method = methods.create("sklearn:IsolationForest", device="cpu").fit(TRAIN)
    np.testing.assert_array_equal(method.score_samples(mapped), method.score_samples(TEST))
