"""How a surface bends, compared with the truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redepth.metrics.batch import ImagePair, known_depth, split_batch, stack_rows
from redepth.metrics.surfaces import surfaces, thinned, unit
from redepth.ops.camera import Camera

_REACH = 2
"""Rows and columns around a pixel that its bend depends on."""


def curvature_metrics(
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    camera: Camera,
    names: Sequence[str] = (),
) -> dict[str, Tensor]:
    r"""Compare how prediction and truth bend at each pixel.

    .. math:: c = \frac{1}{2} \sum_{e \in \{\text{row}, \text{column}\}}
              \frac{(n_{+e} - n_{-e}) \cdot (P_{+e} - P_{-e})}{\lVert P_{+e} - P_{-e} \rVert}, \qquad
              \text{curvature\_error} = \frac{1}{|S|} \sum_{s \in S} \overline{|c_p - c_t|}

    P is the surface's point and n its normal towards the viewer, by central differences, at the pixels
    before (-e) and after (+e) along row and column. The quotient is the angle in radians by which the
    normal turns between the two, > 0 where the surface bulges to the viewer: their distance divided by R on a
    sphere of radius R, 0 on a plane. It has no unit, and lies in [-2, 2] at any depth edge. The scales S are
    those of `relative_normal_metrics`: patches of 1, 2, 4 and 8 pixels, of which the measured pixel next to
    the centre is taken. A pixel counts if all that its c needs is measured; scales without one are left out.

    A prediction without any relief has the error mean|c_t|; one whose relief is turned inside out has twice
    that. abs_rel sees neither if the relief is shallow.

    Args:
        prediction: (..., H, W) aligned depth, finite and > 0 inside the mask.
        truth: (H, W) or (..., H, W) depth.
        mask: same shapes, bool. Only pixels with known ground truth count; None is all of them.
        camera: of both maps.
        names: of the images, for messages.

    Returns:
        ``curvature_error`` in radians, in [0, 4]: name -> (...).

    Raises:
        InputError: it names the image. Sizes differ, a depth is not positive and finite, or the mask holds
            no pixel with all that its c needs.
    """
    images = split_batch(prediction, truth, known_depth(truth), mask, names)
    rows = [{"curvature_error": _bends_differ(image, camera)} for image in images]
    return stack_rows(rows, prediction.shape[:-2])


def has_curvature(truth: Tensor, mask: Tensor | None = None) -> bool:
    """Return whether one depth map (H, W) has a pixel that `curvature_metrics` could measure."""
    return any(bool(_measured(grid.known).any()) for grid in thinned(known_depth(truth, mask)))


def _bends_differ(image: ImagePair, camera: Camera) -> Tensor:
    predicted, true = surfaces(image, camera)
    scores = []
    for grid in thinned(image.mask):
        where = _measured(grid.known)
        if bool(where.any()):
            scores.append((_bend(grid.of(predicted)) - _bend(grid.of(true))).abs()[where].mean())
    if not scores:
        raise image.error("the mask holds no 5 x 5 pixels whose curvature could be compared")
    return torch.stack(scores).mean()


def _bend(points: Tensor) -> Tensor:
    """Return c from points (3, h, w), without the margin that has none: (h - 4, w - 4)."""
    right, down = _across(points)
    # x right, y up, z away: this order faces the viewer.
    normals = unit(torch.linalg.cross(right, down, dim=0))
    inner = points[:, 1:-1, 1:-1]
    turns = [(turn * unit(step)).sum(0) for turn, step in zip(_across(normals), _across(inner), strict=True)]
    return (turns[0] + turns[1]) / 2


def _across(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return next minus last along rows and along columns, (C, h, w) -> (C, h - 2, w - 2) each."""
    return values[:, 1:-1, 2:] - values[:, 1:-1, :-2], values[:, 2:, 1:-1] - values[:, :-2, 1:-1]


def _measured(known: Tensor) -> Tensor:
    """Return where all pixels at most `_REACH` steps away are known, (h, w) -> (h - 4, w - 4)."""
    height, width = (side - 2 * _REACH for side in known.shape)
    if min(height, width) < 1:
        return known[:0, :0]
    steps = range(-_REACH, _REACH + 1)
    whole = torch.ones(height, width, dtype=torch.bool)
    for row in steps:
        for column in steps:
            if abs(row) + abs(column) <= _REACH:
                whole &= known[_REACH + row :, _REACH + column :][:height, :width]
    return whole
