"""Refine one photo with every renderer and compare the results.

    python examples/swap_renderer.py photo.jpg
    python examples/swap_renderer.py left.png --gt disparity.npz --preset embedded --members 5

Everything but the renderer stays the same: preset, seed, steps, members, lights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import redepth
from redepth.errors import MissingDependencyError
from redepth.io import load_depth_map, save_json


def figures(result: redepth.Refinement) -> dict[str, float]:
    """Return the figures of one refinement."""
    values = {"seconds": result.outcome.seconds, "normals_turned": result.turn}
    for when, evaluation in result.evaluations.items():
        values[f"silog_{when}"] = evaluation.metrics["silog"]
    return values


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    preset: Annotated[str, typer.Option(help="Name or file.")] = "embedded",
    members: Annotated[int, typer.Option(help="Members of each ensemble.", min=1)] = 2,
    gt: Annotated[Path | None, typer.Option(help="True disparity, to measure SI-log.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="More overrides, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/swap_renderer"),
) -> None:
    truth = redepth.GroundTruth(load_depth_map(gt), kind="disparity") if gt else None
    rows: dict[str, dict[str, float] | str] = {}
    for name in sorted(redepth.list_components("renderers")):
        overrides = [f"optim.members={members}", f"renderer.name={name}", *(set_ or [])]
        try:
            result = redepth.refine(photo, preset, overrides=overrides, ground_truth=truth)
        except MissingDependencyError as error:
            rows[name] = str(error)
            continue
        result.save(out / name)
        rows[name] = figures(result)
    console = Console()
    table = Table("renderer", "seconds", "normals turned by", *(["SI-log"] if truth else []))
    for name, row in rows.items():
        if isinstance(row, str):
            console.print(f"{name} cannot run here: {row}", markup=False, highlight=False)
            continue
        silog = [f"{row['silog_initial']:.2f} -> {row['silog_refined']:.2f}"] if truth else []
        table.add_row(name, f"{row['seconds']:.1f}", f"{row['normals_turned']:.1f} degrees", *silog)
    console.print(table)
    save_json(out / "table.json", rows)
    print("written to", out)


if __name__ == "__main__":
    typer.run(main)
