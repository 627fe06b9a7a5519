"""Images of a method at work: from a run's encoder and data alone, the mistakes told from the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import methods
from bench import table1
from bench.analysis import gallery
from bench.data import load
from bench.engine import protocol, published
from bench.engine.cells import Cell

OTHER = """
import numpy as np
from methods import OneClassMethod


class Other(OneClassMethod):
    name = "other"
    needs_auxiliary = True

    def fit_auxiliary(self, images, *, path=None):
        path.write_text("learned")
        return self

    def reconstruct(self, whatever):
        raise RuntimeError("never to be called")

    def fit(self, features):
        return self

    def score_samples(self, features):
        return np.zeros(len(features))
"""


@pytest.fixture
def run(tmp_path: Path, image_folder: Path) -> Path:
    """A run of corel on the three classes of coloured noise, and of a method that has a verb of the same name."""
    folder = tmp_path
    (folder / "other.py").write_text(OTHER)
    arguments = ["--datasets", f"folder:{image_folder}", "--methods", str(folder / "other.py"), "corel", "--runs", "2"]
    arguments += ["--set", "corel.epochs=1", "--set", "corel.batch_size=8", "--train-per-class", "2", "4"]
    assert table1.main([*arguments, "--workers", "1", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_leaves_the_images_of_corel(run: Path, image_folder: Path):
    kept = np.load(run / gallery.FILE)
    dataset = load(f"folder:{image_folder}")
    assert kept["classes"].tolist() == list(dataset.classes)
    assert str(kept["about"]).startswith("corel")
    assert str(kept["about"]).endswith("m = 4, run 0")
    for index, image in enumerate(kept["originals"]):
        assert any((image == other).all() for other in dataset.test_images[dataset.test_labels == index])
    assert kept["most"].shape == kept["least"].shape == (3, 8, 3, 32, 32)
    rows = published.read_rows(run).cells.query("method == 'corel' and train_per_class == '4' and run == 0")
    cells = [Cell.from_row({k: None if pd.isna(v) else v for k, v in row.items()}) for row in rows.to_dict("records")]
    method = cells[0].method.create(seed=cells[0].auxiliary_seed, device="cpu")
    method.fit_auxiliary(dataset.train_images, path=run / "cache" / "auxiliary" / cells[0].auxiliary_key)
    np.testing.assert_array_equal(kept["reconstructions"], method.reconstruct(kept["originals"]))
    for cell, most, least in zip(cells, kept["most"], kept["least"], strict=True):
        drawn = protocol.draw(
            dataset.train_labels, cell.class_index, 4, dataset=cell.draw_name, run=0, base_seed=cell.base_seed
        )
        method.fit(method.prepare(dataset.train_images[drawn]))
        scores = [method.score_samples(method.prepare(images)) for images in (most, least)]
        assert scores[0].min() >= scores[1].max()
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
