"""Refine one photo with every renderer and look at the results side by side.

    python examples/01_swap_renderers.py
    python examples/01_swap_renderers.py left.png --gt disparity.npz --members 5

Everything but the renderer stays the same: preset, seed, steps, members. `redepth compare` does the same for
any setting and many photos, and resumes; this script shows how little of it is needed in Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import skimage
import typer

import redepth
from redepth import viz
from redepth.cli.script import run
from redepth.errors import MissingDependencyError
from redepth.ground_truth import with_offset
from redepth.io import load_depth_map, save_png

COINS = Path(skimage.__file__).parent / "data" / "coins.png"


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    members: Annotated[int, typer.Option(help="Members of each ensemble.", min=1)] = 1,
    gt: Annotated[Path | None, typer.Option(help="True disparity, to measure SI-log.")] = None,
    gt_offset: Annotated[float, typer.Option(help="Added to it, such as doffs of Middlebury.")] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out/swap_renderers"),
) -> None:
    """Refine one photo with every renderer; print a line for each, and draw their normals on one sheet."""
    truth = None
    if gt is not None:
        truth = redepth.GroundTruth(with_offset(load_depth_map(gt), gt_offset), kind="disparity")
    sheet: dict[str, Any] = {}
    for name in sorted(redepth.list_components("renderers")):
        overrides = {"renderer.name": name, "optim.members": members}
        try:
            result = redepth.refine(photo, preset, overrides=overrides, ground_truth=truth)
        except MissingDependencyError as error:
            print(f"{name} cannot run here: {error}")
            continue
        line = f"{name}: changed by {result.change:.1%}, normals turned by {result.turn:.1f} degrees"
        for when, evaluation in result.evaluations.items():
            line += f", SI-log {when} {evaluation.metrics['silog']:.2f}"
        print(line)
        sheet.setdefault("before", viz.normals_to_rgb(result.normals_before))
        sheet[name] = viz.normals_to_rgb(result.normals_after)
    save_png(out / "normals.png", viz.side_by_side(sheet, columns=3, title="One photo, every renderer"))
    print("written to", out / "normals.png")


if __name__ == "__main__":
    run(main)
