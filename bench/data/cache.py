"""Decoded images on disk: under which key, in which folder, and how they get there whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from bench.data.dataset import Dataset
from bench.data.decode import SIZE, VERSION, decode_files
from bench.data.source import Listing, Source
from bench.data.text import escaped_controls, quoted
from corel.checkpoint import write_atomically

#: Longer than the resolution of file systems' time stamps.
_TICK_SECONDS = 0.02


def load_through(name: str, source: Source, wanted: Path, *, progress: bool, workers: int | None) -> Dataset:
    """Return a dataset from the cache, and fill the cache first where it does not hold it.

    The cache is looked for in ``wanted`` and in a temporary folder of this user, and filled in the first of them that
    can be used.

    Raises
    ------
    ValueError
        If neither can be used, files change while they are decoded, or whatever ``source`` raises.
    """
    listing = source.scan()
    # Another version of Pillow may decode the same file to other pixels.
    key = hashlib.sha256(f"{VERSION} {PIL.__version__} {listing.signature}".encode()).hexdigest()[:32]
    places = [wanted.absolute(), Path(tempfile.gettempdir(), f"corel-cache-{_user()}").absolute()]
    fallback = places[1]
    trusted = [place for place in places if not _of_a_stranger(place, always=place == fallback)]
    for place in trusted:
        description = _read_description(place / key)
        if description is not None:
            return _dataset(name, source, description, place / key)
    for place in trusted:
        if _can_hold(place, key, private=place == fallback):
            if place == fallback:
                _say(f"cannot use the cache {quoted(wanted)}: decoded images are kept in {quoted(place)}")
            return _dataset(name, source, _fill_alone(source, listing, place / key, progress, workers), place / key)
    raise ValueError(
        f"cache_dir: cannot use {quoted(wanted)}, nor {quoted(fallback)}; give a folder that is yours and can be "
        "written to"
    )


def _dataset(name: str, source: Source, description: Mapping[str, Any], folder: Path) -> Dataset:
    return Dataset(name, source.title, tuple(description["classes"]), description["fingerprint"], folder)


def _say(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------------
# Where the cache may be


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _of_a_stranger(place: Path, *, always: bool) -> bool:
    """Whether someone else made this folder, or can write to it.

    Unless ``always``, that is asked only in a public temporary folder, where everyone can make one: elsewhere those
    who can make a cache are those who put the images there.
    """
    try:
        above = place.parent.stat()
        found = place.lstat()
    except OSError:
        return False  # not there, or not to be looked at: nothing is read from it
    if not (always or _is_public(above)):
        return False
    for_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not stat.S_ISDIR(found.st_mode) or found.st_uid != _user() or for_others != 0


def _is_public(folder: os.stat_result) -> bool:
    return bool(folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH)


def _can_hold(place: Path, key: str, *, private: bool) -> bool:
    """Make the folder ``place`` if it is not there; whether ``key`` can be written to and replaced in it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700 if private or _is_public(place.parent.stat()) else 0o777, exist_ok=True)
    except OSError:
        return False
    if _of_a_stranger(place, always=private):  # someone else was faster
        return False
    kept = place / key  # another user's may be unreadable, as if damaged, but cannot be replaced
    everything = os.R_OK | os.W_OK | os.X_OK
    return os.access(place, everything) and (not os.path.lexists(kept) or os.access(kept, everything))


# ---------------------------------------------------------------------------------------------------------------------
# What it holds


def _read_description(folder: Path) -> dict[str, Any] | None:
    """What the cache says of itself, or None where it is not there, not whole, or holds something else by now."""
    kept = [f"{split}-{kind}.npy" for split in ("train", "test") for kind in ("images", "labels")]
    try:
        if not all((folder / file).is_file() for file in ("description.json", *kept)):  # a pipe might never end
            return None
        description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
        if description["version"] != VERSION or description["checksum"] != _checksum(description):
            return None
        classes = description["classes"]
        if len(set(classes)) < 2 or len(set(classes)) < len(classes) or classes != list(map(escaped_controls, classes)):
            return None
        for file, size in description["files"].items():
            if (folder / file).stat().st_size != size:
                return None
        for split in ("train", "test"):
            labels = np.load(folder / f"{split}-labels.npy", mmap_mode="r")
            images = np.load(folder / f"{split}-images.npy", mmap_mode="r")
            if images.dtype != np.uint8 or images.shape != (len(labels), 3, SIZE, SIZE):
                return None
            if labels.dtype != np.int64 or not np.isin(labels, np.arange(len(description["classes"]))).all():
                return None
        return description if _fingerprint(folder, description["classes"]) == description["fingerprint"] else None
    except Exception:  # damaged in any way: not usable
        return None


