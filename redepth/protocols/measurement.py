"""Measure a prediction under an evaluation protocol: resize, align, compute the metrics, average them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from redepth.contracts import Invariance, Predicts
from redepth.data.datasets import Sample
from redepth.errors import ConfigError, InputError
from redepth.metrics import (
    Aligned,
    Method,
    align,
    clip_warnings,
    depth_means,
    metrics_of,
    pooled,
    runaway_warnings,
)
from redepth.ops.geometry import resize
from redepth.protocols.other_measures import Maps, nearest, other_metrics, other_warnings
from redepth.protocols.schema import EvaluationProtocol, Range
from redepth.protocols.truth import in_range, in_region, known_truth, sample_label

_AFFINE = {
    "disparity": ("affine-disparity", "affine-disparity-then-depth"),
    "depth": ("affine-depth", "affine-disparity-then-depth"),
}
"""The alignments that find the scale and shift of a prediction of disparity or of depth."""


@dataclass(frozen=True)
class ImageMetrics:
    """The metrics of one image, as plain numbers.

    Attributes:
        image: name of the image.
        protocol: name of the protocol.
        protocol_sha256: its `EvaluationProtocol.sha256`; rows with different hashes are not comparable.
        metrics: name -> value.
        means: the input of `redepth.metrics.metrics_of`, kept so that images can be pooled by pixel.
        pixels: number of pixels that were measured.
        clipped: share of them whose aligned depth was clipped.
        alignment: fitted scales and shifts.
        height: of the picture that was measured.
        width: of the picture that was measured.
        unit: of ``rmse`` and ``sq_rel``.
        left_out: what of the ground truth was not measured and why, as `redepth.metrics.LeftOut` counts it.
        warnings: a line for each large loss among them, for many clipped depths, and for depths near infinity
            that decide ``abs_rel``.
    """

    image: str
    protocol: str
    protocol_sha256: str
    metrics: dict[str, float]
    means: dict[str, float]
    pixels: int
    clipped: float
    alignment: dict[str, float]
    height: int
    width: int
    unit: str
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the row as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ImageMetrics:
        """Read a row from its JSON. A metric that is no number, such as a NaN that JSON lacks, is left out.

        Raises:
            InputError: if a field is missing.
        """
        required = [one.name for one in fields(cls) if one.default_factory is MISSING]
        missing = [name for name in required if name not in record]
        if missing:
            raise InputError(f"not a result row: it has no {', '.join(missing)}")
        if len(finite_numbers(record["means"])) < len(record["means"]):
            raise InputError("not a result row: a mean is no finite number")
        values = {one.name: record[one.name] for one in fields(cls) if one.name in record}
        return cls(**values | {"metrics": finite_numbers(record["metrics"])})


@dataclass(frozen=True)
class Measurement:
    """A row with the arrays that it was computed from, float64, of the row's height and width.

    Attributes:
        row: the numbers.
        depth: (H, W) aligned and clipped depth.
        truth: (H, W) true depth, 0 where unknown.
        mask: (H, W) bool, the pixels that were measured.
        cautions: those of the row's warnings that are about neither what is left out nor what is clipped.
    """

    row: ImageMetrics
    depth: Tensor
    truth: Tensor
    mask: Tensor
    cautions: tuple[str, ...] = ()


# --- one image ------------------------------------------------------------------------------------


def evaluate(
    protocol: EvaluationProtocol,
    raw: ArrayLike | Tensor,
    sample: Sample,
    *,
    predicts: Predicts = "disparity",
    invariance: Invariance = "affine",
) -> ImageMetrics:
    """Return the row of one image: `measure` without its arrays."""
    return measure(protocol, raw, sample, predicts=predicts, invariance=invariance).row


def measure(
    protocol: EvaluationProtocol,
    raw: ArrayLike | Tensor,
    sample: Sample,
    *,
    predicts: Predicts = "disparity",
    invariance: Invariance = "affine",
) -> Measurement:
    """Measure a prediction against a sample that `prepare` returned.

    Args:
        protocol: how to measure.
        raw: (h, w), a model's output for the prepared photo, at any size.
        sample: the prepared sample.
        predicts: whether the prediction is disparity or depth.
        invariance: ``affine`` or ``metric``.

    Raises:
        InputError: naming image and protocol: nothing to measure, a prediction that is not finite, a sample
            that was not prepared, or an alignment that an affine-invariant prediction does not allow.
    """
    name = sample_label(protocol, sample)
    method = protocol.alignment.disparity if predicts == "disparity" else protocol.alignment.depth
    if invariance == "affine" and method not in _AFFINE[predicts]:
        raise InputError(
            f"{name}: the prediction is {predicts} up to scale and shift, which the alignment '{method}' "
            f"cannot find; use {' or '.join(_AFFINE[predicts])}, or a metric model"
        )
    _check_sample(protocol, sample, name)
    known = known_truth(protocol, sample)
    prediction, truth = _at_one_size(protocol, _as_map(raw, name), known.depth)
    mask = in_range(protocol.range, truth) & in_region(protocol.region, *truth.shape)
    aligned = _aligned(protocol, prediction, truth, mask, method, predicts, name)
    means = depth_means(aligned.depth, truth, mask, names=[name])
    metrics = metrics_of(means, silog_lambda=protocol.silog_lambda)
    metrics |= other_metrics(protocol, sample, Maps(aligned.depth, truth, mask), name)
    cautions = (*runaway_warnings(aligned.depth, truth, mask), *other_warnings(protocol, sample))
    row = ImageMetrics(
        image=sample.name,
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        metrics=_numbers(metrics),
        means=_numbers(means),
        pixels=int(means["pixels"]),
        clipped=float(aligned.clipped),
        alignment=_numbers(aligned.parameters),
        height=truth.shape[0],
        width=truth.shape[1],
        unit=sample.unit,
        left_out=known.left_out.record(),
        warnings=[*known.left_out.warnings(), *clip_warnings(float(aligned.clipped)), *cautions],
    )
    return Measurement(row, aligned.depth, truth, mask, cautions)


def _check_sample(protocol: EvaluationProtocol, sample: Sample, name: str) -> None:
    size = sample.truth.shape
    if sample.mask is not None and sample.mask.shape != size:
        raise InputError(f"{name}: the mask is {sample.mask.shape} and the ground truth {size}")
    crop = protocol.crop
    if crop is not None and size != (crop.height, crop.width):
        raise InputError(
            f"{name}: the ground truth is {size[0]} x {size[1]} and the crop {crop.height} x {crop.width}; "
            "give the sample that redepth.protocols.prepare returns, and a prediction for its photo"
        )


def _aligned(
    protocol: EvaluationProtocol,
    prediction: Tensor,
    truth: Tensor,
    mask: Tensor,
    method: Method,
    predicts: Predicts,
    name: str,
) -> Aligned:
    limits = protocol.range if protocol.alignment.clip == "range" else Range()
    return align(
        prediction,
        truth,
        mask,
        method,
        predicts=predicts,
        near=limits.near,
        far="truth" if protocol.alignment.clip == "moge-clamp" else limits.far,
        trim=protocol.alignment.trim,
        names=[name],
    )


def _as_map(raw: ArrayLike | Tensor, name: str) -> Tensor:
    values = raw.detach().cpu() if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw))
    if values.dim() != 2 or values.numel() == 0:
        raise InputError(f"{name}: a prediction must be (H, W), got {tuple(values.shape)}")
    return values.double()


def _at_one_size(protocol: EvaluationProtocol, raw: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    resolution = protocol.resolution
    if resolution == "truth":
        height, width = truth.shape
    elif resolution == "prediction":
        height, width = raw.shape
    else:
        height, width = resolution.height, resolution.width
    corners = protocol.interpolation == "bilinear-corners"
    prediction = resize(raw[None, None], height, width, align_corners=corners)[0, 0]
    return prediction, nearest(truth, height, width)


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are finite numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


# --- over a data set ------------------------------------------------------------------------------


def average(protocol: EvaluationProtocol, rows: Sequence[ImageMetrics]) -> dict[str, float]:
    """Return the metrics over a data set, averaged by image or by pixel as the protocol says.

    Normals and boundaries are averaged over the images that have them, always by image.

    Raises:
        ConfigError: if a row is of another protocol.
        InputError: without rows.
    """
    if not rows:
        raise InputError(f"no result under protocol {protocol.name} to average")
    others = sorted({row.protocol for row in rows if row.protocol_sha256 != protocol.sha256})
    if others:
        raise ConfigError(
            f"rows of another protocol ({', '.join(others)}) cannot be averaged under {protocol.name} "
            f"{protocol.sha256[:12]}"
        )
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    result = {}
    for name in names:
        values = [row.metrics[name] for row in rows if name in row.metrics]
        result[name] = math.fsum(values) / len(values)
    if protocol.averaging == "pixel":
        means = {name: torch.tensor([row.means[name] for row in rows]).double() for name in rows[0].means}
        result |= _numbers(metrics_of(pooled(means), silog_lambda=protocol.silog_lambda))
    return result
