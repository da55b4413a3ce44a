"""RelNormal: how much a surface turns between two pixels, compared with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from redepth.metrics.batch import ImagePair, known_depth, split_batch, stack_rows
from redepth.metrics.surfaces import SCALES, Grid, surfaces, thinned, unit
from redepth.ops.camera import Camera

PAIRS = 1_000_000
"""Pairs of pixels that are drawn at each scale."""

PAIRS_OF_A_PIXEL = 64
"""A small picture needs no more pairs than this for each of its pixels."""

RADIUS, LEAST_RADIUS = 32, 3
"""Greatest distance of a pair in rows and in columns, divided by the scale; and its lower bound."""

_PARALLEL = 1e-5
"""Sine of the angle at a triangle's corner below which the triangle has no normal."""


def relative_normal_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    camera: Camera,
    pairs: int | None = None,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare how much prediction and truth turn between the pixels of many pairs.

    .. math:: \text{rel\_normal} = \frac{1}{|S|} \sum_{s \in S} \frac{1}{|\Omega_s|}
              \sum_{(i, j) \in \Omega_s} \big| \angle(n_i, n_j) - \angle(m_i, m_j) \big|

    n and m are the normals of predicted and true surface. At scale s, each patch of s x s pixels is
    represented by the measured pixel that is nearest to its centre; the normal at a pixel is that of the
    triangle with the pixels two to the right and two below. A pair joins a pixel to one at most 32 / s (and
    at least 3) rows and columns away. A pair counts if the true triangles are measured; where the predicted
    one is degenerate, the error is pi. Scales without a pair are left out. The pairs are a Sobol sequence,
    the same for every prediction of that size: no number is random.

    An angle between two normals does not change if the scene is turned, moved or scaled: so neither the unit
    of depth nor a common tilt counts, but bumps and dents do.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: same shapes, bool. Only pixels with known ground truth count; None is all of them.
        camera: of both maps.
        pairs: drawn at each scale; None is a million, or 64 for each pixel of a small picture.
        names: of the images, for messages.

    Returns:
        ``rel_normal`` in radians, in [0, pi]: name -> (...).

    Raises:
        InputError: it names the image. Sizes differ, a depth is not positive and finite, or no pair has
            known ground truth.

    Source: RelNormal of Wu et al., arXiv 2510.19814, with the constants of its code (princeton-vl/EvalMDE,
    evalmde/metrics/rel_normal.py).
    """
    images = split_batch(prediction, truth, known_depth(truth), mask, names)
    rows = [{"rel_normal": _relative_normals(image, camera, _number(truth, pairs))} for image in images]
    return stack_rows(rows, prediction.shape[:-2])


def has_pairs(truth: Tensor, mask: Tensor | None = None, *, pairs: int | None = None) -> bool:
    """Return whether one depth map (H, W) has a pair that `relative_normal_metrics` could measure."""
    count = _number(truth, pairs)
    grids = thinned(known_depth(truth, mask))
    return any(bool(_both(_triangles(grid.known), _pairs(grid, count)).any()) for grid in grids)


def _number(picture: Tensor, pairs: int | None) -> int:
    height, width = picture.shape[-2:]
    return min(PAIRS, PAIRS_OF_A_PIXEL * height * width) if pairs is None else pairs


def _triangles(known: Tensor) -> Tensor:
    """Return where all three pixels of a triangle are known, (h, w) -> (h - 2, w - 2)."""
    return known[:-2, :-2] & known[2:, :-2] & known[:-2, 2:]


def _relative_normals(image: ImagePair, camera: Camera, pairs: int) -> Tensor:
    predicted, true = surfaces(image, camera)
    scores = []
    for grid in thinned(image.mask):
        drawn = _pairs(grid, pairs)
        turns, exists = zip(*(_turns(grid.of(points), drawn) for points in (predicted, true)), strict=True)
        measured = _both(_triangles(grid.known), drawn) & exists[1]
        error = torch.where(exists[0], (turns[0] - turns[1]).abs(), math.pi)
        if bool(measured.any()):
            scores.append(error[measured].mean())
    if not scores:
        raise image.error("no two pixels of the mask have a surface whose normals could be compared")
    return torch.stack(scores).mean()


def _turns(points: Tensor, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the angles between the normals of pairs, and whether both exist, from points (3, h, w)."""
    down = unit(points[:, 2:, :-2] - points[:, :-2, :-2])
    right = unit(points[:, :-2, 2:] - points[:, :-2, :-2])
    cross = torch.linalg.cross(down, right, dim=0).flatten(1)
    sine = torch.linalg.vector_norm(cross, dim=0)
    normals = unit(cross)
    n, m = (normals[:, which] for which in pairs)
    # Exact for small angles too, where the arc cosine is not.
    opposite = torch.linalg.vector_norm(torch.linalg.cross(n, m, dim=0), dim=0)
    return torch.atan2(opposite, (n * m).sum(0)), _both(sine > _PARALLEL, pairs)


def _both(found: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    flat = found.flatten()
    return flat[pairs[0]] & flat[pairs[1]]


def _pairs(grid: Grid, count: int) -> tuple[Tensor, Tensor]:
    """Return the triangles of ``count`` pairs as row * columns + column, drawn evenly by a Sobol sequence."""
    height, width = (side - 2 for side in grid.known.shape)
    radius = min(max(RADIUS // grid.scale, LEAST_RADIUS), max(height, width))
    return _drawn(height, width, radius, count)


@lru_cache(maxsize=len(SCALES))  # prediction after prediction has the same size; 16 MB each
def _drawn(height: int, width: int, radius: int, count: int) -> tuple[Tensor, Tensor]:
    sequence = torch.quasirandom.SobolEngine(4)
    size = torch.tensor([height, width])
    spread = torch.tensor([height, width, 2 * radius, 2 * radius])
    found = torch.empty(2, 0, 2, dtype=torch.long)
    while found.shape[1] < count:
        point = sequence.draw(math.ceil(1.1 * count), dtype=torch.float32) * spread
        first = point[:, :2].floor().long()
        second = (point[:, :2] + (point[:, 2:] - radius)).floor().long()
        inside = ((second >= 0) & (second < size) & (first < size)).all(1)
        found = torch.cat([found, torch.stack([first[inside], second[inside]])], dim=1)
    row, column = found[:, :count].unbind(-1)
    flat = row * width + column
    return flat[0].clone(), flat[1].clone()
