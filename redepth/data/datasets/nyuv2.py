"""NYU Depth V2, the labelled images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from redepth import io
from redepth.data.datasets.base import (
    Missing,
    Sample,
    read_grey16,
    require_some,
    same_size,
    unknown_name,
)
from redepth.errors import InputError
from redepth.registry import require

MAT = "nyu_depth_v2_labeled.mat"
SOURCE = f"the labelled dataset, {MAT}: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"

# Two exports are common. The one with 4 digits counts from 1, as the .mat does in MATLAB, the one with 5
# digits from 0.
_EXPORTS = (
    (re.compile(r"rgb_(\d{4})\.(?:png|jpg)"), 0, {"raw": "depth_{}.png", "filled": "filled_{}.png"}),
    (re.compile(r"rgb_(\d{5})\.(?:png|jpg)"), 1, {"raw": "sync_depth_{}.png"}),
)


class Nyuv2:
    """NYU Depth V2's 1449 labelled images of 640 x 480, Kinect depth (metres), 0 where there is none.

    ``ROOT/nyu_depth_v2_labeled.mat`` (read with h5py), or a PNG export of it in any subfolders, depth in
    millimetres: ``rgb_0001.png`` with ``depth_0001.png`` (and ``filled_0001.png``), counted from 1, or
    ``rgb_00000.jpg`` with ``sync_depth_00000.png``, counted from 0. An image's name is its number in the
    .mat, counted from 1: ``0001`` to ``1449``.

    Args:
        root: the folder above.
        depth: ``raw`` is the sensor's measurement, projected to the photo; ``filled`` has inpainted
            holes, which are not measured.
    """

    def __init__(self, root: Path, depth: Literal["raw", "filled"] = "raw") -> None:
        self.root = root
        self.depth = depth

    def check(self) -> list[Missing]:
        """Return one entry if there is neither the .mat nor an export."""
        if os.path.isfile(self.root / MAT) or self._exported():
            return []
        return [Missing(f"{self.root}: neither {MAT} nor rgb_*.png with {self.depth} depth", SOURCE)]

    def names(self) -> list[str]:
        """Return the numbers of the images."""
        if os.path.isfile(self.root / MAT):
            with self._open() as file:
                return [f"{i + 1:04}" for i in range(len(file["images"]))]
        return require_some(sorted(self._exported()), self, self.root)

    def load(self, name: str) -> Sample:
        """Read one image; depth in metres."""
        if os.path.isfile(self.root / MAT):
            return self._from_mat(name)
        exported = self._exported()
        if name not in exported:
            raise unknown_name(name, require_some(exported, self, self.root))
        photo, path = exported[name]
        truth = read_grey16(path, SOURCE).astype(np.float32) / np.float32(1000)
        return same_size(Sample(name, photo, truth), io.image_size(photo))

    def _from_mat(self, name: str) -> Sample:
        with self._open() as file:
            count = len(file["images"])
            if not re.fullmatch(r"\d{4}", name) or not 1 <= int(name) <= count:
                raise InputError(f"'{name}' is not one of this data set's images, 0001 to {count:04}")
            index = int(name) - 1
            # MATLAB stores columns first: a photo of 480 x 640 is (3, 640, 480), its depth (640, 480).
            photo = np.asarray(file["images"][index]).transpose(2, 1, 0)
            truth = np.asarray(file["rawDepths" if self.depth == "raw" else "depths"][index]).T
        pixels = photo.astype(np.float32) / np.float32(255)
        return same_size(Sample(name, pixels, truth.astype(np.float32)), pixels.shape[:2])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the .mat and check what it holds; whatever fails while it is read is an InputError too."""
        path = self.root / MAT
        h5py = require("h5py", "bench")
        with io.open_regular(path):
            pass  # h5py would wait for a pipe
        try:
            with h5py.File(path, "r") as file:
                _check_arrays(path, file)
                yield file
        except InputError:
            raise
        except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and others on damaged bytes
            raise io.damaged(path, error) from None

    def _exported(self) -> dict[str, tuple[Path, Path]]:
        """Return the photo and the depth file of each image of a PNG export."""
        pairs = {}
        for photo in sorted(self.root.rglob("rgb_*")):
            for pattern, first, depths in _EXPORTS:
                match = pattern.fullmatch(photo.name)
                if match is None or self.depth not in depths:
                    continue
                path = photo.with_name(depths[self.depth].format(match[1]))
                if path.is_file():
                    pairs[f"{int(match[1]) + first:04}"] = (photo, path)
        return pairs


def _check_arrays(path: Path, file: Any) -> None:
    """Raise InputError unless the .mat holds photos and depths of one size."""
    missing = [key for key in ("images", "depths", "rawDepths") if key not in file]
    if missing:
        raise InputError(f"{path}: has no {', '.join(missing)}; {SOURCE}")
    shapes = {key: tuple(getattr(file[key], "shape", ())) for key in ("images", "depths", "rawDepths")}
    count, *photo = shapes["images"] or (0,)
    depth = (count, *photo[1:])
    if len(photo) != 3 or photo[0] != 3 or not shapes["depths"] == shapes["rawDepths"] == depth:
        raise InputError(f"{path}: holds arrays of the shapes {shapes}, not photos with depth; {SOURCE}")
    io.check_pixels(path, photo[1], photo[2])
