"""The images that show a method at work, kept beside the rows of a run: rows hold numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import Dataset
from bench.engine import protocol
from bench.engine.cells import Cell
from bench.engine.store import records
from corel.checkpoint import write_atomically
from methods.corel import Corel

FILE = "gallery.npz"
#: Classes that are shown, and images per class.
CLASSES, IMAGES = 20, 8


def write(
    path: Path, cells: pd.DataFrame, cache: Path, load: Callable[[str], Dataset], device: str = "auto"
) -> Path | None:
    """Keep the images of the first run of ``corel``, whose autoencoder can reconstruct what it has encoded.

    Parameters
    ----------
    path
        The file.
    cells
        Rows of the store.
    cache
        Of the run, with its trained encoders.
    load
        The dataset of a name.

    Returns
    -------
    pathlib.Path or None
        ``path``; None where ``corel`` did not run, or its encoder is not there.
    """
    for _, rows in cells[cells["method_identity"] == Corel.name].groupby("settings", sort=False):
        first = Cell.from_row(records(rows.head(1))[0])
        encoder = cache / "auxiliary" / first.auxiliary_key
        if not encoder.exists():
            continue
        method = first.method.create(seed=first.auxiliary_seed, device=device)
        assert first.auxiliary is not None
        method.fit_auxiliary(load(first.auxiliary).train_images, path=encoder)
        same = rows[(rows["dataset"] == first.dataset) & (rows["auxiliary"] == first.auxiliary)]
        m = max(same["train_per_class"], key=lambda text: math.inf if text == "all" else int(text))
        chosen = same[(same["train_per_class"] == m) & (same["run"] == same["run"].min())]
        chosen = chosen.drop_duplicates("class").sort_values("class").head(CLASSES)
        arrays = _arrays(method, [Cell.from_row(row) for row in records(chosen)], load(first.dataset))
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))  # noqa: B023
        return path
    return None


def _arrays(method: Any, cells: list[Cell], dataset: Dataset) -> dict[str, Any]:
    """Originals beside reconstructions, and for each cell's class the test images that score most and least."""
    test, labels = np.asarray(dataset.test_images), np.asarray(dataset.test_labels)
    features = method.prepare(test)
    most, least = [], []
    for cell in cells:
        drawn = protocol.draw(dataset.train_labels, cell.class_index, cell.train_per_class, dataset=cell.draw_name,
                              run=cell.run, base_seed=cell.base_seed)  # fmt: skip
        scores = method.fit(method.prepare(np.asarray(dataset.train_images[drawn]))).score_samples(features)
        order = np.argsort(-scores, kind="stable")  # of equal scores, the test split's order
        most.append(order[:IMAGES])
        least.append(order[::-1][:IMAGES])
    shown = np.array([np.flatnonzero(labels == cell.class_index)[0] for cell in cells])
    own = np.array([[cell.class_index] for cell in cells])
    first = cells[0]
    learned = f"encoder trained on {first.auxiliary_title or first.auxiliary}"
    where = f"{first.dataset_title or first.dataset}, {learned}, m = {first.train_per_class}, run {first.run}"
    return {
        "about": np.array(f"{first.method.label} on {where}"),
        "classes": np.array([cell.class_name for cell in cells]),
        "originals": test[shown],
        "reconstructions": method.reconstruct(test[shown]),
        "most": test[np.array(most)],
        "least": test[np.array(least)],
        "most_in_class": labels[np.array(most)] == own,
        "least_in_class": labels[np.array(least)] == own,
    }
