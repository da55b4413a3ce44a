"""Read the field of view of a photo from its EXIF."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import ExifTags
from PIL.TiffImagePlugin import IFDRational

from redepth.errors import InputError
from redepth.io.files import StrPath, open_regular
from redepth.io.images import DECODE_ERRORS, open_image

FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)
"""Diagonal of the film of 36 x 24 mm, to which the 35 mm equivalent refers (CIPA DCG-001): 43.27 mm."""

LONGEST_35MM = 10_000
"""Largest 35 mm equivalent in mm."""

ASPECT_TOLERANCE = 0.01
"""Largest relative difference of two aspect ratios that the rounding of sides explains."""

_REMEDY = "give --fov DEG or --intrinsics fx,fy,cx,cy (camera= in Python)"


def exif_focal_length(path: StrPath, height: int, width: int) -> float:
    r"""Return the focal length of a photo in its pixels, from its 35 mm equivalent.

    .. math:: f = f_{35} \, \sqrt{W^2 + H^2} / 43.27\,\text{mm}

    The equivalent is by the diagonal of the whole picture. So a photo that was scaled keeps its field of
    view. One that was cropped does not; that shows where EXIF names another aspect ratio than the photo's.

    Args:
        path: the photo's file.
        height: of the photo as it is decoded.
        width: of the photo.

    Raises:
        InputError: EXIF is damaged, has no 35 mm equivalent, or the photo was cropped.
    """
    path = Path(path)
    with open_regular(path) as file:
        # The photo is decoded already: no other limit of its size than its own.
        image = open_image(path, file, height * width)
        try:
            exif = dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
        except DECODE_ERRORS:
            raise InputError(f"{path}: its EXIF is damaged; {_REMEDY}") from None
    focal = _number(exif.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if focal is None:
        raise InputError(f"{path}: its EXIF has no 35 mm equivalent (FocalLengthIn35mmFilm); {_REMEDY}")
    if not 0 < focal <= LONGEST_35MM:
        raise InputError(
            f"{path}: its EXIF has a 35 mm equivalent of {focal:g} mm, which is unknown; {_REMEDY}"
        )
    _check_whole(path, exif, height, width)
    return focal * math.hypot(width, height) / FULL_FRAME_DIAGONAL


def _check_whole(path: Path, exif: dict[int, object], height: int, width: int) -> None:
    """Raise InputError if the size in EXIF says that the photo was cropped."""
    sides = [_number(exif.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    if sides[0] is None or sides[1] is None or min(sides[0], sides[1]) <= 0:
        return
    # The longer side over the shorter one: EXIF has the size before the photo was turned upright.
    whole, found = (max(pair) / min(pair) for pair in ((sides[0], sides[1]), (height, width)))
    if abs(math.log(whole / found)) > max(ASPECT_TOLERANCE, 1 / min(height, width)):
        raise InputError(
            f"{path}: its EXIF names {sides[0]:g} x {sides[1]:g} pixels, the photo has {width} x {height}: "
            f"it was cropped, and its field of view is unknown; {_REMEDY}"
        )


def _number(value: object) -> float | None:
    if not isinstance(value, int | float | IFDRational):
        return None
    try:
        number = float(value)
    except (ArithmeticError, ValueError):
        return None
    return number if math.isfinite(number) else None
