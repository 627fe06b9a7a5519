"""A small image folder and a small method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

METHOD = """
import numpy as np
from methods import OneClassMethod


class Mean(OneClassMethod):
    name = "mean"

    def fit(self, features):
        self.mean = features.mean(axis=(0, 2, 3))
        return self

    def score_samples(self, features):
        return -np.abs(features.mean(axis=(2, 3)) - self.mean).sum(axis=1)
"""


def write_images(folder: Path, names: Mapping[str | bytes, tuple[int, int, int]]) -> None:
    """Noisy images of a colour for each class: 6 for training and 4 for tests."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name, colour in names.items():
            place = Path(folder, split, name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + generator.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")


def without_times(path: Path) -> str:
    """A CSV file without its columns of seconds."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame[[column for column in frame if not column.endswith("seconds")]].to_csv()
