"""What a method trains on: the lessons of ``distil`` and of ``score``, and the validation of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from redepth import depth_models, io, priors, renderers
from redepth.adaptation.distilling import Distil, Keep
from redepth.adaptation.lessons import Lesson, PhotoLoss, Validation
from redepth.adaptation.losses import RelativeDepth, drift, relative_depth_in
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.processes import Processes
from redepth.adaptation.prompts import prompts_of
from redepth.adaptation.scoring import Score, check_prior
from redepth.adaptation.targets import Target, TargetRow, load_target
from redepth.adaptation.validation import distance
from redepth.components import lit_albedo, normals_of
from redepth.config import Preset
from redepth.contracts import DepthModel
from redepth.errors import ConfigError
from redepth.pipeline import Pipeline

LEARN, KEEP = "learn", "keep"


@dataclass(frozen=True, eq=False)
class Material:
    """The photos of an adaptation, checked and refined as its method needs.

    Attributes:
        preset: resolved.
        training: photos that are learned from.
        held_out: photos that decide when to stop.
        keep: photos on which the model shall stay as it is.
        refined: folder of the refinements.
        rows: refinements of the held-out photos, and for ``distil`` of the training photos, by name.
        max_pixels: photos with more pixels are refused.
        prompts: of the training photos, by name, where the method needs them (`captioned`).
    """

    preset: Preset
    training: Sequence[PhotoFile]
    held_out: Sequence[PhotoFile]
    keep: Sequence[PhotoFile]
    refined: Path
    rows: Mapping[str, TargetRow]
    max_pixels: int = io.MAX_PIXELS
    prompts: Mapping[str, str] = field(default_factory=dict)

    def target(self, photo: PhotoFile) -> Target:
        """Return the refinement of a photo, on the CPU. Raises InputError if its file is gone or replaced."""
        return load_target(self.refined, self.rows[photo.name], self.preset.adapt.trust.tolerance)


def load_depth_model(preset: Preset, device: torch.device) -> DepthModel:
    """Return the depth model of a resolved preset with the weights that it starts from, frozen."""
    chosen = preset.depth_model
    model: DepthModel = depth_models.REGISTRY.build(chosen.name, chosen.options)
    return model.load(device)


def relative_depth_of(model: DepthModel, target: Target) -> RelativeDepth:
    """Return how raw outputs of a photo become its relative depth, by the unit of its refinement."""
    return relative_depth_in(model, target.unit)


def photo_distance(model: DepthModel, raw: Tensor, target: Target) -> float:
    """Return `validation.distance` of a prediction by a model to the refinement of its photo."""
    target = target.to(raw.device)
    metric = model.invariance == "metric"
    return distance(raw, target, relative_depth_of(model, target), metric=metric)


def validation_of(material: Material, model: DepthModel) -> Validation | None:
    """Return the validation on the held-out photos; None without them."""
    if not material.held_out:
        return None
    files = tuple(material.held_out)
    return Validation(files, lambda raw, photo: photo_distance(model, raw, material.target(photo)))


def check_method(preset: Preset) -> None:
    """Raise ConfigError if the method cannot use the preset's prior, albedo or normals; reads no weights."""
    if preset.adapt.method != "score":
        return
    check_prior(priors.REGISTRY.build(preset.prior.name, preset.prior.options))
    if (albedo := lit_albedo(preset)) not in ("photo", "grey"):
        raise ConfigError(
            f"adapt.method=score prepares a photo anew at each step, too often for renderer.albedo={albedo}: "
            "set renderer.albedo=photo or grey, or adapt.method=distil"
        )
    if normals_of(preset) is not None:
        raise ConfigError(
            "adapt.method=score estimates no normals, so optim.objectives.normals.source=marigold would do "
            "nothing: take the objective normals out, or set adapt.method=distil"
        )


def captioned(material: Material, processes: Processes) -> tuple[Material, dict[str, str]]:
    """Return material with prompts, if its method needs some, and why photos are left out, by name.

    Each process captions its share of the training photos. Those without a prompt are left out.

    Raises:
        WeightsError: the captioner's weights cannot be loaded.
    """
    if material.preset.adapt.method != "score":
        return material, {}
    mine = processes.mine(material.training)
    found = prompts_of(mine, material.preset, str(processes.device), material.max_pixels)
    prompts: dict[str, str] = {}
    failures: dict[str, str] = {}
    for captions, failed in processes.gathered(found):
        prompts |= {name: caption.text for name, caption in captions.items()}
        failures |= failed
    usable = [photo for photo in material.training if photo.name in prompts]
    return replace(material, training=usable, prompts=prompts), failures


def lessons_of(material: Material, model: DepthModel, device: torch.device) -> list[Lesson]:
    """Return what the method of a preset learns from its photos, and the photos to keep.

    Args:
        material: the photos.
        model: the depth model that is trained, for the constants of its relative depth.
        device: of the further models that the losses need, which are loaded here.
    """
    settings = material.preset.adapt
    if settings.method == "score":
        pipeline = Pipeline(material.preset, device=str(device))
        loss: PhotoLoss = _score(material, pipeline)
    else:
        pipeline = None
        loss = Distil(model, material.refined, material.rows, settings)
    lessons = [Lesson(LEARN, tuple(material.training), settings.batch, loss)]
    if material.keep and settings.anchor.keep_weight:
        # The refiner of `score` has the starting model already.
        start = pipeline.refiner.depth_model if pipeline else load_depth_model(material.preset, device)
        chosen = material.preset.renderer
        keep = Keep(start, renderers.REGISTRY.build(chosen.name, chosen.options))
        files, anchor = tuple(material.keep), settings.anchor
        lessons.append(Lesson(KEEP, files, anchor.keep_photos, keep, anchor.keep_weight))
    return lessons


def _score(material: Material, pipeline: Pipeline) -> Score:
    anchor, prompts = material.preset.adapt.anchor, material.prompts
    return Score(
        pipeline.refiner,
        lambda photo: prompts[photo.name],
        (lambda raw, initial: drift(raw, initial, anchor.scale)) if anchor.weight else None,
        anchor.weight,
    )
