"""Draw the results of training: validation curves, and samples of the priors.

python -m training.show_training curves     # the stored logs -> docs/pictures/training.png
python -m training.show_training samples    # the shipped priors -> docs/pictures/prior-samples.jpg
python -m training.show_training logs       # runs/*/log.jsonl -> the stored logs
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from redepth.checkpoints.embedded import embedded_folder
from redepth.io import atomic_path, save_text
from redepth.priors.pixel_unet import condition_rows
from training.loop import json_lines
from training.train_embedded import (
    DEPTH_NAME,
    PRIOR_NAMES,
    VALIDATION_SEED,
    build_prior,
    composites,
    noise_schedule,
)

app = typer.Typer(add_completion=False, help=__doc__)

REPOSITORY = Path(__file__).parents[1]
DOCS, STORED = REPOSITORY / "docs", REPOSITORY / "benchmarks" / "results" / "accuracy"
SHOWN = 8


@app.command()
def logs(
    runs: Annotated[Path, typer.Option(help="Where the training kept its logs.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Where they are stored.")] = STORED,
) -> None:
    """Store the logs of all runs beside the other results."""
    for log in sorted(runs.glob("*/log.jsonl")):
        save_text(out / f"training-{log.parent.name}.jsonl", log.read_text(encoding="utf-8"))


@app.command()
def curves(
    results: Annotated[Path, typer.Option(help="Where the logs are stored.")] = STORED,
    out: Annotated[Path, typer.Option(help="The picture.")] = DOCS / "pictures" / "training.png",
) -> None:
    """Draw the validation of every stored log: the depth model's errors, the priors' cosines."""
    stored = sorted(results.glob("training-*.jsonl"))
    found = {log.stem.removeprefix("training-"): rows for log in stored if (rows := read(log))}
    depth = {n: rows for n, rows in found.items() if n.startswith(f"{DEPTH_NAME}-")}
    priors = {n: rows for n, rows in found.items() if n.startswith(tuple(PRIOR_NAMES.values()))}
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_depth(left, depth)
    draw_growth(middle, priors)
    draw_noise_levels(right, priors)
    save(figure, out)


def read(log: Path) -> list[dict[str, Any]]:
    """Return the rows of a log that hold a validation."""
    return [row for row in json_lines(log) if "validation" in row]


def draw_depth(axes: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draw normal error against samples seen, in the narrow and in the broad domain."""
    for name, rows in runs.items():
        for domain, style in (("mid", "-"), ("broad", "--")):
            errors = [row["validation"][domain]["normals"] for row in rows]
            axes.plot([row["samples"] / 1000 for row in rows], errors, style, label=f"{name}, {domain}")
    axes.set_title("depth models")
    axes.set_ylabel("normal error (degrees)")
    finish(axes, "samples seen (thousands)")


def draw_growth(axes: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the cosine at t = 700 against samples seen."""
    for name, rows in runs.items():
        at = rows[0]["validation"]["timesteps"].index(700)
        cosines = [best(row)["cosine"][at] for row in rows]
        axes.plot([row["samples"] / 1000 for row in rows], cosines, label=name)
    axes.set_title("priors, t = 700")
    axes.set_ylabel("cosine of x0 - x with truth - x")
    finish(axes, "samples seen (thousands)")


def draw_noise_levels(axes: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the last cosine of each prior against t, with its conditions (solid) and without (dashed)."""
    for name, rows in runs.items():
        last = rows[-1]["validation"]
        (line,) = axes.plot(last["timesteps"], best(rows[-1])["cosine"], marker=".", label=name)
        if "told" in last:
            axes.plot(last["timesteps"], last["untold"]["cosine"], "--", color=line.get_color())
    axes.set_title("priors at the end")
    axes.set_ylabel("cosine of x0 - x with truth - x")
    finish(axes, "noise level t (of 1000)")


def best(row: dict[str, Any]) -> dict[str, Any]:
    """Return the validation with all conditions of the prior."""
    validation: dict[str, dict[str, Any]] = row["validation"]
    return validation.get("told", validation["untold"])


def finish(axes: Any, label: str) -> None:
    """Label the abscissa and draw the legend."""
    axes.set_xlabel(label)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, out: Path) -> None:
    """Write a figure, whole or not at all."""
    with atomic_path(out) as partial:
        figure.savefig(partial, format=out.suffix[1:], dpi=120)


@app.command()
@torch.no_grad()
def samples(
    out: Annotated[Path, typer.Option(help="The picture.")] = DOCS / "pictures" / "prior-samples.jpg",
    steps: Annotated[int, typer.Option(min=2, help="DDIM steps of a sample.")] = 40,
) -> None:
    """Draw photos, true composites, one-step reconstructions at three noise levels, and whole samples."""
    generator = torch.Generator().manual_seed(VALIDATION_SEED + 1)
    seen = composites(SHOWN, "broad", generator)
    rows = {"photo": seen.photo, "true composite": seen.relit}
    noise = torch.randn(seen.relit.shape, generator=generator)
    for kind, name in PRIOR_NAMES.items():
        model = build_prior(0, kind).eval()
        shipped = type(model.unet).from_pretrained(embedded_folder(name) / "unet", torch_dtype=torch.float32)
        model.unet.load_state_dict(shipped.state_dict())
        one = torch.ones(SHOWN)
        photo, light = condition_rows(seen.photo, seen.light, one, one)
        for t in (600, 800, 950):
            a, b = noise_schedule()[t].sqrt(), (1 - noise_schedule()[t]).sqrt()
            v = model(a * seen.relit + b * noise, torch.full((SHOWN,), t), photo, light)
            rows[f"{name}, x0 at t = {t}"] = a * (a * seen.relit + b * noise) - b * v
        rows[f"{name}, sample"] = ddim(model, noise, photo, light, steps)
    figure = Figure(figsize=(1.1 * SHOWN + 2.6, 1.1 * len(rows)))
    for index, (label, pictures) in enumerate(rows.items()):
        strip = torch.cat(list((pictures.clamp(-1, 1) + 1) / 2), dim=-1).permute(1, 2, 0)
        axes = figure.add_axes((0.22, 1 - (index + 1) / len(rows), 0.78, 0.96 / len(rows)))
        axes.imshow(strip.numpy())
        axes.axis("off")
        figure.text(0.21, 1 - (index + 0.5) / len(rows), label, ha="right", va="center", fontsize=8)
    save(figure, out)


def ddim(model: Any, noise: Tensor, photo: Tensor, light: Tensor, steps: int) -> Tensor:
    """Sample by deterministic DDIM from pure noise (Song et al., arXiv 2010.02502)."""
    alphas = noise_schedule()
    times = torch.linspace(999, 0, steps + 1).long()
    x = noise
    for t, following in pairwise(times):
        a, b = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        v = model(x, torch.full((len(x),), int(t)), photo, light)
        x0, eps = (a * x - b * v).clamp(-1, 1), b * x + a * v
        x = alphas[following].sqrt() * x0 + (1 - alphas[following]).sqrt() * eps
    return x0


if __name__ == "__main__":
    app()
