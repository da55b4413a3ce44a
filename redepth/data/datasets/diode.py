"""DIODE, its validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from redepth import io
from redepth.data.datasets.base import (
    Missing,
    Sample,
    require_file,
    require_some,
    same_size,
    split_name,
)
from redepth.ops.camera import Camera

SOURCE = "DIODE depth, val.tar.gz: https://diode-dataset.org"
EXAMPLE = "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
IMAGES = {"indoors": 325, "outdoor": 446}
"""Number of validation images of each kind, 771 in all."""

CAMERA = Camera.from_pixels(886.81, 927.06, 512, 384, 768, 1024)
"""The camera of all photos (intrinsics.txt of its development kit)."""


class Diode:
    """DIODE's validation images of 1024 x 768, laser depth (metres).

    ::

        ROOT/val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png
        ROOT/val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010_depth.npy       (768, 1024, 1)
        ROOT/val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010_depth_mask.npy  (768, 1024)

    Depth is valid where the mask is set; the array has numbers elsewhere too.

    Args:
        root: the folder above.
        scenes: indoors, outdoor or both.
    """

    def __init__(self, root: Path, scenes: Literal["all", "indoors", "outdoor"] = "all") -> None:
        self.root = root
        self.scenes = scenes

    def check(self) -> list[Missing]:
        """Return the kinds with missing images, and how many images they have."""
        missing = []
        for kind in self._kinds():
            found, expected = len(self._images(kind)), IMAGES[kind]
            if found < expected:
                what = f"{self.root / 'val' / kind}: {found} of {expected} images with depth and mask"
                missing.append(Missing(what, SOURCE))
        return missing

    def names(self) -> list[str]:
        """Return the images that have depth and a mask."""
        return require_some([name for kind in self._kinds() for name in self._images(kind)], self, self.root)

    def load(self, name: str) -> Sample:
        """Read one image; depth in metres."""
        split_name(name, 4, EXAMPLE)
        base = self.root / "val" / name
        photo = require_file(base.with_name(f"{base.name}.png"), SOURCE)
        truth = io.load_depth_map(require_file(base.with_name(f"{base.name}_depth.npy"), SOURCE))
        mask = io.load_mask(require_file(base.with_name(f"{base.name}_depth_mask.npy"), SOURCE))
        return same_size(Sample(name, photo, truth, mask=mask, camera=CAMERA), io.image_size(photo))

    def _kinds(self) -> list[str]:
        return [kind for kind in IMAGES if self.scenes in ("all", kind)]

    def _images(self, kind: str) -> list[str]:
        base = self.root / "val"
        depths = (base / kind).glob("scene_*/scan_*/*_depth.npy")
        names = (path.relative_to(base).as_posix().removesuffix("_depth.npy") for path in depths)
        ends = (".png", "_depth_mask.npy")
        return sorted(name for name in names if all((base / f"{name}{end}").is_file() for end in ends))
