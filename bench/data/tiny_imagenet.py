"""Tiny-ImageNet-200 in its official layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.data.source import Content, Listing, Signature, Source, has_folders, image_files, visible
from bench.data.text import as_text, quoted


def find(name: str, root: Path, *, download: bool) -> Source:
    """``tiny-imagenet-200`` below ``root``; the labelled *val* split is the test split (§5.1)."""
    path = root / "tiny-imagenet-200"
    annotations = path / "val" / "val_annotations.txt"
    missing = [f"folder {quoted(f)}" for f in (path / "train", path / "val" / "images") if not has_folders(f)]
    if not annotations.is_file():
        missing.append(f"file {quoted(annotations)}")
    if missing:
        raise FileNotFoundError(
            f"dataset {name!r}: no {missing[0]}; unpack tiny-imagenet-200.zip there, or set --data-root"
        )
    return Source(name, lambda: _scan(name, path))


def _scan(name: str, path: Path) -> Listing:
    train_folder, val_folder = path / "train", path / "val" / "images"
    signature = Signature(name, [path])
    train: dict[bytes, list[bytes]] = {}
    for entry in visible(train_folder):
        folder = os.path.join(entry.path, b"images")
        expected = f"{as_text(train_folder)}/CLASS/images/*"
        images = image_files(folder, b"train/" + entry.name, signature, expected) if os.path.isdir(folder) else []
        if not images:
            raise ValueError(f"dataset {name!r}: {quoted(entry.path)} holds no images; expected are {expected}")
        train[entry.name] = [os.path.join(folder, image) for image in images]
    present = image_files(os.fsencode(val_folder), b"val", signature, f"{as_text(val_folder)}/*")
    classes = list(train)
    labels = _labels(path / "val" / "val_annotations.txt", signature, classes, present, train_folder, val_folder)

    def read() -> Content:
        train_labels = np.repeat(np.arange(len(classes)), [len(images) for images in train.values()])
        return Content(
            tuple(as_text(wnid) for wnid in classes),
            {
                "train": [image for images in train.values() for image in images],
                "test": [os.path.join(os.fsencode(val_folder), image) for image in present],
            },
            {"train": train_labels, "test": np.array(labels)},
        )

    return Listing(signature.text(), read)


def _labels(
    annotations: Path, signature: Signature, classes: list[bytes], present: list[bytes], train: Path, val: Path
) -> list[int]:
    """The label of each image in ``present``, as the file of annotations has it.

    Raises
    ------
    ValueError
        If annotations and images do not match; the message names the file and the line.
    """
    file = quoted(annotations)
    try:
        content = annotations.read_bytes()
        content.decode("utf-8")
        signature.add(b"annotations", os.stat(annotations))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a readable text file ({error})") from None
    index = {wnid: label for label, wnid in enumerate(classes)}
    labels: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split(b"\t")
        if len(fields) < 2 or fields[1] not in index:
            raise ValueError(
                f"{file}: line {number} names no class of {quoted(train)}: {quoted(line[:80])}; "
                "expected are an image's name, a tab and its class"
            )
        image, label = fields[0], index[fields[1]]
        if labels.setdefault(image, label) != label:
            raise ValueError(
                f"{file}: line {number} names class {quoted(fields[1])} for {quoted(image)}, which is of class "
                f"{quoted(classes[labels[image]])} before"
            )
    there = set(present)
    for image in labels:
        if image not in there:
            raise ValueError(f"{file}: names {quoted(image)}, which is not in {quoted(val)}")
    for image in present:
        if image not in labels:
            raise ValueError(f"{quoted(val / os.fsdecode(image))}: has no label in {file}")
    missing = set(range(len(classes))) - set(labels.values())
    if missing:
        raise ValueError(f"{file}: no image of class {quoted(classes[min(missing)])}")
    return [labels[image] for image in present]
