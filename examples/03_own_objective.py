"""An objective from outside the package, added to the prior's loss by name.

    python examples/03_own_objective.py
    python examples/03_own_objective.py photo.jpg --weight 3

It implements `redepth.contracts.Objective`: a surface in, one loss for each member out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import skimage
import typer
from pydantic import Field
from torch import Tensor

import redepth
from redepth.cli.script import run
from redepth.contracts import Surface
from redepth.ops.geometry import normals_from_depth

COINS = Path(skimage.__file__).parent / "data" / "coins.png"


@redepth.objectives.register("facing")
@dataclass(kw_only=True, eq=False)
class Facing:
    """Slopes steeper than a limit are penalised: 1 - n_z of the normals n beyond it.

    Args:
        degrees: the steepest angle to the picture plane that costs nothing.
    """

    degrees: Annotated[float, Field(ge=0, lt=90)] = 30.0

    def __call__(self, surface: Surface) -> Tensor:
        """Return the mean over the pixels, (B,)."""
        limit = surface.depth.new_tensor(self.degrees).deg2rad().cos()
        facing = normals_from_depth(surface.depth)[:, 2]
        return (limit - facing).clamp(min=0).mean(dim=(1, 2))


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    weight: Annotated[float, typer.Option(help="Weight of the objective.", min=0)] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/own_objective"),
) -> None:
    """Refine a photo without and with the objective, and print how much the surface is tilted."""
    for name, objectives in {"without": {}, "with": {"facing": {"weight": weight, "degrees": 30}}}.items():
        overrides = {"optim.members": 1, "optim.objectives": objectives}
        result = redepth.refine(photo, preset, overrides=overrides)
        tilt = 1 - result.normals_after[..., 2].mean()
        print(f"{name}: mean 1 - n_z {tilt:.3f}, losses {', '.join(result.losses)}")
        result.save(out / name)
    print("written to", out)


if __name__ == "__main__":
    run(main)
