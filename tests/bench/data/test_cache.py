"""The cache: what it is keyed by, who may use it, and that it appears whole or not at all."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import pickle
import stat
import threading
from pathlib import Path

import filelock
import numpy as np
import PIL
import pytest
from PIL import Image

from bench import data
from bench.data import cache, decode


def kept_in(folder: Path) -> list[str]:
    """Names of what a cache holds; the files that carry locks stay, and hold nothing."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_kept_arrays_are_used_and_are_the_same(folder, monkeypatch, load):
    first = load(f"folder:{folder}")
    images = np.array(first.train_images)
    monkeypatch.setattr(cache, "decode_files", lambda *arguments: pytest.fail("decoded again"))
    second = load(f"folder:{folder}")
    assert second == first
    np.testing.assert_array_equal(second.train_images, images)
    assert len(pickle.dumps(second)) < 2000


def test_fingerprint_is_of_the_content(folder, tmp_path, load, picture):
    one = load(f"folder:{folder}")
    moved = folder.rename(tmp_path / "moved")
    assert load(f"folder:{moved}").fingerprint == one.fingerprint
    picture(moved / "train" / "ant" / "0.png", (1, 2, 3))
    changed = load(f"folder:{moved}")
    assert changed.fingerprint != one.fingerprint
    (moved / "train" / "bee" / "1.png").unlink()
    fewer = load(f"folder:{moved}")
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
def test_damaged_cache_is_made_again(folder, file, damage, load):
    dataset = load(f"folder:{folder}")
    images = np.array(dataset.train_images)
    labels = np.array(dataset.test_labels)
    damage(dataset.folder / file)
    again = load(f"folder:{folder}")
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
def test_description_that_says_something_else_is_made_again(folder, change, load):
    dataset = load(f"folder:{folder}")
    path = dataset.folder / "description.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert load(f"folder:{folder}") == dataset


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy"])
def test_arrays_of_the_same_size_that_hold_something_else_are_made_again(folder, file, load):
    dataset = load(f"folder:{folder}")
    whole = (dataset.folder / file).read_bytes()
    (dataset.folder / file).write_bytes(b"\x07" * len(whole))
    load(f"folder:{folder}")
    assert (dataset.folder / file).read_bytes() == whole
    (dataset.folder / "test-labels.npy").write_bytes(
        (dataset.folder / "test-labels.npy").read_bytes()[:-8] + b"\x07" * 8
    )
    assert load(f"folder:{folder}").test_labels.tolist() == [0, 1]


def refuse(number: int):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    return refuse


def test_full_disk_is_found_out_before_the_images_are_written(folder, tmp_path, monkeypatch, load):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC), raising=False)
    with pytest.raises(ValueError, match=r"cannot keep its decoded images in '.*cache' \(No space left on device\)"):
        load(f"folder:{folder}")
    assert kept_in(tmp_path / "cache") == []


def test_file_system_that_cannot_say_what_room_it_has(folder, monkeypatch, load):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP), raising=False)
    assert len(load(f"folder:{folder}").train_labels) == 4


def test_room_is_taken_at_once(tmp_path):
    array = cache._new_array(tmp_path / "images.npy", 1000)
    assert array.shape == (1000, 3, 32, 32)
    assert (tmp_path / "images.npy").stat().st_blocks * 512 >= array.nbytes


def test_what_killed_processes_left_is_removed(folder, load):
    kept = load(f"folder:{folder}").folder
    (kept / "description.json").unlink()
    left, other = kept.parent / f".{kept.name}.abcdef.part", kept.parent / f".{'0' * 32}.abcdef.part"
    for path in (left, other):
        path.mkdir()
        (path / "train-images.npy").write_bytes(b"half")
    load(f"folder:{folder}")
    assert kept_in(kept.parent) == [f"{other.name}", kept.name]


