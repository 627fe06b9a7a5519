"""Damaged files and odd folders, drawn at random: each gives the right answer or one clear line.

``FUZZ_EXAMPLES=1000 python -m pytest tests/bench/data/test_fuzz.py`` draws so many of each, others every time.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from bench import data
from bench.data import decode
from bench.data.text import as_text

BY_HAND = int(os.environ.get("FUZZ_EXAMPLES", "0"))

SETTINGS = settings(
    max_examples=BY_HAND or 40,
    derandomize=not BY_HAND,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def one_clear_line(error: Exception) -> str:
    """The text of an error, which any terminal and any file can take."""
    text = str(error)
    assert len(text.splitlines()) == 1
    text.encode()  # no half characters
    assert text.isascii() or all(ord(character) >= 32 for character in text)
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Damaged files

MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "GIF": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "WEBP": ["L", "RGB", "RGBA"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "AVIF": ["RGB", "RGBA"],
    "JPEG2000": ["L", "RGB", "RGBA", "I;16"],
    "DDS": ["L", "RGB", "RGBA"],
    "TGA": ["L", "P", "RGB", "RGBA"],
    "QOI": ["RGB", "RGBA"],
    "ICO": ["RGBA"],
}

REFUSED = {"I", "F"} | (set() if features.check("littlecms2") else {"LAB"})


def written(form: str, mode: str, size: tuple[int, int], orientation: int, compression: str | None) -> bytes | None:
    """An image file of noise, or None where this Pillow cannot write such a one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"exif": exif} if form in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF") else {}
    if form == "TIFF":
        options["compression"] = compression
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    try:
        image = image.convert("RGB").convert("L").convert(mode) if mode in ("I;16", "I", "F") else image.convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
    except (KeyError, OSError, ValueError):
        return None
    return buffer.getvalue()


@st.composite
def image_files(draw: st.DrawFn) -> tuple[str, str, bytes, bytes]:
    """Format and mode of an image file, the file, and the same file damaged."""
    form = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[form]))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    compression = draw(st.sampled_from([None, "tiff_lzw", "tiff_deflate", "packbits"]))
    whole = written(form, mode, size, draw(st.integers(1, 8)), compression)
    if whole is None:
        whole = written("PNG", "RGB", size, 1, None)
        form, mode = "PNG", "RGB"
    damaged = bytearray(whole)
    at = st.integers(0, min(len(whole) - 1, 200)) | st.integers(0, len(whole) - 1)  # headers matter most
    for _ in range(draw(st.integers(0, 4))):
        start, count = draw(at), draw(st.integers(1, 8))
        what = draw(st.sampled_from(["write", "zero", "fill", "insert", "delete", "cut", "repeat"]))
        if what == "write":
            damaged[start : start + count] = draw(st.binary(min_size=count, max_size=count))
        elif what == "zero":
            damaged[start : start + count] = bytes(count)
        elif what == "fill":
            damaged[start : start + count] = b"\xff" * count
        elif what == "insert":
            damaged[start:start] = draw(st.binary(min_size=1, max_size=40))
        elif what == "delete":
            del damaged[start : start + count]
        elif what == "cut":
            del damaged[start:]
        else:
            damaged += damaged[start:]
    return form, mode, whole, bytes(damaged)


@SETTINGS
@given(image_files())
def test_damaged_files(drawn: tuple[str, str, bytes, bytes]) -> None:
    _, mode, whole, damaged = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        for content in {whole, damaged}:
            path.write_bytes(content)
            out = np.zeros((1, 3, 32, 32), np.uint8)
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                try:
                    decode.decode_files([os.fsencode(path)], out, workers=1)
                    event("an image")
                    good = True
                except ValueError as error:
                    event("an error")
                    good = False
                    assert one_clear_line(error).startswith(f"'{path}': not a readable image (")  # noqa: PT017
            assert not heard
            if content == whole:
                assert good == (mode not in REFUSED)
            if good:
                again = np.zeros_like(out)
                decode.decode_files([os.fsencode(path)], again, workers=2)
                np.testing.assert_array_equal(again, out)


# ---------------------------------------------------------------------------------------------------------------------
# Odd folders

