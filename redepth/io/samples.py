"""The numbers in an image file, for masks and maps: at full bit depth, without any conversion of colour."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth.errors import InputError
from redepth.io.files import open_regular
from redepth.io.images import Picture, has_deep_planes, read_image, separate_planes

_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "HEIF", "AVIF", "JPEG2000"})
_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
_SAMPLE_FORMAT = 339
_SIGNED = (2,)


@dataclass(frozen=True)
class Samples:
    """The numbers of an image, upright.

    Attributes:
        values: (H, W) grey, or (H, W, 3) colour.
        alpha: (H, W) opacity, 0 where the image is transparent; None where it is opaque.
        bits: of a stored sample.
        lossy: whether the compression changes values, so that black is not exactly 0.
        indices: (H, W) entries of the palette, where the image has one.
        text: what the file says besides, such as PNG text chunks.
    """

    values: NDArray[Any]
    alpha: NDArray[Any] | None = None
    bits: int = 8
    lossy: bool = False
    indices: NDArray[np.uint8] | None = None
    text: Mapping[Any, Any] = field(default_factory=dict)


def read_samples(path: Path, max_pixels: int | None = None) -> Samples:
    """Read the numbers of an image file, with any photometric interpretation applied.

    Args:
        path: the file.
        max_pixels: as for `read_image`.

    Raises:
        InputError: the file cannot be read as an image, or is in a colour space without grey values.
    """
    picture = read_image(path, max_pixels)
    return replace(_samples(path, picture, max_pixels), text=picture.image.info)


def _samples(path: Path, picture: Picture, max_pixels: int | None) -> Samples:
    image = picture.image
    lossy = _is_lossy(path, image)
    if picture.sixteen_bit_colour:
        return _sixteen_bit_colour(path, picture, max_pixels)
    if image.mode[0] in "IF":
        values = _numbers(image)
        return Samples(values, _key_alpha(image, values), picture.bits, lossy)
    if image.mode in ("1", "L"):
        if _sample_format(image) == _SIGNED:
            raise InputError(f"{path}: signed numbers of 8 bits are not supported; save them as 16 bits")
        values = np.asarray(image.convert("L"))
        return Samples(values, _key_alpha(image, values), picture.bits, lossy)
    indices = np.asarray(image) if image.mode == "P" else None
    values, alpha = _bands(path, image)
    return Samples(values, alpha, 8, lossy, indices)


def _numbers(image: Image.Image) -> NDArray[Any]:
    """Return the numbers of an image of 16 or 32 bits."""
    values: NDArray[Any] = np.asarray(image)
    if image.format == "TIFF" and image.mode == "I" and _sample_format(image) != _SIGNED:
        values = values.view(np.uint32)
    return values


def _bands(path: Path, image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the colour, or the grey, and the alpha of an image of 8 bits."""
    if image.mode in ("LAB", "HSV"):
        # Their black is no 0, and Pillow's conversion of it neither.
        raise InputError(f"{path}: colour mode {image.mode} is not supported; save it as grey")
    try:
        if image.mode in ("LA", "La"):
            both = np.asarray(image.convert("LA"))
            return both[..., 0], both[..., 1]
        if image.has_transparency_data:
            all_bands = np.asarray(image.convert("RGBA"))
            return all_bands[..., :3], all_bands[..., 3]
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), None
    except ValueError:
        raise InputError(f"{path}: colour mode {image.mode} is not supported; save it as grey") from None


def _key_alpha(image: Image.Image, values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the alpha of an image in which one value means transparent."""
    key = image.info.get("transparency")
    if not isinstance(key, int | tuple):
        return None
    same = values == np.asarray(key)
    if values.ndim == 3:
        same = same.all(axis=-1)
    return np.where(same, 0, 255).astype(np.uint8)


def _sixteen_bit_colour(path: Path, picture: Picture, max_pixels: int | None) -> Samples:
    """Read colour, or grey with alpha, of 16 bits, of which Pillow keeps the high byte.

    The same samples taken in the other byte order give the low byte.
    """
    stored = picture.stored
    if stored.startswith("LA;"):
        # Four bytes a pixel: grey and alpha, the high byte first.
        parts = np.asarray(read_image(path, max_pixels, stored="RGBA").image).astype(np.uint16)
        values, alpha = parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
        return Samples(values, alpha, 16)
    if has_deep_planes(picture.image):
        raise separate_planes(path)
    kind, order = stored.split(";")
    if kind not in ("RGB", "RGBA", "RGBX") or order not in ("16B", "16L", "16N"):
        raise InputError(
            f"{path}: stores 16 bits as {stored}, which is not supported; save it as 16-bit grey"
        )
    big = order == "16B" or (order == "16N" and sys.byteorder == "big")
    other = read_image(path, max_pixels, stored=f"{kind};{'16L' if big else '16B'}").image
    samples = np.asarray(picture.image).astype(np.uint16) << 8
    samples |= np.asarray(other)
    values = samples[..., :3]
    return Samples(values, samples[..., 3] if kind == "RGBA" else _key_alpha(picture.image, values), 16)


def _sample_format(image: Image.Image) -> tuple[int, ...]:
    found = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,))
    return found if isinstance(found, tuple) else (found,)


def _is_lossy(path: Path, image: Image.Image) -> bool:
    if image.format == "TIFF":
        return image.info.get("compression") in _LOSSY_TIFF
    if image.format == "WEBP":
        return _is_lossy_webp(path)
    return image.format in _LOSSY_FORMATS


def _is_lossy_webp(path: Path) -> bool:
    """Return whether the first picture of a WebP is stored as VP8 and not as VP8L."""
    with open_regular(path) as file:
        position = 12
        while True:
            file.seek(position)
            head = file.read(8)
            if len(head) < 8 or head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            # A frame holds its own chunks behind 16 bytes; every chunk has an even length.
            size = int.from_bytes(head[4:], "little")
            position += 24 if head[:4] == b"ANMF" else 8 + size + size % 2
