"""A depth model from outside the package: what is lower in the picture is nearer.

    python examples/06_own_depth_model.py
    python examples/06_own_depth_model.py photo.jpg

It implements `redepth.contracts.DepthModel`: an encoder whose features can be optimised, a decoder whose
weights can be optimised, and the meaning of its output. An estimator that cannot be split derives from
`redepth.depth_models.whole.WholeModel` and implements only the prediction. A network of the package
transformers derives from `redepth.depth_models.backbone.Backbone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import skimage
import torch
import torch.nn.functional as F
import typer
from pydantic import Field
from torch import Tensor

import redepth
from redepth.cli.script import run
from redepth.contracts import Features
from redepth.ops import geometry

COINS = Path(skimage.__file__).parent / "data" / "coins.png"
PATCH = 8


@redepth.depth_models.register("lower-is-nearer")
@dataclass(kw_only=True, eq=False)
class LowerIsNearer:
    """Disparity that grows downwards, and a little with brightness.

    Args:
        longer_side: of the refined image, in pixels.
        tilt: disparity at the lower edge of the picture.
    """

    supports: ClassVar[frozenset[str]] = frozenset(
        {"embeddings", "decoder", "embeddings+decoder", "depth", "low-rank"}
    )

    longer_side: Annotated[int, Field(ge=64, le=1024)] = 192
    tilt: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        self.predicts, self.invariance = "disparity", "affine"
        # Relative depth gets moderate slopes for any range of the output.
        self.scale, self.margin = "auto", 0.1

    def load(self, device: torch.device) -> LowerIsNearer:
        # One weight for each channel of a token: red, green, blue, height above the lower edge, one.
        weights = [0.1, 0.1, 0.1, -self.tilt, self.tilt + 0.5]
        self._weights = torch.tensor(weights, device=device)
        return self

    def prepare(self, photo: Tensor) -> Tensor:
        height, width = geometry.network_size(
            *photo.shape[-2:], target=self.longer_side, multiple=PATCH, rule="upper_bound"
        )
        return geometry.resize(photo, height, width, antialias=True)

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        rows, columns = (side // PATCH for side in image.shape[-2:])
        colour = F.avg_pool2d(image, PATCH)
        above = torch.linspace(1, 0, rows, device=image.device).view(1, 1, rows, 1).expand_as(colour[:, :1])
        tokens = torch.cat([colour, above, torch.ones_like(above)], dim=1).flatten(2).transpose(1, 2)
        size = (image.shape[-2], image.shape[-1])
        return Features(maps=(tokens,), constants=(), grid=(rows, columns), size=size)

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        weights = (parameters or self.decoder_parameters())["weights"]
        coarse = (features.maps[0] @ weights).unflatten(1, features.grid)[:, None]
        return F.interpolate(coarse, size=features.size, mode="bilinear", align_corners=False).relu()

    def encoder_parameters(self) -> dict[str, Tensor]:
        return {}

    def decoder_parameters(self) -> dict[str, Tensor]:
        return {"weights": self._weights}

    def release_encoder(self) -> None:
        """Release nothing: the encoder takes up no memory."""

    def describe(self) -> dict[str, Any]:
        return {"tilt": self.tilt}


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/own_depth_model"),
) -> None:
    """Refine this model's depth in two ways: by what its encoder found, and by a correction of its map."""
    for parameterization in ("embeddings", "low-rank"):
        overrides = {
            "depth_model.name": "lower-is-nearer",
            "optim": {"members": 2, "parameterization": parameterization},
        }
        result = redepth.refine(photo, preset, overrides=overrides)
        print(parameterization, "written to", result.save(out / parameterization))


if __name__ == "__main__":
    run(main)
