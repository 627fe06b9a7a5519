"""Datasets from files that the tests make: what is read, what is kept, and every way in which it can be wrong."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from bench import data
from bench.engine.lock import locked


def load(name: str, tmp_path: Path, **options: object) -> data.Dataset:
    return data.load(name, data_root=tmp_path / "data", cache_dir=tmp_path / "cache", progress=False, **options)


def picture(path: Path, colour: object = (200, 100, 50), size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two training images and one test image each."""
    root = tmp_path / "own"
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for index in range(count):
                picture(root / split / name / f"{index}.png", (50 * label, 10 * index, 7))
    return root


def test_folder(folder, tmp_path):
    dataset = load(f"folder:{folder}", tmp_path)
    assert dataset.classes == ("ant", "bee")
    assert dataset.train_labels.tolist() == [0, 0, 1, 1]
    assert dataset.test_labels.tolist() == [0, 1]
    assert dataset.train_images.shape == (4, 3, 32, 32)
    assert dataset.train_images.dtype == np.uint8
    assert isinstance(dataset.train_images, np.memmap)
    assert dataset.train_images[3, :, 5, 9].tolist() == [50, 10, 7]


def test_kept_arrays_are_used_and_are_the_same(folder, tmp_path, monkeypatch):
    first = load(f"folder:{folder}", tmp_path)
    images = np.array(first.train_images)
    monkeypatch.setattr(data, "_decode_files", lambda paths: pytest.fail("decoded again"))
    second = load(f"folder:{folder}", tmp_path)
    assert second == first
    np.testing.assert_array_equal(second.train_images, images)
    assert len(pickle.dumps(second)) < 2000


def test_fingerprint_is_of_the_content(folder, tmp_path):
    one = load(f"folder:{folder}", tmp_path)
    moved = folder.rename(tmp_path / "moved")
    assert load(f"folder:{moved}", tmp_path).fingerprint == one.fingerprint
    picture(moved / "train" / "ant" / "0.png", (1, 2, 3))
    changed = load(f"folder:{moved}", tmp_path)
    assert changed.fingerprint != one.fingerprint
    (moved / "train" / "bee" / "1.png").unlink()
    fewer = load(f"folder:{moved}", tmp_path)
    assert fewer.fingerprint not in (one.fingerprint, changed.fingerprint)
    assert len(fewer.train_labels) == 3


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy", "description.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(path.read_bytes()[:-8] + bytes(8)),
    ],
)
def test_damaged_cache_is_made_again(folder, tmp_path, file, damage):
    dataset = load(f"folder:{folder}", tmp_path)
    images = np.array(dataset.train_images)
    labels = np.array(dataset.test_labels)
    damage(dataset.folder / file)
    again = load(f"folder:{folder}", tmp_path)
    np.testing.assert_array_equal(again.train_images, images)
    np.testing.assert_array_equal(again.test_labels, labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda description: [],
        lambda description: {**description, "classes": ["ant"]},
        lambda description: {**description, "fingerprint": "0" * 64},
        lambda description: {**description, "files": {}},
        lambda description: {**description, "files": []},
        lambda description: {k: v for k, v in description.items() if k != "classes"},
    ],
)
def test_description_that_says_something_else_is_made_again(folder, tmp_path, change):
    dataset = load(f"folder:{folder}", tmp_path)
    path = dataset.folder / "description.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert load(f"folder:{folder}", tmp_path) == dataset


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy"])
def test_arrays_of_the_same_size_that_hold_something_else_are_made_again(folder, tmp_path, file):
    dataset = load(f"folder:{folder}", tmp_path)
    whole = (dataset.folder / file).read_bytes()
    (dataset.folder / file).write_bytes(b"\x07" * len(whole))
    load(f"folder:{folder}", tmp_path)
    assert (dataset.folder / file).read_bytes() == whole
    (dataset.folder / "test-labels.npy").write_bytes(
        (dataset.folder / "test-labels.npy").read_bytes()[:-8] + b"\x07" * 8
    )
    assert load(f"folder:{folder}", tmp_path).test_labels.tolist() == [0, 1]


def refuse(number: int):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    return refuse


def test_full_disk_is_found_out_before_the_images_are_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC), raising=False)
    with pytest.raises(ValueError, match=r"cannot keep its decoded images in '.*cache' \(No space left on device\)"):
        load(f"folder:{folder}", tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_file_system_that_cannot_say_what_room_it_has(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP), raising=False)
    assert len(load(f"folder:{folder}", tmp_path).train_labels) == 4


