"""KITTI raw drives with the annotated depth maps of its depth benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from redepth.data.datasets.base import (
    Missing,
    Sample,
    photo_size,
    read_grey16,
    require_file,
    require_some,
    same_size,
    split_name,
)

RAW = "KITTI raw data, synced and rectified: https://www.cvlibs.net/datasets/kitti/raw_data.php"
DEPTH = (
    "KITTI annotated depth maps, data_depth_annotated.zip: "
    "https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction"
)
EXAMPLE = "2011_09_26_drive_0002_sync/0000000069"


class Kitti:
    """KITTI raw drives with the depth maps accumulated from 11 laser scans (png / 256, metres).

    ::

        ROOT/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
        ROOT/{train,val}/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png

    ``train`` and ``val`` may also be in ``ROOT/data_depth_annotated``. The first and last 5 frames of a
    drive have no depth map. 0 is unknown.

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
            both = {path.stem for path in folder.glob("*.png")} & {path.stem for path in photos.glob("*.png")}
            names += [f"{drive}/{frame}" for frame in both]
        return require_some(sorted(names), self, self.root)

    def load(self, name: str) -> Sample:
        """Read one frame; depth in metres."""
        drive, frame = split_name(name, 2, EXAMPLE)
        photo = require_file(self._photo(drive, frame), RAW)
        candidates = [folder / f"{frame}.png" for folder in self._folders(drive)]
        path = next((path for path in candidates if path.is_file()), candidates[0])
        truth = read_grey16(path, DEPTH).astype(np.float32) / np.float32(256)
        return same_size(Sample(name, photo, truth), photo_size(photo))

    def _photo(self, drive: str, frame: str) -> Path:
        return self.photos / drive[:10] / drive / self.camera / "data" / f"{frame}.png"

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
