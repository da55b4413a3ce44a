"""What a protocol measures besides depth: edges, normals, relative normals and curvature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.data.datasets import Sample
from redepth.metrics import (
    boundary_metrics,
    curvature_metrics,
    has_curvature,
    has_edges,
    has_pairs,
    normal_metrics,
    relative_normal_metrics,
)
from redepth.ops.camera import Camera
from redepth.ops.geometry import normals_from_depth
from redepth.protocols.schema import EvaluationProtocol

ASSUMED_CAMERA = Camera(field_of_view=55.0)
"""The camera of a photo whose camera is unknown, where a measure needs one: that of the renderers. A pinhole,
because its normals do not depend on the unit of depth."""

_OF_SURFACES = {"rel-normal", "curvature"}
"""The measures that turn both maps into surfaces."""


class Maps(NamedTuple):
    """A prediction and its truth at one size.

    Attributes:
        depth: (H, W) aligned depth.
        truth: (H, W) true depth, 0 where unknown.
        mask: (H, W) bool, the measured pixels.
    """

    depth: Tensor
    truth: Tensor
    mask: Tensor


def other_metrics(protocol: EvaluationProtocol, sample: Sample, maps: Maps, name: str) -> dict[str, Tensor]:
    """Return what the protocol measures besides depth, as far as the image has it, by name."""
    metrics: dict[str, Tensor] = {}
    if "boundaries" in protocol.measures and has_edges(maps.truth, maps.mask):
        metrics |= boundary_metrics(*maps, names=[name])
    if "normals" in protocol.measures and sample.normals is not None and sample.camera is not None:
        metrics |= _true_normals(sample.normals, sample.camera, maps, name)
    camera = (sample.camera or ASSUMED_CAMERA).of_picture(*sample.truth.shape)
    if "rel-normal" in protocol.measures and has_pairs(maps.truth, maps.mask):
        metrics |= relative_normal_metrics(*maps, camera=camera, names=[name])
    if "curvature" in protocol.measures and has_curvature(maps.truth, maps.mask):
        metrics |= curvature_metrics(*maps, camera=camera, names=[name])
    return metrics


def other_warnings(protocol: EvaluationProtocol, sample: Sample) -> list[str]:
    """Return a line if surfaces are measured by an assumed camera."""
    if sample.camera is not None or _OF_SURFACES.isdisjoint(protocol.measures):
        return []
    return [
        "the photo's camera is unknown: rel_normal and curvature_error assume a pinhole with a field of view "
        f"of {ASSUMED_CAMERA.field_of_view:g} degrees"
    ]


def _true_normals(normals: np.ndarray, camera: Camera, maps: Maps, name: str) -> dict[str, Tensor]:
    predicted = normals_from_depth(maps.depth[None, None], camera)[0]
    true = torch.from_numpy(np.ascontiguousarray(normals)).permute(2, 0, 1).double()
    true = torch.stack([nearest(part, *maps.depth.shape) for part in true])
    if not bool((maps.mask & torch.isfinite(true).all(0) & (true != 0).any(0)).any()):
        return {}
    return normal_metrics(predicted, true, maps.mask, names=[name])


def nearest(values: Tensor, height: int, width: int) -> Tensor:
    """Sample (H, W) at another size; known and unknown depth must not be interpolated."""
    if values.shape == (height, width):
        return values
    return F.interpolate(values[None, None], size=(height, width), mode="nearest")[0, 0]
