"""Read photos as sRGB."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from redepth.errors import InputError
from redepth.io.files import StrPath
from redepth.io.images import DECODE_ERRORS, MAX_PIXELS, read_image

MIN_SIDE = 16
MAX_ASPECT = 16


def load_photo(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a photo as sRGB.

    JPEG, PNG, WebP and TIFF, and HEIC where pillow-heif is installed. The EXIF orientation is
    applied, an embedded ICC profile is converted to sRGB (a broken one is ignored), transparency is
    composited over white, grey becomes three equal channels, and an animation gives its first
    frame. 16-bit grey keeps its precision; 16-bit colour is reduced to 8 bits.

    Args:
        path: the file; its content decides the format, not its suffix.
        max_pixels: width times height beyond which the file is refused before it is decoded.

    Returns:
        (H, W, 3) sRGB in [0, 1].

    Raises:
        InputError: the file is missing, unreadable, damaged, of an unsupported format, above
            ``max_pixels``, narrower than 16 pixels or more elongated than 16:1.
        MissingDependencyError: the photo is HEIC and pillow-heif is not installed.
    """
    path = Path(path)
    image = read_image(path, max_pixels, check=lambda image: _check_shape(path, *image.size))
    # A damaged EXIF block is no reason to refuse intact pixels.
    with suppress(*DECODE_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)
    return _photo_array(path, image)


def _check_shape(path: Path, width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise InputError(
            f"{path}: {width} x {height} is too small, each side needs {MIN_SIDE} pixels or more; "
            "give a larger photo"
        )
    if long > MAX_ASPECT * short:
        raise InputError(f"{path}: {width} x {height} is more elongated than {MAX_ASPECT}:1; crop it")


def _photo_array(path: Path, image: Image.Image) -> NDArray[np.float32]:
    if image.mode.startswith(("I", "F")):
        grey = _high_precision_grey(path, image)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        rgb = _to_srgb(image)
    except ValueError:
        raise InputError(f"{path}: colour mode {image.mode} is not supported; save it as RGB") from None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    photo = np.array(rgb, dtype=np.float32)
    photo /= 255.0  # in place: a second copy of 100 megapixels would take another 1.2 GB
    return photo


def _high_precision_grey(path: Path, image: Image.Image) -> NDArray[np.float32]:
    """Scale 16-bit grey by 65535; keep floats that already lie in [0, 1]."""
    limit = 1.0 if image.mode == "F" else 65535.0
    grey = np.asarray(image, dtype=np.float32)
    low, high = grey.min(), grey.max()
    # NaN fails both comparisons, so it is refused too.
    in_range = low >= 0.0 and high <= limit
    if not in_range:
        raise InputError(
            f"{path}: grey values must lie in 0..{limit:g}, found {low:g}..{high:g}; "
            "export the photo as 8-bit or 16-bit"
        )
    return grey / np.float32(limit)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB through the embedded ICC profile where it is usable; alpha is dropped."""
    if image.mode in ("1", "L", "LA", "La"):
        base = image.convert("L")
    else:
        base = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = ImageCms.profileToProfile(
                base, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return base.convert("RGB")