def test_room_is_taken_at_once(tmp_path):
    array = data._new_array(tmp_path / "images.npy", 1000)
    assert array.shape == (1000, 3, 32, 32)
    assert (tmp_path / "images.npy").stat().st_blocks * 512 >= array.nbytes


def test_what_killed_processes_left_is_removed(folder, tmp_path):
    kept = load(f"folder:{folder}", tmp_path).folder
    (kept / "description.json").unlink()
    left, other = kept.parent / f".{kept.name}.abcdef", kept.parent / f".{'0' * 32}.abcdef"
    for path in (left, other):
        path.mkdir()
        (path / "train-images.npy").write_bytes(b"half")
    load(f"folder:{folder}", tmp_path)
    assert {path.name for path in kept.parent.iterdir()} == {kept.name, other.name}


def test_two_processes_decode_once(folder, tmp_path, monkeypatch, capsys):
    kept = load(f"folder:{folder}", tmp_path).folder
    aside = kept.rename(tmp_path / "aside")
    monkeypatch.setattr(data, "_decode_files", lambda paths: pytest.fail("decoded again"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with locked(kept.parent / f".{kept.name}.lock"):
            said = threading.Event()
            monkeypatch.setattr("builtins.print", lambda *words, **options: said.set())
            loading = pool.submit(load, f"folder:{folder}", tmp_path)
            assert said.wait(20)
            aside.rename(kept)  # the other process is done
        assert loading.result(20).folder == kept


def test_a_decoding_process_that_dies_is_one_line(monkeypatch):
    class Broken(data.WorkerPool):
        def submit(self, *arguments):
            future: concurrent.futures.Future = concurrent.futures.Future()
            future.set_exception(concurrent.futures.BrokenExecutor())
            return future

    monkeypatch.setattr(data, "WorkerPool", Broken)
    monkeypatch.setattr(data._chunks, "__defaults__", (1,))
    with pytest.raises(ChildProcessError, match="a process that decodes images ended unexpectedly"):
        list(data._decoded(["a", "b", "c", "d"], 2))


def test_interrupted_decoding_leaves_nothing_that_counts(folder, tmp_path, monkeypatch):
    decode = data._decode_files

    def stop(paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_decode_files", stop)
    with pytest.raises(KeyboardInterrupt):
        load(f"folder:{folder}", tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(data, "_decode_files", decode)
    assert len(load(f"folder:{folder}", tmp_path).train_labels) == 4


def test_processes_decode_in_order(tmp_path, monkeypatch):
    root = tmp_path / "own"
    for split in ("train", "test"):
        for name in ("a", "b"):
            for index in range(10):
                picture(root / split / name / f"{index}.png", (index, 0, 0), (8, 8))
    monkeypatch.setattr(data._chunks, "__defaults__", (3,))
    one = load(f"folder:{root}", tmp_path, workers=1)
    two = data.load(f"folder:{root}", cache_dir=tmp_path / "other", progress=False, workers=2)
    assert two.fingerprint == one.fingerprint
    assert two.train_images[:, 0, 0, 0].tolist() == 2 * list(range(10))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, [77, 77, 77]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30]),
        ("1", 1, [255, 255, 255]),
        ("P", 0, None),
        ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("I;16", 0x8000, [128, 128, 128]),
        ("LA", (9, 255), [9, 9, 9]),
    ],
)
def test_modes(tmp_path, mode, colour, expected):
    extension = {"CMYK": "tif"}.get(mode, "png")
    path = picture(tmp_path / f"image.{extension}", colour, mode=mode)
    array = data._decode_files([str(path)])[0]
    assert array.shape == (3, 32, 32)
    if expected is not None:
        assert array[:, 3, 3].tolist() == expected


def test_other_sizes_are_resized_without_keeping_the_aspect_ratio(tmp_path):
    image = Image.new("RGB", (100, 10), (255, 0, 0))
    image.paste((0, 0, 255), (50, 0, 100, 10))
    image.save(tmp_path / "wide.png")
    array = data._decode_files([str(tmp_path / "wide.png")])[0]
    assert array[:, 0, 0].tolist() == [255, 0, 0]
    assert array[:, 31, 31].tolist() == [0, 0, 255]


