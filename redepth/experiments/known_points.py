"""The experiment `anchors`: known points of a scene, and depth aligned to them and not to the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.guidance import Anchors
from redepth.metrics import depth_metrics
from redepth.metrics.metric_fit import fit_metric
from redepth.ops.geometry import resize
from redepth.optim.outcome import Outcome
from redepth.protocols import EvaluationProtocol, Measurement, measure

COUNTS = (0, 3, 10, 100, 1000)
"""The numbers of known points."""

NOISE, OUTLIERS = 0.02, 0.05
"""Relative standard deviation of a point's depth, and share of points whose depth is wrong."""

WRONG_BY = (1.5, 3.0)
"""The factor by which a wrong depth is too large or too small."""


def draw_points(sample: Sample, count: int, seed: int) -> Anchors:
    """Draw points of a sample's truth, with noise and outliers.

    Points are at the centres of different pixels. The number of outliers is the share `OUTLIERS`, rounded to
    the nearest number: none of 3, one of 10.

    Raises:
        InputError: the truth has fewer known pixels.
    """
    depth = sample.depth().numpy()
    rows, columns = np.nonzero(depth > 0)
    if len(rows) < count:
        raise InputError(f"{sample.name}: has {len(rows)} known pixels, too few for {count} points")
    random = np.random.default_rng([seed, count])
    chosen = random.choice(len(rows), size=count, replace=False)
    rows, columns = rows[chosen], columns[chosen]
    known = depth[rows, columns] * (1 + NOISE * random.standard_normal(count))
    wrong = random.permutation(count)[: int(OUTLIERS * count + 0.5)]
    factor = WRONG_BY[0] * (WRONG_BY[1] / WRONG_BY[0]) ** random.random(len(wrong))
    known[wrong] *= np.where(random.random(len(wrong)) < 0.5, factor, 1 / factor)
    height, width = depth.shape
    return Anchors(
        x=torch.from_numpy((columns + 0.5) / width),
        y=torch.from_numpy((rows + 0.5) / height),
        depth=torch.from_numpy(np.maximum(known, 1e-6)),
        source="drawn from the truth",
    )


def measure_aligned(
    protocol: EvaluationProtocol, sample: Sample, outcome: Outcome, points: Anchors | None
) -> dict[str, Measurement]:
    """Measure the ``initial`` and the ``refined`` output, each aligned to the same points.

    Depth that the fit does not give, beyond infinity or behind the camera, becomes the greatest or least true
    depth, as under the protocol. Without points the protocol aligns to the truth.
    """
    measured = {}
    for when, raw in {"initial": outcome.initial, "refined": outcome.refined}.items():
        by_protocol = measure(
            protocol, raw[0, 0], sample, predicts=outcome.predicts, invariance=outcome.invariance
        )
        measured[when] = by_protocol if points is None else _aligned(by_protocol, raw, outcome, points)
    return measured


def _aligned(by_protocol: Measurement, raw: Tensor, outcome: Outcome, points: Anchors) -> Measurement:
    """Replace the numbers of a measurement by those of depth that is aligned to points."""
    truth, mask = by_protocol.truth, by_protocol.mask
    fit = fit_metric(raw[0, 0], points, outcome.predicts, outcome.invariance)
    values = resize(raw.double(), *truth.shape, align_corners=True)[0, 0].numpy()
    depth = torch.from_numpy(fit.depth(values, outcome.predicts)).double()
    unknown = torch.isnan(depth)
    inside = truth[mask]
    instead = inside.max() if outcome.predicts == "disparity" else inside.min()
    depth = torch.where(unknown, instead, depth)
    metrics: Mapping[str, Tensor] = depth_metrics(depth, truth, mask)
    row = replace(
        by_protocol.row,
        metrics={name: float(value) for name, value in metrics.items()},
        clipped=float(unknown[mask].double().mean()),
        alignment=_numbers(fit.record()),
    )
    return replace(by_protocol, row=row, depth=depth)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
