"""Decode image files with Pillow: the one way of photos, masks and maps.

Format and size are checked from the header, before decoding. A decoded image is upright, and its grey values
rise from black to white, whatever its file does.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from redepth.errors import InputError, MissingDependencyError
from redepth.io.files import StrPath, damaged, open_regular
from redepth.io.limits import check_pixels

# EPS is left out on purpose, because Pillow starts Ghostscript for it.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF", "PPM", "JPEG2000")
# TGA has no signature, so Pillow would take anything for one.
_TGA_SUFFIXES = frozenset({".tga", ".vda", ".icb", ".vst"})
# Raw files are TIFF inside: Pillow would open their small preview instead of the photo.
RAW_SUFFIXES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = (b"avif", b"avis")
_UNSUPPORTED_SIGNATURES = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\0\0\1\0": "an icon",
    b"icns": "an icon",
    b"\x01\xda": "SGI",
    b"\x0a\x05\x01": "PCX",
    b"SIMPLE  =": "FITS",
}
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's plugins raise on damaged bytes."""

_pillow_limit_lock = threading.Lock()

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0
_BITS = 258
_PLANAR = 284
_SEPARATE = 2
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's modes of big-endian numbers, and the same in the machine's order."""
_SCALED_BITS = {"L;2": 85, "L;4": 17}
"""Pillow's modes of 2 and 4 bits, and the factor by which it scales their samples to 8 bits."""
HEADER_END = re.compile(rb"[ \t]*\r?\n|\s")
"""The white space before the numbers of a PGM, PPM or PFM: one character, or all up to a line feed."""


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        image: upright, its grey values rising from black to white.
        stored: Pillow's name of the samples in the file, such as ``RGB;16B``; empty in formats without one.
    """

    image: Image.Image
    stored: str

    @property
    def sixteen_bit_colour(self) -> bool:
        """Whether Pillow has reduced samples of 16 bits to 8."""
        return ";16" in self.stored and not self.image.mode.startswith("I")

    @property
    def bits(self) -> int:
        """Bits of a stored grey sample."""
        names = {"1": 1, "L;2": 2, "L;4": 4, "I;12": 12}
        return next((bits for name, bits in names.items() if self.stored.startswith(name)), 0) or (
            16 if self.image.mode.startswith("I;16") else 8
        )


def read_image(
    path: Path,
    max_pixels: int | None,
    check: Callable[[Image.Image], None] | None = None,
    *,
    stored: str = "",
    upright: bool = True,
) -> Picture:
    """Read and decode an image; the file's content decides the format, not its suffix.

    Args:
        path: the file.
        max_pixels: width times height beyond which the file is refused before it is decoded; None is the
            limit of `pixel_limit`.
        check: is called with the image before its pixels are decoded; it raises for an image to refuse.
        stored: take the samples in the file for these, by Pillow's name.
        upright: whether the EXIF orientation is applied.

    Raises:
        InputError: the file is missing, unreadable, damaged, too large or of an unsupported format.
        MissingDependencyError: the image is HEIC and pillow-heif is not installed.
    """
    with open_regular(path) as file:
        image = open_image(path, file, max_pixels)
        if check is not None:
            check(image)
        try:
            _mend_netpbm(path, file, image)
            found = _stored_mode(image)
            _mend_byte_order(image, found)
            if stored:
                _reinterpret(image, stored)
            image.load()
            if has_deep_planes(image) and ";16" not in found:
                raise separate_planes(path)
        except InputError:
            raise
        except DECODE_ERRORS as error:
            raise damaged(path, error) from None
    _scale_transparency(image, found)
    if upright:
        # A damaged EXIF block is no reason to refuse intact pixels.
        with suppress(*DECODE_ERRORS):
            ImageOps.exif_transpose(image, in_place=True)
    return Picture(_black_is_zero(path, image), stored or found)


def image_size(path: StrPath, *, max_pixels: int | None = None, upright: bool = True) -> tuple[int, int]:
    """Return (height, width) of an image as `load_photo` returns it, from its header.

    Raises:
        InputError: the header cannot be read, or declares more than ``max_pixels``.
    """
    path = Path(path)
    with open_regular(path) as file:
        image = open_image(path, file, max_pixels)
        width, height = image.size
        # Pillow gives the size of a TIFF, and pillow-heif that of a HEIC, as they are upright.
        if upright and image.format not in ("TIFF", "HEIF"):
            with suppress(*DECODE_ERRORS):
                if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
                    width, height = height, width
    return height, width


def open_image(path: Path, file: BinaryIO, max_pixels: int | None) -> ImageFile.ImageFile:
    """Identify an image and check its size from the header; the pixels are not decoded yet.

    Raises:
        InputError: the header cannot be read, or declares more than ``max_pixels``.
    """
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        raise InputError(f"{path}: camera raw is not supported; export it as JPEG or TIFF")
    head = file.read(64)
    formats = _formats(path, head)
    try:
        with _pillow_limit_lifted():
            image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise _unidentified(path, head) from None
    except DECODE_ERRORS as error:
        raise damaged(path, error) from None
    check_pixels(path, *image.size, max_pixels)
    return image


def _formats(path: Path, head: bytes) -> tuple[str, ...]:
    """Return the formats that a file may have, by its first bytes."""
    if path.suffix.lower() in _TGA_SUFFIXES:
        return (*_FORMATS, "TGA")
    is_avif = any(brand in head for brand in _AVIF_BRANDS)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and not is_avif:
        _register_heif(path)
        return ("HEIF",)
    return _FORMATS


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Switch off Pillow's own pixel limit while a header is read.

    Pillow's limit is one number for the whole process and its warning names no file; `open_image` checks
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


def _stored_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the samples in a file that is not decoded yet."""
    if not image.tile:
        return ""
    arguments = image.tile[0].args
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    if image.tile[0].codec_name == "ppm" and isinstance(arguments, tuple) and image.mode == "RGB":
        return "RGB;16 scaled" if int(arguments[1]) > 255 else "RGB"
    return first if isinstance(first, str) else ""


