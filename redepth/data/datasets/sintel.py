"""MPI Sintel, its training scenes with depth."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from redepth import io
from redepth.data.datasets.base import (
    Array,
    Missing,
    Sample,
    require_file,
    require_some,
    same_size,
    split_name,
)
from redepth.errors import InputError
from redepth.ops.camera import Camera

IMAGES = "MPI-Sintel-training_images.zip or MPI-Sintel-complete.zip: http://sintel.is.tue.mpg.de/downloads"
DEPTH = "MPI-Sintel-depth-training-20150305.zip: http://sintel.is.tue.mpg.de/depth"
EXAMPLE = "alley_1/frame_0001"
MAGIC = 202021.25
SCENES = {
    "alley_1": 50,
    "alley_2": 50,
    "ambush_2": 21,
    "ambush_4": 33,
    "ambush_5": 50,
    "ambush_6": 20,
    "ambush_7": 50,
    "bamboo_1": 50,
    "bamboo_2": 50,
    "bandage_1": 50,
    "bandage_2": 50,
    "cave_2": 50,
    "cave_4": 50,
    "market_2": 50,
    "market_5": 50,
    "market_6": 40,
    "mountain_1": 50,
    "shaman_2": 50,
    "shaman_3": 50,
    "sleeping_1": 50,
    "sleeping_2": 50,
    "temple_2": 50,
    "temple_3": 50,
}
"""The training scenes and their numbers of frames, 1064 in all."""


class Sintel:
    """MPI Sintel's 23 training scenes of 1024 x 436 pixels, rendered depth (metres).

    ::

        ROOT/training/final/alley_1/frame_0001.png
        ROOT/training/depth/alley_1/frame_0001.dpt
        ROOT/training/camdata_left/alley_1/frame_0001.cam   the camera, if it is there

    Args:
        root: the folder above.
        render: ``final`` has motion blur, defocus and atmosphere; ``clean`` has none of these.
    """

    def __init__(self, root: Path, render: Literal["final", "clean"] = "final") -> None:
        self.root = root
        self.render = render

    def check(self) -> list[Missing]:
        """Return the scenes without all frames and depth maps."""
        missing = []
        for scene, expected in SCENES.items():
            for kind, suffix, source in ((self.render, "png", IMAGES), ("depth", "dpt", DEPTH)):
                folder = self.root / "training" / kind / scene
                found = len(list(folder.glob(f"frame_*.{suffix}")))
                if found < expected:
                    missing.append(Missing(f"{folder}: {found} of {expected} .{suffix}", source))
        return missing

    def names(self) -> list[str]:
        """Return the frames that have depth."""
        names = [
            f"{scene}/{path.stem}"
            for scene in SCENES
            for path in sorted((self.root / "training" / "depth" / scene).glob("frame_*.dpt"))
            if self._photo(scene, path.stem).is_file()
        ]
        return require_some(names, self, self.root)

    def load(self, name: str) -> Sample:
        """Read one frame; depth in metres."""
        scene, frame = split_name(name, 2, EXAMPLE)
        photo = require_file(self._photo(scene, frame), IMAGES)
        path = require_file(self.root / "training" / "depth" / scene / f"{frame}.dpt", DEPTH)
        size = io.image_size(photo)
        cam = self.root / "training" / "camdata_left" / scene / f"{frame}.cam"
        camera = read_cam(cam, *size) if cam.is_file() else None
        return same_size(Sample(name, photo, read_dpt(path), camera=camera), size)

    def _photo(self, scene: str, frame: str) -> Path:
        return self.root / "training" / self.render / scene / f"{frame}.png"


def read_dpt(path: Path) -> Array:
    """Read a ``.dpt``: float32 202021.25, int32 width, int32 height, float32 depth row by row, little-endian.

    Raises:
        InputError: for another magic number, or a length that does not fit the size.
    """
    with io.open_regular(path) as file:
        head = file.read(12)
    magic, width, height = struct.unpack("<fii", head) if len(head) == 12 else (0.0, 0, 0)
    if magic != MAGIC:
        raise InputError(f"{path}: does not start with {MAGIC}, so it is not a .dpt file, or big-endian")
    if width <= 0 or height <= 0:
        raise InputError(f"{path}: declares {width} x {height} pixels; copy it again")
    return io.read_floats(path, height, width, start=12)


def read_cam(path: Path, height: int, width: int) -> Camera:
    """Read the intrinsics of a ``.cam``: float32 202021.25, 3 x 3 float64, 3 x 4 float64, little-endian.

    Args:
        path: the file.
        height: of the picture that it belongs to.
        width: of that picture.

    Raises:
        InputError: for another magic number or length, or intrinsics that are none.
    """
    form = "<f9d12d"
    with io.open_regular(path) as file:
        content = file.read(struct.calcsize(form) + 1)
    magic, *values = struct.unpack(form, content) if len(content) == struct.calcsize(form) else (0.0,)
    if magic != MAGIC:
        raise InputError(f"{path}: is no .cam file: {MAGIC} and 21 numbers; copy it again")
    fx, _, cx, _, fy, cy = values[:6]
    try:
        return Camera.from_pixels(fx, fy, cx, cy, height, width, centres="integer")
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
