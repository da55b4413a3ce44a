"""Where the pixels of a frame are in the frame before: by optical flow, a given flow, or known camera motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GivenFlow:
    """A flow that the caller computed.

    Attributes:
        back: one (H, W, 2) array per frame but the first, x and y in pixels: what is at pixel p of a frame
            was at ``p + back[p]`` of the frame before. Not finite where that is not known.
    """

    back: Sequence[NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """Known camera poses of a scene that does not move.

    Attributes:
        poses: one (4, 4) matrix per frame, camera to world, OpenCV's axes (x right, y down, z forward).
        scale: length of one unit of relative depth in units of the poses; None: it is estimated from the
            pictures. Metric models have 1.
    """

    poses: Sequence[NDArray[np.floating]]
    scale: float | None = None


Motion = Literal["flow", "still"] | GivenFlow | CameraMotion
