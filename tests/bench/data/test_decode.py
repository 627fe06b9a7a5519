"""From an image file to an array: every rule of bench.data.decode, and files that are no images."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from bench import data
from bench.data import decode


def test_threads_decode_in_order(tmp_path, monkeypatch, load, picture):
    root = tmp_path / "own"
    for split in ("train", "test"):
        for name in ("a", "b"):
            for index in range(10):
                picture(root / split / name / f"{index}.png", (index, 0, 0), (8, 8))
    monkeypatch.setattr(decode, "CHUNK", 3)
    one = load(f"folder:{root}", workers=1)
    two = data.load(f"folder:{root}", cache_dir=tmp_path / "other", progress=False, workers=2)
    assert two.fingerprint == one.fingerprint
    assert two.train_images[:, 0, 0, 0].tolist() == 2 * list(range(10))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, [77, 77, 77]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (100, 0, 200, 102), [193, 153, 233]),
        ("1", 1, [255, 255, 255]),
        ("P", 0, None),
        ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("I;16", 0x8000, [128, 128, 128]),
        ("I;16", 0x7FFF, [127, 127, 127]),
        ("LA", (9, 255), [9, 9, 9]),
        ("LA", (9, 0), [255, 255, 255]),
    ],
)
def test_modes(tmp_path, mode, colour, expected, picture):
    extension = {"CMYK": "tif"}.get(mode, "png")
    path = picture(tmp_path / f"image.{extension}", colour, mode=mode)
    array = decode.decode_file(path)
    assert array.shape == (3, 32, 32)
    if expected is not None:
        assert array[:, 3, 3].tolist() == expected


def test_other_sizes_are_resized_without_keeping_the_aspect_ratio(tmp_path):
    image = Image.new("RGB", (100, 10), (255, 0, 0))
    image.paste((0, 0, 255), (50, 0, 100, 10))
    image.save(tmp_path / "wide.png")
    array = decode.decode_file(tmp_path / "wide.png")
    assert array[:, 0, 0].tolist() == [255, 0, 0]
    assert array[:, 31, 31].tolist() == [0, 0, 255]


def tiff(values: np.ndarray, *, bits: int, white_is_zero: bool = False, sample_format: int = 1) -> bytes:
    """A grey TIFF as another program may write it; ``values`` are its bytes row by row."""
    height, width = 32, 32
    content = values.tobytes()
    entries = [
        (256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8),
        (277, 1), (278, height), (279, len(content)), (339, sample_format),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(content)) + content + directory


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        (8, np.full(1024, 200, np.uint8), 200),
        (16, np.full(1024, 200 * 256 + 255, np.uint16), 200),
        # two values of 12 bits, 0xC8F each, in three bytes
        (12, np.tile(np.array([0xC8, 0xFC, 0x8F], np.uint8), 512), 200),
    ],
)
def test_grey_of_every_depth_is_scaled_by_the_range_that_the_file_states(
    tmp_path, bits, values, expected, white_is_zero
):
    if bits == 12 and white_is_zero:
        pytest.skip("Pillow reads no such file")
    (tmp_path / "image.tif").write_bytes(tiff(values, bits=bits, white_is_zero=white_is_zero))
    array = decode.decode_file(tmp_path / "image.tif")
    assert np.unique(array).tolist() == [255 - expected if white_is_zero else expected]


@pytest.mark.parametrize(
    ("values", "bits", "sample_format", "mode"),
    [
        (np.linspace(0, 1, 1024, dtype=np.float32), 32, 3, "F"),
        (np.arange(1024, dtype=np.int32) % 256, 32, 2, "I"),
        (np.arange(1024, dtype=np.uint32) % 256, 32, 1, "I"),
        (np.arange(1024, dtype=np.int16) % 256, 16, 2, "I"),
    ],
)
def test_values_without_a_stated_range_are_refused(folder, load, values, bits, sample_format, mode):
    path = folder / "test" / "bee" / "9.tif"
    path.write_bytes(tiff(values, bits=bits, sample_format=sample_format))
    with pytest.raises(ValueError, match=rf"9\.tif': not a readable image \(.*mode '{mode}'.*range"):
        load(f"folder:{folder}")


def test_a_portable_float_map_is_refused(tmp_path):
    (tmp_path / "image.pfm").write_bytes(b"Pf\n32 32\n-1.0\n" + np.ones(1024, np.float32).tobytes())
    with pytest.raises(ValueError, match=r"image.pfm': not a readable image \(.*floats"):
        decode.decode_file(tmp_path / "image.pfm")


@pytest.mark.parametrize(("largest", "value", "expected"), [(65535, 0x80FF, 128), (1023, 1023, 255), (1023, 512, 128)])
def test_portable_grey_maps_are_scaled_by_their_maximum(tmp_path, largest, value, expected):
    content = np.full(1024, value, ">u2").tobytes()
    (tmp_path / "image.pgm").write_bytes(b"P5\n32 32\n%d\n" % largest + content)
    assert np.unique(decode.decode_file(tmp_path / "image.pgm")).tolist() == [expected]


def test_colour_of_16_bits_is_scaled_as_grey_is(tmp_path):
    png(tmp_path / "image.png", 16, 2, struct.pack(">3H", 0x10FF, 0x2000, 0xFFFF) * 32)
    assert decode.decode_file(tmp_path / "image.png")[:, 4, 4].tolist() == [0x10, 0x20, 0xFF]


def png(path: Path, depth: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes]) -> None:
    """A PNG of 32×32 pixels, all rows the same, with further chunks before its pixels."""
    head = struct.pack(">IIBBBBB", 32, 32, depth, kind, 0, 0, 0)
    every = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress((b"\0" + row) * 32)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in every
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(
    ("depth", "kind", "row", "colour", "expected"),
    [
        (8, 0, b"\x05\x09" * 16, struct.pack(">H", 5), [255, 9]),
        (4, 0, b"\x59" * 16, struct.pack(">H", 5), [255, 9 * 17]),
        (2, 0, b"\x1b" * 8, struct.pack(">H", 1), [0, 255, 170, 255]),
        (1, 0, b"\x55" * 4, struct.pack(">H", 0), [255, 255]),
        (16, 0, struct.pack(">2H", 0x0100, 0x0101) * 16, struct.pack(">H", 0x0100), [255, 1]),
        (8, 2, bytes(range(6)) * 16, struct.pack(">3H", 0, 1, 2), [255, 3]),
    ],
)
def test_a_transparent_colour_becomes_white(tmp_path, depth, kind, row, colour, expected):
    png(tmp_path / "image.png", depth, kind, row, (b"tRNS", colour))
    assert decode.decode_file(tmp_path / "image.png")[0, 0, : len(expected)].tolist() == expected


def test_a_transparent_colour_that_pillow_does_not_keep_is_refused(tmp_path):
    png(tmp_path / "image.png", 16, 2, bytes(6) * 32, (b"tRNS", bytes(6)))
    with pytest.raises(ValueError, match=r"image\.png': not a readable image .*transparent colour of 16 bits"):
        decode.decode_file(tmp_path / "image.png")


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
@pytest.mark.parametrize("extension", ["png", "gif"])
def test_a_transparent_palette_entry_becomes_white(tmp_path, extension, transparency):
    if extension == "gif" and transparency != 0:
        pytest.skip("GIF has no other transparency")
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(1, (16, 0, 32, 32))
    image.save(tmp_path / f"image.{extension}", transparency=transparency)
    array = decode.decode_file(tmp_path / f"image.{extension}")
    assert array[:, 3, 3].tolist() == [255, 255, 255]
    assert array[:, 3, 20].tolist() == [40, 50, 60]


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa"])
def test_modes_that_pillow_has_in_memory_alone(mode):
    straight = Image.new("LA" if mode == "La" else "RGBA", (32, 32), (9, 0) if mode == "La" else (9, 9, 9, 0))
    image = Image.new("PA", (32, 32), (0, 0)) if mode == "PA" else straight.convert(mode)
    assert np.unique(decode.to_array(image)).tolist() == [255]


CORNERS = {
    # orientation → where the image's top left, top right, bottom left and bottom right corners are stored
    1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "bdac", 7: "dbca", 8: "cadb",
}  # fmt: skip


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp", "avif"])
def test_images_are_turned_upright(tmp_path, extension, orientation):
    if extension == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    level = {"a": 0, "b": 80, "c": 160, "d": 240}
    stored = np.repeat(np.repeat([[level[c] for c in CORNERS[orientation]]], 32, 0).reshape(32, 4), 32, 1)
    corners = stored[0].reshape(4, 32)[:, 0].reshape(2, 2).astype(np.uint8)
    image = Image.fromarray(np.kron(corners, np.ones((32, 32), np.uint8))).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / f"image.{extension}", exif=exif, **({"quality": 95} if extension != "png" else {}))
    array = decode.decode_file(tmp_path / f"image.{extension}").astype(int)
    seen = [array[0, y, x] for y in (8, 24) for x in (8, 24)]
    np.testing.assert_allclose(seen, [0, 80, 160, 240], atol=12)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*" + bytes(60), b"x" * 99]
)
def test_damaged_metadata_counts_as_none(tmp_path, exif):
    Image.new("RGB", (32, 32), (0, 0, 200)).save(tmp_path / "image.png", exif=exif)
    assert decode.decode_file(tmp_path / "image.png")[:, 0, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize("extension", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_read(tmp_path, extension):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if extension == "webp" else {}
    frames[0].save(tmp_path / f"image.{extension}", save_all=True, append_images=frames[1:], **options)
    assert decode.decode_file(tmp_path / f"image.{extension}")[:, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    "raised",
    [MemoryError(), struct.error("unpack"), zlib.error("-3"), AttributeError("x"), RuntimeError("two\nlines"),
     KeyError(3), RecursionError(), AssertionError(), SyntaxError("broken"), EOFError(), OverflowError("big")],
)  # fmt: skip
@pytest.mark.parametrize("at", ["open", "load"])
def test_whatever_a_decoder_raises_names_the_file(folder, load, monkeypatch, raised, at):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(*{"open": (Image, "open"), "load": (Image.Image, "convert")}[at], fail)
    Image.new("L", (32, 32)).save(folder / "train" / "ant" / "0.png")
    with pytest.raises(ValueError, match=r"ant.0\.png': not a readable image") as caught:
        load(f"folder:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["AVIF", "DDS", "JPEG2000", "JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "TGA", "QOI"])
def test_zeroed_bytes_give_an_image_or_an_error_that_names_the_file(tmp_path, form):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    try:
        Image.fromarray(pixels).save(buffer, form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {form}")
    whole = buffer.getvalue()
    errors = []
    for start in range(0, min(len(whole), 120), 4):
        (tmp_path / "image").write_bytes(whole[:start] + bytes(4) + whole[start + 4 :])
        try:
            assert decode.decode_file(tmp_path / "image").shape == (3, 32, 32)
        except ValueError as error:
            errors.append(str(error))
    assert errors
    assert all(error.startswith(f"'{tmp_path / 'image'}': not a readable image (") for error in errors)


def test_an_image_with_too_many_pixels(folder, load, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 32×32 are more, and less than twice as many
    with pytest.raises(ValueError, match=r"0\.png': not a readable image \(.*1024 pixels.*limit of 1000"):
        load(f"folder:{folder}")
    assert not recwarn.list


def test_postscript_is_never_run(folder, load, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **options: pytest.fail("a program was started"))
    path = folder / "train" / "ant" / "9.eps"
    Image.new("RGB", (32, 32)).save(path)
    with pytest.raises(ValueError, match=r"9\.eps': not a readable image \(it is damaged or none of JPEG, PNG"):
        load(f"folder:{folder}")


def test_an_error_ends_the_decoding_soon(tmp_path, picture, monkeypatch):
    good = [str(picture(tmp_path / f"{index}.png")).encode() for index in range(3)]
    bad = str(tmp_path / "nothing.png").encode()
    count, lock = [], threading.Lock()

    def decoded(path):
        with lock:
            count.append(path)
        return decode_file(path)

    decode_file = decode.decode_file
    monkeypatch.setattr(decode, "decode_file", decoded)
    monkeypatch.setattr(decode, "CHUNK", 1)
    paths = [*good, bad, *(good * 400)]
    with pytest.raises(ValueError, match=r"nothing\.png': not a readable image \(FileNotFoundError: No such file"):
        decode.decode_files(paths, np.empty((len(paths), 3, 32, 32), np.uint8), workers=2)
    assert len(count) < len(paths)


def test_ctrl_c_ends_the_decoding_soon(tmp_path, picture, monkeypatch):
    path = str(picture(tmp_path / "0.png")).encode()
    monkeypatch.setattr(decode, "CHUNK", 1)
    out = np.zeros((1000, 3, 32, 32), np.uint8)

    def interrupted(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode.decode_files([path] * len(out), out, 2, interrupted)
    assert not out[-1].any()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
