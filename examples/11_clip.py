"""A clip: a camera glides over a relief, and each frame is tied to the last one.

    python examples/11_clip.py
    python examples/11_clip.py --frames 24 --preset embedded

It makes its own clip, refines it by the known motion of the camera, writes a video, and compares the flicker
before and after. On the command line: redepth refine clip.mp4 --preset embedded
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import redepth
from redepth import io, viz
from redepth.cli.script import run
from redepth.clips.flow import CameraMotion
from redepth.data.scenes.glide import glide


def main(
    preset: Annotated[str, typer.Option(help="Name or YAML file.")] = "embedded",
    frames: Annotated[int, typer.Option(help="Length of the clip; as many as fit its size.", min=2)] = 8,
    size: Annotated[int, typer.Option(help="Side of its pictures in pixels.", min=64)] = 96,
    seed: Annotated[int, typer.Option(help="Seed of the scene and of the refinement.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/clip"),
) -> None:
    """Refine a clip of a relief, frame after frame, and print how much its depth flickers."""
    clip = glide(frames, "relief", torch.Generator().manual_seed(seed), size=size)
    photos = [(255 * image.permute(1, 2, 0)).round().numpy().astype(np.uint8) for image in clip.image]
    motion = CameraMotion(list(clip.poses.numpy()))
    results = redepth.refine_clip(photos, preset, motion=motion, seed=seed)
    colours = None
    with io.video_writer(out / "clip.mp4", rate=10) as video:
        for result in results:
            refined = result.refinement
            # Those of the first frame, so that nothing but the depth changes.
            colours = colours or viz.display_range(refined.initial, refined.refined)
            sheet = viz.clip_frame(refined.photo, refined.initial, refined.refined, colours)
            video.add(np.asarray(sheet), result.index / 10)
            print(f"frame {result.index}: {result.link.steps} steps", result.link.reason)
    summary = results.summary
    print(f"flicker {summary.flicker_initial:.4f} before, {summary.flicker_refined:.4f} after")
    print("written to", out / "clip.mp4")


if __name__ == "__main__":
    run(main)