def test_two_processes_decode_once(folder, tmp_path, monkeypatch, capsys, load):
    kept = load(f"folder:{folder}").folder
    aside = kept.rename(tmp_path / "aside")
    monkeypatch.setattr(cache, "decode_files", lambda *arguments: pytest.fail("decoded again"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with filelock.FileLock(kept.parent / f".{kept.name}.lock"):
            said = threading.Event()
            monkeypatch.setattr("builtins.print", lambda *words, **options: said.set())
            loading = pool.submit(load, f"folder:{folder}")
            assert said.wait(20)
            aside.rename(kept)  # the other process is done
        assert loading.result(20).folder == kept


def test_interrupted_decoding_leaves_nothing_that_counts(folder, tmp_path, monkeypatch, load):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "decode_files", stop)
    with pytest.raises(KeyboardInterrupt):
        load(f"folder:{folder}")
    assert kept_in(tmp_path / "cache") == []
    monkeypatch.setattr(cache, "decode_files", decode.decode_files)
    assert len(load(f"folder:{folder}").train_labels) == 4


def test_cache_that_cannot_be_written_falls_back(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    dataset = data.load(f"folder:{folder}", cache_dir=tmp_path / "file" / "below", progress=False)
    assert len(dataset.train_labels) == 4
    assert "decoded images are kept in" in capsys.readouterr().err


def test_progress_is_shown(folder, tmp_path, capsys):
    data.load(f"folder:{folder}", cache_dir=tmp_path / "cache", progress=True)
    assert "decoding folder:" in capsys.readouterr().err


def same_times(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def bitmaps(tmp_path, picture):
    """Two folders of images with equal names, sizes and times, and other pixels."""
    roots = []
    for number, root in enumerate((tmp_path / "one", tmp_path / "two")):
        for split in ("train", "test"):
            for label, name in enumerate(("ant", "bee")):
                same_times(picture(root / split / name / "0.bmp", (100 * number, 50 * label, 0)))
        roots.append(root)
    return roots


def test_other_images_under_equal_names_sizes_and_times(bitmaps, load):
    one, two = bitmaps
    assert load(f"folder:{one}").train_images[0, :, 0, 0].tolist() == [0, 0, 0]
    assert load(f"folder:{two}").train_images[0, :, 0, 0].tolist() == [100, 0, 0]
    one.rename(one.with_name("aside"))
    two.rename(one)
    assert load(f"folder:{one}").train_images[0, :, 0, 0].tolist() == [100, 0, 0]


def test_an_image_written_over_with_equal_size_and_time(bitmaps, load, picture):
    root = bitmaps[0]
    load(f"folder:{root}")
    same_times(picture(root / "test" / "bee" / "0.bmp", (1, 2, 3)))
    assert load(f"folder:{root}").test_images[1, :, 0, 0].tolist() == [1, 2, 3]


def test_a_link_that_leads_elsewhere_by_now(bitmaps, load):
    root, other = bitmaps
    link, target = root / "test" / "bee" / "0.bmp", root / "b.bmp"
    link.rename(target)
    link.symlink_to(target)
    load(f"folder:{root}")
    link.unlink()
    link.symlink_to(other / "test" / "bee" / "0.bmp")
    assert load(f"folder:{root}").test_images[1, :, 0, 0].tolist() == [100, 50, 0]


def test_tiny_imagenet_under_equal_names_sizes_and_times(tmp_path, picture):
    seen = []
    for number in range(2):
        root = tmp_path / str(number) / "tiny-imagenet-200"
        for label, wnid in enumerate(("n1", "n2")):
            same_times(picture(root / "train" / wnid / "images" / "0.bmp", (100 * number, 0, 0)))
            same_times(picture(root / "val" / "images" / f"{label}.bmp", (0, 0, 0)))
        annotations = root / "val" / "val_annotations.txt"
        annotations.write_text("0.bmp\tn1\n1.bmp\tn2\n")
        same_times(annotations)
        dataset = data.load("tiny-imagenet", data_root=root.parent, cache_dir=tmp_path / "cache", progress=False)
        seen.append(int(dataset.train_images[0, 0, 0, 0]))
    assert seen == [0, 100]


def test_another_version_of_pillow_decodes_again(folder, load, monkeypatch):
    one = load(f"folder:{folder}")
    monkeypatch.setattr(PIL, "__version__", "0.0")
    assert load(f"folder:{folder}").folder != one.folder


def test_files_that_change_while_they_are_decoded(folder, tmp_path, load, picture, monkeypatch):
    def decode_files(paths, out, workers, done):
        decode.decode_files(paths, out, workers, done)
        picture(folder / "train" / "ant" / "new.png")

    monkeypatch.setattr(cache, "decode_files", decode_files)
    with pytest.raises(ValueError, match="its files changed while they were decoded"):
        load(f"folder:{folder}")
    assert kept_in(tmp_path / "cache") == []


def test_fingerprint_is_that_of_earlier_versions(tmp_path, load):
    """Trainings of days are kept under it."""
    for split in ("train", "test"):
        for number, name in enumerate(("ant", "Bee", "\u00e9")):
            path = tmp_path / "own" / split / name / "0.png"
            path.parent.mkdir(parents=True)
            pixels = np.arange(40 * 50 * 3, dtype=np.int64).reshape(40, 50, 3) * (number + 3) % 251
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    dataset = load(f"folder:{tmp_path / 'own'}")
    assert dataset.classes == ("Bee", "ant", "\u00e9")
    assert dataset.fingerprint == "3c65abb64987360c9737fae7b026fc823c1fb8118e35c1e38e636741cd88836b"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_umask_says_who_may_read_the_cache(folder, tmp_path, load, mask):
    before = os.umask(mask)
    try:
        kept = load(f"folder:{folder}").folder
    finally:
        os.umask(before)
    assert mode_of(kept) == 0o777 & ~mask
    assert {mode_of(path) for path in kept.iterdir()} == {0o666 & ~mask}
    assert mode_of(tmp_path / "cache") == 0o777 & ~mask


@pytest.fixture
def fallback(tmp_path, monkeypatch):
    """The folder that is used where the wanted one cannot be."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(temporary))
    return temporary / f"corel-cache-{cache._user()}"


def refuse_access(monkeypatch, refused: Path) -> None:
    """Let ``refused`` and what is below be another user's, for whoever runs the tests."""
    access, read = os.access, cache._read_description
    beyond = lambda path: Path(path) == refused or refused in Path(path).parents  # noqa: E731
    monkeypatch.setattr(cache.os, "access", lambda path, how: not beyond(path) and access(path, how))
    monkeypatch.setattr(cache, "_read_description", lambda path: None if beyond(path) else read(path))


def test_a_cache_that_cannot_be_read(folder, load, monkeypatch, fallback, capsys):
    kept = load(f"folder:{folder}")
    refuse_access(monkeypatch, kept.folder)
    again = load(f"folder:{folder}")
    assert again.folder.parent == fallback
    assert mode_of(fallback) == 0o700
    assert again.fingerprint == kept.fingerprint
    assert f"cannot use the cache '{kept.folder.parent}'" in capsys.readouterr().err


def test_a_cache_that_can_only_be_read_is_used(folder, load, monkeypatch, fallback):
    kept = load(f"folder:{folder}")
    monkeypatch.setattr(cache.os, "access", lambda path, how: not how & os.W_OK)
    assert load(f"folder:{folder}") == kept
    assert not fallback.exists()


def open_to_all(place: Path) -> None:
    place.chmod(0o777)


def a_link(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of files")
@pytest.mark.parametrize("harm", [open_to_all, a_link, "another user"])
@pytest.mark.parametrize("which", ["wanted", "fallback"])
def test_a_cache_of_another_user_in_a_public_temporary_folder_is_not_used(
    folder, tmp_path, fallback, monkeypatch, harm, which
):
    wanted = fallback.parent / "wanted"
    place = {"wanted": wanted, "fallback": fallback}[which]
    (tmp_path / "file").write_text("")
    asked = wanted if which == "wanted" else tmp_path / "file" / "no folder"
    load = lambda: data.load(f"folder:{folder}", cache_dir=asked, progress=False)  # noqa: E731
    assert load().folder.parent == place
    assert mode_of(place) == 0o700
    if harm == "another user":
        monkeypatch.setattr(cache, "_user", lambda: os.getuid() + 1)
        monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "empty"))
        if which == "fallback":
            place.rename(fallback := place.with_name(f"corel-cache-{cache._user()}"))
            monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(fallback.parent))
    else:
        harm(place)
    if which == "wanted" and harm != "another user":
        assert load().folder.parent == fallback
    else:
        with pytest.raises(ValueError, match=r"cache_dir: cannot use .*; give a folder that is yours"):
            load()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_without_locks(folder, load, monkeypatch, number, recwarn):
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, how):
        if how != fcntl.LOCK_UN:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    if number == errno.EACCES:  # some say so of a lock that another process holds
        monkeypatch.setattr(cache, "FileLock", lambda *a, **k: Locked())
    assert len(load(f"folder:{folder}").train_labels) == 4
    assert not recwarn.list


class Locked:
    def acquire(self, blocking: bool = True):
        raise PermissionError(errno.EACCES, "lock file belongs to another user")


def test_without_standard_error(folder, load, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert len(load(f"folder:{folder}", progress=True).train_labels) == 4


def test_the_folder_is_absolute(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = data.load("folder:own", cache_dir="cache", progress=False)
    monkeypatch.chdir("/")
    assert len(kept.train_images) == 4
