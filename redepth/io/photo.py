"""Read photos as sRGB."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms

from redepth.errors import InputError
from redepth.io.files import StrPath
from redepth.io.icc import PROFILE_ERRORS, grey_curve
from redepth.io.images import Picture, read_image
from redepth.io.samples import read_samples

MIN_SIDE = 16
MAX_ASPECT = 16


def load_photo(
    path: StrPath, *, max_pixels: int | None = None, upright: bool = True, opaque: bool = False
) -> NDArray[np.float32]:
    """Read a photo as sRGB.

    JPEG, PNG, WebP, TIFF, AVIF, BMP, GIF, PPM, TGA and JPEG 2000, and HEIC where pillow-heif is installed.
    The EXIF orientation is applied, an embedded ICC profile is converted to sRGB (a broken one is ignored),
    transparency is composited over white, grey becomes three equal channels, and an animation gives its
    first frame. 16-bit grey keeps its precision; 16-bit colour is reduced to 8 bits.

    Args:
        path: the file; its content decides the format, not its suffix.
        max_pixels: width times height beyond which the file is refused before it is decoded; by default 100
            million, or the limit of `pixel_limit`.
        upright: whether the EXIF orientation is applied. Some data sets have ground truth of the pixels as
            they are stored.
        opaque: refuse a picture that is transparent anywhere.

    Returns:
        (H, W, 3) sRGB in [0, 1].

    Raises:
        InputError: the file is missing, unreadable, damaged, of an unsupported format, above
            ``max_pixels``, narrower than 16 pixels or more elongated than 16:1.
        MissingDependencyError: the photo is HEIC and pillow-heif is not installed.
    """
    path = Path(path)
    picture = read_image(path, max_pixels, lambda image: check_shape(path, *image.size), upright=upright)
    if opaque:
        _check_opaque(path, picture, max_pixels)
    return _photo_array(path, picture, max_pixels)


def photo_of_array(values: ArrayLike) -> NDArray[np.float32]:
    """Return an array as a photo, by the rules of files.

    Grey becomes three equal channels, and what is transparent is composited over white.

    Args:
        values: (H, W) or (H, W, 1) grey, (H, W, 2) grey and opacity, (H, W, 3) sRGB or (H, W, 4) sRGB and
            opacity; uint8, or floats in [0, 1].

    Returns:
        (H, W, 3) sRGB in [0, 1].

    Raises:
        InputError: the array has another shape or type, or values outside [0, 1].
    """
    pixels = np.asarray(values)
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    if channels.ndim != 3 or channels.shape[2] not in (1, 2, 3, 4) or min(channels.shape[:2]) < 2:
        raise InputError(
            f"a photo array must be (H, W), (H, W, 3) or (H, W, 4) with alpha, got {pixels.shape}"
        )
    if channels.dtype == np.uint8:
        # Pillow composites 8 bits, as for files.
        image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
        return _photo_array(Path("array"), Picture(image, ""), None)
    if not np.issubdtype(channels.dtype, np.floating):
        raise InputError(f"a photo array must be uint8 or floating, got {pixels.dtype}")
    if not np.isfinite(channels).all() or channels.min() < 0 or channels.max() > 1:
        raise InputError("a floating photo array must hold finite sRGB values in [0, 1]")
    colours = channels.astype(np.float32)
    if channels.shape[2] in (2, 4):
        colours, alpha = colours[..., :-1], colours[..., -1:]
        colours = colours * alpha + (1 - alpha)
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else np.ascontiguousarray(colours)


def check_shape(path: Path, width: int, height: int) -> None:
    """Raise InputError for pictures that are too small or too elongated."""
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise InputError(
            f"{path}: {width} x {height} is too small, each side needs {MIN_SIDE} pixels or more; "
            "give a larger photo"
        )
    if long > MAX_ASPECT * short:
        raise InputError(f"{path}: {width} x {height} is more elongated than {MAX_ASPECT}:1; crop it")


def _photo_array(path: Path, picture: Picture, max_pixels: int | None) -> NDArray[np.float32]:
    image = picture.image
    if image.mode.startswith(("I", "F")):
        grey = _high_precision_grey(path, picture)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        rgb = _to_srgb(image)
    except ValueError:
        raise InputError(f"{path}: colour mode {image.mode} is not supported; save it as RGB") from None
    alpha = _alpha(path, picture, max_pixels)
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    photo = np.array(rgb, dtype=np.float32)
    photo /= 255.0  # in place: a second copy of 100 megapixels would take another 1.2 GB
    return photo


def _check_opaque(path: Path, picture: Picture, max_pixels: int | None) -> None:
    alpha = _alpha(path, picture, max_pixels)
    if alpha is not None and np.asarray(alpha).min() < 255:
        raise InputError(
            f"{path}: is transparent in places, which have no colour; fill them, or save it as RGB"
        )


def _alpha(path: Path, picture: Picture, max_pixels: int | None) -> Image.Image | None:
    """Return the opacity, or None for an opaque image."""
    image = picture.image
    if not image.has_transparency_data:
        return None
    if picture.sixteen_bit_colour and image.mode == "RGB":
        # The transparent colour has 16 bits and the pixels have 8 left: only the file can tell them apart.
        alpha = read_samples(path, max_pixels).alpha
        return None if alpha is None else Image.fromarray(alpha)
    return image.convert("RGBA").getchannel("A")


def _high_precision_grey(path: Path, picture: Picture) -> NDArray[np.float32]:
    """Scale 16-bit grey by 65535; keep floats that already lie in [0, 1]."""
    image = picture.image
    limit = 1.0 if image.mode == "F" else 2.0 ** (12 if picture.bits == 12 else 16) - 1
    stored = np.asarray(image)
    low, high = stored.min(), stored.max()
    # NaN fails both comparisons, so it is refused too.
    in_range = low >= 0.0 and high <= limit
    if not in_range:
        raise InputError(
            f"{path}: grey values must lie in 0..{limit:g}, found {low:g}..{high:g}; "
            "export the photo as 8-bit or 16-bit"
        )
    grey = stored.astype(np.float32)
    grey /= np.float32(limit)
    curve = grey_curve(image.info.get("icc_profile"))
    if curve is not None:
        # In blocks of rows: an index for each of 100 megapixels would take gigabytes.
        for start in range(0, len(grey), 256):
            rows = grey[start : start + 256]
            rows[:] = curve[np.rint(rows * 65535).astype(np.uint16)]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[stored == transparent] = 1.0
    return grey


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB through the embedded ICC profile where it is usable; alpha is dropped."""
    if image.mode in ("1", "L", "LA", "La"):
        base = image.convert("L")
    else:
        base = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(*PROFILE_ERRORS):
            converted = ImageCms.profileToProfile(
                base, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return base.convert("RGB")
