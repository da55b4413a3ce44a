"""From a raw output that is known up to scale and shift to metres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth.literals import Predicts


@dataclass(frozen=True)
class MetricFit:
    r"""The scale and shift that turn a raw output to metres, and how well known points agree with it.

    .. math:: z = \frac{1}{a D + b} \text{ (disparity)}, \qquad z = a D + b \text{ (depth)}

    Attributes:
        scale: a.
        shift: b.
        points: known points that were inside the picture.
        inliers: those that agree with the fit.
        residual: median over the inliers of \|z - z_known\| / z_known.
        confidence: in [0, 1].
    """

    scale: float
    shift: float
    points: int
    inliers: int
    residual: float
    confidence: float

    def depth(self, raw: NDArray[Any], predicts: Predicts) -> NDArray[np.float32]:
        """Return the depth in metres; NaN where the fit gives none, beyond infinity or behind the camera."""
        fitted = self.scale * np.asarray(raw, dtype=np.float64) + self.shift
        known = fitted > 0
        fitted = np.where(known, fitted, 1.0)
        metres = 1.0 / fitted if predicts == "disparity" else fitted
        return np.where(known, metres, np.nan).astype(np.float32)
