"""Datasets from files that the tests make: what is read, what is kept, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from bench import data
from bench.data import cifar
from bench.data.text import as_text

#: The classes of CIFAR-100, as folders are listed.
FINE = sorted(label for labels in cifar._SUPERCLASSES.values() for label in labels.split())


def test_folder(folder, load):
    dataset = load(f"folder:{folder}")
    assert dataset.classes == ("ant", "bee")
    assert dataset.train_labels.tolist() == [0, 0, 1, 1]
    assert dataset.test_labels.tolist() == [0, 1]
    assert dataset.train_images.shape == (4, 3, 32, 32)
    assert dataset.train_images.dtype == np.uint8
    assert isinstance(dataset.train_images, np.memmap)
    assert dataset.train_images[3, :, 5, 9].tolist() == [50, 10, 7]


def test_digits(load):
    dataset = load("digits")
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
            content["filenames"] = [f"{name}_s_00000{len(entries)}.png" for name in "fbadec"]
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
    ("name", "official", "classes", "labels", "order"),
    [
        ("cifar10", "CIFAR10", ("x", "y", "z"), [0, 0, 1, 1, 2, 2], [0, 3, 1, 4, 2, 5]),
        ("cifar100", "CIFAR100", ("x", "y", "z"), [0, 0, 1, 1, 2, 2], [3, 0, 1, 4, 2, 5]),
        ("cifar20", "CIFAR100", ("p", "q"), [0, 0, 1, 1, 1, 1], [3, 0, 1, 4, 2, 5]),
    ],
)
def test_cifar(tmp_path, monkeypatch, name, official, classes, labels, order, load):
    kind = getattr(torchvision.datasets, official)
    write_cifar(tmp_path / "data", kind, monkeypatch, official == "CIFAR100")
    dataset = load(name)
    assert dataset.title == name
    assert dataset.classes == classes
    assert dataset.test_labels.tolist() == labels
    reference = kind(str(tmp_path / "data"), train=False)
    np.testing.assert_array_equal(dataset.test_images, reference.data.transpose(0, 3, 1, 2)[order])


def folders_of(root: Path, official: type, name: str) -> None:
    """PNG files of the official images, as the documentation makes them."""
    key = "labels" if name == "cifar10" else "fine_labels"
    for split, kind in (("train", "train_list"), ("test", "test_list")):
        seen = [0, 0, 0]
        for file, _ in getattr(official, kind):
            content = pickle.loads((root / official.base_folder / file).read_bytes(), encoding="latin1")
            for pixels, label, own in zip(content["data"], content[key], content["filenames"], strict=True):
                path = root / "png" / name / split / "xyz"[label]
                path.mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0))
                image.save(path / (f"{seen[label]:04}.png" if name == "cifar10" else own))
                seen[label] += 1


@pytest.mark.parametrize(("name", "official"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_official_files_and_folders_made_of_them_are_the_same_dataset(tmp_path, monkeypatch, name, official, load):
    kind, root = getattr(torchvision.datasets, official), tmp_path / "data"
    write_cifar(root, kind, monkeypatch, official == "CIFAR100")
    folders_of(root, kind, name)
    shutil.move(root / kind.base_folder, tmp_path / "official")
    shutil.move(root / "png" / name, root / name)
    from_folders = load(name)
    assert from_folders.title == f"{name} (folder)"
    shutil.move(tmp_path / "official", root / kind.base_folder)
    assert load(name).title == name
    assert load(name).fingerprint == from_folders.fingerprint


def test_cifar_file_that_is_not_official_is_never_unpickled(tmp_path, monkeypatch, load):
    write_cifar(tmp_path / "data", torchvision.datasets.CIFAR10, monkeypatch, False)
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: pytest.fail("unpickled"))
    path = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"data_batch_3': is not the official file"):
        load("cifar10")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3' is missing; --download"):
        load("cifar10")


def test_cifar_from_an_image_folder_says_so(folder, tmp_path, load):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "cifar10")
    dataset = load("cifar10")
    assert dataset.title == "cifar10 (folder)"
    assert dataset.name == "cifar10"


@pytest.fixture
def fine(tmp_path: Path, picture) -> Path:
    """The folders of CIFAR-100, a training and a test image each, whose colour tells the class."""
    root = tmp_path / "data" / "cifar100"
    for split in ("train", "test"):
        for index, label in enumerate(FINE):
            picture(root / split / label / "0.png", (index, 0, 0))
    return root


def test_superclasses_are_20_of_5_classes():
    sizes = [len(labels.split()) for labels in cifar._SUPERCLASSES.values()]
    assert sizes == [5] * 20
    assert len(set(FINE)) == 100
    assert list(cifar._SUPERCLASSES) == sorted(cifar._SUPERCLASSES)  # the order of the official labels


def test_cifar20_from_the_image_folders_of_cifar100(fine, load):
    dataset = load("cifar20")
    assert (dataset.name, dataset.title) == ("cifar20", "cifar20 (folder)")
    assert dataset.classes == tuple(cifar._SUPERCLASSES)
    for images, labels in ((dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels)):
        for image, label in zip(images, labels, strict=True):
            assert FINE[image[0, 0, 0]] in cifar._SUPERCLASSES[dataset.classes[label]].split()
    assert load("cifar100").fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("worm", "warm", r"warm' is no class of CIFAR-100"), ("apple", "worn", r"apple' is missing, a class of")],
)
def test_cifar20_needs_the_classes_of_cifar100(fine, load, old, new, message):
    for split in ("train", "test"):
        (fine / split / old).rename(fine / split / new)
    with pytest.raises(ValueError, match=message):
        load("cifar20")


def test_cifar20_in_folders_of_its_own(fine, folder, tmp_path, load):
    folder.rename(tmp_path / "data" / "cifar20")
    assert load("cifar20").classes == ("ant", "bee")


def test_download_that_fails_is_one_line(monkeypatch, load):
    def refuse(*arguments, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", refuse)
    with pytest.raises(ValueError, match=r"dataset 'cifar10': --download failed \(no route to host\)"):
        load("cifar10", download=True)


@pytest.fixture
def tiny(tmp_path: Path, picture) -> Path:
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


def test_tiny_imagenet(tiny, load):
    dataset = load("tiny-imagenet")
    assert dataset.classes == ("n01", "n02")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [1, 0, 1]
    assert dataset.test_images.shape == (3, 3, 32, 32)
    annotations = tiny / "val" / "val_annotations.txt"
    before = dataset.fingerprint
    annotations.write_text(annotations.read_text().replace("val_0.JPEG\tn02", "val_0.JPEG\tn01"))
    assert load("tiny-imagenet").fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("n01", "n09"), r"val_annotations.txt': line 2 names no class"),
        (lambda text: text + "val_7.JPEG\tn01\n", r"val_annotations.txt': names 'val_7.JPEG', which is not in"),
        (lambda text: text[: text.index("val_2")], r"val_2.JPEG': has no label in"),
        (lambda text: text.replace("n01", "n02"), r"val_annotations.txt': no image of class 'n01'"),
        (lambda text: "nonsense\n", r"line 1 names no class"),
        (lambda text: text + "val_1.JPEG\tn02\n", r"line 4 names class 'n02' for 'val_1.JPEG', .* 'n01' before"),
    ],
)
def test_tiny_imagenet_labels_that_do_not_match(tiny, change, message, load):
    path = tiny / "val" / "val_annotations.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        load("tiny-imagenet")


def test_tiny_imagenet_labels_that_are_no_text(tiny, load):
    path = tiny / "val" / "val_annotations.txt"
    path.write_bytes(b"\xff\xfe\x00" * 20)
    with pytest.raises(ValueError, match=r"val_annotations.txt': not a readable text file"):
        load("tiny-imagenet")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file '.*val_annotations.txt'"):
        load("tiny-imagenet")


def test_imagenet(folder, tmp_path, load):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "imagenet")
    (tmp_path / "data" / "imagenet" / "test").rename(tmp_path / "data" / "imagenet" / "val")
    assert load("imagenet").test_labels.tolist() == [0, 1]


def test_unreadable_images_are_named(folder, tmp_path, load):
    path = folder / "train" / "bee" / "1.png"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"this is text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bee.1\.png': not a readable image"):
            load(f"folder:{folder}")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


def test_truncated_jpeg_is_named(folder, load):
    path = folder / "train" / "bee" / "2.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"2\.jpg': not a readable image"):
        load(f"folder:{folder}")


def test_class_without_images(folder, load):
    (folder / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*cat' holds no images"):
        load(f"folder:{folder}")


def test_hidden_files_do_not_count(folder, load):
    (folder / "train" / ".DS_Store").write_text("x")
    (folder / "train" / "ant" / ".DS_Store").write_text("x")
    assert len(load(f"folder:{folder}").train_labels) == 4


@pytest.mark.parametrize(("present", "absent"), [("train", "test"), ("test", "train")])
def test_class_in_one_split_only(folder, present, absent, load, picture):
    picture(folder / present / "cat" / "0.png")
    with pytest.raises(ValueError, match=f"class 'cat' is in .*{present}.* but has no images in .*{absent}"):
        load(f"folder:{folder}")


def test_single_class(tmp_path, load, picture):
    for split in ("train", "test"):
        picture(tmp_path / "own" / split / "one" / "0.png")
    with pytest.raises(ValueError, match="at least 2 are needed"):
        load(f"folder:{tmp_path / 'own'}")


def test_files_beside_class_folders(folder, load, picture):
    picture(folder / "train" / "stray.png")
    with pytest.raises(ValueError, match=r"stray.png' is not a folder"):
        load(f"folder:{folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"neither .*cifar-10-batches-py.*--download.* nor image folders .*cifar10.train"),
        ("cifar20", r"neither .*cifar-100-python.* nor image folders .*cifar20.train.*, or those of cifar100, are"),
        ("tiny-imagenet", r"no .*tiny-imagenet-200.*unpack tiny-imagenet-200.zip"),
        ("imagenet", r"ImageNet has no public download"),
        ("folder:nowhere", r"no folder 'nowhere.train'"),
    ],
)
def test_dataset_that_is_not_there(name, message, load):
    with pytest.raises(FileNotFoundError, match=message):
        load(name)


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


def test_names_are_known_without_the_libraries_that_read_images():
    heavy = ["torch", "torchvision", "sklearn", "numpy", "PIL", "pandas", "scipy"]
    code = f"import sys; from bench import data; data.names(); print([m for m in {heavy} if m in sys.modules])"
    root = str(Path(data.__file__).parents[2])
    output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_is_present(folder, tmp_path):
    assert data.is_present("digits")
    assert data.is_present(f"folder:{folder}")
    assert not data.is_present("imagenet", data_root=tmp_path)
    assert not data.is_present("cifar10", data_root=tmp_path)
    with pytest.raises(ValueError, match="dataset: got 'mnist'"):
        data.is_present("mnist")


@pytest.fixture(scope="module")
def numbers(tmp_path_factory, picture):
    """Classes called 1, 10 and 2, in this order."""
    root = tmp_path_factory.mktemp("numbers")
    for split in ("train", "test"):
        for name in ("1", "2", "10"):
            picture(root / split / name / "0.png")
    return data.load(f"folder:{root}", cache_dir=root / "cache", progress=False)


def test_a_word_is_a_class_name_and_otherwise_a_number(numbers):
    assert numbers.classes == ("1", "10", "2")
    assert numbers.class_indices(None) == [0, 1, 2]
    assert numbers.class_indices(["2", "1"]) == [2, 0]
    assert numbers.class_indices(["0", "10"]) == [0, 1]


@pytest.mark.parametrize(("words", "both"), [(["0", "1"], "'0' and '1' both"), (["2", "10", "2"], "'2' and '2' both")])
def test_two_words_for_one_class_are_an_error(numbers, words, both):
    with pytest.raises(ValueError, match=f"--classes: {both} mean class '.*' .*; give each class once"):
        numbers.class_indices(words)


@pytest.mark.parametrize("word", ["3", "-1", "x", "", "00", "\u00b2", "9" * 5000])
def test_a_word_for_no_class(numbers, word):
    with pytest.raises(ValueError, match=r"--classes: got .* has 1, 10, 2, or give numbers 0 to 2"):
        numbers.class_indices([word])


# ---------------------------------------------------------------------------------------------------------------------
# Names and files of every kind

ODD = {
    "not UTF-8": (b"caf\xe9", "caf\\xe9"),
    "two lines": (b"a\nb", "a\\nb"),
    "HTML": (b"<script>alert(1)<", "<script>alert(1)<"),
    "line separator": ("a\u2028b".encode(), "a\\u2028b"),
    "accents and other scripts": ("\u00e9\u65e5\U0001f41c".encode(), "\u00e9\u65e5\U0001f41c"),
    "quotes": (b'it\'s "so"', 'it\'s "so"'),
    "spaces": (b"  a b ", "  a b "),
}


def make(root: bytes, name: bytes, content: bytes) -> bytes:
    """A folder of images with ``name`` for a class and for its images, all with the same content."""
    for split in (b"train", b"test"):
        for label in (b"ant", name):
            os.makedirs(os.path.join(root, split, label))
            with open(os.path.join(root, split, label, name + b".png"), "wb") as stream:
                stream.write(content)
    return root


@pytest.fixture(scope="module")
def content(tmp_path_factory, picture):
    """An image file, as bytes."""
    return picture(tmp_path_factory.mktemp("image") / "0.png").read_bytes()


@pytest.mark.parametrize("odd", ODD)
def test_names_of_every_kind(tmp_path, load, content, odd):
    name, text = ODD[odd]
    assert as_text(name) == text
    root = make(os.path.join(os.fsencode(tmp_path), b"of " + name), name, content)
    dataset = load(f"folder:{os.fsdecode(root)}")
    assert sorted(dataset.classes) == sorted(["ant", text])
    assert dataset.title == f"folder:{as_text(root)}"
    assert dataset.class_indices([os.fsdecode(name)]) == [dataset.classes.index(text)]
    assert dataset.class_indices([text]) == [dataset.classes.index(text)]
    (dataset.title + "".join(dataset.classes)).encode()
    with open(os.path.join(root, b"test", name, name + b".png"), "wb") as stream:
        stream.write(b"nothing")
    with pytest.raises(ValueError, match="not a readable image") as caught:
        load(f"folder:{os.fsdecode(root)}")
    assert f"{text}.png'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_names_that_are_the_same_as_text(tmp_path, load, content):
    root = make(os.path.join(os.fsencode(tmp_path), b"own"), b"caf\xe9", content)
    for split in (b"train", b"test"):
        os.rename(os.path.join(root, split, b"ant"), os.path.join(root, split, b"caf\\xe9"))
    with pytest.raises(ValueError, match=r"two class folders in .* are both"):
        load(f"folder:{os.fsdecode(root)}")


def test_the_locale_changes_nothing(tmp_path, content, load):
    root = make(os.path.join(os.fsencode(tmp_path), b"\xff"), "\u00e9\u65e5".encode(), content)
    code = (
        "import sys; from bench import data\n"
        "print(data.load(sys.argv[1], cache_dir=sys.argv[2], progress=False).fingerprint)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, b"folder:" + root, str(tmp_path / "other")],
        env={**os.environ, "LC_ALL": "C"}, cwd=str(Path(data.__file__).parents[2]), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert result.stdout.strip() == load(f"folder:{os.fsdecode(root)}").fingerprint, result.stderr


def test_links_to_files_and_folders_are_followed(folder, tmp_path, load):
    expected = load(f"folder:{folder}").fingerprint
    (folder / "train" / "ant").rename(tmp_path / "elsewhere")
    (folder / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    (folder / "test" / "bee" / "0.png").rename(tmp_path / "one.png")
    (folder / "test" / "bee" / "0.png").symlink_to(tmp_path / "one.png")
    assert load(f"folder:{folder}").fingerprint == expected


@pytest.mark.parametrize("place", ["train/ant/2.png", "train/cat"])
@pytest.mark.parametrize(("target", "reason"), [("nowhere", "No such file"), ("SELF", "Too many levels")])
def test_links_that_cannot_be_followed(folder, load, place, target, reason):
    link = folder / place
    link.symlink_to(link.name if target == "SELF" else target)
    with pytest.raises(FileNotFoundError, match=rf"{link.name}' is a link that cannot be followed \({reason}"):
        load(f"folder:{folder}")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()


def the_folder_above(path: Path) -> None:
    path.symlink_to("..")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("put", [a_pipe, a_device, a_folder, the_folder_above])
def test_what_is_no_file_is_never_opened(folder, load, put):
    put(folder / "train" / "ant" / "9.png")
    with pytest.raises(ValueError, match=r"ant/9\.png' is not a file; expected are .*train/CLASS/\*"):
        load(f"folder:{folder}")
    (folder / "train" / "ant" / "9.png").rename(folder / "train" / "cat")
    if put in (a_pipe, a_device):
        with pytest.raises(ValueError, match=r"train/cat' is not a folder; expected are .*train/CLASS/\*"):
            load(f"folder:{folder}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_tiny_imagenet(tiny, load):
    os.mkfifo(tiny / "val" / "images" / "val_9.JPEG")
    with pytest.raises(ValueError, match=r"val_9\.JPEG' is not a file"):
        load("tiny-imagenet")


@pytest.mark.parametrize(
    "junk",
    [b"PK\x03\x04" + bytes(60), b"\x1f\x8b\x08" + bytes(60), b"ustar" * 20, b"name,label\n1,2\n", b"%!PS-Adobe-3.0\n"],
)
def test_archives_and_texts_among_images(folder, load, junk):
    (folder / "train" / "ant" / "z.dat").write_bytes(junk)
    with pytest.raises(ValueError, match=r"z\.dat': not a readable image \(it is damaged or none of"):
        load(f"folder:{folder}")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "\n", "own\nother"])
def test_paths_that_cannot_be(load, path):
    with pytest.raises(FileNotFoundError, match="no folder") as caught:
        load(f"folder:{path}")
    assert len(str(caught.value).splitlines()) == 1
