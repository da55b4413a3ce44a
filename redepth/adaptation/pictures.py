"""The pictures of a held-out photo in the report: before, refined on its own, and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth import viz
from redepth.adaptation.losses import RelativeDepth
from redepth.adaptation.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 384
"""Longest side of a picture, in pixels."""
BYTES = 60_000
"""Largest size of a picture."""

WHEN = {"initial": "before", "refined": "refined on its own", "adapted": "after"}
"""The maps, and what they are called."""


def held_out_pictures(
    photo: NDArray[np.uint8], target: Target, adapted: Tensor, relative_depth: RelativeDepth
) -> dict[str, bytes]:
    """Draw the photo, and depth and normals before, refined and after, as caption -> JPEG.

    All depths share one colour range, that of the refinement; near is bright.

    Args:
        photo: (H, W, 3).
        target: the refinement of the photo.
        adapted: (1,1,h,w) raw output of the adapted model.
        relative_depth: of this photo.
    """
    raws = {"initial": target.initial, "refined": target.refined, "adapted": adapted}
    depths = {when: relative_depth(raw.float()) for when, raw in raws.items()}
    nearness = {when: -np.log(depth[0, 0].clamp(min=1e-12).numpy()) for when, depth in depths.items()}
    low, high = viz.display_range(nearness["refined"])
    pictures = {"photo": photo}
    pictures |= {
        f"depth, {WHEN[when]}": viz.colorize(values, lo=low, hi=high) for when, values in nearness.items()
    }
    pictures |= {
        f"normals, {WHEN[when]}": viz.normals_to_rgb(viz.normals_of(depth, target.camera))
        for when, depth in depths.items()
    }
    return _jpegs(pictures, photo.shape[:2])


def _jpegs(pictures: Mapping[str, NDArray[np.uint8]], size: tuple[int, ...]) -> dict[str, bytes]:
    """Bring all pictures to the photo's proportions and a limited size."""
    factor = SIDE / max(size)
    height, width = (max(1, round(factor * side)) for side in size)
    return {
        name: viz.jpeg_within(
            Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), BYTES
        )
        for name, picture in pictures.items()
    }
