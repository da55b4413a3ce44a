"""Train the pair for photos from scratch on relief, rooms, streets and terrain: resumable, seeded.

    python -m training.train_photo scenes            # draw the rooms once
    python -m training.train_photo depth             # the depth model
    python -m training.train_photo prior             # the re-lighting prior
    python -m training.train_photo caption           # a generic prior, told a caption
    python -m training.train_photo export --out DIR  # half-precision safetensors of what has been trained

Each writes checkpoints and a log of its losses and validation (JSON lines) to ``runs/<name>-<seed>``. Started
again, it resumes from the last checkpoint; with another number of cycles it goes on after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar, cast

import torch
import typer
from torch import Generator, Tensor

from training.ahead import drawn_ahead
from training.caption_prior import (
    NAMES,
    Domain,
    build_captioned_prior,
    caption_steps,
    draw_captioned,
    validate_captioned,
)
from training.exporting import save_depth_model, save_prior, write_checksums
from training.loop import Training, averaged, snapshot, track
from training.networks import build_prior, loaded_prior
from training.options import Compile, Device, Runs, Seed, Until
from training.photo_depth import (
    BATCH,
    DEPTH_NAME,
    build_photo_depth,
    draw_photos,
    encoder_matrices,
    photo_depth_steps,
    validate_photo_depth,
)
from training.photo_prior import PRIOR_NAME, draw_noisy, validate_photo_prior
from training.relighting import denoising_steps
from training.stored_scenes import draw_file, stored_scenes

T = TypeVar("T")

app = typer.Typer(add_completion=False, help=__doc__)

DEPTH_SAMPLES = (80_000, 80_000, 64_000, 128_000)
"""Pictures of each cycle of the learning rate, as if every batch were of `BATCH`."""

VALIDATION_STEPS = 500
PRIOR_SAMPLES = (64_000, 96_000, 128_000, 192_000)
CAPTION_SAMPLES, CAPTION_VALIDATION_STEPS = (64_000, 64_000), 2000
KEPT_SAMPLES = (16_000, 32_000, 64_000, 128_000)

FILES = 60
"""Files of stored scenes, of `stored_scenes.PER_FILE` each."""

Workers = Annotated[
    int, typer.Option(min=0, help="Processes that draw batches; with 0 the training draws them itself.")
]

ScenesFolder = Annotated[Path, typer.Option(help="Where the stored scenes are.")]

Cycles = Annotated[
    int | None, typer.Option(min=1, help="How many cycles of the learning rate; all by default.")
]


@app.command()
def scenes(
    out: ScenesFolder = Path("runs/scenes"),
    files: Annotated[int, typer.Option(min=1, help="How many files.")] = FILES,
    seed: Seed = 0,
    workers: Workers = 0,
) -> None:
    """Draw rooms and store them; files that are there already stay."""
    draw = partial(draw_file, out, seed)
    if workers == 0:
        for number in track(0, files):
            draw(number)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        for _ in zip(track(0, files), pool.map(draw, range(files)), strict=True):
            pass


def ahead(training: Training, draw: Callable[[int, Generator], T], seed: int, workers: int) -> Iterator[T]:
    """Return the batches of the steps that are left."""
    return drawn_ahead(draw, seed + 1, training.step, training.total, workers)


@app.command()
def depth(
    cycles: Cycles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
    scenes: ScenesFolder = Path("runs/scenes"),
    workers: Workers = 0,
) -> None:
    """Train the depth model."""
    target = torch.device(device)
    model = build_photo_depth(seed).to(target)
    training = Training(
        model,
        runs / f"{DEPTH_NAME}-{seed}",
        rate=6e-4,
        cycles=DEPTH_SAMPLES[:cycles],
        batch=BATCH,
        validate=lambda average: validate_photo_depth(average, target),
        validation_steps=VALIDATION_STEPS,
        matrices=encoder_matrices(model),
    )
    draw = partial(draw_photos, stored_scenes(scenes))
    training.run(
        lambda _: photo_depth_steps(model, ahead(training, draw, seed, workers), target), seed, until
    )


@app.command()
def prior(
    init: Annotated[
        str | None, typer.Option(help="A re-lighting prior to start from, as for prior.checkpoint.")
    ] = None,
    cycles: Cycles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    compiled: Compile = False,
    until: Until = None,
    scenes: ScenesFolder = Path("runs/scenes"),
    workers: Workers = 0,
) -> None:
    """Train the re-lighting prior."""
    target = torch.device(device)
    model = (build_prior(seed) if init is None else loaded_prior(init)).to(target)
    forward = cast(Callable[..., Tensor], torch.compile(model)) if compiled else None
    training = Training(
        model,
        runs / f"{PRIOR_NAME}-{seed}",
        rate=1e-3 if init is None else 5e-4,
        cycles=PRIOR_SAMPLES[:cycles],
        batch=BATCH,
        validate=lambda average: validate_photo_prior(average, target),
        validation_steps=VALIDATION_STEPS,
    )
    draw = partial(draw_noisy, stored_scenes(scenes), BATCH)
    training.run(
        lambda _: denoising_steps(model, ahead(training, draw, seed, workers), target, forward), seed, until
    )


@app.command()
def caption(
    domain: Annotated[Domain, typer.Option(help="Re-lit scenes, or flat posters for comparison.")] = "scenes",
    init: Annotated[
        str | None,
        typer.Option(help="A re-lighting prior to start from, as for prior.checkpoint."),
    ] = None,
    keep: Annotated[
        list[int] | None, typer.Option(help="Keep the averaged weights after these samples.")
    ] = None,
    cycles: Cycles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
    scenes: ScenesFolder = Path("runs/scenes"),
) -> None:
    """Train a generic prior, which is told a caption and never the photo."""
    target = torch.device(device)
    model = build_captioned_prior(seed, init).to(target)
    training = Training(
        model,
        runs / f"{NAMES[domain]}-{seed}",
        rate=1e-3 if init is None else 5e-4,
        cycles=CAPTION_SAMPLES[:cycles],
        batch=BATCH,
        validate=lambda average: validate_captioned(average, domain, target),
        validation_steps=CAPTION_VALIDATION_STEPS,
        keep=keep or KEPT_SAMPLES,
    )
    rooms = stored_scenes(scenes)
    training.run(
        lambda g: caption_steps(model, lambda: draw_captioned(domain, BATCH, g, rooms), g, target),
        seed + 1,
        until,
    )


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder of the exported checkpoints.")],
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    samples: Annotated[
        int | None, typer.Option(help="Of the captioned priors the weights kept after so many samples.")
    ] = None,
) -> None:
    """Write the averaged weights in half precision, of what has been trained so far."""
    if (run := runs / f"{DEPTH_NAME}-{seed}").is_dir():
        model = build_photo_depth(seed)
        model.load_state_dict(averaged(run))
        save_depth_model(model, out / DEPTH_NAME)
    if (run := runs / f"{PRIOR_NAME}-{seed}").is_dir():
        wrapped = build_prior(seed)
        wrapped.load_state_dict(averaged(run))
        save_prior(wrapped, out / PRIOR_NAME)
    for name in NAMES.values():
        if (run := runs / f"{name}-{seed}").is_dir():
            wrapped = build_captioned_prior(seed)
            wrapped.load_state_dict(averaged(run) if samples is None else snapshot(run, samples))
            save_prior(wrapped, out / name)
    write_checksums(out)


if __name__ == "__main__":
    app()
