"""Render the path-traced scenes at the size of photos: relief and shapes of 384 x 384, by Mitsuba 3.

    pip install "redepth[mitsuba]"
    python -m training.path_trace_large

It writes a photo per scene and ``scenes.json`` to benchmarks/data/path_traced_large (a test holds its
SHA-256), docs/pictures/path-traced-large.jpg and docs/results/path-traced-large.json. Light, surface and
camera are those of ``training/path_trace.py``. The depth is not stored:
`redepth.data.scenes.synthetic.benchmark_scenes` draws it again from the scene's seed.

Scenes that are already there are kept: a call that was stopped goes on, and a larger ``--count`` adds more.
Each scene is checked before it is written, like the small ones. Mitsuba's LLVM variant is three times as fast
as the scalar one; where Mitsuba finds no LLVM, take ``--variant scalar_rgb``.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from redepth.cli.checks import sha256
from redepth.data.scenes.path_traced import LARGE_ASSET, LARGE_SIZE, RECORD, large_depth, large_name
from redepth.data.scenes.synthetic import Scenes
from redepth.io import load_photo, save_jpeg, save_json
from redepth.io.assets import CHECKOUT
from redepth.viz import side_by_side
from training.path_trace import (
    DOCS,
    check_depth,
    check_light,
    draw_look,
    lit_from_above,
    photograph,
    renderer,
)

app = typer.Typer(add_completion=False, help=__doc__)

COUNT, SAMPLES, QUALITY = 64, 25, 95
LLVM = "llvm_ad_rgb"

MAX_DEPTH_ERROR = 0.1
"""Larger than for the small scenes: of 25 paths, one that passes between triangles makes an error of 1/25."""


def render(index: int, samples: int, variant: str, folder: Path) -> dict[str, Any]:
    """Render, check and write one scene; return its record."""
    started = time.process_time()
    name, depth = large_name(index), large_depth(index)
    look = draw_look(int(name.split("-")[-1]))
    photo, seen = photograph(depth[0], look, samples, variant)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    scene = Scenes(image, depth[None])
    found = check_depth(scene, torch.from_numpy(seen)[None, None], MAX_DEPTH_ERROR)
    file = folder / f"{name}.jpg"
    save_jpeg(file, photo, QUALITY)
    return {
        "name": name,
        "sha256": sha256(file),
        "samples": samples,
        "variant": variant,
        "mitsuba": renderer(variant).__version__,
        "cpu_seconds": time.process_time() - started,
        **found,
        "lit_from_above": bool(lit_from_above(scene)),
        "look": asdict(look),
    }


@app.command()
def main(
    count: Annotated[int, typer.Option(min=1, help="Scenes in all, those that are there included.")] = COUNT,
    samples: Annotated[int, typer.Option(min=1, help="Paths a pixel.")] = SAMPLES,
    variant: Annotated[str, typer.Option(help="Of Mitsuba: llvm_ad_rgb or scalar_rgb.")] = LLVM,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the scenes.")] = CHECKOUT / LARGE_ASSET,
    docs: Annotated[Path, typer.Option(help="Folder of the picture and the measurements.")] = DOCS,
) -> None:
    """Render, check and write the scenes that are missing."""
    record = folder / RECORD
    rows: list[dict[str, Any]] = json.loads(record.read_text()) if record.exists() else []
    for index in track(range(len(rows), count), "rendering"):
        rows.append(render(index, samples, variant, folder))
        save_json(record, rows)
    share = check_light(torch.tensor([row["lit_from_above"] for row in rows]))
    photos = {row["name"]: load_photo(folder / f"{row['name']}.jpg")[::4, ::4] for row in rows}
    save_jpeg(docs / "pictures" / "path-traced-large.jpg", side_by_side(photos, columns=8))
    found = {
        "scenes": len(rows),
        "size": LARGE_SIZE,
        "max_depth_error": max(row["max_depth_error"] for row in rows),
        "mean_depth_error": float(np.mean([row["mean_depth_error"] for row in rows])),
        "lit_from_above": share,
        "median_cpu_seconds": float(np.median([row["cpu_seconds"] for row in rows])),
        "sha256": sha256(record),
    }
    save_json(docs / "results" / "path-traced-large.json", found)
    Console().print(found)


if __name__ == "__main__":
    app()
