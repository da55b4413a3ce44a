"""A flat wall seen at an angle by a pinhole camera: its depth and its normal are exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth.ops.camera import Camera

ANGLE = 60.0
"""Between the wall's normal and the optical axis, in degrees."""

NORMAL = np.array([math.sin(math.radians(ANGLE)), 0.0, math.cos(math.radians(ANGLE))])
"""x right, y up, z to the viewer."""

FAST = [
    *("optim.steps=1", "optim.members=1", "optim.learning_rates.correction=1e-7"),
    "depth_model.longer_side=250",
]
"""Overrides of the preset smoke: next to no change, at a network size whose shorter side is rounded."""

OPTIONS = ["--preset", "smoke", "--device", "cpu", *(part for item in FAST for part in ("--set", item))]

ODD = (303, 403)
"""Height and width of a photo of about 4:3, whose network size is rounded to another aspect ratio."""

SQUARE = Camera(field_of_view=50.0)
SHIFTED = Camera.from_pixels(420.0, 460.0, 250.5, 190.25, *ODD)
"""Pixels that are not square, and an axis off the centre."""


def wall_depth(camera: Camera, height: int, width: int, distance: float = 2.0) -> NDArray[np.float32]:
    """Return the depth in metres, (H, W), of a wall whose distance from the camera is given.

    n . P = -distance in a frame with z to the viewer; P = z (u, v, -1).
    """
    u, v = (axis.double().numpy() for axis in camera.axes(height, width))
    facing = NORMAL[2] - NORMAL[0] * u[None] - NORMAL[1] * v[:, None]
    assert facing.min() > 0, "the wall reaches behind the camera"
    return (distance / np.broadcast_to(facing, (height, width))).astype(np.float32)


def off_by(normals: NDArray[Any]) -> NDArray[np.float64]:
    """Return the angles in degrees between normals (h, w, 3) and the wall's."""
    cosine = (normals.astype(np.float64) @ NORMAL) / np.linalg.norm(normals, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
