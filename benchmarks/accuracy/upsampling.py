"""Measure `output.upsample`: guided against bilinear at the photo's size, on scenes with dense truth.

    python -m benchmarks.accuracy.upsampling tune      # radius and eps, on scenes of their own
    python -m benchmarks.accuracy.upsampling           # the chosen ones, on motorcycle and other scenes

Two coarse maps are enlarged: the disparity that the embedded depth model predicts at its own size, and the
true disparity at that size (each pixel the mean of what it covers), which leaves the enlargement alone to be
measured. Both are aligned to the truth by scale and shift of the disparity. Scenes are procedural, four times
as large as the network sees them: ``cards`` are textured discs in front of each other, which have the depth
edges of a photo; ``shapes`` and ``relief`` are smooth surfaces without any, so that they have no F1. Rows go
to benchmarks/results/accuracy/upsampling.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from redepth import io
from redepth.components import build
from redepth.config import load_preset
from redepth.config.schema import Output
from redepth.data.datasets.base import Sample
from redepth.data.datasets.middlebury import Motorcycle
from redepth.data.datasets.synthetic import Synthetic
from redepth.exports import enlarge, enlarge_guided
from redepth.metrics import align, boundary_metrics, depth_metrics, has_edges, known_depth
from redepth.ops.filters import fill_holes
from redepth.ops.geometry import resize

RESULT = Path(__file__).parents[1] / "results" / "accuracy" / "upsampling.json"
NETWORK_SIDE = 192
"""Of the embedded preset."""
FACTOR = 4
SMOOTH = ("shapes", "relief")
CARDS = 10
TUNING_SEED, TEST_SEED = 61_000, 62_000
SCENES = 6
RADII = (0.5, 1.0, 2.0, 4.0)
EPS = (1e-4, 1e-3, 1e-2)
SETTINGS = {"upsample", "guided_radius", "guided_eps"}
METRICS = ("boundary_f1", "silog")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Coarse:
    """A map at network size, and the photo and the truth that it belongs to.

    Attributes:
        of: which scenes, such as ``shapes, predicted``.
        disparity: (1, 1, h, w).
        photo: (H, W, 3).
        truth: (H, W) depth, 0 where unknown.
    """

    of: str
    disparity: Tensor
    photo: np.ndarray
    truth: Tensor

    def measure(self, output: Output) -> dict[str, float]:
        """Return the metrics at the photo's size."""
        map_ = np.empty(self.photo.shape[:2], np.float32)
        if output.upsample == "guided":
            settings = {"radius": output.guided_radius, "eps": output.guided_eps}
            enlarge_guided(map_, self.disparity, self.photo, **settings)
        else:
            enlarge(map_, self.disparity)
        mask = known_depth(self.truth)
        aligned = align(torch.from_numpy(map_), self.truth, mask, "affine-disparity").depth
        scores = depth_metrics(aligned, self.truth, mask)
        if has_edges(self.truth, mask):
            scores |= boundary_metrics(aligned, self.truth, mask)
        return {name: float(scores.get(name, torch.nan)) for name in METRICS}


def cards(seed: int, count: int) -> Iterator[tuple[str, Sample]]:
    """Draw slanted textured discs in front of a slanted textured wall, the nearer ones last."""
    side = FACTOR * NETWORK_SIDE
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    for number in range(count):
        draw = np.random.default_rng(seed + number)
        depth, photo = _plane(draw, 8.0, x, y), _texture(draw, side)
        for middle in np.sort(draw.uniform(2, 6, CARDS))[::-1]:
            (u, v), angle = draw.uniform(-1, 1, 2), draw.uniform(0, np.pi)
            across, down = draw.uniform(0.1, 0.5, 2)
            a = ((x - u) * np.cos(angle) + (y - v) * np.sin(angle)) / across
            b = ((y - v) * np.cos(angle) - (x - u) * np.sin(angle)) / down
            inside = a * a + b * b < 1
            depth = np.where(inside, _plane(draw, middle, x - u, y - v), depth)
            photo = np.where(inside[..., None], _texture(draw, side), photo)
        yield "cards", Sample(f"cards-{seed + number}", photo, depth.astype(np.float32), unit="relative")


