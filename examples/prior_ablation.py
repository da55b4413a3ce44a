"""Ablation of the prior's weights: the same photo refined with trained and with random ones.

    python examples/prior_ablation.py photo.jpg
    python examples/prior_ablation.py left.png --gt disparity.npz --members 5
    python examples/prior_ablation.py photo.jpg --preset re-depth-anything --prompt "a statue"

Everything but the weights stays the same: architecture, preset, seed, steps, members, noise. A change that
random weights make as well does not come from what the prior has learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import redepth
from redepth import viz
from redepth.io import load_depth_map, save_json, save_png


def figures(result: redepth.Refinement) -> dict[str, float]:
    """Return the figures of one refinement."""
    moved = np.abs(result.refined - result.initial).mean() / np.ptp(result.initial)
    values = {
        "moved_percent": 100 * float(moved),
        "normals_turned": result.turn,
        "seconds": result.outcome.seconds,
    }
    for when, evaluation in result.evaluations.items():
        values[f"silog_{when}"] = evaluation.metrics["silog"]
    return values


def main(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    preset: Annotated[str, typer.Option(help="Name or file; its prior must have weights.")] = "embedded",
    prompt: Annotated[str | None, typer.Option(help="Condition the prior on this.")] = None,
    members: Annotated[int, typer.Option(help="Members of each ensemble.", min=1)] = 2,
    gt: Annotated[Path | None, typer.Option(help="True disparity, to measure SI-log.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="More overrides, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/prior_ablation"),
) -> None:
    truth = redepth.GroundTruth(load_depth_map(gt), kind="disparity") if gt else None
    rows: dict[str, dict[str, float]] = {}
    sheet: dict[str, Any] = {}
    for weights in ("trained", "random"):
        overrides = [f"optim.members={members}", *(set_ or []), f"prior.weights={weights}"]
        result = redepth.refine(photo, preset, prompt=prompt, overrides=overrides, ground_truth=truth)
        result.save(out / weights)
        rows[weights] = figures(result)
        if not sheet:
            sheet = {"photo": result.photo, "before": viz.normals_to_rgb(result.normals_before)}
        sheet[f"{weights} weights"] = viz.normals_to_rgb(result.normals_after)
    table = Table("weights", "moved by", "normals turned by", *(["SI-log"] if truth else []), "seconds")
    for name, row in rows.items():
        silog = [f"{row['silog_initial']:.2f} -> {row['silog_refined']:.2f}"] if truth else []
        moved, turned = f"{row['moved_percent']:.1f} %", f"{row['normals_turned']:.1f} degrees"
        table.add_row(name, moved, turned, *silog, f"{row['seconds']:.1f}")
    Console().print(table)
    save_json(out / "table.json", rows)
    save_png(out / "normals.png", viz.side_by_side(sheet, columns=2, title="What the prior's weights do"))
    print("written to", out)


if __name__ == "__main__":
    typer.run(main)
