"""Images in one folder per class: one's own, and every dataset that comes this way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from bench.data.source import Content, Listing, Signature, Source, has_folders, image_files, status, visible
from bench.data.text import as_text, quoted


def find(name: str, root: Path, *, download: bool, test: str, hint: str) -> Source:
    """A named dataset in ``NAME/train/CLASS/*`` and ``NAME/TEST/CLASS/*``; ``hint`` says how it gets there."""
    path = root / name
    if not has_folders(path / "train", path / test):
        raise FileNotFoundError(f"dataset {name!r}: no folders 'train' and {test!r} in {quoted(path)}; {hint}")
    return source(name, path / "train", path / test)


def find_folder(name: str, path: Path) -> Source:
    """Images of one's own in ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``."""
    for split in ("train", "test"):
        if not has_folders(path / split):
            raise FileNotFoundError(
                f"dataset {name!r}: no folder {quoted(path / split)}; images go to "
                f"{as_text(path)}/train/CLASS/ and {as_text(path)}/test/CLASS/"
            )
    return source(name, path / "train", path / "test")


def source(name: str, train: Path, test: Path, title: str | None = None) -> Source:
    """Class folders in ``train`` and in ``test``, the same in both."""
    return Source(title or as_text(name), lambda: _scan(name, {"train": train, "test": test}))


def _scan(name: str, splits: dict[str, Path]) -> Listing:
    signature = Signature("class folders", splits.values())
    files: dict[str, dict[bytes, list[bytes]]] = {}
    for split, path in splits.items():
        expected = f"{as_text(path)}/CLASS/*"
        files[split] = {}
        for entry in visible(path):
            if not stat.S_ISDIR(status(entry).st_mode):
                raise ValueError(f"dataset {name!r}: {quoted(entry.path)} is not a folder; expected are {expected}")
            images = image_files(entry.path, split.encode() + b"/" + entry.name, signature, expected)
            if not images:
                raise ValueError(f"dataset {name!r}: class folder {quoted(entry.path)} holds no images")
            files[split][entry.name] = images
        if len(files[split]) < 2:
            raise ValueError(
                f"dataset {name!r}: {len(files[split])} class folders in {quoted(path)}; at least 2 are needed"
            )
    for one, other in (("train", "test"), ("test", "train")):
        for label in files[one]:
            if label not in files[other]:
                raise ValueError(
                    f"dataset {name!r}: class {quoted(label)} is in {quoted(splits[one])} but has no images in "
                    f"{quoted(splits[other])}"
                )
    folders = list(files["train"])
    classes: dict[str, bytes] = {}
    for label in folders:
        if classes.setdefault(as_text(label), label) != label:
            raise ValueError(
                f"dataset {name!r}: two class folders in {quoted(splits['train'])} are both {as_text(label)!r} once "
                "what is not text in their names is escaped; rename one"
            )

    def read() -> Content:
        paths = {
            split: [os.path.join(os.fsencode(path), label, image) for label in folders for image in files[split][label]]
            for split, path in splits.items()
        }
        counts = {split: [len(files[split][label]) for label in folders] for split in splits}
        labels = {split: np.repeat(np.arange(len(folders)), counts[split]) for split in splits}
        return Content(tuple(classes), paths, labels)

    return Listing(signature.text(), read)
