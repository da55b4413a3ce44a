"""Watch a run: a progress bar, the surface as it improves, and the losses afterwards.

    python examples/02_watch_a_run.py
    python examples/02_watch_a_run.py photo.jpg --every 5

`progress=True` shows a bar in a terminal or a notebook. `on_step` gets a `StepReport` after each step: here
it keeps the normals of every tenth step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import skimage
import typer

import redepth
from redepth import viz
from redepth.cli.script import run
from redepth.io import save_png
from redepth.ops.geometry import normals_from_depth

COINS = Path(skimage.__file__).parent / "data" / "coins.png"


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")] = COINS,
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    every: Annotated[int, typer.Option(help="Steps between two pictures.", min=1)] = 10,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out/watch_a_run"),
) -> None:
    """Refine a photo, and draw its normals during the run and its losses afterwards."""
    frames: dict[str, Any] = {}

    def keep(report: redepth.StepReport) -> None:
        # The report holds the surface at the start of its step, one for each member.
        if 0 in report.members and (report.step - 1) % every == 0:
            normals = normals_from_depth(report.depth[:1].cpu())[0].permute(1, 2, 0)
            frames[f"after {report.step - 1} steps"] = viz.normals_to_rgb(normals.numpy())

    result = redepth.refine(photo, preset, progress=True, on_step=keep)
    for name, losses in result.losses.items():
        members, steps = losses.shape
        print(f"{name}: {members} members, {steps} steps, last mean {losses[:, -1].mean():.4g}")
    save_png(out / "steps.png", viz.side_by_side(frames, columns=4, title="Normals of the first member"))
    result.plot_losses().savefig(out / "losses.png", dpi=150)
    print("written to", out)


if __name__ == "__main__":
    run(main)