def _plane(draw: np.random.Generator, middle: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    right, down = draw.uniform(-0.2, 0.2, 2)
    return middle * (1 + right * x + down * y)


def _texture(draw: np.random.Generator, side: int) -> np.ndarray:
    """Return a colour with noise of two sizes, (side, side, 3) in [0, 1]."""
    colour = torch.from_numpy(draw.uniform(0.1, 0.9, (1, 3, 1, 1)))
    for cells in (6, 60):
        noise = torch.from_numpy(draw.uniform(-0.15, 0.15, (1, 3, cells, cells)))
        colour = colour + resize(noise, side, side)
    return colour.clamp(0, 1)[0].permute(1, 2, 0).float().numpy()


def smooth(seed: int, count: int) -> Iterator[tuple[str, Sample]]:
    for split in SMOOTH:
        data = Synthetic(split=split, size=FACTOR * NETWORK_SIDE, seed=seed, count=count)
        for name in data.names():
            yield split, data.load(name)


def motorcycle() -> Iterator[tuple[str, Sample]]:
    yield "motorcycle", Motorcycle().load("motorcycle")


def coarse_maps(samples: Iterable[tuple[str, Sample]]) -> Iterator[Coarse]:
    device = torch.device("cpu")
    model = build(load_preset("embedded-relief"), device).depth_model.load(device)
    for group, sample in samples:
        photo = io.load_photo(sample.photo) if isinstance(sample.photo, Path) else np.asarray(sample.photo)
        depth = torch.from_numpy(np.nan_to_num(np.asarray(sample.truth, np.float64)))
        truth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)
        image = torch.from_numpy(photo).permute(2, 0, 1)[None]
        with torch.no_grad():
            predicted = model.decode(model.encode(model.prepare(image)))
        yield Coarse(f"{group}, predicted", predicted, photo, truth)
        yield Coarse(f"{group}, true", _covered(truth, predicted.shape[-2:]), photo, truth)


def _covered(truth: Tensor, size: torch.Size) -> Tensor:
    """Return the mean disparity of what each pixel at network size covers, (1, 1, h, w); holes are filled."""
    known = (truth > 0)[None, None]
    disparity = torch.where(known, 1 / torch.where(known, truth, 1.0), 0.0)
    return resize(fill_holes(disparity, known), *size, antialias=True).float()


def means(maps: Iterable[Coarse], outputs: dict[str, Output]) -> dict[str, dict[str, dict[str, float]]]:
    """Return group -> settings -> the mean of each metric."""
    scores: dict[str, dict[str, list[dict[str, float]]]] = {}
    for coarse in maps:
        for name, output in outputs.items():
            scores.setdefault(coarse.of, {}).setdefault(name, []).append(coarse.measure(output))
    return {group: {name: _mean(rows) for name, rows in named.items()} for group, named in scores.items()}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the means over the images; those without an edge have no F1."""
    columns = {metric: [row[metric] for row in rows if row[metric] == row[metric]] for metric in METRICS}
    return {metric: round(float(np.mean(values)), 4) for metric, values in columns.items() if values}


def guided(radius: float, eps: float) -> Output:
    return Output(upsample="guided", guided_radius=radius, guided_eps=eps)


def show(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    for group, named in rows.items():
        for name, scores in named.items():
            typer.echo(f"{group:20} {name:28} {_shown(scores)}")


def _shown(scores: dict[str, float]) -> str:
    return "  ".join(f"{metric} {value:.4f}" for metric, value in scores.items())


@app.command()
def main(
    part: Annotated[str, typer.Argument(help="test or tune.")] = "test",
    scenes: Annotated[int, typer.Option(min=1, help="Of each split.")] = SCENES,
    out: Annotated[Path, typer.Option(help="File of the rows; each part has its own entry.")] = RESULT,
) -> None:
    """Measure, store the rows and print them."""
    outputs = {"bilinear": Output()}
    if part == "tune":
        outputs |= {f"guided, r {r:g}, eps {eps:g}": guided(r, eps) for r in RADII for eps in EPS}
        rows = means(coarse_maps(cards(TUNING_SEED, scenes)), outputs)
    elif part == "test":
        chosen = Output()
        outputs["guided"] = guided(chosen.guided_radius, chosen.guided_eps)
        rows = means(coarse_maps(motorcycle()), outputs)
        rows |= means(coarse_maps([*cards(TEST_SEED, scenes), *smooth(TEST_SEED, scenes)]), outputs)
    else:
        raise typer.BadParameter(f"{part}: give test or tune")
    stored: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    settings = {name: output.model_dump(include=SETTINGS) for name, output in outputs.items()}
    io.save_json(out, stored | {part: {"scenes": scenes, "settings": settings, "means": rows}})
    show(rows)


if __name__ == "__main__":
    sys.exit(app())
