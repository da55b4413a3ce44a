"""Train the pair for photos from scratch on relief, rooms, streets and terrain: resumable, seeded.

    python -m training.train_photo depth         # the depth model
    python -m training.train_photo export        # half-precision safetensors

Each writes checkpoints and a log of its losses and validation (JSON lines) to ``runs/<name>-<seed>``. Started
again, it resumes from the last checkpoint; with another number of cycles it goes on after the last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from training.loop import Training, averaged
from training.photo_depth import BATCH, NAME, build_photo_depth, photo_depth_steps, validate_photo_depth

app = typer.Typer(add_completion=False, help=__doc__)

DEPTH_SAMPLES = (64_000, 96_000, 128_000, 192_000)
"""Pictures of each cycle of the learning rate, those of a batch of `BATCH`; other sizes have fewer in a batch."""

Cycles = Annotated[int | None, typer.Option(min=1, help="How many cycles of the learning rate; all by default.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, scenes and noise.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps; scenes are always drawn on the CPU.")]
Runs = Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")]
Until = Annotated[int | None, typer.Option(help="Stop after this step; the same command goes on.")]


@app.command()
def depth(
    cycles: Cycles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
) -> None:
    """Train the depth model."""
    target = torch.device(device)
    model = build_photo_depth(seed).to(target)
    training = Training(
        model,
        runs / f"{NAME}-{seed}",
        rate=1e-3,
        cycles=DEPTH_SAMPLES[:cycles],
        batch=BATCH,
        validate=lambda average: validate_photo_depth(average, target),
    )
    training.run(lambda generator: photo_depth_steps(model, generator, target), seed + 1, until)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder of the exported checkpoints.")],
    seed: Seed = 0,
    runs: Runs = Path("runs"),
) -> None:
    """Write the averaged weights in half precision as transformers loads them."""
    model = build_photo_depth(seed)
    model.load_state_dict(averaged(runs / f"{NAME}-{seed}"))
    model.half().save_pretrained(out / NAME)


if __name__ == "__main__":
    app()
