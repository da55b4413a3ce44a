"""The records of a benchmark: the run, the result of an image, the summary of a metric.

A run's folder::

    bench.json                       the run: data set, images, protocol, presets, seed
    images/PRESET/IMAGE.json         the row of an image, written as it ends; a killed run resumes from these
    images/PRESET/IMAGE.*.jpg        its pictures;  IMAGE.npz its arrays, with --arrays
    rows.jsonl  rows.csv  summary.json  report.html     made from the rows at the end
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from redepth.components import StoredPreset
from redepth.data.datasets import Dataset
from redepth.errors import RedepthError
from redepth.literals import BenchCamera
from redepth.metrics import LeftOut
from redepth.protocols import EvaluationProtocol, ImageMetrics, finite_numbers, open_dataset

RANKED_BY = "silog"
"""The metric that every row has, and that images are ranked by."""

RUN_FILE, RUN_KIND = "bench.json", "benchmark run"


class Run(BaseModel):
    """Everything that decides a run's numbers; two runs in one folder must agree on it.

    Attributes:
        dataset: name of the data set.
        options: options of its reader.
        images: image names, in order.
        protocol: pinned to these images.
        presets: name -> resolved preset.
        prompt: the prompt for every photo; None takes each photo's caption from the preset's captioner.
        seed: seed of all random streams.
        camera: whose camera the photos are refined with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    options: dict[str, Any]
    images: list[str]
    protocol: EvaluationProtocol
    presets: dict[str, StoredPreset]
    prompt: str | None = None
    seed: int = 0
    camera: BenchCamera = "preset"

    def tasks(self) -> list[tuple[str, str]]:
        """Return the names of a preset and an image for each row, all images of a preset together."""
        return [(preset, image) for preset in self.presets for image in self.images]

    def reader(self) -> Dataset:
        """Return the data set."""
        return open_dataset(self.protocol, self.dataset, self.options)


class Result(BaseModel):
    """The row of one image under one preset.

    Attributes:
        image: name of the image.
        preset: name of the preset.
        initial: the frozen model's row, a `protocols.ImageMetrics` as JSON.
        refined: the row after refinement.
        prompt: the prompt that the prior was conditioned on.
        diagnostics: names of the failure signatures that were flagged.

    A row without SI-log, or without a field of `protocols.ImageMetrics`, is damaged and refused.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: str
    preset: str
    initial: dict[str, Any]
    refined: dict[str, Any]
    prompt: str = ""
    diagnostics: list[str] = []

    @field_validator("initial", "refined")
    @classmethod
    def _is_a_row(cls, row: dict[str, Any]) -> dict[str, Any]:
        try:
            measured = ImageMetrics.from_record(row)
            LeftOut(**{"pixels": 0} | measured.left_out)
        except (RedepthError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None
        if RANKED_BY not in measured.metrics:
            raise ValueError(f"not a result row: it has no {RANKED_BY}")
        return row

    @property
    def silog(self) -> tuple[float, float]:
        """SI-log before and after."""
        return self.values(RANKED_BY)

    def values(self, metric: str) -> tuple[float, float]:
        """Return a metric before and after, NaN where the row has no such number."""
        before, after = (
            finite_numbers(side["metrics"]).get(metric, math.nan) for side in (self.initial, self.refined)
        )
        return before, after

    def change(self, metric: str) -> float:
        """Return the relative change of a metric in percent, NaN if one of the two is unknown."""
        before, after = self.values(metric)
        return 100 * (after / before - 1) if before else 0.0


@dataclass(frozen=True)
class Summary:
    """One metric of one preset over all images.

    Attributes:
        metric: name of the metric.
        initial: average before.
        refined: average after.
        change: relative change of the mean over images, in percent.
        low: lower end of its 95 % interval (bootstrap over images).
        high: upper end of the interval.
        wins: share of images that improved.
        images: number of images that have the metric.
    """

    metric: str
    initial: float
    refined: float
    change: float
    low: float
    high: float
    wins: float
    images: int


@dataclass(frozen=True)
class Comparison:
    """The refined metrics of a preset of one run against those of another, over the images of both.

    Both were measured by one ``protocol``.
    """

    preset: str
    other: str
    summaries: list[Summary]
    protocol: str
