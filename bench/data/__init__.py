"""From a dataset's name to its images and labels: decoded once, kept as memory-mapped arrays, fingerprinted.

Every image becomes 32×32 RGB (§5.1: resized without keeping the aspect ratio), channels first, uint8. Labels are
indices into the sorted class names, or into the official order where torchvision's CIFAR files are read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from bench.engine.lock import locked
from bench.engine.workers import WorkerPool
from corel.checkpoint import write_atomically

#: Side of every image in pixels.
SIZE = 32

#: Raise it when decoding changes: cached arrays of another version are not used.
_VERSION = 1

#: Named datasets, and the auxiliary dataset of each (the paper's choice; digits serve themselves).
_AUXILIARY = {
    "digits": "digits",
    "cifar10": "cifar100",
    "cifar20": "cifar10",
    "cifar100": "cifar10",
    "tiny-imagenet": "cifar10",
    "imagenet": "cifar10",
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A train and a test split.

    Attributes
    ----------
    name
        The name it was asked for by.
    title
        What tables call it: the name, with "(folder)" where an image folder stands in for the official files.
    classes
        Class names; labels are indices into it.
    fingerprint
        Digest of images, labels and class names: other data, another fingerprint, wherever the files lie.
    folder
        Where the arrays are kept.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    fingerprint: str
    folder: Path

    def _array(self, file: str) -> np.ndarray:
        return np.load(self.folder / file, mmap_mode="r")

    @property
    def train_images(self) -> np.ndarray:
        """(n, 3, 32, 32) uint8, memory-mapped."""
        return self._array("train-images.npy")

    @property
    def train_labels(self) -> np.ndarray:
        """(n,) int64, memory-mapped."""
        return self._array("train-labels.npy")

    @property
    def test_images(self) -> np.ndarray:
        """(n, 3, 32, 32) uint8, memory-mapped."""
        return self._array("test-images.npy")

    @property
    def test_labels(self) -> np.ndarray:
        """(n,) int64, memory-mapped."""
        return self._array("test-labels.npy")

    def class_indices(self, wanted: Sequence[str] | None) -> list[int]:
        """Indices of the classes named ``wanted``, by name or by number, each once; of all classes for None.

        A class whose name is such a number wins.

        Raises
        ------
        ValueError
            If there is no such class. The message names the option ``--classes``.
        """
        if wanted is None:
            return list(range(len(self.classes)))
        indices = []
        for word in wanted:
            if word in self.classes:
                indices.append(self.classes.index(word))
            elif word.isdecimal() and int(word) < len(self.classes):
                indices.append(int(word))
            else:
                shown = ", ".join(self.classes[:20]) + (", …" if len(self.classes) > 20 else "")
                raise ValueError(
                    f"--classes: got {word!r}; {self.name} has {shown}, or give numbers 0 to {len(self.classes) - 1}"
                )
        return list(dict.fromkeys(indices))


def names() -> list[str]:
    """The named datasets; ``folder:PATH`` is accepted too."""
    return list(_AUXILIARY)


def check_name(name: str, argument: str = "dataset") -> None:
    """Raise ValueError, which names the ``argument``, unless :func:`load` knows ``name``."""
    if name not in _AUXILIARY and not name.startswith("folder:"):
        raise ValueError(f"{argument}: got {name!r}; accepted are {', '.join(_AUXILIARY)} and folder:PATH")
    if name == "folder:":
        raise ValueError(f"{argument}: got 'folder:' without a path; accepted is folder:PATH")


def default_auxiliary(name: str) -> str:
    """The dataset whose unlabelled training images serve ``name`` unless the user says otherwise."""
    check_name(name)
    return _AUXILIARY.get(name, name)


def missing(name: str, data_root: str | os.PathLike[str] = "data") -> str:
    """Why :func:`load` would not find the files of a dataset; empty if they are there. Nothing is decoded."""
    check_name(name)
    try:
        _find(name, Path(data_root), download=False)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return ""


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
        where that cannot be written to.
    download
        Fetch CIFAR's official files if they are not there.
    progress
        Show a progress bar on standard error while images are decoded.
    workers
        Processes that decode; by default one per core.

    Raises
    ------
    FileNotFoundError
        If the dataset is not there; the message says what was looked for and what would put it there.
    ValueError
        For an unknown name, an unreadable image, an empty class or labels that do not match, where the message names
        the file; and where the decoded images cannot be kept, where it names the folder.
    ChildProcessError
        If a process that decodes was ended from outside.
    """
    check_name(name)
    source = _find(name, Path(data_root), download)
    cache = _cache_folder(Path(data_root) / ".cache" if cache_dir is None else Path(cache_dir))
    folder = cache / hashlib.sha256(source.signature.encode()).hexdigest()[:32]
    description = _read_description(folder)
    if description is None:
        # One process decodes, others wait for it: what lies beside the folder then is of processes that were killed.
        lock = cache / f".{folder.name}.lock"
        with locked(lock, wait=False) as held:
            if held is not False:
                description = _fill(source, folder, progress, workers, alone=held is True)
        if description is None:
            print(f"another process decodes {source.title}: waiting for it", file=sys.stderr)
            with locked(lock):
                description = _fill(source, folder, progress, workers, alone=True)
    return Dataset(name, source.title, tuple(description["classes"]), description["fingerprint"], folder)


