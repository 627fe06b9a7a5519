"""From a dataset's name to its images and labels: decoded once, kept as memory-mapped arrays, fingerprinted.

Every image becomes 32×32 RGB, channels first, uint8; :mod:`bench.data.decode` states the rules. Labels are indices into
the class names, which are sorted, or in the official order where torchvision's CIFAR files are read.

One file per concern:

- ``registry``: the names of the datasets, in one table;
- ``digits``, ``cifar``, ``class_folders``, ``tiny_imagenet``: where images come from, a file per kind of source;
- ``source``: what such a file provides, and how folders of images are listed;
- ``decode``: from an image file to an array;
- ``cache``: where the arrays are kept, and under which key;
- ``dataset``: what :func:`load` returns.

Importing this package imports none of numpy, Pillow and PyTorch, so that a command can list the names at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.data.dataset import Dataset
from bench.data.registry import check_name, default_auxiliary, find, names

__all__ = ["Dataset", "check_name", "default_auxiliary", "is_present", "load", "names"]


def is_present(name: str, *, data_root: str | os.PathLike[str] = "data") -> bool:
    """Whether the files of a dataset are where :func:`load` looks for them. Their content is not examined.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    try:
        find(name, Path(data_root))
    except FileNotFoundError:
        return False
    return True


def load(
    name: str,
    *,
    data_root: str | os.PathLike[str] = "data",
    cache_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: bool = True,
    workers: int | None = None,
) -> Dataset:
    """Read a dataset, from the cache where it holds it.

    Parameters
    ----------
    name
        One of :func:`names`, or ``folder:PATH`` for ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``.
    data_root
        The folder that holds the datasets.
    cache_dir
        Where decoded arrays are kept; by default ``.cache`` in ``data_root``, and a temporary folder of this user
        where that cannot be used.
    download
        Fetch CIFAR's official files if they are not there.
    progress
        Show a progress bar on standard error while images are decoded.
    workers
        Threads that decode; by default the number that ThreadPoolExecutor chooses. The arrays do not depend on it.

    Raises
    ------
    FileNotFoundError
        If the dataset is not there; the message says what was looked for and what would put it there.
    ValueError
        For an unknown name, an unreadable image, an empty class or labels that do not match, where the message names
        the file; where files change while they are decoded; and where the decoded images cannot be kept, where the
        message names the folder.
    """
    from bench.data.cache import load_through

    root = Path(data_root)
    wanted = root / ".cache" if cache_dir is None else Path(cache_dir)
    return load_through(name, find(name, root, download=download), wanted, progress=progress, workers=workers)
