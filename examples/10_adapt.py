"""Adapt the depth model to many photos of one kind, without labels; then predict without any optimisation.

    python examples/10_adapt.py
    python examples/10_adapt.py photos/*.jpg --keep other-photos

By default the photos are pieces of one picture of gravel. `redepth.adapt` refines them, trains the depth
model on what can be trusted, and writes a checkpoint. Called again, it continues or returns the finished
result.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import skimage
import typer

import redepth
from redepth.cli.script import run
from redepth.io import load_photo, save_png

GRAVEL = Path(skimage.__file__).parent / "data" / "gravel.png"


def main(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos of one kind.")] = None,
    keep: Annotated[list[Path] | None, typer.Option(help="Photos or folders of other kinds; repeat.")] = None,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    steps: Annotated[int, typer.Option(help="Steps of the training.", min=1)] = 60,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("out/adapt"),
) -> None:
    """Adapt a depth model to photos, and compare a refinement with a prediction."""
    found = photos or pieces(GRAVEL, out.with_name(f"{out.name}-photos"))
    result = redepth.adapt(
        found,
        preset,
        out,
        keep=keep or [],
        # Also photos with a warning: most of the gravel is outside the domain of the embedded models.
        overrides={"adapt.steps": steps, "adapt.batch": 4, "adapt.trust.flagged": True},
    )
    print(f"learned from {result.training} photos, {len(result.held_out)} held out")
    print(f"distance to their refinements: {result.before:.2f} % before, {result.after:.2f} % after")

    pipeline = redepth.Pipeline(out / "preset.yaml")
    photo = load_photo(found[0])
    began = time.perf_counter()
    refined = pipeline.refine(photo)
    print(f"the adapted model and a refinement on top: {time.perf_counter() - began:.1f} s")
    print(f"the adapted model alone: {result.predict_seconds or 0:.3f} s; {refined.initial.shape}")
    print("report:", out / "report.html")


def pieces(picture: Path, folder: Path, side: int = 128) -> list[Path]:
    """Cut a picture into pieces, and return their files."""
    pixels = load_photo(picture)
    files = []
    for top in range(0, pixels.shape[0] - side + 1, side):
        for left in range(0, pixels.shape[1] - side + 1, side):
            file = folder / f"{picture.stem}-{top}-{left}.png"
            save_png(file, pixels[top : top + side, left : left + side])
            files.append(file)
    return files


if __name__ == "__main__":
    run(main)