# ---------------------------------------------------------------------------------------------------------------------
# Where a dataset's images come from


@dataclasses.dataclass(frozen=True)
class _Source:
    """What was found: ``signature`` changes when a file does; ``read`` gives what it holds."""

    title: str
    signature: str
    read: Callable[[], _Content]


@dataclasses.dataclass(frozen=True)
class _Content:
    """Images of both splits, as arrays or as files yet to be decoded, with their labels."""

    classes: tuple[str, ...]
    images: Mapping[str, np.ndarray | Sequence[str]]
    labels: Mapping[str, np.ndarray]


def _find(name: str, root: Path, download: bool) -> _Source:
    if name == "digits":
        import sklearn

        # Other versions may enlarge or split otherwise.
        versions = f"{sklearn.__version__} {Image.__version__}"
        return _Source(name, f"{_VERSION} digits {versions}", _digits)
    if name.startswith("folder:"):
        path = Path(name.removeprefix("folder:"))
        for split in ("train", "test"):
            if not (path / split).is_dir():
                raise FileNotFoundError(
                    f"dataset {name!r}: no folder {str(path / split)!r}; images go to "
                    f"{path}/train/CLASS/ and {path}/test/CLASS/"
                )
        return _folder(name, {"train": path / "train", "test": path / "test"})
    if name == "tiny-imagenet":
        return _tiny_imagenet(root / "tiny-imagenet-200")
    if name == "imagenet":
        path = root / "imagenet"
        if not ((path / "train").is_dir() and (path / "val").is_dir()):
            raise FileNotFoundError(
                f"dataset 'imagenet': no folders 'train' and 'val' in {str(path)!r}; ImageNet has no public download: "
                "unpack ILSVRC 2012 to imagenet/train/WNID/ and imagenet/val/WNID/ there, or set --data-root"
            )
        return _folder(name, {"train": path / "train", "test": path / "val"})
    return _cifar(name, root, download)


def _listing(files: Sequence[Path], root: Path) -> str:
    """A text that changes when a file is added, removed, or written to."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder in the order of their names, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise FileNotFoundError(f"cannot read folder {str(folder)!r} ({error.strerror})") from None


def _folder(name: str, splits: Mapping[str, Path], title: str | None = None) -> _Source:
    """Images in one folder per class."""
    files: dict[str, dict[str, list[os.DirEntry[str]]]] = {}
    signature = hashlib.sha256(f"{_VERSION} folder".encode())
    for split, path in splits.items():
        files[split] = {}
        for entry in _visible(path):
            if not entry.is_dir():
                raise ValueError(f"dataset {name!r}: {entry.path!r} is not a folder; expected are {path}/CLASS/*")
            images = _visible(Path(entry.path))
            if not images:
                raise ValueError(f"dataset {name!r}: class folder {entry.path!r} holds no images")
            for image in images:
                if not image.is_file():
                    raise ValueError(f"dataset {name!r}: {image.path!r} is not a file; expected are {path}/CLASS/*")
                stat = image.stat()
                signature.update(f"{split}/{entry.name}/{image.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
            files[split][entry.name] = images
        if len(files[split]) < 2:
            raise ValueError(
                f"dataset {name!r}: {len(files[split])} class folders in {str(path)!r}; at least 2 are needed"
            )
    for one, other in (("train", "test"), ("test", "train")):
        for label in files[one]:
            if label not in files[other]:
                raise ValueError(
                    f"dataset {name!r}: class {label!r} is in {str(splits[one])!r} but has no images in "
                    f"{str(splits[other])!r}"
                )

    def read() -> _Content:
        classes = tuple(files["train"])
        return _Content(
            classes,
            {split: [image.path for label in classes for image in files[split][label]] for split in files},
            {split: np.repeat(np.arange(len(classes)), [len(files[split][c]) for c in classes]) for split in files},
        )

    return _Source(title or name, signature.hexdigest(), read)


def _digits() -> _Content:
    """scikit-learn's 1,797 handwritten digits, 8×8 with 17 grey levels, enlarged bilinearly; stratified 75/25."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([_to_array(Image.fromarray(image)) for image in grey])
    train, test = train_test_split(np.arange(len(images)), test_size=0.25, random_state=0, stratify=digits.target)
    train, test = np.sort(train), np.sort(test)
    return _Content(
        tuple(str(digit) for digit in range(10)),
        {"train": images[train], "test": images[test]},
        {"train": digits.target[train], "test": digits.target[test]},
    )


