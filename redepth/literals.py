"""The fixed choices that presets, contracts and the command line share.

This module imports nothing heavy, so that ``redepth --help`` can list the choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Predicts = Literal["disparity", "depth"]
"""What a raw output is: disparity (larger is nearer) or depth (larger is farther)."""

MapKind = Literal["disparity", "depth", "metric-depth"]
"""What a finished map holds: disparity or depth up to scale and shift, or depth in metres."""

CameraName = Literal["orthographic", "exif", "model"]
"""Cameras that need no numbers: parallel rays, the photo's EXIF, or the depth model's estimate."""

BenchCamera = Literal["preset", "dataset"]
"""Whose camera a benchmark refines with: that of the preset's renderer, or the data set's of each photo."""

Against = Literal["published"]
"""What the numbers of a benchmark can be held against."""

CaptionerName = Literal["blip", "blip2"]
"""The models that write captions."""

CaptionerChoice = Literal["none", CaptionerName]
"""What a preset's captioner can be; ``none`` leaves the prompt empty."""

FamilyName = Literal["presets", "depth-models", "renderers", "priors", "objectives", "datasets", "protocols"]
"""The families that can be listed."""

NormalsFrame = Literal["redepth", "opencv", "opengl"]
"""The frames that a map of normals may be in."""

RENAMED_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "renderer": {"relight": "albedo"},
    "prior": {"tell": "condition_on"},
}
"""Section of a preset -> former name of an option of the components that ship -> current name."""

AlbedoName = Literal["photo", "grey", "marigold-intrinsics"]
"""What a renderer may light that is in no file: the photo itself, a grey, or an estimate of the albedo."""

MAX_SEED = 2**63 - 1
"""The largest seed; torch takes no larger one."""

Export = Literal[
    "map",
    "preview",
    "initial",
    "uncertainty",
    "depth",
    "depth-exr",
    "normals",
    "normals-exr",
    "comparison",
    "view",
    "points",
    "mesh",
    "intrinsics",
    "albedo",
]
"""What can be written of a result; docs/results_folder.md says what each file holds."""

VIEW_FILE = "view.html"
"""The page of a result, which `redepth view` opens."""

Upsampling = Literal["bilinear", "guided"]
"""How maps of the network's size become maps of the photo's size."""
