"""Depth, normals and boundaries against ground truth, the alignment before, and the statistics after.

`align` is a step of its own: it brings a prediction to the ground truth's units and says what it clipped.
The metrics take what it returns and never align by themselves. All of them take one image (H, W) or a batch
(..., H, W) against the truth of each or one truth for all, measure where a mask is true, accumulate in
float64, and return a tensor of one value per image. Which alignment, range and mask belong to a benchmark is
written in `redepth.protocols`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.contracts import Predicts
from redepth.errors import InputError
from redepth.ops.align import Fit, median_ratio, scale_and_shift, scale_only, trimmed_mask

Method = Literal["none", "median", "scale", "affine-depth", "affine-disparity", "affine-disparity-then-depth"]
"""How a prediction is brought to the ground truth's units; see `align`."""

NORMAL_ANGLES = (5.0, 7.5, 11.25, 22.5, 30.0)
EDGE_RATIOS = (1.05, 1.1, 1.15, 1.2, 1.25)


# --- what goes in ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    """One image of a batch: what to call it in messages, and its (H, W) or (C, H, W) arrays."""

    name: str
    prediction: Tensor
    truth: Tensor
    mask: Tensor

    def fail(self, problem: object) -> InputError:
        return InputError(f"{self.name}: {problem}" if self.name else str(problem))


