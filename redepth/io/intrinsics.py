"""Read the intrinsics of a pinhole camera: focal lengths and principal point in pixels.

Two conventions are in use for the centre of the top left pixel, and every source has one of them: OpenCV's
(0, 0) for numbers, matrices and plain JSON; (0.5, 0.5) for COLMAP and for redepth's own ``intrinsics.json``,
which names it. `Intrinsics` holds (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redepth.errors import ConfigError, InputError, brief, cut
from redepth.io.arrays import read_numpy
from redepth.io.files import StrPath
from redepth.io.markup import parse_json
from redepth.io.text import read_text

INTRINSICS_SUFFIXES = (".json", ".txt", ".npy")

PIXEL_CENTRES = {"half": 0.0, "integer": 0.5}
"""Where the centre of the top left pixel is, at (0.5, 0.5) or at (0, 0) -> what to add to (c_x, c_y)."""

WIDEST = 179.0
"""Largest field of view in degrees; a focal length that gives more is not one in pixels."""
LONGEST_FOCAL = 1000.0
"""Largest focal length in widths of the picture."""

UNDISTORT = (
    "lens distortion is out of scope: undistort the photo first, and give the new pinhole's intrinsics"
)

_COLMAP_PINHOLES = {"SIMPLE_PINHOLE": (0, 0, 1, 2), "PINHOLE": (0, 1, 2, 3)}
"""COLMAP's models without distortion -> which parameter is fx, fy, cx, cy."""

