"""A prior from outside the package, without a network: shading is smooth where the photo is.

    python examples/05_own_prior.py
    python examples/05_own_prior.py photo.jpg --preset smoke

It implements `redepth.contracts.Prior`: draws its noise, and gives each re-lit picture a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import skimage
import torch
import torch.nn.functional as F
import typer
from pydantic import Field
from torch import Generator, Tensor

import redepth
from redepth.cli.script import run
from redepth.contracts import Condition, Illumination, Noise

COINS = Path(skimage.__file__).parent / "data" / "coins.png"
SCALES = (1, 2, 4)


@redepth.priors.register("smooth-shading")
@dataclass(kw_only=True, eq=False)
class SmoothShading:
    """The shading (the re-lit picture over the photo) has edges only where the photo has.

    The loss of a picture is the mean of exp(-k |d log photo|) (d log shading)^2 over both directions d, at a
    scale that is drawn anew at each step.

    Args:
        edges: k, how strongly an edge of the photo lowers the penalty of an edge of the shading.
    """

    edges: Annotated[float, Field(ge=0)] = 20.0

    def load(self, device: torch.device) -> SmoothShading:
        return self

    def condition(self, image: Tensor, prompt: str) -> Condition:
        return Condition({"photo": log_grey(image)})

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        return Noise({"scale": torch.randint(len(SCALES), (batch,), generator=generator)})

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        rows = zip(log_grey(relit), noise["scale"].tolist(), strict=True)
        return torch.stack([self.loss(row[None], condition.tensors["photo"], SCALES[i]) for row, i in rows])

    def loss(self, relit: Tensor, photo: Tensor, scale: int) -> Tensor:
        relit, photo = F.avg_pool2d(relit, scale), F.avg_pool2d(photo, scale)
        total = relit.new_zeros(())
        for axis in (2, 3):
            weight = torch.exp(-self.edges * photo.diff(dim=axis).abs())
            total = total + (weight * (relit - photo).diff(dim=axis) ** 2).mean()
        return total

    def describe(self) -> dict[str, Any]:
        return {"edges": self.edges}


def log_grey(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) sRGB to (N, 1, H, W), the logarithm of its mean."""
    return pictures.mean(dim=1, keepdim=True).clamp(min=0.02).log()


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/own_prior"),
) -> None:
    """Refine a photo with the diffusion prior that ships with redepth, then with this one."""
    for name in ("pixel-diffusion", "smooth-shading"):
        result = redepth.refine(photo, preset, overrides={"prior.name": name, "optim.members": 2})
        print(name, "written to", result.save(out / name))


if __name__ == "__main__":
    run(main)
