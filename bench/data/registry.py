"""The names of the datasets. To add one, add an entry, and a file beside this one if it is a new kind of source."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.data.source import Source


@dataclasses.dataclass(frozen=True)
class Entry:
    """One dataset.

    Attributes
    ----------
    kind
        The module of ``bench.data`` whose ``find(name, root, *, download, **options)`` returns its
        :class:`~bench.data.source.Source`. It is imported when it is needed.
    auxiliary
        The dataset whose unlabelled training images serve this one: the paper's choice; digits serve themselves.
    options
        Further arguments of ``find``.
    """

    kind: str
    auxiliary: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


DATASETS: Mapping[str, Entry] = {
    "digits": Entry("digits", auxiliary="digits"),
    "cifar10": Entry("cifar", auxiliary="cifar100"),
    "cifar20": Entry("cifar", auxiliary="cifar10"),
    "cifar100": Entry("cifar", auxiliary="cifar10"),
    "tiny-imagenet": Entry("tiny_imagenet", auxiliary="cifar10"),
    "imagenet": Entry(
        "class_folders",
        auxiliary="cifar10",
        options={
            "test": "val",
            "hint": "ImageNet has no public download: unpack ILSVRC 2012 to imagenet/train/WNID/ and "
            "imagenet/val/WNID/ there, or set --data-root",
        },
    ),
}

#: What a name of one's own image folder begins with.
FOLDER = "folder:"


def names() -> list[str]:
    """The named datasets; ``folder:PATH`` is accepted too."""
    return list(DATASETS)


def check_name(name: str, argument: str = "dataset") -> None:
    """Raise ValueError, which names the ``argument``, unless ``name`` is that of a dataset."""
    if name not in DATASETS and not name.startswith(FOLDER):
        raise ValueError(f"{argument}: got {name!r}; accepted are {', '.join(DATASETS)} and folder:PATH")
    if name == FOLDER:
        raise ValueError(f"{argument}: got 'folder:' without a path; accepted is folder:PATH")


def default_auxiliary(name: str) -> str:
    """The dataset whose unlabelled training images serve ``name`` unless the user says otherwise."""
    check_name(name)
    return DATASETS[name].auxiliary if name in DATASETS else name


def find(name: str, root: Path, *, download: bool = False) -> Source:
    """Find a dataset's files below ``root``.

    Raises
    ------
    FileNotFoundError
        If they are not there.
    ValueError
        For an unknown name.
    """
    check_name(name)
    if name.startswith(FOLDER):
        return _module("class_folders").find_folder(name, Path(name.removeprefix(FOLDER)))
    entry = DATASETS[name]
    return _module(entry.kind).find(name, root, download=download, **entry.options)


def _module(kind: str) -> Any:
    return importlib.import_module(f"bench.data.{kind}")