_DISTORTION = frozenset(
    [
        *("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "xi", "omega", "D", "dist", "dist_coeffs"),
        *("distortion", "distortions", "distortion_coefficients", "distortion_params"),
    ]
)
"""Names that JSON files give to the coefficients of a lens."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera in pixels of its picture, whose top left pixel has its centre at (0.5, 0.5).

    Attributes:
        fx: focal length in widths of a pixel.
        fy: focal length in heights of a pixel.
        cx: column coordinate of the principal point.
        cy: its row coordinate.
        width: of the picture, where the source names it.
        height: of the picture.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None = None
    height: int | None = None

    def check(self, what: str, height: int, width: int) -> None:
        """Raise InputError if they cannot be those of a picture of this size.

        Args:
            what: the source, for the message.
            height: of the picture.
            width: of the picture.
        """
        if self.width is not None and (self.width, self.height) != (width, height):
            raise InputError(
                f"{what}: is of a picture of {self.width} x {self.height}, the photo has {width} x {height}; "
                "give a photo of that size, or scale the intrinsics"
            )
        for focal, side in ((self.fx, width), (self.fy, height)):
            degrees = 2 * math.degrees(math.atan(0.5 * side / focal))
            if degrees > WIDEST or focal > LONGEST_FOCAL * side:
                raise InputError(
                    f"{what}: a focal length of {focal:g} sees {degrees:.3g} degrees over {side} pixels; "
                    "give fx,fy,cx,cy in pixels of the photo"
                )
        if not (0 < self.cx < width and 0 < self.cy < height):
            raise InputError(
                f"{what}: the principal point ({self.cx:g}, {self.cy:g}) is outside the photo, which has "
                f"{width} x {height} pixels; give the intrinsics in pixels of this photo"
            )


def intrinsics_of(
    what: str, values: Sequence[Any], centres: str, size: tuple[int, int] | None = None
) -> Intrinsics:
    """Return fx, fy, cx, cy as `Intrinsics`.

    Args:
        what: the source, for messages.
        values: the four numbers.
        centres: the convention of cx and cy, a key of `PIXEL_CENTRES`.
        size: width and height of the picture.

    Raises:
        InputError: they are not four finite numbers, or a focal length is not positive.
    """
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 4 or len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise InputError(
            f"{what}: {brief(list(values))} are not fx, fy, cx, cy: four numbers in pixels, with focal "
            "lengths greater than 0"
        )
    shift = PIXEL_CENTRES[centres]
    fx, fy, cx, cy = map(float, numbers)
    width, height = size or (None, None)
    return Intrinsics(fx, fy, cx + shift, cy + shift, width, height)


def parse_intrinsics(text: str) -> Intrinsics:
    """Return the intrinsics in ``fx,fy,cx,cy``, with the centre of the top left pixel at (0, 0).

    Raises:
        ConfigError: the text has another form.
    """
    numbers = [float(part) if _is_number(part) else math.nan for part in text.split(",")]
    try:
        return intrinsics_of("--intrinsics", numbers, "integer")
    except InputError:
        raise ConfigError(
            f"--intrinsics '{cut(text)}': give fx,fy,cx,cy in pixels of the photo, with fx and fy greater "
            "than 0; or a file or folder that exists"
        ) from None


def load_intrinsics(path: StrPath) -> Intrinsics:
    """Read the intrinsics in a file.

    - A 3 x 3 matrix as text or ``.npy``, rows (fx, 0, cx), (0, fy, cy), (0, 0, 1), as OpenCV gives it.
    - JSON with ``fx``, ``fy``, ``cx``, ``cy``, perhaps ``width`` and ``height``; redepth's own
      ``intrinsics.json`` also has ``pixel_centres``: ``half``. Without it they are ``integer``.
    - COLMAP's ``cameras.txt`` with one camera of the model PINHOLE or SIMPLE_PINHOLE.

    Raises:
        InputError: the file is missing or holds something else; or the lens has distortion.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = read_numpy(path)
        return _of_matrix(path, values.tolist() if values.shape == (3, 3) else [])
    text = read_text(path, limit=2**20)
    return _of_json(path, text) if suffix == ".json" else _of_text(path, text)


def _of_matrix(path: Path, rows: Sequence[Sequence[float]]) -> Intrinsics:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: holds no 3 x 3 matrix of finite numbers; {_FORMS}")
    if matrix[2].tolist() != [0, 0, 1] or matrix[1, 0]:
        raise InputError(
            f"{path}: its rows must be (fx, 0, cx), (0, fy, cy), (0, 0, 1); give the matrix of the intrinsics"
        )
    if matrix[0, 1]:
        raise InputError(
            f"{path}: has skewed pixels ({matrix[0, 1]:g}), which no photo has; give a matrix with 0"
        )
    fx, fy, cx, cy = (float(matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return intrinsics_of(str(path), [fx, fy, cx, cy], "integer")


_FORMS = "give a 3 x 3 matrix (text or .npy), JSON with fx, fy, cx, cy, or COLMAP's cameras.txt"


def _of_json(path: Path, text: str) -> Intrinsics:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({cut(str(error), 160)}); write it again") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no intrinsics; {_FORMS}")
    kind = content.get("kind", "pinhole")
    if kind != "pinhole":
        raise InputError(f"{path}: is of a camera of the kind {brief(kind)}, which has no focal length")
    if any(_not_zero(content[name]) for name in _DISTORTION & content.keys()):
        raise InputError(f"{path}: {UNDISTORT}")
    missing = [name for name in ("fx", "fy", "cx", "cy") if name not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; {_FORMS}")
    centres = content.get("pixel_centres", "integer")
    if centres not in PIXEL_CENTRES:
        raise InputError(f"{path}: pixel_centres must be half or integer, got {brief(centres)}")
    size = None
    if "width" in content or "height" in content:
        size = _size(path, content.get("width"), content.get("height"))
    return intrinsics_of(str(path), [content[name] for name in ("fx", "fy", "cx", "cy")], centres, size)


def _not_zero(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_not_zero, value))
    return value not in (None, 0, 0.0)


def _size(path: Path, width: Any, height: Any) -> tuple[int, int]:
    if not all(type(side) is int and 0 < side < 2**31 for side in (width, height)):
        raise InputError(
            f"{path}: width and height must be whole numbers of pixels, got {brief([width, height])}"
        )
    return width, height


def _of_text(path: Path, text: str) -> Intrinsics:
    lines = [line.split() for line in text.replace(",", " ").splitlines()]
    lines = [line for line in lines if line and not line[0].startswith("#")]
    if any(len(line) > 1 and line[1].isidentifier() and not _is_number(line[1]) for line in lines):
        return _of_colmap(path, lines)
    numbers = [[float(word) if _is_number(word) else math.nan for word in line] for line in lines]
    if [len(line) for line in numbers] != [3, 3, 3]:
        raise InputError(f"{path}: holds no 3 x 3 matrix of finite numbers; {_FORMS}")
    return _of_matrix(path, numbers)


def _is_number(word: str) -> bool:
    if "_" in word:  # Python reads 1_000 as 1000
        return False
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _of_colmap(path: Path, lines: Sequence[Sequence[str]]) -> Intrinsics:
    """Read the one camera of ``cameras.txt``: CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]."""
    if len(lines) != 1:
        raise InputError(f"{path}: holds {len(lines)} cameras; leave the one of the photo, or give a folder")
    _, model, *words = lines[0]
    if model not in _COLMAP_PINHOLES:
        raise InputError(f"{path}: its model is {cut(model)}, not PINHOLE or SIMPLE_PINHOLE; {UNDISTORT}")
    order = _COLMAP_PINHOLES[model]
    if len(words) != 2 + 1 + max(order) or not all(map(_is_number, words)):
        raise InputError(
            f"{path}: {model} needs a width, a height and {1 + max(order)} numbers; copy it again"
        )
    if not all(word.isascii() and word.isdigit() for word in words[:2]):
        raise InputError(f"{path}: width and height must be whole numbers of pixels")
    parameters = [float(word) for word in words[2:]]
    size = _size(path, int(words[0]), int(words[1]))
    return intrinsics_of(str(path), [parameters[i] for i in order], "half", size)
