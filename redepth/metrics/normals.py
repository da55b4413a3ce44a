"""Angles between normals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redepth.metrics.batch import ImagePair, split_batch, stack_rows

NORMAL_ANGLES = (5.0, 7.5, 11.25, 22.5, 30.0)
"""In degrees; the share of pixels below each of them is a metric."""


def normal_metrics(
    prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, names: Sequence[str] = ()
) -> dict[str, Tensor]:
    r"""Compare normals by their angle in degrees.

    .. math:: \theta = \operatorname{atan2}(\lVert n \times m \rVert, \; n \cdot m)

    This is exact for small angles too, and does not need unit length.

    Args:
        prediction: (..., 3, H, W), finite and not zero inside the mask, any length.
        truth: (3, H, W) or (..., 3, H, W) in the same frame.
        mask: (H, W) or (..., H, W) bool. Only pixels whose true normal is finite and not zero count; None
            is all of them.
        names: of the images, for messages.

    Returns:
        ``normals_mean`` and ``normals_median`` in degrees, and the share in % that is below 5, 7.5, 11.25,
        22.5 and 30 degrees (``normals_5`` ... ``normals_30``), name -> (...).

    Raises:
        InputError: it names the image. Sizes differ, nothing to measure, or a predicted normal is zero or
            not finite.
    """
    known = _has_direction(truth, -3)
    rows = [_angles(image) for image in split_batch(prediction, truth, known, mask, names, channels=(3,))]
    return stack_rows(rows, prediction.shape[:-3])


def _has_direction(normals: Tensor, dim: int) -> Tensor:
    return torch.isfinite(normals).all(dim) & (normals != 0).any(dim)


def _angles(image: ImagePair) -> dict[str, Tensor]:
    n, m = image.prediction[:, image.mask].double(), image.truth[:, image.mask].double()
    bad = int((~_has_direction(n, 0)).sum())
    if bad:
        raise image.error(f"{bad} of {n.shape[1]} predicted normals are zero or not finite")
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
