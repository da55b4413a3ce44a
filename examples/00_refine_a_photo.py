"""Refine a photo, read the result and save its files.

    python examples/00_refine_a_photo.py
    python examples/00_refine_a_photo.py photo.jpg --members 5

Runs offline with the small models that ship with redepth; without a photo it takes one of scikit-image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import skimage
import typer

import redepth
from redepth.cli.script import run

COINS = Path(skimage.__file__).parent / "data" / "coins.png"


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    members: Annotated[int, typer.Option(help="Members of the ensemble.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/refine_a_photo"),
) -> None:
    """Refine a photo, print what is in the result, and save its files."""
    result = redepth.refine(photo, preset, overrides={"optim.members": members}, progress=True)
    print(result)
    print(f"result.refined: {result.refined.shape} {result.refined.dtype}, {result.meaning}")
    print(f"the normals turned by {result.turn:.1f} degrees on average")
    for signature in result.flagged:
        print("check this:", signature.warning)
    print("written to", result.save(out))


if __name__ == "__main__":
    run(main)
