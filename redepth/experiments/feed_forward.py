"""What a depth model predicts for a photo, without a refinement: its time and its error."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from redepth.data.datasets import Sample
from redepth.pipeline import Pipeline
from redepth.protocols import EvaluationProtocol, Measurement, measure


@dataclass(frozen=True)
class Prediction:
    """A measured prediction.

    Attributes:
        measured: under the protocol.
        seconds: time of one prediction, with preparing the photo.
    """

    measured: Measurement
    seconds: float


def predict(pipeline: Pipeline, protocol: EvaluationProtocol, sample: Sample) -> Prediction:
    """Predict the depth of a prepared sample by a pipeline's depth model, and measure it."""
    refiner = pipeline.refiner
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None]
    refiner.predict(photo)  # the first prediction at a size takes longer
    started = time.perf_counter()
    _, _, raw = refiner.predict(photo)
    seconds = time.perf_counter() - started
    model = refiner.depth_model
    measured = measure(
        protocol, raw[0, 0].cpu(), sample, predicts=model.predicts, invariance=model.invariance
    )
    return Prediction(measured, seconds)
