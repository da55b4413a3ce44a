"""KITTI raw drives with the annotated depth maps of its depth benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from redepth import io
from redepth.data.datasets.base import (
    Missing,
    Sample,
    read_grey16,
    require_file,
    require_some,
    same_size,
    split_name,
)
from redepth.errors import InputError
from redepth.ops.camera import Camera

RAW = "KITTI raw data, synced and rectified: https://www.cvlibs.net/datasets/kitti/raw_data.php"
DEPTH = (
    "KITTI annotated depth maps, data_depth_annotated.zip: "
    "https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction"
)
SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
"""Endings of the photos: the download has PNG, and a conversion to JPEG, a tenth of its size, is common."""
EXAMPLE = "2011_09_26_drive_0002_sync/0000000069"


class Kitti:
    """KITTI raw drives with the depth maps accumulated from 11 laser scans (png / 256, metres).

    ::

        ROOT/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
        ROOT/{train,val}/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png

    Photos may also be ``.jpg`` or ``.jpeg``. ``train`` and ``val`` may also be in
    ``ROOT/data_depth_annotated``. The first and last 5 frames of a drive have no depth map. 0 is unknown. The
    camera is known where the day's calibration is there, ``ROOT/2011_09_26/calib_cam_to_cam.txt``.

    Args:
        root: the folder above.
        photos: the folder of the dates, if it is not the root.
        camera: the left (``image_02``) or the right (``image_03``) colour camera.
    """

    def __init__(
        self, root: Path, photos: Path | None = None, camera: Literal["image_02", "image_03"] = "image_02"
    ) -> None:
        self.root = root
        self.photos = root if photos is None else photos
        self.camera = camera

    def check(self) -> list[Missing]:
        """Return the downloads, of the two, that are missing."""
        missing = []
        if not any(self.photos.glob("20??_??_??/*_sync")):
            missing.append(Missing(f"{self.photos}: no drive such as 2011_09_26/*_sync", RAW))
        if not any(True for _ in self._drives()):
            missing.append(Missing(f"{self.root}: no train/ or val/ with depth maps", DEPTH))
        return missing

    def names(self) -> list[str]:
        """Return all frames that have a photo and a depth map."""
        names = []
        for drive, folder in self._drives():
            photos = self._photo(drive, "0").parent
            # Two listings a drive: on a network disk a query for each of 93,000 frames would take minutes.
            taken = {path.stem for path in photos.glob("*") if path.suffix in SUFFIXES}
            both = {path.stem for path in folder.glob("*.png")} & taken
            names += [f"{drive}/{frame}" for frame in both]
        return require_some(sorted(names), self, self.root)

    def load(self, name: str) -> Sample:
        """Read one frame; depth in metres."""
        drive, frame = split_name(name, 2, EXAMPLE)
        photo = require_file(self._photo(drive, frame), RAW)
        candidates = [folder / f"{frame}.png" for folder in self._folders(drive)]
        path = next((path for path in candidates if path.is_file()), candidates[0])
        truth = read_grey16(path, DEPTH).astype(np.float32) / np.float32(256)
        size = io.image_size(photo)
        return same_size(Sample(name, photo, truth, camera=self._camera(drive, *size)), size)

    def _camera(self, drive: str, height: int, width: int) -> Camera | None:
        path = self.photos / drive[:10] / "calib_cam_to_cam.txt"
        if not path.is_file():
            return None
        fx, fy, cx, cy = read_projection(path, self.camera)
        return Camera.from_pixels(fx, fy, cx, cy, height, width, centres="integer")

    def _photo(self, drive: str, frame: str) -> Path:
        """Return the frame's photo: the first that there is, or the one of the official download."""
        folder = self.photos / drive[:10] / drive / self.camera / "data"
        paths = [folder / f"{frame}{suffix}" for suffix in SUFFIXES]
        return next((path for path in paths if os.path.isfile(path)), paths[0])

    def _folders(self, drive: str) -> Iterator[Path]:
        for base in (self.root, self.root / "data_depth_annotated"):
            for part in ("train", "val"):
                yield base / part / drive / "proj_depth" / "groundtruth" / self.camera

    def _drives(self) -> Iterator[tuple[str, Path]]:
        """Yield the drives that have depth maps, and the folders of their maps."""
        for pattern in ("{}", "data_depth_annotated/{}"):
            for part in ("train", "val"):
                for drive in (self.root / pattern.format(part)).glob("*_sync"):
                    folder = drive / "proj_depth" / "groundtruth" / self.camera
                    if folder.is_dir():
                        yield drive.name, folder


def read_projection(path: Path, camera: str) -> tuple[float, float, float, float]:
    """Return f_x, f_y, c_x, c_y in pixels of a rectified camera, from ``calib_cam_to_cam.txt``.

    Raises:
        InputError: the file has no projection matrix of the camera.
    """
    key = f"P_rect_{camera[-2:]}:"
    line = next((line for line in io.read_text(path).splitlines() if line.startswith(key)), "")
    try:
        values = [float(word) for word in line.removeprefix(key).split()]
    except ValueError:
        values = []
    if len(values) != 12 or not np.isfinite(values).all() or min(values[0], values[5]) <= 0:
        raise InputError(f"{path}: no '{key}' with the 12 numbers of a projection; {RAW}")
    return values[0], values[5], values[2], values[6]
