"""From an image file to 32×32 RGB, channels first, uint8. The rules, in the order in which they apply:

Frame
    The first one of an animation or a multi-page file.
Range of values
    8 bits per channel stay as they are. 16 bits are divided by 256, rounding down, and 12-bit TIFFs by 16. 1 bit
    becomes 0 and 255. Floats and 32-bit integers are an error: their formats state no range, and a guess would turn
    such images black or white.
Transparency
    Composited on white: alpha channels, transparent palette entries and transparent colours.
Mode
    Grey levels go into all three channels; palettes are looked up; CMYK, YCbCr and LAB are converted as Pillow
    does it. Colour profiles and gamma are not applied.
Orientation
    Rotated and mirrored as the EXIF (or XMP) orientation says. Metadata that cannot be read counts as none.
Size
    Resized bilinearly, with antialiasing, without keeping the aspect ratio (§5.1).

Only the formats in :data:`FORMATS` are read: some others of Pillow's start a program (EPS) or hold no stated range of
values. More pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` are an error, as is a file that ends too early. Whatever else a
decoder raises becomes one error that names the file.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.data.text import quoted

#: Side of every image in pixels.
SIZE = 32

#: Raise it when a rule above changes: cached arrays of another version are not used.
VERSION = 2

#: The formats that are read, by Pillow's names. TGA has no signature at its start, so it is tried last.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "DDS", "QOI", "ICO", "PSD", "SGI",
           "PCX", "TGA")  # fmt: skip

#: Images that a thread decodes in one go.
CHUNK = 100


def to_array(image: Image.Image) -> np.ndarray:
    """(3, 32, 32) uint8 of an image of any mode and size, by the rules above.

    Raises
    ------
    ValueError
        If the range of its values is not known, or Pillow cannot convert its mode.
    """
    _match_transparent_colour(image)
    image.load()
    with contextlib.suppress(Exception):  # damaged metadata may raise anything; the pixels are still valid
        ImageOps.exif_transpose(image, in_place=True)
    image = _rgb(image)
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _match_transparent_colour(image: Image.Image) -> None:
    """Bring a PNG's transparent colour to the depth of the pixels: Pillow scales only these to 8 bits."""
    colour = image.info.get("transparency")
    tiles = getattr(image, "tile", None)  # of an image that is not loaded yet
    if image.format != "PNG" or colour is None or not tiles:
        return
    depth = tiles[0][3]
    if depth == "RGB;16B":
        raise ValueError("a transparent colour of 16 bits per channel is not supported")
    if depth in ("L;2", "L;4"):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[depth]


def _rgb(image: Image.Image) -> Image.Image:
    """An image in mode RGB, without transparency."""
    if image.mode.startswith(("I", "F")):
        image = _scaled_to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image (mode L, or LA where a grey level is transparent) of one with 12 or 16 bits."""
    # Pillow reads the PPM family's 16 bits, which it has scaled to 0 … 65535, into 32.
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")):
        raise ValueError(
            f"its pixels are {'floats' if image.mode == 'F' else 'integers of 32 or signed 16 bits'} (mode "
            f"{image.mode!r}), whose range of values is not stated; save it with 8 or unsigned 16 bits"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = 12 if tags.get(258) == (12,) else 16
    values = np.asarray(image).astype(np.int64)
    grey = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    scaled = Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # 0: white is the lowest value
    transparent = image.info.get("transparency")
    if transparent is not None:
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # not every Pillow has AVIF


def decode_file(path: str | bytes) -> np.ndarray:
    """Return (3, 32, 32) uint8 of an image file.

    Raises
    ------
    ValueError
        If it cannot be decoded; the message names the file.
    """
    try:
        # Opened here and not by Pillow, which cannot close a file whose header is broken.
        with open(path, "rb") as stream, Image.open(stream, formats=_formats()) as image:
            return to_array(image)
    except UnidentifiedImageError:
        reason = f"it is damaged or none of {', '.join(_formats())}"
    except Exception as error:  # a decoder may raise anything on a damaged file, MemoryError included
        what = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = f"{type(error).__name__}: {what}" if what else type(error).__name__
    raise ValueError(f"{quoted(path)}: not a readable image ({reason})")


def decode_files(
    paths: Sequence[bytes], out: np.ndarray, workers: int | None = None, done: Callable[[int], object] = lambda n: None
) -> None:
    """Decode image files into ``out``, (n, 3, 32, 32) uint8, in their order.

    Threads do it: decoders and resizing run outside Python's global lock, and what threads do needs no copy and ends
    with the process.

    Parameters
    ----------
    workers
        Number of threads; by default as many as :class:`~concurrent.futures.ThreadPoolExecutor` takes.
    done
        Called with the number of images each time that some are finished.

    Raises
    ------
    ValueError
        For the first file that cannot be decoded.
    """

    def decode(start: int) -> int:
        part = paths[start : start + CHUNK]
        for index, path in enumerate(part, start):
            out[index] = decode_file(path)
        return len(part)

    pool = ThreadPoolExecutor(workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata and palettes: the rules above say what becomes of them
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            for count in pool.map(decode, range(0, len(paths), CHUNK)):
                done(count)
        finally:
            pool.shutdown(cancel_futures=True)