def _fingerprint(folder: Path, classes: Sequence[str]) -> str:
    """Digest of the class names, images and labels that lie in a cache."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in ("train", "test"):
        for kind in ("images", "labels"):
            array = np.load(folder / f"{split}-{kind}.npy", mmap_mode="r")
            for start in range(0, len(array), 10_000):
                digest.update(array[start : start + 10_000].data)
    return digest.hexdigest()


def _checksum(description: Mapping[str, Any]) -> str:
    """Digest of all else that a description says."""
    rest = {name: value for name, value in description.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# How it is filled


def _fill_alone(
    source: Source, listing: Listing, folder: Path, progress: bool, workers: int | None
) -> Mapping[str, Any]:
    """Fill the cache while other processes wait for it, or wait for the one that does.

    Where there are no locks, each process decodes, and the first one to finish is used.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False)
    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except Timeout:
                _say(f"another process decodes {source.title}: waiting for it")
                stack.enter_context(lock.acquire())
            # whatever lies beside the folder now is of processes that were killed
            for left in folder.parent.glob(f".{folder.name}.*.part"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError:  # a file system without locks, or a lock of another user
            pass
        return _read_description(folder) or _fill(source, listing, folder, progress, workers)


def _fill(source: Source, listing: Listing, folder: Path, progress: bool, workers: int | None) -> dict[str, Any]:
    """Fill the cache. The folder appears whole, by a rename; a killed run leaves a temporary one behind."""
    # A file that is written right after the scan could get the time stamp that the scan saw: read it a moment later.
    time.sleep(_TICK_SECONDS)
    content = listing.read()
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        with _room(source, folder.parent):
            temporary.mkdir()  # with the permissions of the umask, so that those who share the cache can read it
        total = sum(len(images) for images in content.images.values() if not isinstance(images, np.ndarray))
        with tqdm(total=total, unit="image", desc=f"decoding {source.title}", file=sys.stderr,
                  disable=not (progress and total) or sys.stderr is None) as bar:  # fmt: skip
            for split in ("train", "test"):
                images, labels = content.images[split], content.labels[split].astype(np.int64)
                with _room(source, folder.parent):
                    array = _new_array(temporary / f"{split}-images.npy", len(images))
                if isinstance(images, np.ndarray):
                    array[:] = images
                else:
                    decode_files(images, array, workers, bar.update)
                with _room(source, folder.parent):
                    array.flush()
                    np.save(temporary / f"{split}-labels.npy", labels)
        if source.scan().signature != listing.signature:
            raise ValueError(f"dataset {source.title!r}: its files changed while they were decoded; start again")
        with _room(source, folder.parent):
            description: dict[str, Any] = {
                "version": VERSION,
                "classes": list(content.classes),
                "fingerprint": _fingerprint(temporary, content.classes),
                "files": {file.name: file.stat().st_size for file in temporary.iterdir()},
            }
            description["checksum"] = _checksum(description)
            write_atomically(temporary / "description.json", lambda s: s.write(json.dumps(description).encode()))
            _move(temporary, folder)
        return description
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _room(source: Source, cache: Path) -> Iterator[None]:
    """Turn an OSError into a ValueError that names the folder of the cache."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise ValueError(
            f"dataset {source.title!r}: cannot keep its decoded images in {quoted(cache)} ({reason})"
        ) from None


def _new_array(path: Path, count: int) -> np.memmap:
    """A file of ``count`` images, mapped: (count, 3, 32, 32) uint8.

    Raises
    ------
    OSError
        If the disk has no room for it. Without this check, writing to the map would end the process (SIGBUS).
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, SIZE, SIZE))
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # not every file system can
                    raise
    return array


def _move(temporary: Path, folder: Path) -> None:
    """Put a finished cache in its place; where another process was faster, its equal one stays."""
    if _read_description(folder) is not None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(temporary, folder)
    except OSError:
        if _read_description(folder) is None:
            raise