def test_digits(tmp_path):
    dataset = load("digits", tmp_path)
    digits = load_digits()
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.train_labels) == 1347
    assert len(dataset.test_labels) == 450
    assert min(np.bincount(dataset.train_labels)) >= 129
    shares = np.bincount(dataset.test_labels) / np.bincount(digits.target)
    assert (abs(shares - 0.25) < 0.01).all()
    grey = dataset.train_images
    np.testing.assert_array_equal(grey[:, 0], grey[:, 2])
    assert grey.max() == 255
    # every digit is there once: their enlarged means are those of the originals
    means = np.concatenate([dataset.train_images, dataset.test_images]).astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(np.sort(means), np.sort(digits.images.mean((1, 2)) * 255 / 16), atol=4)


def write_cifar(root: Path, official: type, monkeypatch: pytest.MonkeyPatch, coarse: bool) -> None:
    """Files in torchvision's format with the checksums that the class expects."""
    base = root / official.base_folder
    base.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for kind in ("train_list", "test_list"):
        entries = []
        for file, _ in getattr(official, kind):
            content = {"data": generator.integers(0, 256, (6, 3072), dtype=np.uint8)}
            if coarse:
                content.update(fine_labels=[0, 1, 2, 0, 1, 2], coarse_labels=[0, 1, 1, 0, 1, 1])
            else:
                content.update(labels=[0, 1, 2, 0, 1, 2])
            data = pickle.dumps(content)
            (base / file).write_bytes(data)
            entries.append([file, hashlib.md5(data).hexdigest()])
        monkeypatch.setattr(official, kind, entries)
    names = {"label_names": ["x", "y", "z"], "fine_label_names": ["x", "y", "z"], "coarse_label_names": ["p", "q"]}
    data = pickle.dumps(names)
    (base / official.meta["filename"]).write_bytes(data)
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": hashlib.md5(data).hexdigest()})


@pytest.mark.parametrize(
    ("name", "official", "classes", "labels"),
    [
        ("cifar10", "CIFAR10", ("x", "y", "z"), [0, 1, 2, 0, 1, 2]),
        ("cifar100", "CIFAR100", ("x", "y", "z"), [0, 1, 2, 0, 1, 2]),
        ("cifar20", "CIFAR100", ("p", "q"), [0, 1, 1, 0, 1, 1]),
    ],
)
def test_cifar(tmp_path, monkeypatch, name, official, classes, labels):
    kind = getattr(torchvision.datasets, official)
    write_cifar(tmp_path / "data", kind, monkeypatch, official == "CIFAR100")
    dataset = load(name, tmp_path)
    assert dataset.title == name
    assert dataset.classes == classes
    assert dataset.test_labels.tolist() == labels
    reference = kind(str(tmp_path / "data"), train=False)
    np.testing.assert_array_equal(dataset.test_images, reference.data.transpose(0, 3, 1, 2))


def test_cifar_file_that_is_not_official_is_never_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path / "data", torchvision.datasets.CIFAR10, monkeypatch, False)
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("unpickled"))
    path = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"data_batch_3: is not the official file"):
        load("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3' is missing; --download"):
        load("cifar10", tmp_path)


def test_cifar_from_an_image_folder_says_so(folder, tmp_path):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "cifar10")
    dataset = load("cifar10", tmp_path)
    assert dataset.title == "cifar10 (folder)"
    assert dataset.name == "cifar10"


def test_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", refuse)
    with pytest.raises(ValueError, match=r"dataset 'cifar10': --download failed \(no route to host\)"):
        load("cifar10", tmp_path, download=True)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "tiny-imagenet-200"
    for label, wnid in enumerate(("n01", "n02")):
        for index in range(3):
            picture(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", (90 * label, 0, 0), (64, 64))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    lines = []
    for index, wnid in enumerate(("n02", "n01", "n02")):
        picture(root / "val" / "images" / f"val_{index}.JPEG", 40, (64, 64), "L")
        lines.append(f"val_{index}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet(tiny, tmp_path):
    dataset = load("tiny-imagenet", tmp_path)
    assert dataset.classes == ("n01", "n02")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [1, 0, 1]
    assert dataset.test_images.shape == (3, 3, 32, 32)
    annotations = tiny / "val" / "val_annotations.txt"
    before = dataset.fingerprint
    annotations.write_text(annotations.read_text().replace("val_0.JPEG\tn02", "val_0.JPEG\tn01"))
    assert load("tiny-imagenet", tmp_path).fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("n01", "n09"), r"val_annotations.txt: line 2 names no class"),
        (lambda text: text + "val_7.JPEG\tn01\n", r"val_annotations.txt: names 'val_7.JPEG', which is not in"),
        (lambda text: text[: text.index("val_2")], r"val_2.JPEG: has no label in"),
        (lambda text: text.replace("n01", "n02"), r"val_annotations.txt: no image of class 'n01'"),
        (lambda text: "nonsense\n", r"line 1 names no class"),
        (lambda text: text + "val_1.JPEG\tn02\n", r"line 4 names class 'n02' for 'val_1.JPEG', .* 'n01' before"),
    ],
)
def test_tiny_imagenet_labels_that_do_not_match(tiny, tmp_path, change, message):
    path = tiny / "val" / "val_annotations.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        load("tiny-imagenet", tmp_path)


