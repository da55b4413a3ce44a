"""Precision and recall of depth edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.metrics.batch import ImagePair, known_depth, split_batch, stack_rows

EDGE_RATIOS = (1.05, 1.1, 1.15, 1.2, 1.25)
"""Ratios of neighbouring depths above which there is an edge."""


def boundary_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    ratios: Sequence[float] = EDGE_RATIOS,
    tolerance: int = 1,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare the depth edges of prediction and ground truth.

    An edge at ratio r lies between two neighbours of a row or of a column, both inside the mask, whose
    depths differ by more than a factor r; it has a direction, the side that is nearer. An edge is matched if
    the other map has one of the same direction at most ``tolerance`` pixels away in row and column.

    .. math:: P_r = \frac{|\text{matched predicted edges}|}{|\text{predicted edges}|}, \quad
              R_r = \frac{|\text{matched true edges}|}{|\text{true edges}|}, \quad
              F_r = \frac{2 P_r R_r}{P_r + R_r}

    averaged over those ratios at which the ground truth has an edge. P is 0 where nothing is predicted, F is
    0 where P and R are. Only the ratio of neighbours counts: the metrics do not depend on the unit. They need
    dense ground truth; the points of sparse ground truth have no neighbours.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: same shapes, bool. Only pixels with known ground truth count; None is all of them.
        ratios: each > 1.
        tolerance: in pixels, >= 0.
        names: of the images, for messages.

    Returns:
        ``boundary_precision``, ``boundary_recall``, ``boundary_f1`` in [0, 1], name -> (...).

    Raises:
        InputError: it names the image. Sizes differ, nothing to measure, a depth is not positive and finite,
            or the ground truth has no edge at any ratio.
        ValueError: a ratio is <= 1 or the tolerance negative.

    Source: edges by the ratio of neighbours as in Depth Pro (arXiv 2410.02073); precision and recall within
    a tolerance as in Martin, Fowlkes and Malik, Learning to detect natural image boundaries, 2004.
    """
    if not ratios or min(ratios) <= 1 or tolerance < 0:
        raise ValueError(f"ratios must be > 1 and tolerance >= 0, got {tuple(ratios)} and {tolerance}")
    images = split_batch(prediction, truth, known_depth(truth), mask, names)
    rows = [_boundaries(image, ratios, tolerance) for image in images]
    return stack_rows(rows, prediction.shape[:-2])


def has_edges(truth: Tensor, mask: Tensor | None = None, *, ratios: Sequence[float] = EDGE_RATIOS) -> bool:
    """Return whether one depth map (H, W) has an edge that `boundary_metrics` could measure."""
    steps = _log_steps(truth, known_depth(truth, mask))
    limit = torch.tensor(min(ratios)).log()
    return any(bool((step.abs() > limit).any()) for step in steps)


def _boundaries(image: ImagePair, ratios: Sequence[float], tolerance: int) -> dict[str, Tensor]:
    inside = image.prediction[image.mask]
    if not bool((torch.isfinite(inside) & (inside > 0)).all()):
        raise image.error("some depths are not positive and finite; align them first")
    predicted, true = (_log_steps(depth, image.mask) for depth in (image.prediction, image.truth))
    scores = []
    for ratio in ratios:
        limit = torch.tensor(ratio, dtype=torch.float64).log()
        true_edges, predicted_edges = _edges(true, limit), _edges(predicted, limit)
        if any(bool(edges.any()) for edges in true_edges):
            precision = _matched(predicted_edges, true_edges, tolerance)
            recall = _matched(true_edges, predicted_edges, tolerance)
            both = precision + recall
            f1 = 2 * precision * recall / torch.where(both > 0, both, 1.0)
            scores.append(torch.stack([precision, recall, f1]))
    if not scores:
        raise image.error(f"the ground truth has no depth edge of ratio {min(ratios):g} inside the mask")
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
    """Return the share of edges that have one of the other map, of their direction, within the tolerance."""
    hits = total = 0
    for direction, other in zip(edges, others, strict=True):
        near = F.max_pool2d(other[None, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance)
        hits += int((direction & (near[0, 0] > 0)).sum())
        total += int(direction.sum())
    return torch.tensor(hits / total if total else 0.0, dtype=torch.float64)
