"""What a run measures of one photo: a refinement, or the prediction of a depth model alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redepth import depth_models
from redepth.config import Preset
from redepth.contracts import DepthModel, GoesAround, HasNeeds, Invariance, LeavesHoles, Predicts
from redepth.data.datasets import Sample
from redepth.data.datasets.base import Array
from redepth.ops.camera import Camera
from redepth.optim.outcome import Outcome
from redepth.optim.prediction import predict, tell_camera, tell_photo
from redepth.protocols import EvaluationProtocol, Measurement, measure
from redepth.refinement import Refinement, holes_at
from redepth.runtime.device import numerics


@dataclass(frozen=True)
class Answer:
    """The raw outputs for one photo.

    Attributes:
        photo: (H, W, 3) sRGB in [0, 1], as the model was given it.
        outputs: ``initial`` and, after a refinement, ``refined``: (1,1,h,w) on the CPU.
        predicts: what they are.
        invariance: whether they are known up to scale and shift, or metric.
        holes: (1,1,h,w) bool, where the model's map had none; any size.
        components: what ran, for the record.
        flagged: names of the failure signatures that were flagged.
        refinement: the whole result; None if nothing was refined.
    """

    photo: Array
    outputs: Mapping[str, Tensor]
    predicts: Predicts
    invariance: Invariance
    holes: Tensor | None = None
    components: dict[str, Any] = field(default_factory=dict)
    flagged: list[str] = field(default_factory=list)
    refinement: Refinement | None = None

    @classmethod
    def of(cls, refinement: Refinement) -> Answer:
        """Return the answer of a refinement."""
        return cls(
            photo=refinement.photo,
            outputs=_both(refinement.outcome),
            predicts=refinement.predicts,
            invariance=refinement.invariance,
            holes=refinement.holes,
            components=refinement.components,
            flagged=[signature.name for signature in refinement.flagged],
            refinement=refinement,
        )

    def measure(self, protocol: EvaluationProtocol, sample: Sample) -> dict[str, Measurement]:
        """Measure the outputs of a prepared image, where the model's map had no hole."""
        known = without_holes(sample, holes_at(self.holes, *sample.truth.shape[-2:]))
        return _measure(protocol, known, self.outputs, self.predicts, self.invariance)


def measure_both(protocol: EvaluationProtocol, sample: Sample, outcome: Outcome) -> dict[str, Measurement]:
    """Measure the ``initial`` and the ``refined`` output of one prepared image."""
    return _measure(protocol, sample, _both(outcome), outcome.predicts, outcome.invariance)


def known_part(sample: Sample, refinement: Refinement) -> Sample:
    """Return a prepared image without the truth at pixels where the refined map had a hole."""
    return without_holes(sample, refinement.unknown_at(*sample.truth.shape[-2:]))


def without_holes(sample: Sample, holes: NDArray[np.bool_] | None) -> Sample:
    """Return an image without the truth at some of its pixels, (H, W)."""
    if holes is None:
        return sample
    return replace(sample, mask=~holes if sample.mask is None else sample.mask & ~holes)


def _both(outcome: Outcome) -> dict[str, Tensor]:
    return {"initial": outcome.initial, "refined": outcome.refined}


def _measure(
    protocol: EvaluationProtocol,
    sample: Sample,
    outputs: Mapping[str, Tensor],
    predicts: Predicts,
    invariance: Invariance,
) -> dict[str, Measurement]:
    return {
        when: measure(protocol, raw[0, 0], sample, predicts=predicts, invariance=invariance)
        for when, raw in outputs.items()
    }


def depth_model_of(preset: Preset) -> DepthModel:
    """Build the depth model of a resolved preset; its weights are looked for and not loaded.

    Raises:
        WeightsError: its weights are missing and unreachable.
    """
    model: DepthModel = depth_models.REGISTRY.build(preset.depth_model.name, preset.depth_model.options)
    if isinstance(model, HasNeeds):
        model.ensure_available()
    return model


class Predictor:
    """The depth model of a preset alone, loaded once: neither renderer nor prior is built.

    Args:
        preset: resolved.
        device: where it runs.

    Raises:
        WeightsError: its weights are missing and unreachable, or cannot be loaded.
    """

    def __init__(self, preset: Preset, device: torch.device) -> None:
        self.device = device
        self.fast = preset.optim.performance
        self.model = depth_model_of(preset).load(self.device)

    def predict(self, photo: Array, camera: Camera | None = None, source: Path | None = None) -> Answer:
        """Predict one photo.

        Args:
            photo: (H, W, 3) sRGB in [0, 1].
            camera: of the photo; a model whose metres need one is given it.
            source: the file by whose name a model finds its files of the photo (`photo_file`).

        Raises:
            InputError: the model finds no file of the photo.
            RedepthError: the model fails.
        """
        model = self.model
        tell_photo(model, source)
        if isinstance(model, GoesAround):
            model.go_around(0.0)
        tell_camera(model, camera, *photo.shape[:2])
        pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None]
        with numerics(self.device, tf32=self.fast.tf32, cudnn_benchmark=self.fast.cudnn_benchmark):
            _, _, raw = predict(model, pixels, self.device)
        return Answer(
            photo=photo,
            outputs={"initial": raw.float().cpu()},
            predicts=model.predicts,
            invariance=model.invariance,
            holes=model.holes if isinstance(model, LeavesHoles) else None,
            components={"depth_model": model.describe()},
        )
