"""A prior with access to the true surface, or one near it: an upper bound of the gain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from typing_extensions import Self

from redepth.contracts import Condition, Illumination, Noise, Prior, Renderer
from redepth.data.datasets import Sample
from redepth.ops import color, geometry
from redepth.pipeline import Pipeline


class Teacher:
    r"""Half the mean squared distance to the re-lit picture of a target surface, in the prior's units.

    .. math:: \tfrac12 \operatorname{mean} \big( 2 R(z, l) - 2 R(z^\star, l) \big)^2

    for the renderer R and light l; pictures in [0, 1] are [-1, 1] to a prior, hence the 2.

    Args:
        prior: a loaded prior. Its random numbers are drawn and not used, so that the lights that follow them
            in a member's stream are those of a run with that prior.
        renderer: R.
    """

    def __init__(self, prior: Prior, renderer: Renderer) -> None:
        self.prior, self.renderer = prior, renderer
        self.surface: Tensor | None = None

    def set_surface(self, surface: Tensor) -> None:
        """Set z*, (1, 1, H, W) relative depth at network size, for the next photo."""
        self.surface = surface

    def load(self, device: torch.device) -> Self:
        """Return itself; there is nothing to load."""
        return self

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Return the surface and the photo's linear colours. Raises ValueError if no surface was set."""
        if self.surface is None:
            raise ValueError("set the photo's surface first, by Teacher.set_surface")
        return Condition({"surface": self.surface.to(image), "linear": color.srgb_to_linear(image)})

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        """Draw the random numbers that the prior would draw."""
        return self.prior.draw(batch, generator, progress)

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """Return the loss of each picture, (N,)."""
        surface, linear = condition.tensors["surface"], condition.tensors["linear"]
        target = self.renderer(surface, linear, illumination.as_member())[0]
        return 0.5 * ((2 * relit - 2 * target) ** 2).mean(dim=(1, 2, 3))

    def describe(self) -> dict[str, Any]:
        """Return the kind of prior, for records."""
        return {"kind": "teacher with a target surface"}


def surface_between(pipeline: Pipeline, sample: Sample, share: float) -> Tensor:
    """Return the relative depth, at network size, that lies a share of the way from initial to true depth."""
    refiner = pipeline.refiner
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None]
    _, _, initial = refiner.predict(photo)
    start = refiner.relative_depth(initial / refiner.unit(initial), 0.0)
    depth = sample.depth()[None, None].to(start)
    size = start.shape[-2:]
    truth = geometry.resize(depth, *size, antialias=True)
    # Where the truth is unknown, as in the sky, the teacher keeps the initial depth.
    known = geometry.resize((depth > 0).to(start), *size, antialias=True) > 1 - 1e-4
    return torch.where(known, start + share * (truth - start), start)
