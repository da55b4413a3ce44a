"""The schema of an evaluation protocol, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from redepth.io.markup import dump_yaml
from redepth.metrics import Method
from redepth.registry import Checked

PROSE: dict[str, Any] = {"description": True, "split": {"source"}}
"""The fields that explain a protocol and change no number, as pydantic excludes them."""

Positive = Annotated[float, Field(gt=0)]


class _Record(Checked):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(_Record):
    """Which images are measured, and how to check that these are the right ones.

    Attributes:
        name: the split's name in papers.
        file: a list of names in ``splits``, or None for all images of the data set or a list of the user's.
        count: number of images; None is any number.
        sha256: hash of the sorted names, one a line; None if it is unknown.
        source: where the list, or the images that it names, come from.
    """

    name: str = "all"
    file: str | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    source: str = ""


class Size(_Record):
    """Rows and columns of pixels."""

    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class Crop(Size):
    """The part of photo and ground truth that is kept before the photo is given to a model.

    Attributes:
        vertical: which rows are kept.
        horizontal: which columns are kept.
    """

    vertical: Literal["top", "centre", "bottom"] = "centre"
    horizontal: Literal["left", "centre", "right"] = "centre"


class Range(_Record):
    """Ground truth with near < depth < far is measured; aligned depth is clipped to the same range.

    None is no limit.
    """

    near: Positive | None = None
    far: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.near is not None and self.far is not None and self.near >= self.far:
            raise ValueError(f"near {self.near:g} must be less than far {self.far:g}")
        return self


class Region(_Record):
    """The part of the picture that is measured: rows [top, bottom), columns [left, right).

    Attributes:
        unit: ``pixels``, or ``fraction`` of height and width, rounded down to pixels, or
            ``fraction-nearest``, rounded to the nearest pixel.
    """

    unit: Literal["pixels", "fraction", "fraction-nearest"]
    top: Annotated[float, Field(ge=0)]
    bottom: Positive
    left: Annotated[float, Field(ge=0)]
    right: Positive


class Alignment(_Record):
    """How predictions are aligned to the ground truth; see `redepth.metrics.align`.

    Attributes:
        disparity: method for a model that predicts disparity.
        depth: method for a model that predicts depth.
        trim: share of outliers that each least-squares fit may leave out.
        clip: ``range`` clips aligned depth to the range; ``non-positive`` replaces only values that are not
            positive or infinite; ``moge-clamp`` clips to the greatest measured ground truth of the image: an
            aligned disparity is at least its inverse.
    """

    disparity: Method
    depth: Method
    trim: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Literal["range", "non-positive", "moge-clamp"] = "range"


class EvaluationProtocol(_Record):
    """Everything that decides a metric besides the prediction.

    Attributes:
        name: of the protocol.
        version: rises with every change of a shipped protocol that can change a number.
        description: one line; like ``split.source``, it does not go into the hash.
        dataset: the data set that the protocol belongs to; None is any.
        options: options of the data set's reader that the protocol fixes.
        split: which images.
        crop: applied to photo and ground truth before anything else; None crops nothing.
        range: of the ground truth that is measured, and of the aligned depth.
        region: part of the (cropped) picture that is measured; None is all of it.
        alignment: how predictions are aligned and clipped.
        resolution: ``truth`` resizes the prediction to the ground truth, ``prediction`` samples the ground
            truth at the prediction's size (nearest pixel), a size does both.
        interpolation: of a resized prediction, bilinear with or without aligned corners.
        silog_lambda: see `redepth.metrics.depth_metrics`.
        measures: metrics besides those of depth: ``boundaries``, ``rel-normal`` and ``curvature`` for dense
            ground truth, ``normals`` where the data set has them.
        averaging: over a data set, of the images' metrics or of all their pixels.
    """

    name: str
    version: Annotated[int, Field(ge=1)] = 1
    description: str = ""
    dataset: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    split: Split = Split()
    crop: Crop | None = None
    range: Range = Range()
    region: Region | None = None
    alignment: Alignment
    resolution: Literal["truth", "prediction"] | Size = "truth"
    interpolation: Literal["bilinear", "bilinear-corners"] = "bilinear-corners"
    silog_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    measures: tuple[Literal["boundaries", "normals", "rel-normal", "curvature"], ...] = ()
    averaging: Literal["image", "pixel"] = "image"

    @property
    def sha256(self) -> str:
        """Hash of all that can change a number: two rows are comparable if their hashes are equal."""
        content = self.model_dump(mode="json", exclude=PROSE)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def line(self) -> str:
        """Name, alignment and resolution: why another protocol gives other figures for the same map."""
        methods = dict.fromkeys((self.alignment.disparity, self.alignment.depth))
        if isinstance(self.resolution, Size):
            size = f"at {self.resolution.width} x {self.resolution.height}"
        else:
            size = f"at the {'truth' if self.resolution == 'truth' else 'network'}'s size"
        clamped = ", clamped" if self.alignment.clip == "moge-clamp" else ""
        return f"protocol {self.name}: aligned by {' or '.join(methods)}{clamped}, {size}"

    def summary(self) -> dict[str, Any]:
        """Return what a record says of the protocol beside its numbers."""
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "description": self.description,
        }

    def pinned(self, names: Sequence[str]) -> EvaluationProtocol:
        """Return the protocol with its split fixed to these images: their number and hash are filled in."""
        sha256 = names_hash(names)
        fixed: dict[str, Any] = {"count": len(names), "sha256": sha256}
        if self.split.sha256 not in (None, sha256) or self.split.count not in (None, len(names)):
            # These are other images than the split's: it keeps neither its list nor its name.
            fixed |= {"file": None, "name": f"part of {self.split.name}"}
        return self.model_copy(update={"split": self.split.model_copy(update=fixed)})

    def to_yaml(self) -> str:
        """Return YAML that `load_protocol` reads back to an equal protocol."""
        return dump_yaml(self.model_dump(mode="json"))


def names_hash(names: Iterable[str]) -> str:
    """Return the SHA-256 of image names, sorted, one a line: their order changes no result."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()