def test_tiny_imagenet_labels_that_are_no_text(tiny, tmp_path):
    path = tiny / "val" / "val_annotations.txt"
    path.write_bytes(b"\xff\xfe\x00" * 20)
    with pytest.raises(ValueError, match=r"val_annotations.txt: not a readable text file"):
        load("tiny-imagenet", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file '.*val_annotations.txt'"):
        load("tiny-imagenet", tmp_path)


def test_imagenet(folder, tmp_path):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "imagenet")
    (tmp_path / "data" / "imagenet" / "test").rename(tmp_path / "data" / "imagenet" / "val")
    assert load("imagenet", tmp_path).test_labels.tolist() == [0, 1]


def test_unreadable_images_are_named(folder, tmp_path):
    path = folder / "train" / "bee" / "1.png"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"this is text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bee.1\.png: not a readable image"):
            load(f"folder:{folder}", tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_truncated_jpeg_is_named(folder, tmp_path):
    path = folder / "train" / "bee" / "2.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"2\.jpg: not a readable image"):
        load(f"folder:{folder}", tmp_path)


def test_class_without_images(folder, tmp_path):
    (folder / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*cat' holds no images"):
        load(f"folder:{folder}", tmp_path)


def test_hidden_files_do_not_count(folder, tmp_path):
    (folder / "train" / ".DS_Store").write_text("x")
    (folder / "train" / "ant" / ".DS_Store").write_text("x")
    assert len(load(f"folder:{folder}", tmp_path).train_labels) == 4


@pytest.mark.parametrize(("present", "absent"), [("train", "test"), ("test", "train")])
def test_class_in_one_split_only(folder, tmp_path, present, absent):
    picture(folder / present / "cat" / "0.png")
    with pytest.raises(ValueError, match=f"class 'cat' is in .*{present}.* but has no images in .*{absent}"):
        load(f"folder:{folder}", tmp_path)


def test_single_class(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / "own" / split / "one" / "0.png")
    with pytest.raises(ValueError, match="at least 2 are needed"):
        load(f"folder:{tmp_path / 'own'}", tmp_path)


def test_files_beside_class_folders(folder, tmp_path):
    picture(folder / "train" / "stray.png")
    with pytest.raises(ValueError, match=r"stray.png' is not a folder"):
        load(f"folder:{folder}", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"neither .*cifar-10-batches-py.*--download.* nor image folders .*cifar10.train"),
        ("cifar20", r"neither .*cifar-100-python.* nor image folders .*cifar20.train"),
        ("tiny-imagenet", r"no .*tiny-imagenet-200.*unpack tiny-imagenet-200.zip"),
        ("imagenet", r"ImageNet has no public download"),
        ("folder:nowhere", r"no folder 'nowhere.train'"),
    ],
)
def test_dataset_that_is_not_there(tmp_path, name, message):
    with pytest.raises(FileNotFoundError, match=message):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "", "folder:", "CIFAR10"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="dataset: got"):
        data.check_name(name)


def test_unknown_name_says_which_argument():
    with pytest.raises(ValueError, match="--auxiliary: got 'mnist'; accepted are digits"):
        data.check_name("mnist", "--auxiliary")


def test_default_auxiliaries():
    pairs = {name: data.default_auxiliary(name) for name in data.names()}
    assert pairs == {
        "digits": "digits", "cifar10": "cifar100", "cifar20": "cifar10", "cifar100": "cifar10",
        "tiny-imagenet": "cifar10", "imagenet": "cifar10",
    }  # fmt: skip
    assert data.default_auxiliary("folder:x") == "folder:x"


def test_cache_that_cannot_be_written_falls_back(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(data.tempfile, "gettempdir", lambda: str(tmp_path))
    dataset = data.load(f"folder:{folder}", cache_dir=tmp_path / "file" / "below", progress=False)
    assert len(dataset.train_labels) == 4
    assert "decoded images are kept in" in capsys.readouterr().err


def test_progress_is_shown(folder, tmp_path, capsys):
    data.load(f"folder:{folder}", cache_dir=tmp_path / "cache", progress=True)
    assert "decoding folder:" in capsys.readouterr().err
