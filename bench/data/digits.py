"""scikit-learn's handwritten digits, which come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.decode import to_array
from bench.data.source import Content, Listing, Source


def find(name: str, root: Path, *, download: bool) -> Source:
    """The 1,797 digits: 8×8 pixels of 17 grey levels, enlarged bilinearly; stratified 75/25."""
    return Source(name, _scan)


def _scan() -> Listing:
    import sklearn

    return Listing(f"digits {sklearn.__version__}", _read)  # another version may split otherwise


def _read() -> Content:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([to_array(Image.fromarray(image)) for image in grey])
    train, test = train_test_split(np.arange(len(images)), test_size=0.25, random_state=0, stratify=digits.target)
    train, test = np.sort(train), np.sort(test)
    return Content(
        tuple(str(digit) for digit in range(10)),
        {"train": images[train], "test": images[test]},
        {"train": digits.target[train], "test": digits.target[test]},
    )
