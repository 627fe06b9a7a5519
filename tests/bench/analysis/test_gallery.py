"""Images of a method at work: from a run's encoder and data alone, the mistakes told from the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import methods
from bench import table1
from bench.analysis import gallery
from bench.data import load
from bench.engine import published

METHOD = '''
import numpy as np
from methods import OneClassMethod


class Grey(OneClassMethod):
    """Scores by the mean grey value; learns nothing from the auxiliary images but that they were there."""

    name = "grey"
    needs_auxiliary = True

    def fit_auxiliary(self, images, *, path=None):
        path.write_text("learned")
        return self

    def prepare(self, images):
        return images.astype(np.float64).mean(axis=(1, 2, 3))

    def reconstruct(self, images):
        return 255 - images

    def fit(self, features):
        self.mean = features.mean()
        return self

    def score_samples(self, features):
        return -np.abs(features - self.mean)
'''


@pytest.fixture
def run(tmp_path: Path, image_folder: Path) -> Path:
    """A run of a method that can reconstruct, on the three classes of coloured noise."""
    (tmp_path / "grey.py").write_text(METHOD)
    arguments = ["--datasets", f"folder:{image_folder}", "--methods", f"{tmp_path / 'grey.py'}:Grey", "--runs", "2"]
    assert (
        table1.main([*arguments, "--train-per-class", "2", "4", "--workers", "1", "--out", str(tmp_path / "run")]) == 0
    )
    return tmp_path / "run"


def test_a_run_leaves_the_images_of_its_method(run: Path, image_folder: Path):
    kept = np.load(run / gallery.FILE)
    dataset = load(f"folder:{image_folder}")
    assert kept["classes"].tolist() == list(dataset.classes)
    assert str(kept["about"]).endswith("m = 4, run 0")
    np.testing.assert_array_equal(kept["reconstructions"], 255 - kept["originals"])
    for index, image in enumerate(kept["originals"]):
        assert any((image == other).all() for other in dataset.test_images[dataset.test_labels == index])
    assert kept["most"].shape == kept["least"].shape == (3, 8, 3, 32, 32)
    # what scores most is nearest to the mean grey of the class; whose class an image is of is told with it
    greys = kept["most"].mean(axis=(2, 3, 4)), kept["least"].mean(axis=(2, 3, 4))
    for most, least, own in zip(*greys, dataset.classes, strict=True):
        mean = dataset.train_images[dataset.train_labels == list(dataset.classes).index(own)].mean()
        assert abs(most - mean).max() <= abs(least - mean).max()
    assert kept["most_in_class"].any()
    assert not kept["least_in_class"].all()


def test_without_the_encoder_there_are_none(run: Path, image_folder: Path):
    cells = published.read_rows(run).cells
    for encoder in (run / "cache" / "auxiliary").iterdir():
        encoder.unlink()
    assert gallery.write(run / "again.npz", cells, run / "cache", lambda name: load(name), "cpu") is None
    assert not (run / "again.npz").exists()


def test_corel_reconstructs_images(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), np.uint8)
    method = methods.create("corel", "quick", 0, "cpu", epochs=1, batch_size=8)
    with pytest.raises(ValueError, match="fit_auxiliary first"):
        method.reconstruct(images)
    rebuilt = method.fit_auxiliary(images).reconstruct(images[:5])
    assert rebuilt.shape == (5, 3, 32, 32)
    assert rebuilt.dtype == np.uint8
    assert len(np.unique(rebuilt)) > 1
