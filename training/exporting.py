"""Write trained networks as checkpoints that transformers and diffusers load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redepth.checkpoints.embedded import COMPARISON, WEIGHTS
from redepth.cli.checks import CHECKSUMS, sha256
from redepth.io.assets import CHECKOUT
from redepth.priors.pixel_unet import PixelUNet
from training.networks import SCHEDULE


def save_depth_model(model: Any, folder: Path) -> None:
    """Write a depth model's weights in half precision, and its configuration."""
    model.half().save_pretrained(folder)


def save_prior(model: PixelUNet, folder: Path) -> None:
    """Write a prior's weights in half precision, its noise schedule and its layout."""
    from diffusers import DDIMScheduler

    model.unet.half().save_pretrained(folder / "unet")
    DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    model.layout.write(folder)


def export_folder(name: str, out: Path | None) -> Path:
    """Return the folder that a checkpoint is exported to: the package, or the repository's benchmarks."""
    if out is not None:
        return out
    return CHECKOUT / "checkpoints" if name in COMPARISON else WEIGHTS


def write_checksums(folder: Path) -> None:
    """Record the SHA-256 of every weight and configuration file, as `redepth doctor` checks them."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".json"})
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))
