"""Common Objects in 3D, version 2."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    unknown_name,
)
from redepth.errors import InputError

SOURCE = "CO3Dv2: https://github.com/facebookresearch/co3d (its download_dataset.py)"
ANNOTATIONS_LIMIT = 2**30
"""Largest size of a category's annotations when unpacked; the largest published one has about 0.3 GB."""
EXAMPLE = "apple/110_13051_23361/frame000001"


class Co3d:
    """CO3D version 2: turntable-like videos of objects, depth by multi-view stereo, in an arbitrary unit.

    ::

        ROOT/apple/frame_annotations.jgz
        ROOT/apple/110_13051_23361/images/frame000001.jpg
        ROOT/apple/110_13051_23361/depths/frame000001.jpg.geometric.png
        ROOT/apple/110_13051_23361/depth_masks/frame000001.png

    The depth PNG holds the bit patterns of float16 numbers, not integers; times ``scale_adjustment`` of the
    annotation they are depth, valid where the depth mask is set. The annotations, one gzipped JSON list a
    category, are read once, when they are first needed.

    Args:
        root: the folder above.
        categories: the categories to use; empty takes all that are present.
    """

    def __init__(self, root: Path, categories: Sequence[str] = ()) -> None:
        self.root = root
        self.categories = tuple(categories)
        self._frames: dict[str, dict[str, dict[str, Any]]] = {}

    def check(self) -> list[Missing]:
        """Return the categories without annotations, or the root if it has no category."""
        if not self._present():
            return [Missing(f"{self.root}: no category with frame_annotations.jgz", SOURCE)]
        return [
            Missing(str(self.root / category / "frame_annotations.jgz"), SOURCE)
            for category in self.categories
            if category not in self._present()
        ]

    def names(self) -> list[str]:
        """Return the frames that have a photo and depth; this reads the annotations."""
        listings: dict[Path, set[str]] = {}

        def exists(path: Path) -> bool:
            # Each folder is listed once: a query for each of a category's files would take minutes.
            if path.parent not in listings:
                listings[path.parent] = {entry.name for entry in path.parent.glob("*")}
            return path.name in listings[path.parent]

        names = [
            name
            for category in self._present()
            for name, frame in self._annotations(category).items()
            if exists(self._file(frame, "image")) and exists(self._file(frame, "depth"))
        ]
        return require_some(names, self, self.root)

    def load(self, name: str) -> Sample:
        """Read one frame; 0 where there is no depth."""
        category = split_name(name, 3, EXAMPLE)[0]
        frames = self._annotations(category)
        if name not in frames:
            raise unknown_name(name, list(frames))
        frame = frames[name]
        photo = require_file(self._file(frame, "image"), SOURCE)
        pattern = read_grey16(self._file(frame, "depth"), SOURCE)
        depth = pattern.view(np.float16).astype(np.float32) * np.float32(frame["depth"]["scale_adjustment"])
        mask = None
        if frame["depth"].get("mask_path"):
            mask = io.load_mask(require_file(self.root / str(frame["depth"]["mask_path"]), SOURCE))
        truth = np.where(np.isfinite(depth), depth, np.float32(0))
        return same_size(Sample(name, photo, truth, unit="relative", mask=mask), io.image_size(photo))

    def _present(self) -> list[str]:
        present = {path.parent.name for path in self.root.glob("*/frame_annotations.jgz")}
        return sorted(present & set(self.categories) if self.categories else present)

    def _file(self, frame: dict[str, Any], kind: str) -> Path:
        return self.root / str(frame[kind]["path"])

    def _annotations(self, category: str) -> dict[str, dict[str, Any]]:
        """Return the frames of a category that have depth, by name."""
        if category not in self._frames:
            path = require_file(self.root / category / "frame_annotations.jgz", SOURCE)
            self._frames[category] = _read_annotations(path)
        return self._frames[category]


def _read_annotations(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with io.open_regular(path) as file, gzip.open(file) as unpacked:
            content = unpacked.read(ANNOTATIONS_LIMIT + 1)
        if len(content) > ANNOTATIONS_LIMIT:
            raise InputError(f"{path}: longer than {ANNOTATIONS_LIMIT} bytes when unpacked; copy it again")
        frames = json.loads(content)
        return {_name(frame): frame for frame in frames if (frame.get("depth") or {}).get("path")}
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise io.damaged(path, error) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not CO3D frame annotations ({error!r} is missing); {SOURCE}") from None


def _name(frame: dict[str, Any]) -> str:
    """``apple/110_13051_23361/images/frame000001.jpg`` -> ``apple/110_13051_23361/frame000001``."""
    # Read here what `load` needs, so that an error can name the file of annotations.
    float(frame["depth"]["scale_adjustment"])
    path = Path(frame["image"]["path"])
    return f"{path.parent.parent.as_posix()}/{path.stem}"
