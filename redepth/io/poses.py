"""Read the camera's poses of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError, brief
from redepth.io.arrays import read_numpy
from redepth.io.files import StrPath, reason
from redepth.io.markup import parse_json
from redepth.io.text import read_text

_TURN = 1e-3
"""How far R Rᵀ of a rotation may be from the unit matrix."""


@dataclass(frozen=True, eq=False)
class Poses:
    """The camera's pose in each frame.

    Attributes:
        matrices: (N, 4, 4) float64, camera to world, OpenCV's axes (x right, y down, z forward).
        scale: length of a unit of relative depth in units of the poses; None if it is not known.
    """

    matrices: NDArray[np.float64]
    scale: float | None = None


def load_poses(path: StrPath) -> Poses:
    """Read the camera's poses.

    Args:
        path: ``.npy`` with (N, 4, 4) or (N, 3, 4); or JSON with a list of such matrices, or with an object
            that has it as ``poses`` and, optionally, ``scale``.

    Raises:
        InputError: the file cannot be read, or holds no poses of rigid motion.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        values, scale = read_numpy(path).astype(np.float64), None
    else:
        values, scale = _json(path)
    if values.ndim != 3 or values.shape[1:] not in ((4, 4), (3, 4)) or not len(values):
        raise InputError(f"{path}: poses must be (N, 4, 4) or (N, 3, 4), got {values.shape}")
    matrices = np.broadcast_to(np.eye(4), (len(values), 4, 4)).copy()
    matrices[:, : values.shape[1]] = values
    for index, matrix in enumerate(matrices):
        check_pose(f"{path}: pose {index}", matrix)
    return Poses(matrices, scale)


def _json(path: Path) -> tuple[NDArray[np.float64], float | None]:
    try:
        content: Any = parse_json(read_text(path))
        scale = content.get("scale") if isinstance(content, dict) else None
        poses = np.asarray(content["poses"] if isinstance(content, dict) else content, np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"{path}: no poses can be read ({reason(error)}); give npy (N, 4, 4), or JSON with a list of "
            "4 x 4 matrices"
        ) from None
    if scale is not None and not (isinstance(scale, int | float) and np.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: scale must be a number above 0, got {brief(scale)}")
    return poses, None if scale is None else float(scale)


def check_pose(what: str, matrix: NDArray[np.float64]) -> None:
    """Raise InputError, which begins with what it is, for a matrix that is no (4, 4) rigid motion."""
    if matrix.shape != (4, 4):
        raise InputError(f"{what} must be (4, 4), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(f"{what} has a value that is not finite")
    rotation = matrix[:3, :3]
    turned = np.abs(rotation @ rotation.T - np.eye(3)).max() > _TURN or np.linalg.det(rotation) < 0
    if turned or np.abs(matrix[3] - (0, 0, 0, 1)).max() > _TURN:
        raise InputError(
            f"{what} is no rotation and translation; give matrices from camera to world, without scale"
        )
