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

# The superclasses of CIFAR-100 and the classes of each, as its authors list them.
_SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_SUPERCLASS_OF = {label: name for name, labels in _SUPERCLASSES.items() for label in labels.split()}


def find(name: str, root: Path, *, download: bool) -> Source:
    """The files that torchvision knows, with the checksums it states, or else ``NAME/{train,test}/CLASS/*``.

    For CIFAR-20 the image folders of CIFAR-100 will do.
    """
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
    fine = root / "cifar100"
    if name == "cifar20" and has_folders(fine / "train", fine / "test"):
        scan = class_folder_source(name, fine / "train", fine / "test").scan
        return Source(f"{name} (folder)", lambda: _with_superclasses(name, scan(), fine))
    raise FileNotFoundError(
        f"dataset {name!r}: neither {quoted(base)} (torchvision's files: --download fetches them) nor image folders "
        f"{quoted(folder / 'train')} and {quoted(folder / 'test')}"
        f"{', or those of cifar100,' if name == 'cifar20' else ''} are there; --data-root says where to look"
    )


def _with_superclasses(name: str, listing: Listing, folder: Path) -> Listing:
    """The image folders of CIFAR-100 with the superclasses for labels."""

    def read() -> Content:
        content = listing.read()
        differing = sorted(set(content.classes) ^ set(_SUPERCLASS_OF))
        if differing:
            raise ValueError(
                f"dataset {name!r}: {quoted(folder / 'train' / differing[0])} "
                f"{'is no class of' if differing[0] in content.classes else 'is missing, a class of'} CIFAR-100; "
                f"accepted are {', '.join(sorted(_SUPERCLASS_OF))}"
            )
        classes = tuple(_SUPERCLASSES)
        coarse = np.array([classes.index(_SUPERCLASS_OF[label]) for label in content.classes])
        return Content(classes, content.images, {split: coarse[fine] for split, fine in content.labels.items()})

    return Listing(f"{name} {listing.signature}", read)


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
    return Listing(f"{name} by class {' '.join(md5 for _, md5 in files)}", lambda: _read(name, official, base))


def _official_bytes(path: Path, md5: str) -> bytes:
    """The content of a file whose checksum is right: nothing else is ever unpickled."""
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{quoted(path)}: is not the official file (its MD5 is not {md5}); remove it, use --download")
    return content


def _read(name: str, official: Any, base: Path) -> Content:
    """All images, class after class, so that they are the same dataset as the folders made of them.

    Within a class of CIFAR-10 they have the order of the files, within one of CIFAR-100 that of their names.
    """

    def unpickled(file: str, md5: str) -> Any:
        return pickle.loads(_official_bytes(base / file, md5), encoding="latin1")

    key = {"cifar10": "labels", "cifar20": "coarse_labels", "cifar100": "fine_labels"}[name]
    by = ["labels"] if name == "cifar10" else ["filenames", "fine_labels"]
    meta = unpickled(official.meta["filename"], official.meta["md5"])
    images, labels = {}, {}
    for split, files in (("train", official.train_list), ("test", official.test_list)):
        parts = [unpickled(file, md5) for file, md5 in files]
        columns = {field: np.concatenate([np.asarray(part[field]) for part in parts]) for field in ("data", *by, key)}
        order = np.lexsort(tuple(columns[field] for field in by))  # stable; by the last column first
        images[split] = columns["data"].reshape(-1, 3, SIZE, SIZE)[order]
        labels[split] = columns[key][order]
    classes = meta["coarse_label_names" if name == "cifar20" else official.meta["key"]]
    return Content(tuple(classes), images, labels)