def known_depth(truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return where ground-truth depth is known: finite, > 0 and inside the mask (bool, same shape)."""
    known = torch.isfinite(truth) & (truth > 0)
    return known if mask is None else known & mask


def _images(
    prediction: Tensor,
    truth: Tensor,
    known: Tensor,
    mask: Tensor | None,
    names: Sequence[str],
    channels: tuple[int, ...] = (),
) -> list[_Image]:
    """Split a batch; what is measured is the mask where the truth is known."""
    inner = prediction.shape[prediction.dim() - len(channels) - 2 :]
    lead = prediction.shape[: prediction.dim() - len(inner)]
    count = lead.numel()
    if names and len(names) != count:
        raise ValueError(f"{len(names)} names for {count} images")
    if not names:
        names = [f"image {i + 1} of {count}" for i in range(count)] if count > 1 else [""]
    where = names[0] if count == 1 else ""
    predictions = prediction.reshape(count, *inner)
    truths = _expanded(truth, lead, inner, "ground truth", where)
    measured = _expanded(known, lead, inner[-2:], "ground truth", where)
    if mask is not None:
        measured = measured & _expanded(mask, lead, inner[-2:], "mask", where)
    images = [_Image(*row) for row in zip(names, predictions, truths, measured, strict=True)]
    for image in images:
        if not bool(image.mask.any()):
            raise image.fail("the mask holds no pixel with known ground truth: nothing can be measured")
    return images


def _expanded(values: Tensor, lead: torch.Size, inner: torch.Size, what: str, where: str) -> Tensor:
    """Return (N, *inner) of one array for all images or one for each."""
    own = values.shape[: values.dim() - len(inner)]
    if values.shape[len(own) :] != inner or own not in (torch.Size(), lead):
        text = f"sizes differ: prediction {(*lead, *inner)}, {what} {tuple(values.shape)}; make them one size"
        raise InputError(f"{where}: {text}" if where else text)
    return values.expand(*lead, *inner).reshape(-1, *inner)


def _stacked(values: Sequence[Mapping[str, Tensor]], lead: torch.Size) -> dict[str, Tensor]:
    """Join one record per image to one tensor per name, shaped like the batch."""
    return {name: torch.stack([row[name] for row in values]).reshape(lead) for name in values[0]}


# --- alignment ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aligned:
    """A prediction in the ground truth's units.

    Attributes:
        depth: (..., H, W) float64, finite and > 0 everywhere.
        clipped: (...) share of the measured pixels that had to be clipped.
        parameters: scales and shifts that were fitted, name -> (...): ``disparity_scale``,
            ``disparity_shift``, ``depth_scale``, ``depth_shift``, those that the method has.
        unclipped: (..., H, W) the depth before it was clipped; infinite where there is none.
    """

    depth: Tensor
    clipped: Tensor
    parameters: dict[str, Tensor]
    unclipped: Tensor


def align(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None,
    method: Method,
    *,
    predicts: Predicts = "disparity",
    near: float | None = None,
    far: float | None = None,
    trim: float = 0.0,
    names: Sequence[str] = (),
) -> Aligned:
    r"""Bring predictions to the ground truth's units over the mask.

    With p the prediction as depth, d the prediction as disparity and t the true depth:

    - ``none``: p as it is (a metric prediction).
    - ``median``: s p, s = median(t) / median(p).
    - ``scale``: s p, s the least-squares scale of p to t.
    - ``affine-depth``: a p + b, least squares to t.
    - ``affine-disparity``: 1 / (a d + b), least squares of a d + b to 1 / t.
    - ``affine-disparity-then-depth``: the paper's. 1 / (a d + b) where positive and 0 elsewhere, and this
      once more by least squares to t. A prediction of depth takes the second step only.

    A prediction of the other kind is inverted first. Where that is not possible (<= 0) it has no value to
    fit: such pixels are left out of the fit and end at the range's end that they point to.

    Args:
        prediction: (..., H, W) raw; finite inside the mask.
        truth: (H, W) or (..., H, W) depth; unknown where <= 0 or not finite.
        mask: likewise, bool, where to align and to measure; None is wherever the truth is known.
        method: how.
        predicts: what the prediction is.
        near: what aligned depth is clipped to from below. None is no limit; what is not positive is then set
            to the least ground truth inside the mask, for the metrics need a logarithm.
        far: what it is clipped to from above. None is no limit; what is infinite is then set to the greatest
            ground truth inside the mask.
        trim: share of the mask that each least-squares fit may leave out as outliers
            (`ops.align.trimmed_mask`).
        names: of the images, for messages.

    Raises:
        InputError: naming the image: sizes differ, the mask holds no known ground truth, the ground truth is
            constant inside it, the prediction is not finite inside it, or no fit exists.
    """
    found = [
        _align_image(image, method, predicts, near, far, trim)
        for image in _images(prediction, truth, known_depth(truth), mask, names)
    ]
    lead = prediction.shape[:-2]
    scalars = _stacked([{"clipped": one.clipped, **one.parameters} for one in found], lead)
    clipped = scalars.pop("clipped")
    depth = torch.stack([one.depth for one in found]).reshape(prediction.shape)
    unclipped = torch.stack([one.unclipped for one in found]).reshape(prediction.shape)
    return Aligned(depth, clipped, scalars, unclipped)


def _align_image(
    image: _Image,
    method: Method,
    predicts: Predicts,
    near: float | None,
    far: float | None,
    trim: float,
) -> Aligned:
    inside = image.truth[image.mask].double()
    if bool((inside == inside[0]).all()):
        raise image.fail("the ground truth is constant inside the mask: nothing can be aligned to it")
    missing = int((~torch.isfinite(image.prediction[image.mask])).sum())
    if missing:
        raise image.fail(f"the prediction is not finite at {missing} of {inside.numel()} measured pixels")
    raw = torch.where(torch.isfinite(image.prediction), image.prediction, 0.0).double()
    truth = torch.where(image.mask, image.truth, 1.0).double()
    try:
        unclipped, parameters = _fitted(raw, truth, image.mask, method, predicts, trim)
    except ValueError as error:
        raise image.fail(error) from None
    below = unclipped <= 0 if near is None else unclipped < near
    above = torch.isinf(unclipped) if far is None else unclipped > far
    lowest = inside.min() if near is None else inside.new_tensor(near)
    highest = inside.max() if far is None else inside.new_tensor(far)
    depth = torch.where(below, lowest, torch.where(above, highest, unclipped))
    share = (below | above)[image.mask].double().mean()
    return Aligned(depth, share, parameters, unclipped)


def _fitted(
    raw: Tensor, truth: Tensor, mask: Tensor, method: Method, predicts: Predicts, trim: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return aligned depth, infinite where there is none, and the fitted numbers."""
    if method == "affine-disparity-then-depth":
        if predicts == "disparity":
            return _twice(raw, truth, mask, trim)
        method = "affine-depth"
    if method == "affine-disparity":
        disparity = raw if predicts == "disparity" else _inverse(raw)
        aligned, parameters = _affine(disparity, 1 / truth, mask, trim, "disparity", scale_and_shift)
        return _inverse(aligned), parameters
    depth = raw if predicts == "depth" else _inverse(raw)
    if method == "none":
        return depth, {}
    if method == "median":
        ratio = median_ratio(depth, truth, mask)
        return ratio * depth, {"depth_scale": ratio}
    fit = scale_only if method == "scale" else scale_and_shift
    aligned, parameters = _affine(depth, truth, mask, trim, "depth", fit)
    if method == "scale":
        del parameters["depth_shift"]
    return aligned, parameters


def _affine(
    values: Tensor, target: Tensor, mask: Tensor, trim: float, space: str, fit: Fit
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a v + b, infinite where v is, and (a, b)."""
    usable = torch.isfinite(values)
    finite = torch.where(usable, values, 0.0)
    a, b = fit(finite, target, trimmed_mask(fit, finite, target, mask & usable, trim))
    aligned = torch.where(usable, a * finite + b, torch.inf)
    return aligned, {f"{space}_scale": a, f"{space}_shift": b}


def _twice(disparity: Tensor, truth: Tensor, mask: Tensor, trim: float) -> tuple[Tensor, dict[str, Tensor]]:
    aligned, first = _affine(disparity, 1 / truth, mask, trim, "disparity", scale_and_shift)
    positive = aligned > 0
    depth = torch.where(positive, 1 / torch.where(positive, aligned, 1.0), 0.0)
    aligned, second = _affine(depth, truth, mask, trim, "depth", scale_and_shift)
    return aligned, first | second


def _inverse(values: Tensor) -> Tensor:
    """Return 1 / v where v > 0 and infinity elsewhere."""
    positive = values > 0
    return torch.where(positive, 1 / torch.where(positive, values, 1.0), torch.inf)


# --- depth ----------------------------------------------------------------------------------------


def depth_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    silog_lambda: float = 1.0,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare positive depths in the same units.

    With p the prediction, t the truth and e = ln p - ln t, means over the mask: ``a1``, ``a2``, ``a3`` (often
    called delta 1 to 3) the share with max(p / t, t / p) < 1.25^k; ``abs_rel`` |p - t| / t; ``sq_rel``
    (p - t)^2 / t; ``rmse``, ``rmse_log`` the roots of the means of (p - t)^2 and e^2; ``log_10``
    |log10 p - log10 t|; and

    .. math:: \text{silog} = 100 \sqrt{\overline{e^2} - \lambda \, \overline{e}^2}

    ``sq_rel`` and ``rmse`` are in the truth's units, the others have none.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: likewise, bool; None is wherever the truth is known (finite and > 0), which it is always cut to.
        silog_lambda: 1 is the scale-invariant error of the KITTI benchmark and of the paper, 0.5 the training
            loss of Eigen et al.; papers differ.
        names: of the images, for messages.

    Returns:
        name -> (...).

    Raises:
        InputError: naming the image: sizes differ, nothing to measure, a depth is not positive and finite.

    Source: Eigen et al., arXiv 1406.2283.
    """
    return metrics_of(depth_means(prediction, truth, mask, names=names), silog_lambda=silog_lambda)


def depth_means(
    prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, names: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the means over the mask that `metrics_of` makes metrics of, and ``pixels``, how many counted.

    Weighted by ``pixels`` the means of several images pool to those of all their pixels (`pooled`).
    Arguments and errors are those of `depth_metrics`.
    """
    rows = [_means(image) for image in _images(prediction, truth, known_depth(truth), mask, names)]
    return _stacked(rows, prediction.shape[:-2])


def _means(image: _Image) -> dict[str, Tensor]:
    p, t = image.prediction[image.mask].double(), image.truth[image.mask].double()
    bad = int((~(torch.isfinite(p) & (p > 0))).sum())
    if bad:
        raise image.fail(f"{bad} of {p.numel()} depths are not positive and finite; align them first")
    ratio = torch.maximum(p / t, t / p)
    e = p.log() - t.log()
    values = {f"a{k}": (ratio < 1.25**k).double().mean() for k in (1, 2, 3)}
    values["abs_rel"] = ((p - t).abs() / t).mean()
    values["sq_rel"] = ((p - t) ** 2 / t).mean()
    values["square"] = ((p - t) ** 2).mean()
    values["log_square"] = (e**2).mean()
    values["log"] = e.mean()
    # About the mean, where the difference of two large numbers would lose a small spread.
    values["log_spread"] = ((e - e.mean()) ** 2).mean()
    values["log_10"] = (p.log10() - t.log10()).abs().mean()
    return values | {"pixels": t.new_tensor(float(t.numel()))}


def metrics_of(means: Mapping[str, Tensor], *, silog_lambda: float = 1.0) -> dict[str, Tensor]:
    """Return the metrics of `depth_metrics` from the means of `depth_means` or `pooled`.

    Raises:
        ValueError: for a lambda outside [0, 1], where SI-log need not be real.
    """
    if not 0 <= silog_lambda <= 1:
        raise ValueError(f"silog_lambda must be in [0, 1], got {silog_lambda}")
    metrics = {name: means[name] for name in ("a1", "a2", "a3", "abs_rel", "sq_rel")}
    metrics["rmse"] = means["square"].sqrt()
    metrics["rmse_log"] = means["log_square"].sqrt()
    metrics["log_10"] = means["log_10"]
    spread = means["log_spread"] + (1 - silog_lambda) * means["log"] ** 2
    return metrics | {"silog": 100 * spread.sqrt()}


def pooled(means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pool the means of n images, name -> (n,), to those of all their pixels, name -> scalar."""
    weights = means["pixels"] / means["pixels"].sum()
    joint = {name: (weights * values).sum() for name, values in means.items() if name != "pixels"}
    between = (weights * (means["log"] - joint["log"]) ** 2).sum()
    joint["log_spread"] = joint["log_spread"] + between
    return joint | {"pixels": means["pixels"].sum()}


# --- normals --------------------------------------------------------------------------------------


def normal_metrics(
    prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, names: Sequence[str] = ()
) -> dict[str, Tensor]:
    r"""Compare normals by their angle in degrees.

    .. math:: \theta = \operatorname{atan2}(\lVert n \times m \rVert, \; n \cdot m)

    which is exact for small angles too, and does not ask for unit length.

    Args:
        prediction: (..., 3, H, W), finite and not zero inside the mask, any length.
        truth: (3, H, W) or (..., 3, H, W) in the same frame.
        mask: (H, W) or (..., H, W) bool; None is wherever the truth is finite and not zero, which it is
            always cut to.
        names: of the images, for messages.

    Returns:
        ``normals_mean`` and ``normals_median`` in degrees, and the share in % that is below 5, 7.5, 11.25,
        22.5 and 30 degrees (``normals_5`` ... ``normals_30``), name -> (...).

    Raises:
        InputError: naming the image: sizes differ, nothing to measure, a predicted normal is zero or not
            finite.
    """
    known = _has_direction(truth, -3)
    rows = [_angles(image) for image in _images(prediction, truth, known, mask, names, channels=(3,))]
    return _stacked(rows, prediction.shape[:-3])


def _has_direction(normals: Tensor, dim: int) -> Tensor:
    return torch.isfinite(normals).all(dim) & (normals != 0).any(dim)


def _angles(image: _Image) -> dict[str, Tensor]:
    n, m = image.prediction[:, image.mask].double(), image.truth[:, image.mask].double()
    bad = int((~_has_direction(n, 0)).sum())
    if bad:
        raise image.fail(f"{bad} of {n.shape[1]} predicted normals are zero or not finite")
    sine = torch.linalg.vector_norm(torch.linalg.cross(n, m, dim=0), dim=0)
    angle = torch.rad2deg(torch.atan2(sine, (n * m).sum(dim=0)))
    ordered = angle.sort().values
    count = ordered.numel()
    values = {
        "normals_mean": angle.mean(),
        "normals_median": (ordered[(count - 1) // 2] + ordered[count // 2]) / 2,
    }
    for limit in NORMAL_ANGLES:
        values[f"normals_{limit:g}"] = 100 * (angle < limit).double().mean()
    return values


# --- boundaries -----------------------------------------------------------------------------------


def boundary_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    ratios: Sequence[float] = EDGE_RATIOS,
    tolerance: int = 1,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare where depth jumps.

    An edge at ratio r lies between two neighbours of a row or of a column, both inside the mask, whose
    depths differ by more than a factor r; it has a direction, the side that is nearer. An edge is matched if
    the other map has one of the same direction at most ``tolerance`` pixels away in row and column.

    .. math:: P_r = \frac{|\text{matched predicted edges}|}{|\text{predicted edges}|}, \quad
              R_r = \frac{|\text{matched true edges}|}{|\text{true edges}|}, \quad
              F_r = \frac{2 P_r R_r}{P_r + R_r}

    averaged over those ratios at which the truth has an edge. P is 0 where nothing is predicted, F is 0
    where P and R are. Only the ratio of neighbours counts: the metrics do not depend on the unit. They want
    dense ground truth; between the points of a sparse one there are no neighbours.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: likewise, bool; None is wherever the truth is known, which it is always cut to.
        ratios: each > 1.
        tolerance: in pixels, >= 0.
        names: of the images, for messages.

    Returns:
        ``boundary_precision``, ``boundary_recall``, ``boundary_f1`` in [0, 1], name -> (...).

    Raises:
        InputError: naming the image: sizes differ, nothing to measure, a depth is not positive and finite, or
            the truth has no edge at any ratio.
        ValueError: for a ratio <= 1 or a negative tolerance.

    Source: edges by the ratio of neighbours as in Depth Pro (arXiv 2410.02073); precision and recall within
    a tolerance as in Martin, Fowlkes and Malik, Learning to detect natural image boundaries, 2004.
    """
    if not ratios or min(ratios) <= 1 or tolerance < 0:
        raise ValueError(f"ratios must be > 1 and tolerance >= 0, got {tuple(ratios)} and {tolerance}")
    images = _images(prediction, truth, known_depth(truth), mask, names)
    rows = [_boundaries(image, ratios, tolerance) for image in images]
    return _stacked(rows, prediction.shape[:-2])


def has_edges(truth: Tensor, mask: Tensor | None = None, *, ratios: Sequence[float] = EDGE_RATIOS) -> bool:
    """Return whether one depth map (H, W) has an edge that `boundary_metrics` could measure."""
    steps = _log_steps(truth, known_depth(truth, mask))
    limit = torch.tensor(min(ratios)).log()
    return any(bool((step.abs() > limit).any()) for step in steps)


def _boundaries(image: _Image, ratios: Sequence[float], tolerance: int) -> dict[str, Tensor]:
    inside = image.prediction[image.mask]
    if not bool((torch.isfinite(inside) & (inside > 0)).all()):
        raise image.fail("some depths are not positive and finite; align them first")
    predicted, true = (_log_steps(depth, image.mask) for depth in (image.prediction, image.truth))
    scores = []
    for ratio in ratios:
        limit = torch.tensor(ratio, dtype=torch.float64).log()
        theirs, ours = _edges(true, limit), _edges(predicted, limit)
        if any(bool(edges.any()) for edges in theirs):
            precision, recall = _matched(ours, theirs, tolerance), _matched(theirs, ours, tolerance)
            both = precision + recall
            f1 = 2 * precision * recall / torch.where(both > 0, both, 1.0)
            scores.append(torch.stack([precision, recall, f1]))
    if not scores:
        raise image.fail(f"the ground truth has no depth edge of ratio {min(ratios):g} inside the mask")
    mean = torch.stack(scores).mean(dim=0)
    return {f"boundary_{name}": mean[i] for i, name in enumerate(("precision", "recall", "f1"))}


def _log_steps(depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln of the ratio of neighbours along rows (H, W-1) and columns (H-1, W), 0 outside the mask."""
    log = torch.where(mask, depth, 1.0).double().log()
    across = torch.where(mask[:, 1:] & mask[:, :-1], log[:, 1:] - log[:, :-1], 0.0)
    down = torch.where(mask[1:] & mask[:-1], log[1:] - log[:-1], 0.0)
    return across, down


def _edges(steps: tuple[Tensor, Tensor], limit: Tensor) -> list[Tensor]:
    """Return the edges of the four directions."""
    return [sign * step > limit for step in steps for sign in (1, -1)]


def _matched(edges: Sequence[Tensor], others: Sequence[Tensor], tolerance: int) -> Tensor:
    """Return the share of edges that have another one of their direction within the tolerance."""
    hits = total = 0
    for mine, other in zip(edges, others, strict=True):
        near = F.max_pool2d(other[None, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance)
        hits += int((mine & (near[0, 0] > 0)).sum())
        total += int(mine.sum())
    return torch.tensor(hits / total if total else 0.0, dtype=torch.float64)


# --- over a data set ------------------------------------------------------------------------------


def win_rate(before: Sequence[float], after: Sequence[float], *, lower_is_better: bool = True) -> float:
    """Return the share of images that improved; a tie is no win.

    Raises:
        InputError: without images, for two different numbers of them, or a value that is not finite.
    """
    first, second = _paired(before, after)
    better = second < first if lower_is_better else second > first
    return float(better.double().mean())


@dataclass(frozen=True)
class Interval:
    """A relative change, or a difference of two, in percent with its confidence interval.

    Negative where the mean fell, or fell further.
    """

    change: float
    low: float
    high: float


def bootstrap_interval(
    before: Sequence[float],
    after: Sequence[float],
    *,
    generator: torch.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    r"""Return the relative change of the mean with its percentile bootstrap interval over images.

    .. math:: 100 \left( \overline{after} / \overline{before} - 1 \right) \; \%

    Images are drawn with replacement, each with both of its values, so that the interval is that of a
    paired comparison.

    Args:
        before: one value per image.
        after: those of the same images.
        generator: a CPU generator; the same state gives the same interval.
        resamples: how many draws.
        level: of confidence, in (0, 1).

    Raises:
        InputError: as `win_rate` does, or where the mean before is 0 and no change is relative to it.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3.
    """
    first, second = _paired(before, after)
    means = _resampled_means(torch.stack([first, second], dim=1), generator, resamples)
    changes = 100 * (means[:, 1] / means[:, 0] - 1)
    return Interval(100 * (float(second.mean() / first.mean()) - 1), *_tails(changes, level))


def paired_difference(
    before: Sequence[float],
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    generator: torch.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    r"""Return the difference of two relative changes with its percentile bootstrap interval over images.

    .. math:: 100 \, (\overline{ours} - \overline{theirs}) / \overline{before} \; \%

    Images are drawn with replacement, each with its three values, so that what makes an image hard for both
    cancels. Below 0 where ours is the lower one.

    Args:
        before: one value per image, that both changes are relative to.
        ours: the same images after the one.
        theirs: the same images after the other.
        generator: as for `bootstrap_interval`, which has the source.
        resamples: how many draws.
        level: of confidence, in (0, 1).

    Raises:
        InputError: as `bootstrap_interval` does.
    """
    columns = [_paired(before, values) for values in (ours, theirs)]
    means = _resampled_means(
        torch.stack([columns[0][0], *(after for _, after in columns)], dim=1), generator, resamples
    )
    first, a, b = columns[0][0].mean(), columns[0][1].mean(), columns[1][1].mean()
    return Interval(
        100 * float((a - b) / first), *_tails(100 * (means[:, 1] - means[:, 2]) / means[:, 0], level)
    )


def _resampled_means(columns: Tensor, generator: torch.Generator, resamples: int) -> Tensor:
    """Return means over images drawn with replacement, (images, k) -> (resamples, k).

    Raises InputError where the mean of the first column, which changes are relative to, is 0.
    """
    count = len(columns)
    # In chunks, so that thousands of images take no gigabytes.
    chunk = max(1, 2_000_000 // count)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    picks = (torch.randint(count, (size, count), generator=generator) for size in sizes)
    means = torch.cat([columns[pick].mean(dim=1) for pick in picks])
    if bool((means[:, 0] == 0).any()):
        raise InputError("the mean before is 0 in a resample: a change relative to it has no meaning")
    return means


def _tails(values: Tensor, level: float) -> tuple[float, float]:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def _paired(before: Sequence[float], after: Sequence[float]) -> tuple[Tensor, Tensor]:
    first, second = (torch.as_tensor(values, dtype=torch.float64).flatten() for values in (before, after))
    if len(first) != len(second) or not len(first):
        raise InputError(f"{len(first)} values before and {len(second)} after: give both of each image")
    if not bool(torch.isfinite(first).all() & torch.isfinite(second).all()):
        raise InputError("a value before or after is not finite: leave images out that have no result")
    return first, second


# --- the paper's protocol -------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: name -> value; see `depth_metrics`.
        aligned: (H, W) the prediction as depth in the ground truth's units, not clipped.
        clipped: share of the mask's pixels whose aligned depth was not positive; they were set to the
            least ground-truth depth of the mask, so that no metric becomes NaN.
    """

    metrics: dict[str, float]
    aligned: Tensor
    clipped: float


def evaluate(
    raw: Tensor, gt_depth: Tensor, mask: Tensor | None = None, *, predicts: Predicts = "disparity"
) -> Evaluation:
    """Score a raw prediction against ground-truth depth by the paper's double least squares.

    `align` by ``affine-disparity-then-depth``, clipped only where the depth is not positive, then
    `depth_metrics`. Pixels whose prediction is not finite are left out.

    Args:
        raw: (H, W) disparity or depth, affine-invariant.
        gt_depth: (H, W) depth, > 0 where known; 0, negative and non-finite values are unknown.
        mask: (H, W) bool, where to measure; None is everywhere.
        predicts: what ``raw`` is.

    Raises:
        InputError: if sizes differ, or too little ground truth is left, or it is constant.
    """
    if raw.shape != gt_depth.shape or (mask is not None and mask.shape != raw.shape):
        shapes = f"prediction {tuple(raw.shape)}, ground truth {tuple(gt_depth.shape)}"
        raise InputError(f"sizes differ: {shapes}; they must be one size, the photo's")
    valid = known_depth(gt_depth, mask) & torch.isfinite(raw)
    if int(valid.sum()) < 2:
        raise InputError("the ground truth has no known depth (> 0, finite) inside the mask")
    found = align(raw, gt_depth, valid, "affine-disparity-then-depth", predicts=predicts)
    metrics = depth_metrics(found.depth, gt_depth, valid)
    values = {name: float(value) for name, value in metrics.items()}
    return Evaluation(values, found.unclipped, float(found.clipped))


def silog(disparity: Tensor, gt_depth: Tensor) -> float:
    """Return the SI-log of one (H, W) disparity under the paper's protocol."""
    return evaluate(disparity, gt_depth).metrics["silog"]
