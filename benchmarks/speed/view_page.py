"""The size of view.html, and the time that it takes to write, for photos and networks of several sizes.

    python -m benchmarks.speed.view_page        # a minute; the rows go to benchmarks/results/files/view.json

Photos are scikit-image's, refined by the embedded preset in one step, with the size of the network that is
named. The last row is the worst case: noise in the photo and in all maps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import skimage
import typer
from PIL import Image

import redepth
from benchmarks.speed.records import RESULTS
from redepth import io
from redepth.exports.viewer import BYTES, page_of
from redepth.refinement import Refinement

DATA = Path(skimage.__file__).parent / "data"
REPEATS = 5

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """A photo, its longer side after enlargement (0: its own), and the longer side of the network."""

    photo: str
    side: int
    network: int


CASES = (
    Case("gravel.png", 0, 192),
    Case("motorcycle_left.png", 1500, 192),
    Case("motorcycle_left.png", 1500, 700),
    Case("retina.jpg", 1500, 518),
    Case("noise", 1500, 700),
)


def results() -> Iterator[tuple[Case, Refinement]]:
    """Refine the photos."""
    for case in CASES:
        overrides = ["optim.steps=1", "optim.members=2", f"depth_model.longer_side={case.network}"]
        made = redepth.refine(photo_of(case), "embedded", overrides=overrides, device="cpu")
        if case.photo == "noise":
            draw = np.random.default_rng(1)
            outcome = made.outcome
            for maps in (outcome.initial, outcome.members, outcome.initial_depth, outcome.member_depths):
                maps.mul_(maps.new_tensor(draw.uniform(0.99, 1.01, maps.shape)))
        yield case, made


def photo_of(case: Case) -> np.ndarray[Any, Any]:
    """Return a photo, (H, W, 3) uint8."""
    if case.photo == "noise":
        shape = (1000, case.side, 3)
        return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = Image.open(DATA / case.photo).convert("RGB")
    if case.side:
        scale = case.side / max(image.size)
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
        )
    return np.asarray(image)


def row(case: Case, made: Refinement) -> dict[str, Any]:
    """Measure one page."""
    seconds = []
    for _ in range(REPEATS):
        started = perf_counter()
        page = page_of(made)
        seconds.append(perf_counter() - started)
    height, width = made.photo.shape[:2]
    return {
        "photo": f"{Path(case.photo).stem}, {width} x {height}",
        "network": "{1} x {0}".format(*made.network_size),
        "bytes": len(page.encode()),
        "milliseconds": round(1000 * median(seconds)),
    }


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="File of the rows.")] = RESULTS / "files" / "view.json",
) -> None:
    """Write the pages, print their sizes and times, and store them."""
    rows = []
    for case, made in results():
        rows.append(row(case, made))
        found = rows[-1]
        typer.echo(
            f"{found['photo']}, network {found['network']}: {found['bytes'] / 1e6:.2f} MB, "
            f"{found['milliseconds']} ms"
        )
    io.save_json(out, {"limit": BYTES, "rows": rows})


if __name__ == "__main__":
    sys.exit(app())
