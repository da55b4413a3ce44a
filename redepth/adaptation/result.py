"""Write the result of an adaptation: checkpoint with its card, preset, report, and the summary last."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import io, viz
from redepth.adaptation.card import model_card
from redepth.adaptation.checkpoint import FILES, start_of, write_checkpoint
from redepth.adaptation.methods import Material, photo_distance, relative_depth_of
from redepth.adaptation.photos import PhotoFile, decoded
from redepth.adaptation.pictures import SIDE, held_out_pictures
from redepth.adaptation.record import (
    PRESET_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    TRAINING,
    Adapted,
    Job,
    Validated,
    job_sha256,
)
from redepth.adaptation.report import HeldOut, read_losses, write_report
from redepth.adaptation.training import Trained
from redepth.config import Component, Preset
from redepth.contracts import DepthModel

TIMED = 8
"""Most photos whose prediction is timed, where none is held out."""

OnDone = Callable[[int, int], object]
"""Called with the number of photos that are predicted, and of how many."""


def write_result(
    job: Job,
    material: Material,
    model: DepthModel,
    trained: Trained,
    folder: Path,
    *,
    left_out: dict[str, str],
    failed: list[str],
    on_done: OnDone = lambda done, total: None,
) -> Adapted:
    """Write all files of a result; ``summary.json`` is the last one, so that a result is whole or absent.

    Args:
        job: what was adapted, and how.
        material: the photos.
        model: the adapted depth model.
        trained: how the training ended.
        folder: of the adaptation.
        left_out: name of a photo that was not used -> why.
        failed: names of those that could not be read or refined.
        on_done: called after each prediction.

    Raises:
        OutputError: a file cannot be written.
    """
    held_out, predict_seconds = _predictions(material, model, on_done)
    start, scale = start_of(model), getattr(model, "scale", None)
    result = Adapted(
        job=job_sha256(job),
        folder=folder,
        steps=trained.steps,
        chosen=trained.chosen,
        stopped=trained.stopped,
        finished=trained.finished,
        validations=[Validated(step=step, distance=d) for step, d in sorted(trained.distances.items())],
        training=len(material.training),
        held_out=[photo.name for photo in material.held_out],
        left_out=left_out,
        failed=failed,
        keep=len(material.keep),
        learned=trained.learned,
        seconds=_seconds(material, trained),
        peak_memory=trained.peak_memory,
        predict_seconds=predict_seconds,
        refine_seconds=_median([row.seconds for row in material.rows.values()]),
        scale=scale,
    )
    write_checkpoint(model, start, model_card(job, result, start, scale), result.checkpoint)
    result = result.model_copy(update={"files": io.manifest(result.checkpoint / name for name in FILES)})
    write_preset(job, result)
    return write_pages(job, result, held_out)


def write_preset(job: Job, result: Adapted) -> None:
    """Write ``preset.yaml`` unless it is there as it must be, such as after the folder was moved."""
    path = result.folder / PRESET_FILE
    text = adapted_preset(job.preset, result.checkpoint, result.scale).to_yaml()
    if not path.is_file() or path.read_bytes() != text.encode():
        io.save_text(path, text)


def write_pages(job: Job, result: Adapted, held_out: Sequence[HeldOut] = ()) -> Adapted:
    """Write ``report.html``, and then ``summary.json``, which holds its hash; return the result with it.

    Args:
        job: what was adapted, and how.
        result: of the adaptation.
        held_out: the photos that are shown.
    """
    write_report(job, result, read_losses(result.folder / TRAINING), held_out)
    result = result.model_copy(update={"report": io.manifest([result.folder / REPORT_FILE])})
    io.save_json(result.folder / SUMMARY_FILE, result.model_dump(mode="json"))
    return result


def adapted_preset(preset: Preset, checkpoint: Path, scale: float | str | None) -> Preset:
    """Return a preset with an adapted checkpoint in place of the one that it started from.

    Args:
        preset: of the adaptation.
        checkpoint: folder of the adapted model.
        scale: s of the starting model, which a preset may leave to its checkpoint's name.
    """
    options = preset.depth_model.options | {"checkpoint": io.as_text(checkpoint.absolute())}
    if "revision" in options:
        options["revision"] = None
    if options.get("scale", "") is None:
        options["scale"] = scale
    depth_model = Component.model_validate({"name": preset.depth_model.name, **options})
    update = {
        "name": f"{preset.name}-adapted",
        "description": f"{preset.name} with a depth model that redepth adapt made.",
        "depth_model": depth_model,
    }
    return preset.model_copy(update=update)


@torch.no_grad()
def predict(model: DepthModel, pixels: Tensor) -> Tensor:
    """Return a depth model's raw output (1,1,h,w), float32 on the CPU, of a photo (1,3,H,W) on its device."""
    raw = model.decode(model.encode(model.prepare(pixels)))
    # This waits for the device, so a prediction can be timed.
    return raw.float().cpu()


def _predictions(
    material: Material, model: DepthModel, on_done: OnDone
) -> tuple[list[HeldOut], float | None]:
    """Return what the report shows of the held-out photos, and the seconds of a prediction."""
    photos = list(material.held_out or material.training[:TIMED])
    shown, times = [], []
    for number, photo in enumerate(photos, 1):
        picture = decoded(photo, material.max_pixels)
        device = next(iter(model.decoder_parameters().values())).device
        pixels = torch.from_numpy(picture.values).permute(2, 0, 1)[None].to(device)
        if number == 1:
            predict(model, pixels)  # the first one of a process is slower
        began = time.perf_counter()
        raw = predict(model, pixels)
        times.append(time.perf_counter() - began)
        if material.held_out:
            height, width = picture.size
            small = viz.reduced_photo(picture.pixels, viz.reduction(height, width, 2 * SIDE))
            shown.append(_held_out(material, model, photo, small, raw))
        on_done(number, len(photos))
    return shown, _median(times)


def _held_out(
    material: Material, model: DepthModel, photo: PhotoFile, small: NDArray[np.uint8], raw: Tensor
) -> HeldOut:
    target = material.target(photo)
    return HeldOut(
        photo.name,
        photo_distance(model, target.initial, target),
        photo_distance(model, raw, target),
        held_out_pictures(small, target, raw, relative_depth_of(model, target)),
    )


def _seconds(material: Material, trained: Trained) -> dict[str, float]:
    refined = sum(row.seconds for row in material.rows.values())
    return {"refine": refined, "train": trained.seconds}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
