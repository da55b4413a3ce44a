"""Your own photos with depth or disparity, paired by their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from redepth import io
from redepth.contracts import Predicts
from redepth.data.datasets.base import Missing, Sample, Unit, require_some, unknown_name
from redepth.errors import InputError
from redepth.metrics import stored_no_hits

Files = dict[str, Path]


class Folder:
    """Photos and depth maps of any folder, paired by the text that the wildcards of two patterns match.

    ``photos="rgb/*.jpg"`` and ``truths="depth/*_depth.png"`` make ``rgb/a1.jpg`` and ``depth/a1_depth.png``
    the image ``a1``; ``**`` matches folders. Ground truth is any file that `redepth.io.load_map`
    reads, times ``scale``; it is unknown where it is 0, negative, not finite or a no-hit value
    (`redepth.metrics.stored_no_hits`).

    Args:
        root: the folder that the patterns start from.
        photos: pattern of the photos.
        truths: pattern of the ground truth.
        masks: pattern of masks, one for each photo, or None.
        kind: whether the ground truth is depth or disparity.
        scale: factor of a stored number, such as 0.001 for millimetres.
        unit: unit of the scaled numbers. A protocol with a range, which is in metres, needs ``m`` unless
            nothing is outside the range.
    """

    def __init__(
        self,
        root: Path,
        photos: str = "photos/*.png",
        truths: str = "depth/*.npy",
        masks: str | None = None,
        kind: Predicts = "depth",
        scale: Annotated[float, Field(ge=1e-12, le=1e12)] = 1.0,
        unit: Unit = "relative",
    ) -> None:
        for name, pattern in (("photos", photos), ("truths", truths), ("masks", masks)):
            if pattern is not None and ("*" not in pattern or Path(pattern).is_absolute()):
                raise ValueError(f"{name}: '{pattern}' must hold a * and start at the root")
        self.root = root
        self.patterns = {"photos": photos, "truths": truths}
        if masks is not None:
            self.patterns["masks"] = masks
        self.kind = kind
        self.scale = scale
        self.unit = unit

    def check(self) -> list[Missing]:
        """Return the photos without ground truth or without a mask."""
        files = self._files()
        if not files["photos"]:
            what = f"{self.root}: no photo matches {self.patterns['photos']}"
            return [Missing(what, "give the pattern of your photos")]
        return [
            Missing(f"{files['photos'][name]}: no {kind[:-1]} for '{name}'", f"expected {pattern}")
            for kind, pattern in self.patterns.items()
            for name in files["photos"]
            if name not in files[kind]
        ]

    def names(self) -> list[str]:
        """Return the images that are complete."""
        return require_some(self._complete(self._files()), self, self.root)

    def load(self, name: str) -> Sample:
        """Read one image."""
        files = self._files()
        if name not in self._complete(files):
            raise unknown_name(name, self._complete(files))
        stored = io.load_map(files["truths"][name], self.kind)
        # Only the stored numbers show these values: a scale of 0.001 would make 65.504 of 65504.
        no_hit = stored_no_hits(stored) if self.kind == "depth" else None
        truth = stored * np.float32(self.scale)
        mask = io.load_mask(files["masks"][name]) if "masks" in files else None
        photo = files["photos"][name]
        # `protocols.prepare` compares the shapes: a truth may have another scale than the photo.
        return Sample(name, photo, truth, self.kind, self.unit, mask, no_hit=no_hit)

    def _files(self) -> dict[str, Files]:
        return {kind: _matches(self.root, pattern) for kind, pattern in self.patterns.items()}

    def _complete(self, files: dict[str, Files]) -> list[str]:
        """Return the photos that have a file of every kind."""
        return [name for name in files["photos"] if all(name in of_kind for of_kind in files.values())]


def _matches(root: Path, pattern: str) -> Files:
    """Return the files that match, sorted, by the text that the wildcards match.

    Raises:
        InputError: if two files have the same name.
    """
    expression = re.compile(_as_expression(pattern))
    files: Files = {}
    try:
        paths = sorted(path for path in root.glob(pattern) if not path.is_dir())
    except OSError as error:
        raise InputError(f"{root}: {pattern[:80]} cannot be searched ({io.reason(error)})") from None
    for path in paths:
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        name = io.displayed("/".join(part.strip("/") for part in match.groups() if part.strip("/")))
        if name in files:
            raise InputError(f"{path} and {files[name]} would both be '{name}'; give a narrower pattern")
        files[name] = path
    return files


def _as_expression(pattern: str) -> str:
    """Translate a glob pattern to a regular expression with a group for each wildcard."""
    wildcards = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", Path(pattern).as_posix())
    return "".join(wildcards.get(part, re.escape(part)) for part in parts)
