"""The tables of a benchmark run: averages, intervals, wins; as JSON lines, CSV, summary and report."""

from __future__ import annotations

import csv
import io as text_io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from redepth import io
from redepth.bench.records import Result, Run, Summary
from redepth.bench.report import write_report
from redepth.errors import InputError
from redepth.metrics import Interval, bootstrap_interval, win_rate
from redepth.protocols import EvaluationProtocol, ImageMetrics, average
from redepth.runtime.resume import row_path

HIGHER_IS_BETTER = re.compile(r"a[123]|boundary_.*|normals_[0-9.]+")
"""Names of the metrics that rise as depth improves; all others fall."""

RESAMPLES_SEED = 0
UNKNOWN = Interval(math.nan, math.nan, math.nan)


def seeded_interval(make: Callable[[torch.Generator], Interval]) -> Interval:
    """Return an interval of a relative change, resampled with one seed; `UNKNOWN` if the mean before is 0."""
    try:
        return make(torch.Generator().manual_seed(RESAMPLES_SEED))
    except InputError:
        return UNKNOWN


def summarize(protocol: EvaluationProtocol, results: Sequence[Result]) -> dict[str, list[Summary]]:
    """Return the table of each preset: every metric before and after.

    Averages follow the protocol; intervals and wins are over images.
    """
    tables: dict[str, list[Summary]] = {}
    for preset in dict.fromkeys(result.preset for result in results):
        rows = [result for result in results if result.preset == preset]
        sides = [_shared(row) for row in rows]
        before, after = (average(protocol, list(side)) for side in zip(*sides, strict=True))
        measured = {name for row, _ in sides for name in row.metrics}
        tables[preset] = [
            _summary(metric, before[metric], after[metric], rows) for metric in before if metric in measured
        ]
    return tables


def _shared(row: Result) -> tuple[ImageMetrics, ImageMetrics]:
    """Return both sides of a row, with the metrics that both have."""
    initial, refined = ImageMetrics.from_record(row.initial), ImageMetrics.from_record(row.refined)
    shared = [name for name in initial.metrics if name in refined.metrics]
    before, after = (
        replace(side, metrics={name: side.metrics[name] for name in shared}) for side in (initial, refined)
    )
    return before, after


def _summary(metric: str, before: float, after: float, results: Sequence[Result]) -> Summary:
    measured = [pair for r in results if not any(map(math.isnan, pair := r.values(metric)))]
    first, second = [before for before, _ in measured], [after for _, after in measured]
    interval = seeded_interval(lambda generator: bootstrap_interval(first, second, generator=generator))
    return Summary(
        metric=metric,
        initial=before,
        refined=after,
        change=interval.change,
        low=interval.low,
        high=interval.high,
        wins=win_rate(first, second, lower_is_better=not HIGHER_IS_BETTER.fullmatch(metric)),
        images=len(measured),
    )


def write_tables(run: Run, results: Sequence[Result], folder: Path) -> None:
    """Write rows (JSON lines, CSV), the summary and the report."""
    io.save_text(folder / "rows.jsonl", "".join(io.json_line(r.model_dump()) for r in results))
    io.save_text(folder / "rows.csv", _csv(results))
    summaries = summarize(run.protocol, results)
    table = {preset: [vars(row) for row in rows] for preset, rows in summaries.items()}
    io.save_json(folder / "summary.json", table)
    row_paths = {(r.preset, r.image): row_path(folder, (r.preset, r.image)) for r in results}
    write_report(run, results, summaries, row_paths, folder / "report.html")


def _csv(results: Sequence[Result]) -> str:
    metrics = list(dict.fromkeys(name for r in results for name in r.initial["metrics"]))
    buffer = text_io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    sides = [f"{name}_{when}" for name in metrics for when in ("initial", "refined")]
    writer.writerow(["image", "preset", "protocol", "protocol_sha256", *sides, "clipped_refined"])
    for r in results:
        values = [side["metrics"].get(name, "") for name in metrics for side in (r.initial, r.refined)]
        protocol = [r.initial["protocol"], r.initial["protocol_sha256"]]
        writer.writerow([r.image, r.preset, *protocol, *values, r.refined["clipped"]])
    return buffer.getvalue()
