"""A small experiment for the engine: two methods on a small folder, the first with a shared training."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import data
from bench.engine.cells import Cell, method_spec, plan
from bench.engine.execute import Options, execute
from bench.engine.store import Store

LEARNER = '''
"""Learns the mean of auxiliary images and keeps it in a file."""
import os
from pathlib import Path

import numpy as np

from methods import OneClassMethod


class Learner(OneClassMethod):
    name = "learner"
    needs_auxiliary = True

    def fit_auxiliary(self, images, *, path=None):
        if not path.exists():
            with open(Path(__file__).with_name("learner.log"), "a") as log:
                log.write(f"{os.getpid()}\\n")
            path.write_bytes(np.float64(images.mean()).tobytes())
        self.offset = np.frombuffer(path.read_bytes())[0]
        return self

    def prepare(self, images):
        return images.mean(axis=(2, 3)) - self.offset + np.random.normal(size=3)

    def fit(self, features):
        self.mean = features.mean(axis=0)
        return self

    def encode(self, features):
        return features

    def score_samples(self, features):
        return -np.abs(features - self.mean).sum(axis=1)
'''


@pytest.fixture
def experiment(image_folder, method_file, tmp_path):
    """Cells of two methods on a small folder; the first learns from auxiliary images."""
    (tmp_path / "learner.py").write_text(LEARNER)

    def make(*names: str, runs: int = 1) -> tuple[list[Cell], dict[str, data.Dataset]]:
        dataset = data.load(f"folder:{image_folder}", data_root=tmp_path / "data")
        specs = [method_spec(name, "quick") for name in names or (str(tmp_path / "learner.py"), method_file)]
        cells = plan(dataset, specs, auxiliary=dataset, train_per_class=[4], runs=runs, classes=[0, 1, 2], base_seed=0)
        return cells, {dataset.name: dataset}

    return make


@pytest.fixture
def run_cells():
    """Run cells; returns (what execute returned, the keys in the order of their ends, rows, failures, trainings)."""

    def run(cells, datasets, folder: Path, **options):
        order = []
        folder.mkdir(exist_ok=True)
        with Store(folder / "cells.sqlite") as store:
            counts = execute(
                cells,
                datasets,
                store,
                Options(**{"cache": folder / "cache", "device": "cpu", "progress": False, **options}),
                on_cell=lambda cell: order.append(cell.key),
            )
            keys = [cell.key for cell in cells]
            rows = store.finished(keys).set_index("key").reindex(keys)
            return counts, order, rows, store.failed(keys), store.auxiliaries(cell.auxiliary_key for cell in cells)

    return run
