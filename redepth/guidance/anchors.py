"""Points of a photo whose depth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

from redepth.errors import InputError
from redepth.guidance.channel import Frame
from redepth.ops.filters import gaussian_sum
from redepth.ops.known_points import PointFit, fit_points
from redepth.ops.sampling import Taps, extremes, nearest_around, read, taps

EDGE = 0.1
"""Relative range of the predicted depth in 3 x 3 pixels above which a point lies on a depth edge."""

BEHIND, BEHIND_RADIUS, BEHIND_WEIGHT = 1.15, 2, 0.1
"""A point this much farther than another one within this many pixels may be hidden by it: it counts less."""

SUPPORT = 4.0
"""The number of points within one blur of a map that fix half of its low frequencies."""


@dataclass(frozen=True)
class AnchorTargets:
    """Anchors at network size, as values of the raw output.

    Attributes:
        where: the points that lie in the picture.
        raw: (N,) the raw output, in the photo's unit, that would be right there.
        slope: (N,) change of the relative depth with the raw output.
        weight: (N,) in [0, 1].
        edge: (N,) bool, on a depth edge of the frozen prediction.
        fit: of the frozen prediction to the points.
        size: height and width of the map.
        closed: whether its first and last column are neighbours.
    """

    where: Taps
    raw: Tensor
    slope: Tensor
    weight: Tensor
    edge: Tensor
    fit: PointFit
    size: tuple[int, int]
    closed: bool = False

    def errors(self, values: Tensor) -> Tensor:
        """Return the signed relative errors of raw outputs (B, 1, H, W) at the points, (B, N).

        On an edge it is the distance to the range of the 3 x 3 pixels: the point may be of either side.
        """
        error = read(values, self.where) - self.raw
        low, high = extremes(values, self.where)
        beside = (low - self.raw).clamp(min=0) - (self.raw - high).clamp(min=0)
        return self.slope * torch.where(self.edge, beside, error)

    def support(self, sigma: float) -> Tensor:
        r"""Return in how far the points fix what a Gaussian of this sigma keeps, (1, 1, H, W) in [0, 1).

        .. math:: w = \frac{\rho}{\rho + 4}, \qquad
            \rho(p) = \sum_i w_i e^{-\lVert p - p_i \rVert^2 / (2 \sigma^2)}
        """
        height, width = self.size
        nearest = self.where.corners.gather(1, self.where.weights.argmax(dim=1, keepdim=True))[:, 0]
        counts = torch.zeros(height * width, device=self.weight.device, dtype=torch.float32)
        counts = counts.index_add(0, nearest, self.weight.float()).view(1, 1, height, width)
        density = gaussian_sum(counts, sigma, closed=self.closed)
        return density / (density + SUPPORT)


@dataclass(frozen=True, eq=False)
class Anchors:
    """Points of a photo whose depth is known, such as from LiDAR, structure from motion or a tape measure.

    Attributes:
        x: (N,) from 0 at the left edge of the picture to 1 at its right edge; points outside are ignored.
        y: (N,) from 0 at the top edge to 1 at the bottom edge.
        depth: (N,) > 0, along the viewing axis, in metres; along the ray in a panorama.
        sigma: (N,) standard deviations of the depths, in the same unit; None if unknown.
        targets: what `prepared` computes.
        source: where they are from, for records.

    Raises:
        InputError: other shapes, numbers that are not finite, or a depth or sigma that is not positive.
    """

    x: Tensor
    y: Tensor
    depth: Tensor
    sigma: Tensor | None = None
    targets: AnchorTargets | None = None
    source: str = "python"

    def __post_init__(self) -> None:
        given = {"x": self.x, "y": self.y, "depth": self.depth, "sigma": self.sigma}
        for name, values in given.items():
            if values is None:
                continue
            if values.dim() != 1 or values.numel() != self.depth.numel():
                raise InputError(f"known points: {name} must be a list as long as the depths")
            if not bool(torch.isfinite(values).all()):
                raise InputError(f"known points: {name} has numbers that are not finite; remove them")
            if name in ("depth", "sigma") and not bool((values > 0).all()):
                raise InputError(f"known points: {name} must be above 0; remove the other points")

    @property
    def inside(self) -> Tensor:
        """Where the points lie in the picture, (N,) bool."""
        return (self.x >= 0) & (self.x <= 1) & (self.y >= 0) & (self.y <= 1)

    def chosen(self, which: Tensor, device: torch.device) -> Anchors:
        """Return some of the points, float64 on a device."""

        def part(values: Tensor) -> Tensor:
            return values[which].to(torch.float64).to(device)

        sigma = None if self.sigma is None else part(self.sigma)
        return Anchors(part(self.x), part(self.y), part(self.depth), sigma)

    def extended(self, margin: float) -> Anchors:
        """Return the points in a picture that goes on beyond its edges by this share of its width.

        A point that the picture shows twice is there twice.
        """
        if not margin:
            return self
        turns = torch.cat([self.x, self.x + 1, self.x - 1])
        seen = self.inside.repeat(3) & (turns >= -margin) & (turns <= 1 + margin)
        sigma = None if self.sigma is None else self.sigma.repeat(3)[seen]
        x = (turns[seen] + margin) / (1 + 2 * margin)
        return Anchors(x, self.y.repeat(3)[seen], self.depth.repeat(3)[seen], sigma)

    def prepared(self, frame: Frame) -> Self:
        """Fit the frozen prediction to the points, and return what each asks of the raw output.

        Raises:
            InputError: too few points in the picture, or points that contradict the prediction.
        """
        height, width = frame.initial.shape[-2:]
        initial = frame.initial.double()
        given = self.extended(frame.camera.margin)
        points = given.chosen(given.inside, frame.initial.device)
        where = taps(points.x, points.y, height, width)
        try:
            fit = fit_points(
                initial,
                where,
                points.depth,
                sigma=points.sigma,
                predicts=frame.predicts,
                shift=not frame.metric,
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        disparity = frame.predicts == "disparity"
        known = 1 / points.depth if disparity else points.depth
        # A flat fit asks for nothing: its points have no weight.
        scale = fit.scale or 1.0
        slope = scale / known
        low, high = extremes(initial, where)
        dtype = frame.initial.dtype
        targets = AnchorTargets(
            where=where,
            raw=((known - fit.shift) / scale).to(dtype),
            slope=slope.to(dtype),
            weight=self._weights(points, fit, where, height, width).to(dtype),
            edge=(slope * (high - low)[0]) > EDGE,
            fit=fit,
            size=(height, width),
            closed=frame.camera.closed,
        )
        return replace(self, targets=targets)

    @staticmethod
    def _weights(points: Anchors, fit: PointFit, where: Taps, height: int, width: int) -> Tensor:
        """Return how much each point counts: less if uncertain, far from the fit, or behind another."""
        weight = torch.ones_like(points.depth)
        if points.sigma is not None:
            weight = ((points.sigma / points.depth).clamp(min=1e-4)) ** -2
            weight = weight / weight.amax()
        # A poor fit asks for the wrong raw values, and an outlier would bend the surface to it.
        weight = fit.confidence * fit.trust * weight
        nearest = nearest_around(points.depth, where.around[:, 4], height, width, BEHIND_RADIUS)
        return torch.where(points.depth > BEHIND * nearest, BEHIND_WEIGHT * weight, weight)
