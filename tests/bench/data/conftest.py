"""A small image folder, and short ways to write an image and to load a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench import data


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., data.Dataset]:
    """``load(name, **options)`` with data and cache below ``tmp_path``."""

    def load(name: str, **options: object) -> data.Dataset:
        return data.load(
            name, **{"data_root": tmp_path / "data", "cache_dir": tmp_path / "cache", "progress": False, **options}
        )

    return load


@pytest.fixture(scope="session")
def picture() -> Callable[..., Path]:
    """``picture(path)`` writes an image of one colour."""

    def picture(
        path: Path, colour: object = (200, 100, 50), size: tuple[int, int] = (32, 32), mode: str = "RGB"
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path)
        return path

    return picture


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """Two classes, two training images and one test image each."""
    root = tmp_path / "own"
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for index in range(count):
                picture(root / split / name / f"{index}.png", (50 * label, 10 * index, 7))
    return root
