"""The records of a benchmark: the run, the result of an image, the summary of a metric.

A run's folder::

    bench.json                       the run: data set, images, protocols, presets, seed
    images/PRESET/IMAGE.json         the row of an image, written as it ends; a killed run resumes from these
    images/PRESET/IMAGE.*.jpg        its pictures;  IMAGE.npz its arrays, with --arrays
    rows.jsonl  rows.csv  summary.json  report.html     made from the rows at the end

A row has the result of every protocol; ``rows.jsonl`` and ``rows.csv`` have one line for each result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from redepth.bench.together import open_together
from redepth.components import StoredPreset
from redepth.data.datasets import Dataset
from redepth.errors import RedepthError
from redepth.literals import BenchCamera
from redepth.metrics import LeftOut
from redepth.protocols import EvaluationProtocol, ImageMetrics, finite_numbers

RANKED_BY = "silog"
"""The metric that every row has, and that images are ranked by."""

RUN_FILE, RUN_KIND = "bench.json", "benchmark run"


class Run(BaseModel):
    """Everything that decides a run's numbers; two runs in one folder must agree on it.

    Attributes:
        dataset: name of the data set.
        options: options of its reader.
        images: image names, in order.
        protocols: at least one, each pinned to these images; no two have one name. Records of runs from
            before there could be several have ``protocol`` instead.
        presets: name -> resolved preset.
        prompt: the prompt for every photo; None takes each photo's caption from the preset's captioner.
        seed: seed of all random streams.
        camera: whose camera the photos are refined with.
        initial_only: whether only the depth models' predictions are measured, and nothing is refined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    options: dict[str, Any]
    images: list[str]
    protocols: list[EvaluationProtocol]
    presets: dict[str, StoredPreset]
    prompt: str | None = None
    seed: int = 0
    camera: BenchCamera = "preset"
    initial_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_one_protocol(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "protocol" in data:
            data = dict(data)
            data["protocols"] = [data.pop("protocol")]
        return data

    def tasks(self) -> list[tuple[str, str]]:
        """Return the names of a preset and an image for each row, all images of a preset together."""
        return [(preset, image) for preset in self.presets for image in self.images]

    def reader(self) -> Dataset:
        """Return the data set."""
        return open_together(self.protocols, self.dataset, self.options)


class Result(BaseModel):
    """One image under one preset and one protocol.

    Attributes:
        image: name of the image.
        preset: name of the preset.
        initial: the frozen model's row, a `protocols.ImageMetrics` as JSON.
        refined: the row after refinement; None where nothing was refined.
        prompt: the prompt that the prior was conditioned on.
        diagnostics: names of the failure signatures that were flagged.

    A row without SI-log, or without a field of `protocols.ImageMetrics`, is damaged and refused.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: str
    preset: str
    initial: dict[str, Any]
    refined: dict[str, Any] | None = None
    prompt: str = ""
    diagnostics: list[str] = []

    @field_validator("initial", "refined")
    @classmethod
    def _is_a_row(cls, row: dict[str, Any] | None) -> dict[str, Any] | None:
        if row is None:
            return None
        try:
            measured = ImageMetrics.from_record(row)
            LeftOut(**{"pixels": 0} | measured.left_out)
        except (RedepthError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None
        if RANKED_BY not in measured.metrics:
            raise ValueError(f"not a result row: it has no {RANKED_BY}")
        return row

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return str(self.initial["protocol"])

    @property
    def sides(self) -> list[dict[str, Any]]:
        """The row before refinement and, where there is one, the row after it."""
        return [self.initial] if self.refined is None else [self.initial, self.refined]

    @property
    def answer(self) -> dict[str, Any]:
        """What the run gives for the image: the last of `sides`."""
        return self.sides[-1]

    @property
    def silog(self) -> tuple[float, float]:
        """SI-log before and after."""
        return self.values(RANKED_BY)

    def values(self, metric: str) -> tuple[float, float]:
        """Return a metric before and after, NaN where the row has no such number."""
        before, after = (
            math.nan if side is None else finite_numbers(side["metrics"]).get(metric, math.nan)
            for side in (self.initial, self.refined)
        )
        return before, after

    def change(self, metric: str) -> float:
        """Return the relative change of a metric in percent, NaN if one of the two is unknown."""
        before, after = self.values(metric)
        return 100 * (after / before - 1) if before else 0.0


class Row(Result):
    """What is stored of one image under one preset: its result under the first protocol and the others.

    Attributes:
        further: the results under the other protocols.
    """

    further: list[Result] = []

    @classmethod
    def of(cls, results: Sequence[Result]) -> Row:
        """Return the row of an image's results, one for each protocol."""
        return cls(**results[0].model_dump(), further=list(results[1:]))

    @property
    def results(self) -> list[Result]:
        """All results, in the order in which they were measured."""
        own = Result(**self.model_dump(exclude={"further"}))
        return [own, *self.further]

    def lacks(self, protocols: Iterable[EvaluationProtocol]) -> list[str]:
        """Return the names of those protocols under which the image was not measured."""
        measured = {result.initial["protocol_sha256"] for result in self.results}
        return [protocol.name for protocol in protocols if protocol.sha256 not in measured]


@dataclass(frozen=True)
class Summary:
    """One metric of one preset over all images.

    Attributes:
        metric: name of the metric.
        initial: average before.
        refined: average after; NaN, as what follows, where nothing was refined.
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

    Both were measured by one ``protocol``. The answer of a run without refinement is its prediction.
    """

    preset: str
    other: str
    summaries: list[Summary]
    protocol: str
