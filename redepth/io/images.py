"""Decode image files with Pillow; format and size are checked from the header, before decoding."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from redepth.errors import InputError, MissingDependencyError
from redepth.io.files import damaged, open_regular

MAX_PIXELS = 100_000_000

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
# Raw files are TIFF inside: Pillow would open their small preview instead of the photo.
_RAW_SUFFIXES = frozenset({".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_UNSUPPORTED_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's plugins raise on damaged bytes."""

_pillow_limit_lock = threading.Lock()


def read_image(
    path: Path, max_pixels: int, check: Callable[[Image.Image], None] | None = None
) -> Image.Image:
    """Read and decode an image; the file's content decides the format, not its suffix.

    Args:
        path: the file.
        max_pixels: width times height beyond which the file is refused before it is decoded.
        check: is called with the image before its pixels are decoded; it raises for an image to refuse.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large or of an unsupported format.
        MissingDependencyError: the image is HEIC and pillow-heif is not installed.
    """
    with open_regular(path) as file:
        image = _open_image(path, file, max_pixels)
        if check is not None:
            check(image)
        try:
            image.load()
        except DECODE_ERRORS as error:
            raise damaged(path, error) from None
    return image


def _open_image(path: Path, file: BinaryIO, max_pixels: int) -> Image.Image:
    """Identify an image and check its size from the header."""
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise InputError(f"{path}: camera raw is not supported; export it as JPEG or TIFF")
    head = file.read(12)
    formats: tuple[str, ...] = _FORMATS
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        _register_heif(path)
        formats = ("HEIF",)
    try:
        with _pillow_limit_lifted():
            image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise _unidentified(path, head) from None
    except DECODE_ERRORS as error:
        raise damaged(path, error) from None
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{path}: {width} x {height} is {width * height / 1e6:.1f} megapixels, the limit is "
            f"{max_pixels / 1e6:g}; shrink it or raise the limit with --max-pixels {width * height} "
            "(max_pixels= in Python)"
        )
    return image


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Switch off Pillow's own pixel limit while a header is read.

    Pillow's limit is one number for the whole process and its warning names no file; `_open_image` checks
    the size itself, before anything is decoded. The lock keeps two of our threads from restoring each
    other's value; other code in the process may run without Pillow's limit for that moment.
    """
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise MissingDependencyError(
            f'{path}: reading HEIC needs pillow-heif; run: pip install "redepth[heic]"'
        ) from None
    pillow_heif.register_heif_opener()


def _unidentified(path: Path, head: bytes) -> InputError:
    for signature, name in _UNSUPPORTED_SIGNATURES.items():
        if head.startswith(signature):
            return InputError(f"{path}: {name} is not supported; convert it to JPEG or PNG")
    return InputError(f"{path}: not a readable image, or a damaged one; give a JPEG, PNG, WebP, TIFF or HEIC")
