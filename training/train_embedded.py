"""Train the embedded pair from scratch on procedural scenes: resumable, seeded, one command.

    python -m training.train_embedded all                      # everything below, one after the other
    python -m training.train_embedded depth                    # the depth model, narrow domain
    python -m training.train_embedded prior relighting         # conditioned on photo and light, broad domain
    python -m training.train_embedded prior unconditional      # unconditional, broad domain: the paper's kind
    python -m training.train_embedded prior narrow             # conditioned on photo and light, narrow domain
    python -m training.train_embedded export                   # half-precision safetensors

Two more are not shipped; `benchmarks/accuracy/compare_supervised.py` compares refinement with them::

    python -m training.train_embedded finetune                 # the depth model, on the broad domain's labels
    python -m training.train_embedded normals                  # a network from photo to normals, likewise

Each writes checkpoints and a log of its losses and validation (JSON lines) to ``runs/<name>-<seed>``. Started
again, it resumes from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from torch import Generator, Tensor, nn

from training.exporting import export_folder, save_depth_model, save_prior, write_checksums
from training.loop import Training, averaged
from training.networks import Kind, build_depth_model, build_normals_model, build_prior
from training.options import Compile, Device, Runs, Samples, Seed, Until
from training.relief_depth import depth_steps, validate_depth
from training.relief_normals import normals_steps, validate_normals
from training.relief_prior import prior_steps, validate_prior

app = typer.Typer(add_completion=False, help=__doc__)

DEPTH_NAME, FINETUNED_NAME, NORMALS_NAME = "relief-depth", "relief-depth-finetuned", "relief-normals"

PRIOR_NAMES: dict[Kind, str] = {
    "relighting": "relief-relighting-prior",
    "unconditional": "relief-prior",
    "narrow": "smooth-relighting-prior",
}

SAMPLES: dict[Kind, tuple[int, ...]] = {
    "relighting": (192_000, 128_000, 160_000, 160_000),
    "unconditional": (72_000, 128_000),
    "narrow": (16_000, 48_000),
}
"""Samples of each cycle of the learning rate."""

DEPTH_SAMPLES = (48_000,)

FINETUNE_SAMPLES, NORMALS_SAMPLES = (144_000, 96_000), (72_000, 160_000, 184_000)
"""Samples of the supervised networks: the same minutes, or pictures, as the shipped prior."""

BATCH = 16

Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the exported checkpoints; by default the package's weights for the embedded pair, "
        "benchmarks/checkpoints for the other priors."
    ),
]


def train(
    model: nn.Module,
    name: str,
    make_step: Callable[[Generator], Callable[[], Tensor]],
    validate: Callable[[Any], dict[str, Any]],
    *,
    cycles: Sequence[int],
    seed: int,
    runs: Path,
    until: int | None,
    rate: float = 1e-3,
) -> None:
    """Train a network in ``runs/name``, which may hold the beginning of it."""
    training = Training(model, runs / name, rate=rate, cycles=cycles, batch=BATCH, validate=validate)
    training.run(make_step, seed, until)


@app.command()
def depth(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
) -> None:
    """Train the depth model on the narrow domain."""
    target = torch.device(device)
    model = build_depth_model(seed).to(target)
    train(
        model,
        f"{DEPTH_NAME}-{seed}",
        lambda generator: depth_steps(model, generator, BATCH, target),
        lambda average: validate_depth(average, target),
        cycles=(samples,) if samples else DEPTH_SAMPLES,
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command()
def finetune(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
) -> None:
    """Train the depth model of this seed further, on the broad domain with its labels."""
    target = torch.device(device)
    model = build_depth_model(seed).to(target)
    model.load_state_dict(averaged(runs / f"{DEPTH_NAME}-{seed}"))
    train(
        model,
        f"{FINETUNED_NAME}-{seed}",
        lambda generator: depth_steps(model, generator, BATCH, target, "broad"),
        lambda average: validate_depth(average, target),
        rate=5e-4,
        cycles=(samples,) if samples else FINETUNE_SAMPLES,
        seed=seed + 2,
        runs=runs,
        until=until,
    )


@app.command()
def normals(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train a network from photo to normals on the broad domain."""
    target = torch.device(device)
    model = build_normals_model(seed).to(target)
    predict = torch.compile(model) if compiled else model
    train(
        model,
        f"{NORMALS_NAME}-{seed}",
        lambda generator: normals_steps(predict, generator, BATCH, target),
        lambda average: validate_normals(average, target),
        cycles=(samples,) if samples else NORMALS_SAMPLES,
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command()
def prior(
    kind: Annotated[Kind, typer.Argument(help="Which prior.")] = "relighting",
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train a prior."""
    target = torch.device(device)
    model = build_prior(seed, kind).to(target)
    forward = cast(Callable[..., Tensor], torch.compile(model)) if compiled else None
    train(
        model,
        f"{PRIOR_NAMES[kind]}-{seed}",
        lambda generator: prior_steps(model, generator, BATCH, target, kind, forward),
        lambda average: validate_prior(average, kind, target),
        cycles=(samples,) if samples else SAMPLES[kind],
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command("all")
def all_(
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    out: Out = None,
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train all and export them."""
    depth(seed=seed, device=device, runs=runs, until=until)
    for kind in PRIOR_NAMES:
        prior(kind, seed=seed, device=device, runs=runs, compiled=compiled, until=until)
    export(seed=seed, runs=runs, out=out)


@app.command()
def export(
    only: Annotated[list[str] | None, typer.Option(help="Only these models, by name.")] = None,
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    out: Out = None,
) -> None:
    """Write the averaged weights in half precision as transformers and diffusers load them."""
    names = [DEPTH_NAME, *PRIOR_NAMES.values()]
    if unknown := set(only or []) - set(names):
        raise typer.BadParameter(f"no model {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    if DEPTH_NAME in (only or names):
        model = build_depth_model(seed)
        model.load_state_dict(averaged(runs / f"{DEPTH_NAME}-{seed}"))
        save_depth_model(model, export_folder(DEPTH_NAME, out) / DEPTH_NAME)
    for kind, name in PRIOR_NAMES.items():
        if name not in (only or names):
            continue
        wrapped = build_prior(seed, kind)
        wrapped.load_state_dict(averaged(runs / f"{name}-{seed}"))
        save_prior(wrapped, export_folder(name, out) / name)
    for folder in {export_folder(name, out) for name in only or names}:
        write_checksums(folder)


if __name__ == "__main__":
    app()
