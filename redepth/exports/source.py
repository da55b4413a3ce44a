"""What an export reads of a result, and what it says of a file that it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from redepth.contracts import Invariance
from redepth.literals import Predicts
from redepth.metrics.metric_fit import MetricFit
from redepth.ops.camera import Camera

if TYPE_CHECKING:
    from PIL import Image

    from redepth.config import Preset
    from redepth.metrics import Evaluation
    from redepth.metrics.diagnostics import Signature

Array = NDArray[np.float32]
MapName = Literal["initial", "refined", "uncertainty", "initial_depth", "depth"]

MEANINGS: dict[tuple[Predicts, Invariance], str] = {
    ("disparity", "affine"): "affine-invariant disparity: a * D + b is inverse depth for some unknown "
    "a > 0 and b; larger is nearer",
    ("depth", "affine"): "affine-invariant depth: a * D + b is depth for some unknown a > 0 and b; "
    "larger is farther",
    ("disparity", "metric"): "metric disparity in 1 / metres; larger is nearer",
    ("depth", "metric"): "metric depth in metres; larger is farther",
}
"""What the numbers of a raw output mean, in a sentence."""


class Truth(Protocol):
    """The ground truth of a photo; `redepth.GroundTruth` is one."""

    def reduced(self, factor: int) -> NDArray[np.float64]:
        """Return every factor-th row and column of the true depth, (h, w), 0 where it is unknown."""


class Source(Protocol):
    """A result that is to be written; `redepth.Refinement` is one."""

    @property
    def photo(self) -> Array:
        """(H, W, 3) sRGB in [0, 1]."""

    @property
    def source(self) -> str | None:
        """The photo's path, if it came from a file."""

    @property
    def preset(self) -> Preset:
        """Resolved; its section ``output`` says what is written."""

    @property
    def predicts(self) -> Predicts:
        """What the maps ``initial`` and ``refined`` hold."""

    @property
    def invariance(self) -> Invariance:
        """Whether they are known up to scale and shift, or metric."""

    @property
    def meaning(self) -> str:
        """What their numbers mean, in a sentence."""

    @property
    def metric_fit(self) -> MetricFit | None:
        """From their numbers to metres, where points are known."""

    @property
    def camera(self) -> Camera:
        """Of the photo."""

    @property
    def camera_origin(self) -> str:
        """Where the camera is from."""

    @property
    def depth_m(self) -> Array | None:
        """Depth in metres, (H, W)."""

    def metres_of(self, name: Literal["initial", "refined"]) -> Array | None:
        """Return the depth in metres of one of the two maps, (H, W)."""

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of the maps before they get the photo's size."""

    @property
    def albedo(self) -> Array | None:
        """(h, w, 3) sRGB at network size, what was re-lit in place of the photo; None: the photo was."""

    @property
    def normals_before(self) -> Array:
        """(h, w, 3) unit normals of the initial surface, NaN in holes."""

    @property
    def normals_after(self) -> Array:
        """(h, w, 3) unit normals at network size."""

    @property
    def large(self) -> bool:
        """Whether the maps at the photo's size are not kept."""

    def map_of(self, name: MapName) -> Array:
        """Return a map at the photo's size, (H, W)."""

    @property
    def change(self) -> float:
        """Mean absolute change of the raw output, over the range of the initial one."""

    @property
    def turn(self) -> float:
        """Mean angle between the normals before and after, in degrees."""

    @property
    def ground_truth(self) -> Truth | None:
        """What the result is measured against."""

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """``initial`` and ``refined`` under the paper's protocol; empty without ground truth."""

    @property
    def flagged(self) -> list[Signature]:
        """The failure signatures above their thresholds."""

    @property
    def warnings(self) -> list[str]:
        """A line for each flagged failure signature, and for what else is doubtful."""

    def comparison(self) -> Image.Image:
        """Draw the comparison sheet."""

    def record(self) -> dict[str, Any]:
        """Return everything that identifies the run, as JSON-compatible data."""


def metres_are_known(source: Source) -> bool:
    """Return whether ``source.depth_m`` is there."""
    return source.metric_fit is not None or source.invariance == "metric"


def frame_of_normals(source: Source) -> str:
    """Return the frame of ``source.normals_after``, in words."""
    if source.camera.spherical:
        return "in the frame of each ray: x along the row, y up the column, z towards the viewer"
    return "x right, y up, z towards the viewer"


def inverted(depth: NDArray[Any]) -> Array:
    """Return depth as disparity for display, NaN where it is unknown or not positive."""
    known = depth > 0
    return np.where(known, 1.0 / np.where(known, depth, 1.0), np.nan).astype(np.float32)


class NotWrittenError(Exception):
    """A file is left out; the message says what it needs."""


@dataclass(frozen=True)
class Written:
    """What a file holds.

    Attributes:
        name: of the file.
        holds: what its numbers are, in a sentence.
        unit: ``metres``, ``1 / metres``, ``relative`` (a length of unknown unit), ``affine`` (known up to
            scale and shift), or empty.
        details: more about it, such as the number of points.
    """

    name: str
    holds: str
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
