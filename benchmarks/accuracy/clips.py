"""Clips: each frame tied to the last one, against each frame refined apart.

    python -m benchmarks.accuracy.clips run [--split relief]
    python -m benchmarks.accuracy.clips summary

A camera glides over a relief (`data.scenes.glide`) of 96 x 96 pixels, with exact depth and motion. Each
clip is refined with the embedded preset in two ways: frame by frame apart, and as a clip by optical flow.
Both are measured along the exact motion and against the exact depth:

- flicker (`metrics.flicker`) of the frozen predictions, of the frames apart and of the clip, as they are;
- SI-log under the protocol ``synthetic``, which aligns each frame for itself, of the same three;
- steps of each frame, and the seconds of the optimisation.

The settings were chosen on the clips of seeds below 200. Rows go to benchmarks/results/accuracy/clips.jsonl,
one per clip; clips that are there already are not refined again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redepth import io
from redepth.clips.flow import Motion
from redepth.clips.run import ClipRun
from redepth.components import resolve
from redepth.config import load_preset
from redepth.data.datasets import Sample
from redepth.data.scenes.glide import Glide, glide
from redepth.metrics.bootstrap import bootstrap_interval
from redepth.metrics.flicker import flicker
from redepth.ops.warp import warp, within
from redepth.pipeline import Pipeline, guided
from redepth.protocols import evaluate, load_protocol

RESULT = Path(__file__).parents[1] / "results" / "accuracy" / "clips.jsonl"
SIZE, FRAMES = 96, 6
LONG = 16
"""Frames of the long clips, which show whether a chain drifts."""

CLIPS = [("relief", FRAMES, seed) for seed in range(200, 206)]
CLIPS += [("shapes", FRAMES, seed) for seed in range(200, 206)]
CLIPS += [("relief", LONG, 210), ("shapes", LONG, 210)]


def pipeline_of(overrides: Sequence[str] = ()) -> Pipeline:
    """Load the embedded preset for clips of this size."""
    preset = load_preset("embedded-relief", [f"depth_model.longer_side={SIZE}", *overrides])
    return Pipeline(guided(resolve(preset), temporal=True), device="cpu")


def frames_of(clip: Glide) -> list[np.ndarray[Any, Any]]:
    """Return the pictures as photos (H, W, 3)."""
    return [image.permute(1, 2, 0).numpy() for image in clip.image]


def flickers(maps: Sequence[Tensor], clip: Glide) -> list[float]:
    """Return the flicker of each frame but the first, along the exact motion."""
    return [
        flicker(now, warp(last, back[None]), within(back[None]))
        for last, now, back in zip(maps[:-1], maps[1:], clip.back, strict=True)
    ]


def errors(maps: Sequence[Tensor], clip: Glide) -> list[float]:
    """Return the SI-log of each frame."""
    protocol = load_protocol("synthetic")
    found = []
    for index, (image, depth, raw) in enumerate(zip(clip.image, clip.depth, maps, strict=True)):
        sample = Sample(
            f"frame {index}", photo=image.permute(1, 2, 0).numpy(), truth=depth[0].numpy(), unit="relative"
        )
        found.append(evaluate(protocol, raw[0, 0], sample).metrics["silog"])
    return found


def apart(pipeline: Pipeline, clip: Glide) -> tuple[list[Tensor], list[Tensor], dict[str, Any]]:
    """Refine each frame for itself; return the predictions, the results and what they cost."""
    # The draws of frame t are those that the clip takes.
    parts = [pipeline.refine(frame, seed=t, prompt="") for t, frame in enumerate(frames_of(clip))]
    outcomes = [part.outcome for part in parts]
    cost = {
        "steps": [max(outcome.steps_done) for outcome in outcomes],
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 2),
    }
    return [outcome.initial for outcome in outcomes], [outcome.refined for outcome in outcomes], cost


def together(pipeline: Pipeline, clip: Glide, motion: Motion = "flow") -> tuple[list[Tensor], dict[str, Any]]:
    """Refine the frames as a clip; return the results and what they cost."""
    run = ClipRun(pipeline, frames_of(clip), motion=motion, prompt="")
    maps = [result.refinement.outcome.refined for result in run]
    summary = run.summary
    cost = {
        "steps": list(summary.steps),
        "seconds": round(summary.seconds, 2),
        "starts": list(summary.starts),
        "flicker_along_flow": [summary.flicker_initial, summary.flicker_refined],
    }
    return maps, cost


def row_of(pipeline: Pipeline, split: str, frames: int, seed: int) -> dict[str, Any]:
    """Refine and measure one clip."""
    clip = glide(frames, split, torch.Generator().manual_seed(seed), size=SIZE)
    predictions, single, cost_apart = apart(pipeline, clip)
    tied, cost = together(pipeline, clip)
    ways = {"prediction": predictions, "apart": single, "clip": tied}
    return {
        "split": split,
        "frames": frames,
        "seed": seed,
        "flicker": {name: _rounded(flickers(maps, clip)) for name, maps in ways.items()},
        "silog": {name: _rounded(errors(maps, clip)) for name, maps in ways.items()},
        "apart": cost_apart,
        "clip": cost,
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]


def stored() -> list[dict[str, Any]]:
    """Return the rows that are done."""
    if not RESULT.exists():
        return []
    return [json.loads(line) for line in RESULT.read_text().splitlines()]


def summary_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line per split and length: means over clips, and the change with a bootstrap interval."""
    lines = []
    for split, frames in sorted({(row["split"], row["frames"]) for row in rows}):
        chosen = [row for row in rows if (row["split"], row["frames"]) == (split, frames)]
        part = f"{split}, {len(chosen)} clips of {frames} frames"
        for name in ("flicker", "silog"):
            means = {
                way: [float(np.mean(row[name][way])) for row in chosen]
                for way in ("prediction", "apart", "clip")
            }
            shown = " / ".join(f"{np.mean(values):.3f}" for values in means.values())
            part += f"; {name} prediction / apart / clip {shown}"
            generator = torch.Generator().manual_seed(0)
            change = bootstrap_interval(means["apart"], means["clip"], generator=generator)
            part += f", {change.change:+.1f} % ({change.low:+.1f} to {change.high:+.1f})"
        steps = [sum(row[way]["steps"]) for row in chosen for way in ("apart", "clip")]
        seconds = [row[way]["seconds"] for row in chosen for way in ("apart", "clip")]
        part += f"; steps {sum(steps[::2])} / {sum(steps[1::2])}"
        part += f"; seconds {sum(seconds[::2]):.0f} / {sum(seconds[1::2]):.0f}"
        lines.append(part)
    return lines


def main() -> None:
    """Refine what is not stored, or print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["run", "summary"])
    parser.add_argument("--split", choices=["relief", "shapes"], help="only clips of this split")
    options = parser.parse_args()
    if options.what == "run":
        pipeline = pipeline_of()
        for clip in CLIPS:
            if options.split in (None, clip[0]) and clip not in {_name(row) for row in stored()}:
                row = row_of(pipeline, *clip)
                rows = sorted([*stored(), row], key=_name)
                io.save_text(RESULT, "".join(json.dumps(row) + "\n" for row in rows))
                print(summary_of([row])[0], flush=True)
    print("\n".join(summary_of(stored())))


def _name(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["split"], row["frames"], row["seed"]


if __name__ == "__main__":
    main()
