"""Fit the scale and the shift of a prediction to a few points whose depth is known, robustly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from redepth.ops.sampling import Taps, extremes, read

NOISE = 0.02
"""The relative standard deviation of a point whose noise is not known."""

FREE_POINTS = 4
"""Up to this number of points none can be told apart as an outlier: all count."""

OUTLIERS = 0.4
"""The largest share of outliers that the fit withstands."""

TUKEY = 4.685
"""Tukey's constant: 95 % efficiency under Gaussian noise."""

DISCORDANT = -2.4
"""Kendall's z-score below which points and prediction contradict each other."""

CONTRADICTION = (
    "the known points are nearer where the prediction is farther: check that they are depths, not "
    "disparities, and that x and y are not exchanged"
)

_SEARCHED, _PAIRS = 2000, 1500


@dataclass(frozen=True)
class PointFit:
    r"""A scale and shift, and how well the points agree with them.

    Attributes:
        scale: a.
        shift: b.
        ratio: (N,) the size of each residual over its standard deviation under the scatter of all.
        residual: median over the inliers of :math:`|z - z^\star| / z^\star`.
        confidence: in [0, 1]; see `fit_points`.
        sloped: whether the points determine a and b both. If not, one of them is 0.
        contradicted: whether they are nearer where the prediction is farther; then a is 0.
    """

    scale: float
    shift: float
    ratio: Tensor
    residual: float
    confidence: float
    sloped: bool = True
    contradicted: bool = False

    @property
    def inliers(self) -> Tensor:
        """The points within 3 standard deviations, (N,) bool."""
        return self.ratio <= 3

    @property
    def trust(self) -> Tensor:
        """Tukey's weights of the points, (N,) in [0, 1]: 0 from 7 standard deviations on."""
        return (1 - (self.ratio / (1.5 * TUKEY)) ** 2).clamp(min=0) ** 2


def fit_points(
    raw: Tensor,
    where: Taps,
    depth: Tensor,
    *,
    sigma: Tensor | None = None,
    predicts: Literal["disparity", "depth"] = "disparity",
    shift: bool = True,
) -> PointFit:
    r"""Fit :math:`a D + b` to inverse depth (a prediction of disparity) or depth, at known points.

    The relative residual of point i with the known depth :math:`z_i` and the predicted value D_i is

    .. math:: e_i = z_i (a D_i + b) - 1 \text{ (disparity)}, \qquad
        e_i = (a D_i + b) / z_i - 1 \text{ (depth)}

    and its standard deviation :math:`s_i^2 = (\sigma_i / z_i)^2 + r_i^2`, where r_i is half the relative
    range of the fitted depth in the 3 x 3 pixels around it: a point on a depth edge counts less. The fit
    starts from the pair of points (of many points: of 1500 pairs drawn with a fixed seed) with the least sum
    of the 60 % smallest :math:`|e_i| / s_i`, and from the least squares of all. Concentration steps and
    reweighted least squares with Tukey's weights follow, and the better end is kept. Up to 4 points count
    all. Where the fit would put part of the map behind the camera, and one that does not is nearly as good,
    that one is taken.

    The confidence is

    .. math:: c = \frac{n}{N} \cdot \frac{n - p}{n - p + 1} \cdot \frac{1}{1 + (q / 0.1)^2}

    with N points, n inliers, p parameters, and q the standard error of the fitted depth, relative, as median
    over the map. So it is 0 where no point is left to check the fit: 2 points of an affine prediction.

    Where the points determine no slope, as on a wall that faces the camera, b and the confidence are 0. Where
    up to 4 points contradict the prediction, a (the best that is not negative) and the confidence are 0: the
    map is flat. More than 4 are an error.

    Args:
        raw: (1, 1, H, W) the prediction, finite.
        where: the points, from `ops.sampling.taps`.
        depth: (N,) known, > 0.
        sigma: (N,) their standard deviations, in the same unit; `NOISE` of the depth without it.
        predicts: what ``raw`` is.
        shift: whether b is fitted; else it is 0 (a metric prediction).

    Raises:
        ValueError: too few points, or more than 4 whose depth falls where the prediction says that it grows.

    Source: Rousseeuw and Van Driessen 2006 (concentration steps); Yohai 1987 (MM estimates).
    """
    needed = 2 if shift else 1
    if depth.numel() < needed:
        what = "scale and shift need at least 2" if shift else "the scale needs at least 1"
        raise ValueError(f"known points in the picture: {depth.numel()}, but {what}; add points")
    problem = _Problem.of(raw, where, depth, sigma, predicts)
    contradicted = shift and problem.contradicts()
    if contradicted and depth.numel() > FREE_POINTS:
        raise ValueError(CONTRADICTION)
    if contradicted:
        flat = problem.result(*problem.flat(), False)
        return replace(flat, confidence=0.0, sloped=False, contradicted=True)
    fit = problem.best(shift)
    if fit is not None:
        return problem.result(*fit, shift)
    plain = problem.best(False)
    if plain is None:
        raise ValueError("the prediction is 0 or negative at the known points: no scale makes it metres")
    return replace(problem.result(*plain, False), confidence=0.0, sloped=False)


