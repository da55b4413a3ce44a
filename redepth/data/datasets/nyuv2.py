"""NYU Depth V2, the labelled images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redepth import io
from redepth.data.datasets.base import (
    Missing,
    OtherKindError,
    Sample,
    read_grey16,
    require_some,
    same_size,
    unknown_name,
)
from redepth.errors import InputError
from redepth.ops.camera import Camera
from redepth.registry import require

MAT = "nyu_depth_v2_labeled.mat"
SOURCE = f"the labelled dataset, {MAT}: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"

# Three exports are common. The one with 4 digits counts from 1, as the .mat does in MATLAB, those with 5
# digits from 0. The last is the test part of the copy on Kaggle, which is that of DenseDepth.
_KAGGLE = "{}_depth.png"
_EXPORTS = (
    (re.compile(r"rgb_(\d{4})\.(?:png|jpg)"), 0, {"raw": "depth_{}.png", "filled": "filled_{}.png"}),
    (re.compile(r"rgb_(\d{5})\.(?:png|jpg)"), 1, {"raw": "sync_depth_{}.png"}),
    (re.compile(r"(\d{5})_colors\.png"), 1, {"raw": _KAGGLE, "filled": _KAGGLE}),
)
_TEST_FOLDERS = ("nyu_data/data/nyu2_test", "data/nyu2_test", "nyu2_test", ".")
"""Where the copy on Kaggle has its test images; those to train on, 8-bit and compressed, are not searched."""

INTRINSICS = (518.85790117450188, 519.46961112127485, 325.58244941119034, 253.73616633400465)
"""f_x, f_y, c_x, c_y of the photos in pixels, pixel centres at integers (camera_params.m of the toolbox)."""


class Nyuv2:
    """NYU Depth V2's 1449 labelled images of 640 x 480, Kinect depth (metres), 0 where there is none.

    ``ROOT/nyu_depth_v2_labeled.mat`` (read with h5py), or a PNG export of it in any subfolders, depth in
    millimetres: ``rgb_0001.png`` with ``depth_0001.png`` (and ``filled_0001.png``), counted from 1, or
    ``rgb_00000.jpg`` with ``sync_depth_00000.png``, counted from 0. Also the 654 test images of the copy on
    Kaggle, ``ROOT/nyu_data/data/nyu2_test/00000_colors.png`` with ``00000_depth.png``, counted from 0: its
    files do not say whether their depth is raw or filled, so each is checked for holes. An image's name is
    its number in the .mat, counted from 1: ``0001`` to ``1449``.

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
        stored = read_grey16(path, SOURCE)
        self._check_kind(path, stored)
        truth = stored.astype(np.float32) / np.float32(1000)
        return same_size(Sample(name, photo, truth, camera=_camera(*truth.shape)), io.image_size(photo))

    def _check_kind(self, path: Path, stored: NDArray[np.uint16]) -> None:
        """Raise OtherKindError unless depth of an unknown kind can be of the kind that is asked for."""
        if path.name != _KAGGLE.format(path.name[:5]):
            return
        holes = bool((stored == 0).any())
        if holes and self.depth == "filled":
            raise OtherKindError(
                f"{path}: has pixels without depth, so it is raw: take depth=raw, and its protocol"
            )
        if not holes and self.depth == "raw":
            raise OtherKindError(
                f"{path}: has depth at every pixel, so it is filled, not raw: take depth=filled, such as the "
                "protocol nyuv2-filled does; its numbers are others than those of raw depth"
            )

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
        sample = Sample(name, pixels, truth.astype(np.float32), camera=_camera(*truth.shape))
        return same_size(sample, pixels.shape[:2])

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
        tests = [photo for folder in _TEST_FOLDERS for photo in (self.root / folder).glob("*_colors.png")]
        for photo in sorted([*self.root.rglob("rgb_*"), *tests]):
            for pattern, first, depths in _EXPORTS:
                match = pattern.fullmatch(photo.name)
                if match is None or self.depth not in depths:
                    continue
                path = photo.with_name(depths[self.depth].format(match[1]))
                if path.is_file():
                    pairs[f"{int(match[1]) + first:04}"] = (photo, path)
        return pairs


def _camera(height: int, width: int) -> Camera:
    """Return the camera of the photos, for a picture of this size."""
    fx, fy, cx, cy = INTRINSICS
    whole = Camera.from_pixels(fx, fy, cx, cy, 480, 640, centres="integer")
    return whole.of_picture(height, width)


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