def _tiny_imagenet(path: Path) -> _Source:
    """Tiny-ImageNet-200 in its official layout; the labelled *val* split is the test split (§5.1)."""
    annotations = path / "val" / "val_annotations.txt"
    for needed in (path / "train", path / "val" / "images", annotations):
        if not (needed.is_file() if needed == annotations else needed.is_dir()):
            kind = "file" if needed == annotations else "folder"
            raise FileNotFoundError(
                f"dataset 'tiny-imagenet': no {kind} {str(needed)!r}; unpack tiny-imagenet-200.zip there, or set "
                "--data-root"
            )
    train: dict[str, list[Path]] = {}
    for entry in _visible(path / "train"):
        images = _visible(Path(entry.path) / "images") if entry.is_dir() else []
        if not images:
            raise ValueError(f"dataset 'tiny-imagenet': {entry.path!r} holds no images")
        train[entry.name] = [Path(image.path) for image in images]
    classes = tuple(train)
    index = {wnid: label for label, wnid in enumerate(classes)}
    test: dict[str, int] = {}
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{annotations}: not a readable text file ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index:
            raise ValueError(
                f"{annotations}: line {number} names no class of {str(path / 'train')!r}: {line[:80]!r}; "
                "expected are an image's name, a tab and its class"
            )
        if test.setdefault(fields[0], index[fields[1]]) != index[fields[1]]:
            raise ValueError(
                f"{annotations}: line {number} names class {fields[1]!r} for {fields[0]!r}, which is of class "
                f"{classes[test[fields[0]]]!r} before"
            )
    present = [entry.name for entry in _visible(path / "val" / "images")]
    there = set(present)
    for file in test:
        if file not in there:
            raise ValueError(f"{annotations}: names {file!r}, which is not in {str(path / 'val' / 'images')!r}")
    for file in present:
        if file not in test:
            raise ValueError(f"{path / 'val' / 'images' / file}: has no label in {str(annotations)!r}")
    missing = set(range(len(classes))) - set(test.values())
    if missing:
        raise ValueError(f"{annotations}: no image of class {classes[min(missing)]!r}")
    val = [path / "val" / "images" / file for file in present]
    train_files = [file for images in train.values() for file in images]
    signature = f"{_VERSION} tiny-imagenet {_listing([*train_files, *val, annotations], path)}"

    def read() -> _Content:
        return _Content(
            classes,
            {"train": [str(file) for file in train_files], "test": [str(file) for file in val]},
            {
                "train": np.repeat(np.arange(len(classes)), [len(images) for images in train.values()]),
                "test": np.array([test[file] for file in present]),
            },
        )

    return _Source("tiny-imagenet", signature, read)


def _cifar(name: str, root: Path, download: bool) -> _Source:
    """CIFAR in torchvision's files, their checksums verified before anything is unpickled, or an image folder."""
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import check_md5

    official = CIFAR10 if name == "cifar10" else CIFAR100
    base = root / official.base_folder
    folder = root / name
    if download and not all((base / file).is_file() for file, _ in official.train_list + official.test_list):
        try:
            root.mkdir(parents=True, exist_ok=True)
            official(str(root), train=True, download=True)
        except Exception as error:  # network, disk and archive errors of many kinds, all of one meaning here
            raise ValueError(f"dataset {name!r}: --download failed ({' '.join(str(error).split())})") from None
    if base.is_dir():
        files = [*official.train_list, *official.test_list, [official.meta["filename"], official.meta["md5"]]]
        for file, md5 in files:
            if not (base / file).is_file():
                raise FileNotFoundError(
                    f"dataset {name!r}: {str(base / file)!r} is missing; --download fetches it, or remove {str(base)!r}"
                )
            if not check_md5(str(base / file), md5):
                raise ValueError(
                    f"{base / file}: is not the official file (its MD5 is not {md5}); remove it and use --download"
                )
        return _Source(
            name, f"{_VERSION} {name} {' '.join(md5 for _, md5 in files)}", lambda: _read_cifar(name, official, base)
        )
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _folder(name, {"train": folder / "train", "test": folder / "test"}, title=f"{name} (folder)")
    raise FileNotFoundError(
        f"dataset {name!r}: neither {str(base)!r} (torchvision's files: --download fetches them) nor image folders "
        f"{str(folder / 'train')!r} and {str(folder / 'test')!r} are there; --data-root says where to look"
    )


