"""Middlebury stereo 2014 and 2021: disparity with its calibration; scikit-image's small copy of one scene."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from redepth import io
from redepth.data.datasets.base import (
    Array,
    Missing,
    Sample,
    require_file,
    require_some,
    same_size,
    unknown_name,
)
from redepth.errors import InputError
from redepth.ops.camera import Camera

SOURCE = "SCENE-VARIANT.zip of the 2014 datasets: https://vision.middlebury.edu/stereo/data/scenes2014/"
# fmt: off
SCENES = (
    "Adirondack", "Backpack", "Bicycle1", "Cable", "Classroom1", "Couch", "Flowers", "Jadeplant", "Mask",
    "Motorcycle", "Piano", "Pipes", "Playroom", "Playtable", "Recycle", "Shelves", "Shopvac", "Sticks",
    "Storage", "Sword1", "Sword2", "Umbrella", "Vintage",
)
# fmt: on
"""The 23 scenes of 2014 whose ground truth is public."""

SOURCE_2021 = "all.zip of the 2021 mobile datasets: https://vision.middlebury.edu/stereo/data/scenes2021/"
# fmt: off
SCENES_2021 = (
    "artroom1", "artroom2", "bandsaw1", "bandsaw2", "chess1", "chess2", "chess3", "curule1", "curule2",
    "curule3", "ladder1", "ladder2", "octogons1", "octogons2", "pendulum1", "pendulum2", "podium1", "skates1",
    "skates2", "skiboots1", "skiboots2", "skiboots3", "traproom1", "traproom2",
)
# fmt: on
"""The 24 scenes of 2021."""


@dataclass(frozen=True)
class Calibration:
    """A rectified pair: focal length and principal point of the left camera, offset and baseline.

    Attributes:
        focal: f in pixels.
        center: (c_x, c_y) of the left camera in pixels, pixel centres at integers.
        doffs: difference of the two cameras' c_x in pixels.
        baseline: in millimetres.
    """

    focal: float
    center: tuple[float, float]
    doffs: float
    baseline: float

    def depth(self, disparity: Array) -> Array:
        r"""Return depth in metres, 0 where the disparity is unknown.

        .. math:: Z = \frac{b \, f}{d + d_\text{offs}}

        Args:
            disparity: (H, W) d in pixels; unknown where it is not finite.

        Source: Middlebury stereo datasets 2014, the description of calib.txt.
        """
        shifted = disparity.astype(np.float64) + self.doffs
        known = np.isfinite(shifted) & (shifted > 0)
        metres = self.baseline * self.focal / 1000 / np.where(known, shifted, 1.0)
        return np.where(known, metres, 0.0).astype(np.float32)

    def camera(self, height: int, width: int) -> Camera:
        """Return the left camera for a picture of this size."""
        return Camera.from_pixels(self.focal, self.focal, *self.center, height, width, centres="integer")


class _Scenes:
    """Scenes with a photo, its disparity and its calibration in a folder of their own."""

    def __init__(self, root: Path, scenes: tuple[str, ...]) -> None:
        self.root = root
        self._scenes = scenes

    def check(self) -> list[Missing]:
        """Return the missing files of each scene."""
        return [
            Missing(f"{self._folder(scene)}: no {', '.join(missing)}", self._source(scene))
            for scene in self._scenes
            if (missing := self._missing_files(scene))
        ]

    def names(self) -> list[str]:
        """Return the scenes that are complete."""
        return require_some([s for s in self._scenes if not self._missing_files(s)], self, self.root)

    def load(self, name: str) -> Sample:
        """Read one scene; depth in metres."""
        if name not in self._scenes:
            raise unknown_name(name, self._scenes)
        folder, source = self._folder(name), self._source(name)
        photo = require_file(folder / "im0.png", source)
        disparity = io.load_depth_map(require_file(folder / "disp0.pfm", source))
        calibration = read_calibration(require_file(folder / "calib.txt", source))
        camera = calibration.camera(*disparity.shape)
        return same_size(
            Sample(name, photo, calibration.depth(disparity), camera=camera), io.image_size(photo)
        )

    def _folder(self, scene: str) -> Path:
        raise NotImplementedError

    def _source(self, scene: str) -> str:
        raise NotImplementedError

    def _missing_files(self, scene: str) -> list[str]:
        files = ("im0.png", "disp0.pfm", "calib.txt")
        return [name for name in files if not (self._folder(scene) / name).is_file()]


class Middlebury2014(_Scenes):
    """Middlebury 2014: 23 indoor scenes of about 6 megapixels, structured-light depth (metres).

    ::

        ROOT/Motorcycle-perfect/im0.png
        ROOT/Motorcycle-perfect/disp0.pfm
        ROOT/Motorcycle-perfect/calib.txt

    The calibration turns the disparity, infinite where unknown, into depth. Without its offset ``doffs``, the
    inverse of the disparity is not even proportional to depth.

    Args:
        root: the folder above.
        variant: ``perfect`` or ``imperfect`` rectification.
    """

    def __init__(self, root: Path, variant: Literal["perfect", "imperfect"] = "perfect") -> None:
        super().__init__(root, SCENES)
        self.variant = variant

    def _folder(self, scene: str) -> Path:
        return self.root / f"{scene}-{self.variant}"

    def _source(self, scene: str) -> str:
        return SOURCE.replace("SCENE", scene).replace("VARIANT", self.variant)


class Middlebury2021(_Scenes):
    """Middlebury 2021, "mobile": 24 indoor scenes of 1920 x 1080, structured-light depth (metres).

    ::

        ROOT/data/artroom1/im0.png
        ROOT/data/artroom1/disp0.pfm
        ROOT/data/artroom1/calib.txt

    The photos are of a phone's camera. The root may also be the folder of the scenes. Disparity is infinite
    where it is unknown, and becomes depth as in `Middlebury2014`.

    Args:
        root: the folder above.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, SCENES_2021)

    def _folder(self, scene: str) -> Path:
        inside = self.root / "data" / scene
        beside = self.root / scene
        return beside if beside.is_dir() and not inside.is_dir() else inside

    def _source(self, scene: str) -> str:
        return SOURCE_2021


