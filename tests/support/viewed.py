"""Small results whose page is quick to write: two different surfaces, without a refinement."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from redepth.config import load_preset
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from redepth.optim.outcome import Outcome
from redepth.refinement import Refinement

SIZE = (48, 64)


def depths(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Relative depths before and after, (1, 1, H, W): a smooth relief, and a steeper one."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    before = 2 + 0.3 * torch.sin(4 * x) * torch.cos(3 * y)
    after = before - 0.4 * torch.exp(-8 * (x**2 + y**2)) + 0.05 * torch.sin(9 * x + 5 * y)
    return before[None, None], after[None, None]


def smooth_photo(height: int, width: int) -> np.ndarray[Any, Any]:
    """A photo (H, W, 3) without fine detail, of all colours."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([0.1 + 0.8 * x, 0.9 - 0.7 * y, 0.5 + 0.4 * np.sin(5 * x * y)], axis=-1).astype(np.float32)


def result(
    camera: Camera = ORTHOGRAPHIC,
    *,
    size: tuple[int, int] = SIZE,
    photo_size: tuple[int, int] | None = None,
    members: int = 1,
    **settings: Any,
) -> Refinement:
    """A result of the preset smoke; its maps have the photo's size unless that is given."""
    before, after = depths(*size)
    shift = torch.linspace(0, 0.1, members).view(-1, 1, 1, 1)
    outcome = Outcome(
        predicts="disparity",
        initial=1 / before,
        members=1 / after + shift,
        initial_depth=before,
        member_depths=after.repeat(members, 1, 1, 1),
        offsets=torch.zeros(members),
        history={},
        steps_done=[3] * members,
        members_per_batch=members,
        camera=camera,
    )
    photo = smooth_photo(*(photo_size or size))
    return Refinement(photo, outcome, load_preset("smoke", ["output.write=view"]), **settings)