@dataclass(frozen=True)
class _Problem:
    """The points as rows of a linear problem: e = (factor D) a + factor b - 1, all float64."""

    values: Tensor
    reach: Tensor
    target: Tensor
    factor: Tensor
    noise: Tensor
    levels: Tensor
    disparity: bool

    @classmethod
    def of(cls, raw: Tensor, where: Taps, depth: Tensor, sigma: Tensor | None, predicts: str) -> _Problem:
        raw, depth = raw.detach().double(), depth.double()
        low, high = extremes(raw, where)
        disparity = predicts == "disparity"
        levels = raw.flatten().sort().values
        picked = torch.linspace(0, levels.numel() - 1, 101, device=raw.device).round().long()
        return cls(
            values=read(raw, where)[0],
            reach=(high - low)[0] / 2,
            target=1 / depth if disparity else depth,
            factor=depth if disparity else 1 / depth,
            noise=torch.full_like(depth, NOISE)
            if sigma is None
            else (sigma.double() / depth).clamp(min=1e-4),
            levels=levels[picked],
            disparity=disparity,
        )

    @property
    def allowed(self) -> int:
        """The number of points that count at least."""
        count = self.values.numel()
        return count - min(int(OUTLIERS * count), max(0, count - FREE_POINTS))

    def residuals(self, theta: Tensor) -> Tensor:
        """Return e of one (2,) or several (K, 2) fits, (N,) or (K, N)."""
        a, b = theta[..., :1], theta[..., 1:]
        return self.factor * (a * self.values + b) - 1

    def deviations(self, theta: Tensor) -> Tensor:
        """Return s, in the shape of `residuals`."""
        return (self.noise**2 + (theta[..., :1] * self.reach * self.factor) ** 2).sqrt()

    def loss(self, theta: Tensor) -> Tensor:
        """Return the sum of the smallest |e| / s."""
        ratio = (self.residuals(theta) / self.deviations(theta)).abs()
        return ratio.sort(dim=-1).values[..., : self.allowed].sum(dim=-1)

    def contradicts(self) -> bool:
        r"""Return whether the known values fall where the predicted ones rise.

        By Kendall's rank correlation: it is below -0.2 and its z-score below -2.4, which takes 5 points: a
        prediction without any relation to the points gives a scale alone. Of fewer points, all pairs
        have to be in the wrong order, and farther apart than noise and errors of the prediction explain.
        """
        part = self.part(self._some(_SEARCHED))
        count = part.values.numel()
        pairs = torch.combinations(torch.arange(count, device=part.values.device), 2)
        i, j = pairs.unbind(1)
        order = torch.sign(part.values[i] - part.values[j]) * torch.sign(part.target[i] - part.target[j])
        score = float(order.sum())
        if count > FREE_POINTS:
            related = score < -0.2 * len(pairs)
            return related and score < DISCORDANT * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
        spread = float((part.target.amax() - part.target.amin()) / part.target.mean())
        return score == -len(pairs) and spread > (0.3 if count > 2 else 5 * NOISE)

    def _some(self, most: int) -> Tensor:
        """Return the indices of at most so many points, drawn with a fixed seed."""
        count = self.values.numel()
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]
        return chosen.sort().values.to(self.values.device)

    def part(self, chosen: Tensor) -> _Problem:
        rows = ("values", "reach", "target", "factor", "noise")
        return replace(self, **{name: getattr(self, name)[chosen] for name in rows})

    def best(self, shift: bool) -> tuple[Tensor, Tensor, float] | None:
        """Return the best fit with a scale above 0, its weights and the scale of the noise; None without one.

        From several starts: where the signal is hardly above the noise, the best pair is a poor start and
        least squares a good one.
        """
        part = self.part(self._some(_SEARCHED))
        exact = part._exact(shift)
        rising = exact[exact[:, 0] > 0]
        starts = [self.least_squares(1 / self.noise**2, shift)]
        starts += [some[part.loss(some).argmin()] for some in (exact, rising) if len(some)]
        fits = [fit for start in starts if (fit := self.polish(start, shift))[0][0] > 0]
        if not fits:
            return None
        scale = min(fit[2] for fit in fits)
        return min(fits, key=lambda fit: self._tukey(fit[0], scale))

    def _tukey(self, theta: Tensor, scale: float) -> float:
        """Return the sum of Tukey's losses; of infinitely much noise, that of squares."""
        ratio = self.residuals(theta) / self.deviations(theta)
        if math.isinf(scale):
            return float((ratio**2).sum())
        return float((1 - (1 - (ratio / (TUKEY * scale)) ** 2).clamp(min=0) ** 3).sum())

    def _exact(self, shift: bool) -> Tensor:
        count, device = self.values.numel(), self.values.device
        if not shift:
            known = self.values > 0
            scale = self.target[known] / self.values[known]
            return torch.stack([scale, torch.zeros_like(scale)], 1)
        pairs = torch.combinations(torch.arange(count), 2)
        if len(pairs) > _PAIRS:
            generator = torch.Generator().manual_seed(1)
            pairs = pairs[torch.randperm(len(pairs), generator=generator)[:_PAIRS]]
        i, j = pairs.to(device).unbind(1)
        run = self.values[i] - self.values[j]
        apart = run.abs() > 1e-9 * self.values.abs().amax()
        slope = (self.target[i] - self.target[j])[apart] / run[apart]
        return torch.stack([slope, self.target[i][apart] - slope * self.values[i][apart]], 1)

    def least_squares(self, weights: Tensor, shift: bool) -> Tensor:
        """Return (a, b) of the least weighted squares of e; b is 0 without a shift."""
        columns = self._columns(shift)
        root = weights.sqrt()[:, None]
        scale = (root * columns).norm(dim=0).clamp(min=1e-300)
        found = torch.linalg.lstsq(root * columns / scale, root, driver="gelsd").solution[:, 0] / scale
        return found if shift else torch.cat([found, torch.zeros_like(found)])

    def flat(self) -> tuple[Tensor, Tensor, float]:
        """Return the best fit without a slope, as `polish` does."""
        weights = 1 / self.noise**2
        shift = (weights * self.factor).sum() / (weights * self.factor**2).sum()
        return torch.stack([torch.zeros_like(shift), shift]), weights, math.inf

    def polish(self, theta: Tensor, shift: bool) -> tuple[Tensor, Tensor, float]:
        """Return the fit, the weights of the points and the scale of the noise."""
        count = self.values.numel()
        free = count <= FREE_POINTS
        for _ in range(10):  # concentration steps
            ratio = (self.residuals(theta) / self.deviations(theta)).abs()
            chosen = ratio.argsort(stable=True)[: self.allowed]
            weights = torch.zeros_like(ratio)
            weights[chosen] = 1 / self.deviations(theta)[chosen] ** 2
            theta = self.least_squares(weights, shift)
        deviations = self.deviations(theta)
        if free:
            return self._in_front(theta, 1 / deviations**2, shift), 1 / deviations**2, math.inf
        middle = (self.residuals(theta) / deviations).abs().median()
        scale = max(1.4826 * (1 + 5 / (count - 1)) * float(middle), 1e-6)
        for _ in range(20):
            ratio = self.residuals(theta) / (TUKEY * scale * deviations)
            weights = (1 - ratio**2).clamp(min=0) ** 2 / deviations**2
            theta = self.least_squares(weights, shift)
        return self._in_front(theta, weights, shift), weights, scale

    def _in_front(self, theta: Tensor, weights: Tensor, shift: bool) -> Tensor:
        """Return a fit that puts the whole map in front of the camera, if one is nearly as good."""
        least = self.target.amin() / 100
        lowest = self.levels[0]
        if not shift or theta[0] * lowest + theta[1] >= least:
            return theta
        rise = self.factor * (self.values - lowest)
        rest = 1 - self.factor * least
        slope = (weights * rise * rest).sum() / (weights * rise**2).sum().clamp(min=1e-300)
        limited = torch.stack([slope, least - slope * lowest])
        good = slope > 0 and self._squares(limited, weights) <= 1.5 * self._squares(theta, weights) + 1e-9
        return limited if good else theta

    def _squares(self, theta: Tensor, weights: Tensor) -> float:
        return float((weights * self.residuals(theta) ** 2).sum() / weights.sum())

    def result(self, theta: Tensor, weights: Tensor, scale: float, shift: bool) -> PointFit:
        """Return the fit with what the points say about it."""
        e = self.residuals(theta)
        ratio = (e / self.deviations(theta)).abs() / scale
        inliers = ratio <= 3
        relative = ((1 / (1 + e).clamp(min=1e-9) - 1) if self.disparity else e).abs()
        free = int(inliers.sum()) - (2 if shift else 1)
        confidence = 0.0
        if free > 0:
            share = float(inliers.double().mean())
            error = self._standard_error(theta, weights, free, shift)
            confidence = share * free / (free + 1) / (1 + (error / 0.1) ** 2)
        residual = float(relative[inliers].median()) if bool(inliers.any()) else math.inf
        return PointFit(float(theta[0]), float(theta[1]), ratio, residual, confidence)

    def _standard_error(self, theta: Tensor, weights: Tensor, free: int, shift: bool) -> float:
        """Return the relative standard error of the fitted value, as median over the map."""
        covariance = self._covariance(theta, weights, free, shift)
        at = torch.stack([self.levels, torch.ones_like(self.levels)], 1)
        at = at if shift else at[:, :1]
        fitted = theta[0] * self.levels + theta[1]
        error = (at @ covariance * at).sum(dim=1).clamp(min=0).sqrt() / fitted.abs().clamp(min=1e-12)
        return float(error.median())

    def _covariance(self, theta: Tensor, weights: Tensor, free: int, shift: bool) -> Tensor:
        """Return the covariance of the parameters from the scatter of the residuals."""
        columns = self._columns(shift)
        variance = (weights * self.residuals(theta) ** 2).sum() / free
        return variance * torch.linalg.pinv(columns.T @ (weights[:, None] * columns))

    def _columns(self, shift: bool) -> Tensor:
        """Return the derivatives of e, (N, parameters)."""
        columns = self.factor[:, None] * torch.stack([self.values, torch.ones_like(self.values)], 1)
        return columns if shift else columns[:, :1]