class Motorcycle:
    """One scene of Middlebury 2014 at a quarter of its size, from scikit-image's wheel; depth in metres.

    741 x 500 pixels. Nothing is downloaded.
    """

    # From the documentation of skimage.data.stereo_motorcycle; valid for the small copy.
    CALIBRATION = Calibration(focal=994.978, center=(311.193, 254.877), doffs=31.086, baseline=193.001)

    def check(self) -> list[Missing]:
        """Return the files that scikit-image lacks."""
        folder = _skimage_data()
        if folder is None:
            return [Missing("scikit-image is not installed", 'pip install "redepth[bench]"')]
        files = [folder / name for name in ("motorcycle_left.png", "motorcycle_disp.npz")]
        return [Missing(str(path), "install scikit-image again") for path in files if not path.is_file()]

    def names(self) -> list[str]:
        """Return the one image's name."""
        missing = self.check()
        if missing:
            raise InputError(str(missing[0]))
        return ["motorcycle"]

    def load(self, name: str) -> Sample:
        """Read the image; depth in metres."""
        if name not in self.names():
            raise unknown_name(name, ["motorcycle"])
        folder = _skimage_data() or Path()
        disparity = io.load_depth_map(folder / "motorcycle_disp.npz")
        photo = folder / "motorcycle_left.png"
        camera = self.CALIBRATION.camera(*disparity.shape)
        sample = Sample(name, photo, self.CALIBRATION.depth(disparity), camera=camera)
        return same_size(sample, io.image_size(photo))


def read_calibration(path: Path) -> Calibration:
    """Read Middlebury's ``calib.txt``.

    Raises:
        InputError: if a line is missing or is not a number.
    """
    text = io.read_text(path, limit=2**16)
    number = r"([-+\d.eE]+)"
    patterns = {
        "cam0": rf"^cam0=\[{number} \S+ {number}; \S+ \S+ {number};",
        "doffs": rf"^doffs={number}",
        "baseline": rf"^baseline={number}",
    }
    values = []
    for name, pattern in patterns.items():
        match = re.search(pattern, text, re.MULTILINE)
        try:
            values += [float(group) for group in match.groups()] if match else [float("nan")]
        except ValueError:
            values.append(float("nan"))
        if not np.isfinite(values).all():
            raise InputError(f"{path}: no '{name}=' as Middlebury writes it; unpack the scene again")
    focal, x, y, doffs, baseline = values
    return Calibration(focal, (x, y), doffs, baseline)


def _skimage_data() -> Path | None:
    """Return the folder of scikit-image's data without importing it."""
    spec = importlib.util.find_spec("skimage")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"