def _read_cifar(name: str, official: Any, base: Path) -> _Content:
    key = {"cifar10": "labels", "cifar20": "coarse_labels", "cifar100": "fine_labels"}[name]
    with open(base / official.meta["filename"], "rb") as stream:
        meta = pickle.load(stream, encoding="latin1")
    images, labels = {}, {}
    for split, files in (("train", official.train_list), ("test", official.test_list)):
        parts = []
        for file, _ in files:
            with open(base / file, "rb") as stream:
                parts.append(pickle.load(stream, encoding="latin1"))
        images[split] = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, SIZE, SIZE)
        labels[split] = np.concatenate([np.asarray(part[key]) for part in parts])
    names = meta["coarse_label_names" if name == "cifar20" else official.meta["key"]]
    return _Content(tuple(names), images, labels)


# ---------------------------------------------------------------------------------------------------------------------
# Decoding and the cache


def _to_array(image: Image.Image) -> np.ndarray:
    """(3, 32, 32) uint8 of an image of any mode and size."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):  # 16-bit grey: Pillow would clip, not scale
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode != "RGB":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # palettes with transparency: the colour below is what is wanted
            image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _decode_files(paths: Sequence[str]) -> np.ndarray:
    """Decode image files; an unreadable one ends it with an error that names the file."""
    out = np.empty((len(paths), 3, SIZE, SIZE), np.uint8)
    for index, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                out[index] = _to_array(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: not a readable image ({type(error).__name__}: {reason})") from None
    return out


def _chunks(paths: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _cache_folder(wanted: Path) -> Path:
    for folder in (wanted, Path(tempfile.gettempdir()) / f"corel-cache-{os.getuid() if hasattr(os, 'getuid') else 0}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                if folder != wanted:
                    print(f"cannot write to {wanted}: decoded images are kept in {folder}", file=sys.stderr)
                return folder
        except OSError:
            continue
    raise ValueError(f"cache_dir: cannot write to {str(wanted)!r}; give a folder that can be written to")


def _read_description(folder: Path) -> dict[str, Any] | None:
    """What the cache says of itself, or None where it is not there, not whole, or holds something else by now."""
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
        if description["version"] != _VERSION or description["checksum"] != _checksum(description):
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
    except Exception:  # any damage to any of the files means the same: there is nothing to use
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


def _fill(source: _Source, folder: Path, progress: bool, workers: int | None, alone: bool) -> dict[str, Any]:
    """Fill the cache, unless another process has done so by now; ``alone``: no other one is at it."""
    if alone:
        for left in folder.parent.glob(f".{folder.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
    return _read_description(folder) or _decode(source, folder, progress, workers)


def _decode(source: _Source, folder: Path, progress: bool, workers: int | None) -> dict[str, Any]:
    """Fill the cache. The folder appears whole, by a rename; a killed run leaves a temporary one behind."""
    content = source.read()
    with _room(source, folder.parent):
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        total = sum(len(images) for images in content.images.values() if not isinstance(images, np.ndarray))
        with tqdm(total=total, unit="image", desc=f"decoding {source.title}", file=sys.stderr,
                  disable=not (progress and total)) as bar:  # fmt: skip
            for split in ("train", "test"):
                images, labels = content.images[split], content.labels[split].astype(np.int64)
                with _room(source, folder.parent):
                    array = _new_array(temporary / f"{split}-images.npy", len(images))
                start = 0
                for part in [images] if isinstance(images, np.ndarray) else _decoded(images, workers):
                    array[start : start + len(part)] = part
                    start += len(part)
                    bar.update(len(part))
                with _room(source, folder.parent):
                    array.flush()
                    np.save(temporary / f"{split}-labels.npy", labels)
        with _room(source, folder.parent):
            description: dict[str, Any] = {
                "version": _VERSION,
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
def _room(source: _Source, cache: Path) -> Iterator[None]:
    """Say of an error of the disk which folder it is about."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise ValueError(
            f"dataset {source.title!r}: cannot keep its decoded images in {str(cache)!r} ({reason})"
        ) from None


def _new_array(path: Path, count: int) -> np.memmap:
    """A file of ``count`` images, mapped: (count, 3, 32, 32) uint8.

    Raises
    ------
    OSError
        If the disk has no room for it. To find that out while the map is written to would end the process.
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


def _decoded(paths: Sequence[str], workers: int | None) -> Iterator[np.ndarray]:
    """Decode files in parallel, in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or cores
    chunks = list(_chunks(paths))
    if count == 1 or len(chunks) < 4:
        yield from map(_decode_files, chunks)
        return
    try:
        with WorkerPool(count) as pool:
            # Not all at once: results wait in memory until they are written.
            waiting: list[concurrent.futures.Future[np.ndarray]] = []
            for chunk in chunks:
                waiting.append(pool.submit(_decode_files, chunk))
                if len(waiting) >= 4 * count:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
    except concurrent.futures.BrokenExecutor:
        raise ChildProcessError("a process that decodes images ended unexpectedly (out of memory?)") from None
