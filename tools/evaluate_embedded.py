"""Measure the embedded pair on fresh procedural scenes of the prior's domain, against three controls.

    python tools/evaluate_embedded.py                # 64 scenes, writes docs/results/embedded-96.json
    python tools/evaluate_embedded.py --size 192     # at the size the preset gives photos

Every variant refines the same scenes from the same start with the same steps, lights, members and seeds:
the trained prior; the same network with random weights; smoothness alone; and an oracle whose target is the
true composite, the most that this loop could gain. SI-log follows the paper's protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Generator, Tensor

from redepth.config import load_preset
from redepth.contracts import Condition, Illumination, Noise, Renderer
from redepth.data.synthetic import Domain, Scenes, scenes
from redepth.io import save_json
from redepth.metrics import silog
from redepth.ops import color, geometry
from redepth.ops.geometry import normals_from_depth
from redepth.pipeline import Pipeline, resolve, versions

TUNING_SEED, EVALUATION_SEED = 10_000, 20_000
RESULTS = Path(__file__).parents[1] / "docs" / "results"

VARIANTS: dict[str, list[str]] = {
    "trained prior": [],
    "random weights": ["prior.weights=random"],
    "smoothness only": ["optim.prior_weight=0"],
    "oracle": [],
}
CONDITIONS: dict[str, list[str]] = {
    "trained prior, no guidance": ["prior.guidance_scale=1"],
    "told the photo only": ["prior.tell=photo"],
    "told nothing": ["prior.tell=nothing"],
}


class Oracle:
    """A prior that knows the true depth: half the mean squared distance to the true composite."""

    def __init__(self, renderer: Renderer, depth: Tensor, image: Tensor) -> None:
        self.renderer, self.depth = renderer, depth
        self.linear = color.srgb_to_linear(image)

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Nothing to prepare."""
        return Condition()

    def draw(self, batch: int, generator: Generator) -> Noise:
        """Nothing is random."""
        return Noise()

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        """Return the loss per picture, (N,)."""
        lights = Illumination({k: v[None] for k, v in illumination.tensors.items()})
        target = self.renderer(self.depth, self.linear, lights)[0]
        # The prior sees pictures in [-1, 1], so its squares are four times these.
        return 0.5 * (4 * (relit - target) ** 2).mean(dim=(1, 2, 3))


def normal_error(raw: Tensor, truth: Tensor) -> float:
    """Mean angle in degrees between the normals of a raw disparity and of the true depth."""
    n = normals_from_depth(geometry.relative_depth(raw))
    cosine = (n * normals_from_depth(truth)).sum(dim=1).clamp(-1, 1)
    return float(torch.rad2deg(torch.acos(cosine)).mean())


def refine_all(pipeline: Pipeline, drawn: Scenes, name: str, seed: int) -> list[dict[str, float]]:
    """Refine each scene and measure before and after."""
    rows = []
    prior = pipeline.refiner.prior
    for i in track(range(len(drawn.image)), description=f"{name:28}"):
        image, depth = drawn.image[i : i + 1], drawn.depth[i : i + 1]
        if name == "oracle":
            pipeline.refiner.prior = Oracle(pipeline.refiner.renderer, depth, image)
        outcome = pipeline.refiner.run(image, seed=seed + i)
        rows.append(
            {
                "before": silog(outcome.initial[0, 0], depth[0, 0]),
                "after": silog(outcome.refined[0, 0], depth[0, 0]),
                "normals_before": normal_error(outcome.initial, depth),
                "normals_after": normal_error(outcome.refined, depth),
                "seconds": outcome.seconds,
            }
        )
    pipeline.refiner.prior = prior
    return rows


def summarise(rows: list[dict[str, float]], seed: int, resamples: int = 10_000) -> dict[str, Any]:
    """Relative change of the mean SI-log in %, with its 95 % bootstrap interval over scenes."""
    before = torch.tensor([r["before"] for r in rows], dtype=torch.float64)
    after = torch.tensor([r["after"] for r in rows], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(rows), (resamples, len(rows)), generator=generator)
    changes = 100 * (after[picks].mean(dim=1) / before[picks].mean(dim=1) - 1)
    low, high = torch.quantile(changes, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    mean: Callable[[str], float] = lambda key: sum(r[key] for r in rows) / len(rows)  # noqa: E731
    return {
        "silog_before": float(before.mean()),
        "silog_after": float(after.mean()),
        "change_percent": 100 * (float(after.mean() / before.mean()) - 1),
        "interval_percent": [low, high],
        "wins_percent": 100 * float((after < before).double().mean()),
        "normals_before": mean("normals_before"),
        "normals_after": mean("normals_after"),
        "seconds": mean("seconds"),
    }


def table_of(summaries: dict[str, dict[str, Any]]) -> Table:
    """Lay the summaries out."""
    table = Table("variant", "SI-log", "change", "95 % interval", "wins", "normals", "s a scene")
    for name, s in summaries.items():
        low, high = s["interval_percent"]
        table.add_row(
            name,
            f"{s['silog_before']:.2f} to {s['silog_after']:.2f}",
            f"{s['change_percent']:+.1f} %",
            f"{low:+.1f} to {high:+.1f} %",
            f"{s['wins_percent']:.0f} %",
            f"{s['normals_before']:.1f} to {s['normals_after']:.1f} deg",
            f"{s['seconds']:.1f}",
        )
    return table


def main(
    images: Annotated[int, typer.Option(min=2, help="How many scenes.")] = 64,
    size: Annotated[int, typer.Option(help="Side of the scenes; the models' native one is 96.")] = 96,
    domain: Annotated[Domain, typer.Option(help="broad (the prior's) or mid (the depth model's).")] = "broad",
    tuning: Annotated[bool, typer.Option(help="Use the scenes that settings are tuned on.")] = False,
    conditions: Annotated[bool, typer.Option(help="Also vary what the prior is told.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only these variants.")] = None,
    preset: Annotated[str, typer.Option(help="Preset to measure.")] = "embedded",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file; by default in docs/results.")] = None,
) -> None:
    """Refine the scenes under every variant and print the table."""
    seed = TUNING_SEED if tuning else EVALUATION_SEED
    drawn = scenes(images, domain, torch.Generator().manual_seed(seed), height=size, width=size)
    base = [f"depth_model.longer_side={size}", *(overrides or [])]
    variants = VARIANTS | (CONDITIONS if conditions else {})
    if unknown := set(only or []) - set(variants):
        raise typer.BadParameter(f"no variant {', '.join(unknown)}; there are: {', '.join(variants)}")
    started = time.strftime("%Y-%m-%d")
    results: dict[str, Any] = {}
    for name, changes in variants.items():
        if only and name not in only:
            continue
        pipeline = Pipeline(preset, overrides=[*base, *changes], device="cpu")
        rows = refine_all(pipeline, drawn, name, seed)
        results[name] = {"summary": summarise(rows, seed), "rows": rows}
    Console(width=120).print(table_of({k: v["summary"] for k, v in results.items()}))
    record = {
        "date": started,
        "images": images,
        "size": size,
        "domain": domain,
        "scene_seed": seed,
        "versions": versions(),
        "preset": resolve(load_preset(preset, base)).model_dump(),
        "variants": results,
    }
    name = f"embedded-{size}.json" if domain == "broad" else f"embedded-{size}-{domain}.json"
    save_json(out or RESULTS / name, record)


if __name__ == "__main__":
    typer.run(main)