NAMES = st.sampled_from([b"ant", b"bee", b"1", b"0", b".hidden"]) | (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"-"))
    .filter(lambda name: name not in (b".", b".."))
)
KINDS = ["image"] * 12 + ["text", "empty", "folder", "dangling link", "circular link", "good link", "pipe", "device"]
CLASS_FOLDER = st.dictionaries(NAMES, st.sampled_from(KINDS), min_size=0, max_size=3)
SPLIT = st.dictionaries(NAMES, CLASS_FOLDER | st.just("file"), min_size=0, max_size=4)
# mostly what may be right: the same classes in both splits
BOTH = st.tuples(SPLIT, SPLIT) | st.dictionaries(
    NAMES, st.dictionaries(NAMES, st.sampled_from(["image", "good link"]), min_size=1, max_size=3), min_size=2
).map(lambda split: (split, split))


def colour(label: bytes) -> tuple[int, int, int]:
    return (sum(label) % 256, len(label), label[0])


def put(path: bytes, kind: str, label: bytes, elsewhere: bytes) -> None:
    """Write one entry of a class folder."""
    if kind in ("image", "good link"):
        target = path if kind == "image" else os.path.join(elsewhere, b"%d" % len(os.listdir(elsewhere)))
        with open(target, "wb") as stream:
            Image.new("RGB", (32, 32), colour(label)).save(stream, "BMP")
        if kind == "good link":
            os.symlink(target, path)
    elif kind in ("text", "empty"):
        with open(path, "wb") as stream:
            stream.write(b"name,label\n" if kind == "text" else b"")
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.symlink(
            {"dangling link": b"nowhere", "circular link": os.path.basename(path), "device": b"/dev/zero"}[kind], path
        )


def expected_classes(train: dict, test: dict) -> list[bytes] | None:
    """The classes of a dataset that can be read, in order, or None if it cannot."""
    seen = []
    for split in (train, test):
        shown = {label: content for label, content in split.items() if not label.startswith(b".")}
        for content in shown.values():
            if content == "file":
                return None
            kinds = [kind for name, kind in content.items() if not name.startswith(b".")]
            if not kinds or any(kind not in ("image", "good link") for kind in kinds):
                return None
        seen.append(sorted(shown))
    distinct = len({as_text(label) for label in seen[0]}) == len(seen[0])
    return seen[0] if seen[0] == seen[1] and len(seen[0]) >= 2 and distinct else None


@pytest.fixture(scope="module")
def cache() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@SETTINGS
@given(root=NAMES, splits=BOTH, words=st.lists(st.text(max_size=3) | st.sampled_from(["ant", "0", "1"]), max_size=3))
def test_odd_folders(cache: str, root: bytes, splits: tuple[dict, dict], words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(os.fsencode(folder), root)
        elsewhere = os.path.join(os.fsencode(folder), b"elsewhere" * 3)
        os.mkdir(elsewhere)
        for split, content in zip((b"train", b"test"), splits, strict=True):
            os.makedirs(os.path.join(path, split))
            for label, entries in content.items():
                place = os.path.join(path, split, label)
                if entries == "file":
                    put(place, "image", label, elsewhere)
                    continue
                os.mkdir(place)
                for name, kind in entries.items():
                    put(os.path.join(place, name), kind, label, elsewhere)
        classes = expected_classes(*splits)
        try:
            dataset = data.load(f"folder:{os.fsdecode(path)}", cache_dir=cache, progress=False)
        except (ValueError, FileNotFoundError) as error:
            event("an error")
            one_clear_line(error)
            assert classes is None, error  # noqa: PT017
            return
    event("a dataset")
    assert classes is not None
    assert dataset.classes == tuple(as_text(label) for label in classes)
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert set(labels.tolist()) == set(range(len(classes)))
        for image, label in zip(images, labels.tolist(), strict=True):
            assert tuple(image[:, 5, 5].tolist()) == colour(classes[label])
    try:
        indices = dataset.class_indices(words)
        assert len(set(indices)) == len(indices) == len(words)
    except ValueError as error:
        assert one_clear_line(error).startswith("--classes: ")  # noqa: PT017
