"""From a raw output that is known up to scale and shift to metres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth.contracts import Invariance
from redepth.errors import InputError
from redepth.guidance import Anchors
from redepth.literals import Predicts
from redepth.ops.known_points import CONTRADICTION, fit_points
from redepth.ops.sampling import taps

LOW_CONFIDENCE = 0.3
"""A fit of a lower confidence is warned of: about three points that agree with each other are above it."""


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
        confidence: in [0, 1], as `ops.known_points.fit_points` defines it; 0 if nothing checks the fit.
        sloped: whether the points determine scale and shift both; else one of them is 0.
        contradicted: whether they are nearer where the prediction is farther; then the map is flat.
        source: where the points are from.
        outside: known points that were outside the picture, and left out.
    """

    scale: float
    shift: float
    points: int
    inliers: int
    residual: float
    confidence: float
    sloped: bool = True
    contradicted: bool = False
    source: str = ""
    outside: int = 0

    @property
    def warnings(self) -> list[str]:
        """A line for points that were left out, and one for a low confidence."""
        lost = f"{self.outside} of {self.points + self.outside} known points are outside the photo: left out"
        return [*([lost] if self.outside else []), *filter(None, [self.warning])]

    @property
    def warning(self) -> str:
        """A line where the confidence is low, else empty."""
        if self.confidence >= LOW_CONFIDENCE:
            return ""
        if self.contradicted:
            return f"metres are a guess (confidence 0): {CONTRADICTION}; the map in metres is flat"
        reason = f"{self.inliers} of {self.points} known points agree with the fit"
        if not self.sloped:
            reason = "the known points are at too similar depths to find a shift"
        return (
            f"metres are uncertain (confidence {self.confidence:.2f}): {reason}; add points at other depths"
        )

    def record(self) -> dict[str, Any]:
        """Return the fit as JSON-compatible data."""
        return {
            "scale": self.scale,
            "shift": self.shift,
            "points": self.points,
            "outside": self.outside,
            "inliers": self.inliers,
            "residual": self.residual,
            "confidence": self.confidence,
            "from": self.source,
        }

    def depth(self, raw: NDArray[Any], predicts: Predicts) -> NDArray[np.float32]:
        """Return the depth in metres; NaN where the fit gives none, beyond infinity or behind the camera."""
        fitted = self.scale * np.asarray(raw, dtype=np.float64) + self.shift
        known = fitted > 0
        fitted = np.where(known, fitted, 1.0)
        metres = 1.0 / fitted if predicts == "disparity" else fitted
        return np.where(known, metres, np.nan).astype(np.float32)


def fit_metric(
    raw: ArrayLike | Tensor,
    anchors: Anchors,
    predicts: Predicts = "disparity",
    invariance: Invariance = "affine",
) -> MetricFit:
    """Fit a prediction to known points, robustly (`ops.known_points.fit_points`).

    Args:
        raw: (H, W) the prediction, finite.
        anchors: the points; those outside the picture are ignored.
        predicts: what ``raw`` is.
        invariance: ``affine`` fits scale and shift to at least 2 points, ``metric`` the scale alone to at
            least 1.

    Raises:
        InputError: too few points in the picture, points that contradict the prediction, or a prediction that
            is not finite.
    """
    values = raw.detach().cpu() if isinstance(raw, Tensor) else torch.from_numpy(np.asarray(raw))
    if values.dim() != 2 or not bool(torch.isfinite(values).all()):
        raise InputError("a prediction for known points must be (H, W) and finite")
    points = anchors.chosen(anchors.inside, torch.device("cpu"))
    where = taps(points.x, points.y, *values.shape)
    try:
        fit = fit_points(
            values[None, None],
            where,
            points.depth,
            sigma=points.sigma,
            predicts=predicts,
            shift=invariance == "affine",
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return MetricFit(
        scale=fit.scale,
        shift=fit.shift,
        points=points.depth.numel(),
        inliers=int(fit.inliers.sum()),
        residual=fit.residual,
        confidence=fit.confidence,
        sloped=fit.sloped,
        contradicted=fit.contradicted,
        source=anchors.source,
        outside=int((~anchors.inside).sum()),
    )
