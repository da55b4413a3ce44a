"""A prior that is told the true surface: the most that the loop can gain, and what a mistaken one leaves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from typing_extensions import Self

from redepth.contracts import Condition, Illumination, Noise, Prior, Renderer
from redepth.ops import color


class Teacher:
    r"""Half the mean squared distance to the picture of a surface it is told, in the prior's units.

    .. math:: \tfrac12 \operatorname{mean} \big( 2 R(z, l) - 2 R(z^\star, l) \big)^2

    for the renderer R and light l; pictures in [0, 1] are [-1, 1] to a prior, hence the 2.

    Args:
        prior: whose random numbers are drawn and left unused, so that the lights that follow them in a
            member's stream are those of a run with that prior. Loaded.
        renderer: R.
    """

    def __init__(self, prior: Prior, renderer: Renderer) -> None:
        self.prior, self.renderer = prior, renderer
        self.surface: Tensor | None = None

    def tell(self, surface: Tensor) -> None:
        """Take z*, (1, 1, H, W) relative depth at network size, of the photo that comes next."""
        self.surface = surface

    def load(self, device: torch.device) -> Self:
        """Return itself: there is nothing to load."""
        return self

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Keep the surface and the photo's linear colours. Raises ValueError if no surface was told."""
        if self.surface is None:
            raise ValueError("tell the teacher the photo's surface first")
        return Condition({"surface": self.surface.to(image), "linear": color.srgb_to_linear(image)})

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        """Draw what the prior draws."""
        return self.prior.draw(batch, generator, progress)

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """Return the loss of each picture, (N,)."""
        told = condition.tensors
        target = self.renderer(told["surface"], told["linear"], illumination.as_member())[0]
        return 0.5 * ((2 * relit - 2 * target) ** 2).mean(dim=(1, 2, 3))

    def describe(self) -> dict[str, Any]:
        """Return what it is."""
        return {"kind": "teacher that is told a surface"}
