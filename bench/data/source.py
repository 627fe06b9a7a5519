"""What a kind of source provides, and how folders of images are listed.

A source is found (its folders are there), then scanned (its files are listed, nothing is decoded), and read only where
the cache does not hold it.

Links are followed, to files and to folders, inside the dataset's folder or out of it: collections are often put
together from links, and what is read through one is read as pixels only. A link that leads nowhere or in a circle is an
error. Only regular files are opened: never a pipe or a device, which might not end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.data.text import quoted


@dataclasses.dataclass(frozen=True)
class Content:
    """Images of both splits ("train", "test"), as arrays or as files yet to be decoded, with their labels.

    Attributes
    ----------
    classes
        Class names.
    images
        For each split (n, 3, 32, 32) uint8, or the n paths of its files.
    labels
        For each split (n,) integers, indices into ``classes``.
    """

    classes: tuple[str, ...]
    images: Mapping[str, np.ndarray | Sequence[bytes]]
    labels: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a scan saw: ``signature`` is another one when any file is; ``read`` gives what the files hold."""

    signature: str
    read: Callable[[], Content]


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that was found; ``title`` is what tables call it."""

    title: str
    scan: Callable[[], Listing]


def visible(folder: str | bytes | os.PathLike[str]) -> list[os.DirEntry[bytes]]:
    """Entries of a folder in the order of their names as bytes, without hidden ones.

    Names are bytes, so that their order, and with it every label, is the same under every locale.

    Raises
    ------
    FileNotFoundError
        If the folder cannot be read.
    """
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(b".")), key=lambda e: e.name)
    except OSError as error:
        raise FileNotFoundError(f"cannot read folder {quoted(folder)} ({error.strerror})") from None


def status(entry: os.DirEntry[bytes]) -> os.stat_result:
    """What an entry is, or what it leads to if it is a link.

    Raises
    ------
    FileNotFoundError
        If it is a link that leads nowhere or in a circle, or cannot be looked at.
    """
    try:
        return os.stat(entry.path)  # not entry.stat(), which has no inode on Windows
    except OSError as error:
        what = "is a link that cannot be followed" if entry.is_symlink() else "cannot be looked at"
        raise FileNotFoundError(f"{quoted(entry.path)} {what} ({error.strerror})") from None


class Signature:
    """A digest over files that changes when any of them is added, removed, renamed, replaced or written to.

    A file goes in with its name, size, inode, time of modification and time of change: the last one is set by the
    system at every write and every replacement, and by nobody else, so that equal sizes and times of modification do
    not hide another content. The content itself is not read: that would take minutes for every start on ImageNet.
    """

    def __init__(self, kind: str, folders: Iterable[str | os.PathLike[str]]) -> None:
        self._digest = hashlib.sha256(kind.encode())
        for folder in folders:
            # Inode, size and times may agree on two copies of one disk image: the path counts too.
            self._digest.update(b"\0" + os.fsencode(os.path.realpath(folder)))

    def add(self, name: bytes, status: os.stat_result) -> None:
        """Take in a file under a name that no other file has."""
        numbers = b"%d %d %d %d" % (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        self._digest.update(b"\0%d %s %s" % (len(name), name, numbers))

    def text(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()


def image_files(folder: bytes, prefix: bytes, signature: Signature, expected: str) -> list[bytes]:
    """Names of the files in a folder, each taken into ``signature`` under ``prefix`` and its name.

    Raises
    ------
    ValueError
        If something is neither a file nor a link to one; ``expected`` says where files belong.
    FileNotFoundError
        If a link cannot be followed.
    """
    files = []
    for entry in visible(folder):
        found = status(entry)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{quoted(entry.path)} is not a file; expected are {expected}")
        signature.add(prefix + b"/" + entry.name, found)
        files.append(entry.name)
    return files


def has_folders(*folders: Path) -> bool:
    """Whether all of ``folders`` are there."""
    return all(os.path.isdir(folder) for folder in folders)