def _reinterpret(image: ImageFile.ImageFile, stored: str) -> None:
    """Let Pillow take the samples for others of the same size."""
    tiles = []
    for tile in image.tile:
        arguments = (stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored
        tiles.append(tile._replace(args=arguments))
    image.tile = tiles


def _mend_byte_order(image: ImageFile.ImageFile, stored: str) -> None:
    """Take what libtiff has unpacked for numbers in this machine's order, as they are.

    Pillow swaps the bytes of signed numbers and floats of a big-endian file once more.
    """
    if image.tile and image.tile[0].codec_name == "libtiff" and stored in _NATIVE:
        _reinterpret(image, _NATIVE[stored])


def _mend_netpbm(path: Path, file: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Let Pillow start at the first sample of a binary PGM, PPM or PFM, and keep all bits of a colour.

    Raises:
        InputError: the file is longer or shorter than its header says.
    """
    if image.format != "PPM" or not image.tile or image.tile[0].codec_name == "ppm_plain":
        return
    tile = image.tile[0]
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    deep = image.mode == "I" or (tile.codec_name == "ppm" and arguments[1] > 255)
    width, height = image.size
    row = (width + 7) // 8 if image.mode == "1" else width * len(image.getbands()) * (2 if deep else 1)
    expected = height * (4 * width if image.mode == "F" else row)
    size = os.fstat(file.fileno()).st_size
    start = size - expected
    file.seek(tile.offset - 1)
    end = file.read(max(0, min(start - tile.offset + 1, 64)))
    if start < tile.offset or start - tile.offset >= 64 or not HEADER_END.fullmatch(end):
        raise InputError(
            f"{path}: holds {size - tile.offset} bytes of pixels in place of {expected}; "
            "write or copy it again"
        )
    if deep and image.mode == "RGB":
        # Pillow's own decoder of 16-bit colours leaves 8 bits that are rounded.
        whole = arguments[1] == 65535
        tile = tile._replace(codec_name="raw", args=("RGB;16B", 0, 1)) if whole else tile
    image.tile = [tile._replace(offset=start)]


def has_deep_planes(image: Image.Image) -> bool:
    """Return whether an image is a TIFF with its colours of more than 8 bits in separate planes."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, 8)
    return tags.get(_PLANAR) == _SEPARATE and max(bits if isinstance(bits, tuple) else (bits,), default=0) > 8


def separate_planes(path: Path) -> InputError:
    """Return the error for such an image where Pillow mixes up the bytes."""
    return InputError(f"{path}: a TIFF of 16 bits in separate planes; save its colours together (contiguous)")


def _scale_transparency(image: Image.Image, stored: str) -> None:
    """Scale the transparent grey of 2 or 4 bits as Pillow scales the pixels."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and stored in _SCALED_BITS and isinstance(transparent, int):
        image.info["transparency"] = transparent * _SCALED_BITS[stored]


def _black_is_zero(path: Path, image: Image.Image) -> Image.Image:
    """Invert grey of 16 bits whose 0 is white. Pillow does so for 8 bits and less, not for 16."""
    tags = getattr(image, "tag_v2", {})
    if image.mode[0] not in "IF" or tags.get(_PHOTOMETRIC) != _WHITE_IS_ZERO:
        return image
    if image.mode != "I;16":
        raise InputError(
            f"{path}: a TIFF of 32 bits whose 0 is white (photometric 0), so black has no fixed value; save "
            "it with 0 as black (photometric 1)"
        )
    # In place, because a new image would lack the profile and the other entries of the file.
    image.frombytes((65535 - np.asarray(image)).astype("<u2").tobytes())
    return image
