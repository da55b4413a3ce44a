"""The refinements that a model is distilled from, and that held-out photos are validated against."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The refinement of a photo, on the CPU, at network size.

    Attributes:
        initial: (1,1,H,W) raw output of the starting model.
        refined: (1,1,H,W) raw output of the refinement, blended as the preset says.
        trust: (1,1,H,W) in [0, 1], how far the members agree at each pixel.
    """

    initial: Tensor
    refined: Tensor
    trust: Tensor
