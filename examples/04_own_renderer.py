"""A renderer from outside the package: Lambert shading from one side, swapped in by name.

    python examples/04_own_renderer.py
    python examples/04_own_renderer.py photo.jpg --preset smoke

It implements `redepth.contracts.Renderer`: draws its light, and re-lights a surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import skimage
import torch
import typer
from pydantic import Field
from torch import Generator, Tensor

import redepth
from redepth.cli.script import run
from redepth.contracts import Illumination
from redepth.ops import color, geometry, shading

COINS = Path(skimage.__file__).parent / "data" / "coins.png"


@redepth.renderers.register("lambert-ring")
@dataclass(kw_only=True, eq=False)
class LambertRing:
    """Lambert shading under lights on a ring around the viewer.

    Args:
        lights: lights a step.
        slant: angle between the light and the viewing direction, in degrees.
    """

    lights: Annotated[int, Field(ge=1)] = 1
    slant: Annotated[float, Field(gt=0, lt=90)] = 45.0

    def draw(self, batch: int, generator: Generator) -> Illumination:
        azimuth = 2 * math.pi * torch.rand(batch, self.lights, generator=generator)
        slant = torch.full_like(azimuth, math.radians(self.slant))
        direction = torch.stack(
            [slant.sin() * azimuth.cos(), slant.sin() * azimuth.sin(), slant.cos()], dim=-1
        )
        # Without a material the surface is matte to a prior that is conditioned on the light.
        return Illumination.of(direction)

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        normals = geometry.normals_from_depth(depth)
        cosine = torch.einsum("bchw,blc->blhw", normals, illumination.direction).clamp(min=0)
        return color.linear_to_srgb(cosine[:, :, None] * image_linear[:, None], shading.FLOOR)


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/own_renderer"),
) -> None:
    """Refine a photo with the paper's renderer, then with this one."""
    for name in ("blinn-phong", "lambert-ring"):
        overrides = {"renderer": {"name": name, "lights": 2}, "optim.members": 2}
        result = redepth.refine(photo, preset, overrides=overrides)
        print(name, "written to", result.save(out / name))


if __name__ == "__main__":
    run(main)
