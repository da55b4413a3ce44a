"""Read the points of a photo from a COLMAP reconstruction, as text or binary.

Source: COLMAP's documentation, "Output format": images and points3D; a camera looks along its z axis.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.io.files import StrPath, open_regular
from redepth.io.known_points import KnownPoints
from redepth.io.text import read_text

SIZE_LIMIT = 2**30
"""Largest size of a file in bytes."""

_NAME_LIMIT = 4096
_POINT2D = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


@dataclass(frozen=True, eq=False)
class _View:
    """An image of the reconstruction: its pose (world to camera) and the points that it sees."""

    name: str
    rotation: tuple[float, ...]
    translation: tuple[float, ...]
    observed: NDArray[np.void]


def load_colmap_points(folder: StrPath, photo: str, height: int, width: int) -> KnownPoints:
    r"""Read the points that a photo sees in a reconstruction.

    .. math:: z = (R X + t)_z

    COLMAP's pixel centres are at 0.5, its unit of length is arbitrary: the depths are metres only if the
    reconstruction was scaled. Points behind the camera are left out.

    Args:
        folder: with ``images.txt`` and ``points3D.txt``, or ``images.bin`` and ``points3D.bin``.
        photo: the file name of the photo; an image's name may have folders before it.
        height: of the photo.
        width: of the photo.

    Raises:
        InputError: files are missing or damaged, no image or several ones have the name, no point is seen, or
            a point lies outside of the photo.
    """
    folder = Path(folder)
    binary = (folder / "images.bin").is_file()
    suffix = "bin" if binary else "txt"
    images, cloud = folder / f"images.{suffix}", folder / f"points3D.{suffix}"
    views = _binary_views(images) if binary else _text_views(images)
    found = [view for view in views if view.name == photo or view.name.endswith(f"/{photo}")]
    if len(found) != 1:
        count = "no image" if not found else f"{len(found)} images"
        raise InputError(f"{images}: {count} named '{photo}'; name the photo as in the reconstruction")
    seen = found[0].observed[found[0].observed["point"] >= 0]
    where = _binary_cloud(cloud) if binary else _text_cloud(cloud)
    return _projected(found[0], seen, where, images, height, width)


def _projected(
    view: _View,
    seen: NDArray[np.void],
    where: dict[int, tuple[float, float, float]],
    path: Path,
    height: int,
    width: int,
) -> KnownPoints:
    missing = [int(point) for point in seen["point"] if int(point) not in where]
    if missing:
        raise InputError(f"{path}: the point {missing[0]} is not in the cloud; export both files together")
    if not len(seen):
        raise InputError(f"{path}: the image '{view.name}' sees no point; reconstruct it again")
    world = np.array([where[int(point)] for point in seen["point"]])
    depth = world @ _third_row(view, path) + view.translation[2]
    x, y = seen["x"] / width, seen["y"] / height
    outside = ~((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1))
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(
            f"{path}: the image '{view.name}' sees a point at ({seen['x'][first]:g}, {seen['y'][first]:g}), "
            f"outside of the photo of {width} x {height} pixels; give it at the size of the reconstruction"
        )
    if not np.isfinite(depth).all():
        raise InputError(f"{path}: a pose or a point is not finite; export the reconstruction again")
    front = depth > 0
    if not front.any():
        raise InputError(f"{path}: all points of '{view.name}' are behind its camera; check the pose")
    return KnownPoints(x[front], y[front], depth[front])


def _third_row(view: _View, path: Path) -> NDArray[np.float64]:
    """Return the third row of the rotation of a quaternion (w, x, y, z)."""
    quaternion = np.array(view.rotation)
    norm = float(np.linalg.norm(quaternion))
    if not (np.isfinite(norm) and norm > 0):
        raise InputError(f"{path}: the rotation of '{view.name}' is no quaternion; export it again")
    w, x, y, z = quaternion / norm
    return np.array([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])


# --- text -----------------------------------------------------------------------------------------


def _rows(path: Path) -> list[tuple[int, str]]:
    lines = enumerate(read_text(path, limit=SIZE_LIMIT).split("\n"), 1)
    return [(number, line) for number, line in lines if not line.startswith("#")]


def _text_views(path: Path) -> Iterator[_View]:
    rows = _rows(path)
    while rows and not rows[-1][1].strip():
        rows.pop()
    # The second line of an image that sees nothing is empty; that of the last one may be missing.
    for index in range(0, len(rows), 2):
        number, line = rows[index]
        cells = line.split(maxsplit=9)
        try:
            if len(cells) != 10:
                raise ValueError
            pose = tuple(map(float, cells[1:8]))
            numbers = rows[index + 1][1].split() if index + 1 < len(rows) else []
            if len(numbers) % 3:
                raise ValueError
            triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            observed = np.array([(float(x), float(y), int(p)) for x, y, p in triples], _POINT2D)
        except (ValueError, OverflowError):
            raise InputError(
                f"{path}, line {number}: not an image with its points; export it again"
            ) from None
        yield _View(cells[9].strip(), pose[:4], pose[4:], observed)


def _text_cloud(path: Path) -> dict[int, tuple[float, float, float]]:
    cloud = {}
    for number, line in _rows(path):
        cells = line.split(maxsplit=4)
        if not cells:
            continue
        try:
            cloud[int(cells[0])] = (float(cells[1]), float(cells[2]), float(cells[3]))
        except (ValueError, IndexError):
            raise InputError(f"{path}, line {number}: not a point; export it again") from None
    return cloud


# --- binary ---------------------------------------------------------------------------------------


class _Reader:
    """Takes numbers from bytes; what is missing is an error with the file's name."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        with open_regular(path) as file:
            self.content = file.read(SIZE_LIMIT + 1)
        if len(self.content) > SIZE_LIMIT:
            raise InputError(f"{path}: longer than {SIZE_LIMIT} bytes; export fewer images")

    def damaged(self) -> InputError:
        return InputError(f"{self.path}: is cut off or damaged; export it again")

    def take(self, size: int) -> bytes:
        part = self.content[self.position : self.position + size]
        if len(part) != size:
            raise self.damaged()
        self.position += size
        return part

    def numbers(self, form: str) -> tuple[float, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def count(self) -> int:
        return int(self.numbers("Q")[0])

    def text(self) -> str:
        end = self.content.find(b"\0", self.position, self.position + _NAME_LIMIT)
        if end < 0:
            raise self.damaged()
        name = self.take(end - self.position + 1)[:-1]
        try:
            return name.decode()
        except UnicodeDecodeError:
            raise self.damaged() from None

    def finish(self) -> None:
        if self.position != len(self.content):
            raise self.damaged()


def _binary_views(path: Path) -> Iterator[_View]:
    reader = _Reader(path)
    for _ in range(reader.count()):
        _, *pose, _ = reader.numbers("I7dI")
        name = reader.text()
        observed = np.frombuffer(reader.take(reader.count() * _POINT2D.itemsize), _POINT2D)
        yield _View(name, tuple(pose[:4]), tuple(pose[4:]), observed)
    reader.finish()


def _binary_cloud(path: Path) -> dict[int, tuple[float, float, float]]:
    reader, cloud = _Reader(path), {}
    for _ in range(reader.count()):
        number, x, y, z, *_, track = reader.numbers("Q3d3BdQ")
        cloud[int(number)] = (x, y, z)
        reader.take(8 * int(track))
    reader.finish()
    return cloud
