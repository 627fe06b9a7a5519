"""CIFAR-10, CIFAR-100 and the 20 superclasses of the latter: the official files, or image folders in their place."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.class_folders import source as class_folder_source
from bench.data.decode import SIZE
from bench.data.source import Content, Listing, Source, has_folders
from bench.data.text import quoted


def find(name: str, root: Path, *, download: bool) -> Source:
    """The files that torchvision knows, with the checksums it states, or else ``NAME/{train,test}/CLASS/*``."""
    from torchvision.datasets import CIFAR10, CIFAR100

    official = CIFAR10 if name == "cifar10" else CIFAR100
    base = root / official.base_folder
    folder = root / name
    if download and not all((base / file).is_file() for file, _ in official.train_list + official.test_list):
        try:
            root.mkdir(parents=True, exist_ok=True)
            official(str(root), train=True, download=True)
        except Exception as error:  # network, disk and archive errors of many kinds, all of one meaning here
            raise ValueError(f"dataset {name!r}: --download failed ({' '.join(str(error).split())})") from None
    if has_folders(base):
        return Source(name, lambda: _scan(name, official, base))
    if has_folders(folder / "train", folder / "test"):
        return class_folder_source(name, folder / "train", folder / "test", title=f"{name} (folder)")
    raise FileNotFoundError(
        f"dataset {name!r}: neither {quoted(base)} (torchvision's files: --download fetches them) nor image folders "
        f"{quoted(folder / 'train')} and {quoted(folder / 'test')} are there; --data-root says where to look"
    )


def _scan(name: str, official: Any, base: Path) -> Listing:
    meta = (official.meta["filename"], official.meta["md5"])
    files = [*official.train_list, *official.test_list, meta]
    for file, _ in files:
        if not (base / file).is_file():
            raise FileNotFoundError(
                f"dataset {name!r}: {quoted(base / file)} is missing; --download fetches it, or remove {quoted(base)}"
            )
    for file, md5 in files:
        _official_bytes(base / file, md5)
    return Listing(f"{name} {' '.join(md5 for _, md5 in files)}", lambda: _read(name, official, base))


def _official_bytes(path: Path, md5: str) -> bytes:
    """The content of a file whose checksum is right: nothing else is ever unpickled."""
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{quoted(path)}: is not the official file (its MD5 is not {md5}); remove it, use --download")
    return content


def _read(name: str, official: Any, base: Path) -> Content:
    def unpickled(file: str, md5: str) -> Any:
        return pickle.loads(_official_bytes(base / file, md5), encoding="latin1")

    key = {"cifar10": "labels", "cifar20": "coarse_labels", "cifar100": "fine_labels"}[name]
    meta = unpickled(official.meta["filename"], official.meta["md5"])
    images, labels = {}, {}
    for split, files in (("train", official.train_list), ("test", official.test_list)):
        parts = [unpickled(file, md5) for file, md5 in files]
        images[split] = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, SIZE, SIZE)
        labels[split] = np.concatenate([np.asarray(part[key]) for part in parts])
    classes = meta["coarse_label_names" if name == "cifar20" else official.meta["key"]]
    return Content(tuple(classes), images, labels)
