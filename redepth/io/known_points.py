"""Read points of a photo whose depth is known: sparse maps, tables of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redepth.errors import InputError
from redepth.io.depth_map import check_size, load_grey16, load_map
from redepth.io.files import StrPath, shortened
from redepth.io.text import read_text

KITTI_UNITS = 256.0
"""Numbers of a 16-bit PNG in a metre."""

_HEADINGS = (("x",), ("y",), ("metres", "meters", "depth", "z", "m"), ("sigma",))


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """Points of a photo whose depth is known.

    Attributes:
        x: (N,) from 0 at the left edge of the picture to 1 at its right edge.
        y: (N,) from 0 at the top edge to 1 at the bottom edge.
        depth: (N,) > 0, along the viewing axis, in metres.
        sigma: (N,) > 0, standard deviations in metres; None if unknown.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    depth: NDArray[np.float64]
    sigma: NDArray[np.float64] | None = None


def load_known_points(
    path: StrPath, height: int, width: int, *, max_pixels: int | None = None
) -> KnownPoints:
    """Read the known points of a photo.

    Args:
        path: ``.csv`` or ``.txt``: a table (`points_of_table`). Else a sparse depth map of the photo's size,
            in metres, 0 or NaN where nothing is known, in any format of `load_map`; a 16-bit grey PNG holds
            1/256 metre, as KITTI's.
        height: of the photo.
        width: of the photo.
        max_pixels: as for `load_map`.

    Raises:
        InputError: the file cannot be read, does not fit the photo, or has no point.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".txt"):
        rows, lines = _table(path)
        return points_of_table(rows, height, width, str(path), lines)
    if path.suffix.lower() == ".png":
        values: NDArray[np.floating] = load_grey16(path, max_pixels=max_pixels) / KITTI_UNITS
    else:
        values = load_map(path, "depth", max_pixels=max_pixels)
    return points_of_map(values, height, width, str(path))


def points_of_map(values: ArrayLike, height: int, width: int, what: str) -> KnownPoints:
    """Return the pixels of a sparse depth map that are known: finite and not 0.

    Raises:
        InputError: another size than the photo's, a negative depth, or no known pixel.
    """
    depth = np.asarray(values, dtype=np.float64)
    check_size(f"map of known points '{what}'", depth.shape, height, width)
    rows, columns = np.nonzero(np.isfinite(depth) & (depth != 0))
    known = depth[rows, columns]
    if not len(known):
        raise InputError(f"{what}: holds no known depth; every pixel is 0 or not finite")
    if (known < 0).any():
        first = int(np.argmax(known < 0))
        raise InputError(
            f"{what}: the depth at column {columns[first]}, row {rows[first]} is {known[first]:g}; write "
            "metres above 0, and 0 where nothing is known"
        )
    return KnownPoints((columns + 0.5) / width, (rows + 0.5) / height, known)


def points_of_table(
    rows: ArrayLike, height: int, width: int, what: str, lines: Sequence[int] | None = None
) -> KnownPoints:
    """Return the points of a table with the columns x, y, metres and, optionally, sigma in metres.

    x and y are in pixels of the photo; (0, 0) is the centre of the top left one, as in OpenCV.
    ``lines`` are the numbers of the rows in their file, for messages. Points outside the picture are returned
    like the others, up to half of them: structure from motion has some. More look like a mistake.

    Raises:
        InputError: other columns, a number that is not finite, half of the points or more outside the photo,
            two points at one place, or a depth or sigma that is not above 0.
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] not in (3, 4) or not len(table):
        raise InputError(f"{what}: known points are rows of x, y, metres and, optionally, sigma")
    word, numbers = ("row", range(len(table))) if lines is None else ("line", lines)
    seen: dict[tuple[float, float], int] = {}
    outside: list[str] = []
    for number, row in zip(numbers, table.tolist(), strict=True):
        where = f"{what}, {word} {number}"
        x, y = row[:2]
        if not all(map(math.isfinite, row)):
            raise InputError(f"{where}: a number is not finite; remove the point")
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            outside.append(f"{where}: ({x:g}, {y:g})")
        if min(row[2:]) <= 0:
            raise InputError(f"{where}: depth and sigma must be above 0 metres, got {min(row[2:]):g}")
        if (other := seen.setdefault((x, y), number)) != number:
            raise InputError(f"{where}: ({x:g}, {y:g}) is in {word} {other}, too; keep one of them")
    if 2 * len(outside) >= len(table):
        raise InputError(
            f"{outside[0]} is outside of the photo of {width} x {height} pixels, and {len(outside)} of "
            f"{len(table)} points are; is the order x, y, or was the photo resized?"
        )
    x, y, depth, *sigma = table.T
    return KnownPoints((x + 0.5) / width, (y + 0.5) / height, depth, sigma[0] if sigma else None)


def _is_heading(cells: list[str]) -> bool:
    return 3 <= len(cells) <= 4 and all(
        cell.lower() in names for cell, names in zip(cells, _HEADINGS, strict=False)
    )


def _table(path: Path) -> tuple[NDArray[np.float64], list[int]]:
    """Return the rows of a table, and the number of the line of each."""
    lines = [
        (number, [cell.strip() for cell in line.split(",")])
        for number, line in enumerate(read_text(path).split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if lines and _is_heading(lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise InputError(f"{path}: holds no points; write lines of x,y,metres")
    rows = []
    for number, cells in lines:
        if len(cells) not in (3, 4) or len(cells) != len(lines[0][1]):
            raise InputError(
                f"{path}, line {number}: has {len(cells)} columns; write x,y,metres or x,y,metres,sigma"
            )
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            text = shortened(",".join(cells))
            raise InputError(f"{path}, line {number}: '{text}' are not numbers; write x,y,metres") from None
    return np.array(rows), [number for number, _ in lines]
