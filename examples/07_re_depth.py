"""The paper's recipe as a script: ten members of a thousand steps under Stable Diffusion 1.5.

    python examples/07_re_depth.py photo.jpg --prompt "a photo of a statue"
    python examples/07_re_depth.py photo.jpg --preset embedded

Needs a GPU and, the first time, a network for the weights. Without a prompt BLIP-2 writes it, as in the
paper. The second line runs the same script offline with the small models that ship with redepth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import redepth
from redepth.cli.script import run


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    prompt: Annotated[str | None, typer.Option(help="What the photo shows.")] = None,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "re-depth-anything",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/re_depth"),
) -> None:
    """Refine a photo as the paper does, with a progress bar, and save the result."""
    settings = redepth.load_preset(preset)
    print(f"{settings.name}: {settings.optim.members} members of {settings.optim.steps} steps")
    result = redepth.refine(photo, settings, prompt=prompt, seed=seed, device=device, progress=True)
    print(result.meaning)
    print("written to", result.save(out))


if __name__ == "__main__":
    run(main)
