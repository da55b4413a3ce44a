"""The tables of a benchmark run: averages, intervals, wins; as JSON lines, CSV and summary."""

from __future__ import annotations

import csv
import io as text_io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from redepth import io
from redepth.bench.records import Result, Row, Run, Summary
from redepth.errors import InputError
from redepth.metrics import Interval, bootstrap_interval, win_rate
from redepth.protocols import EvaluationProtocol, ImageMetrics, average

HIGHER_IS_BETTER = re.compile(r"a[123]|boundary_.*|normals_[0-9.]+")
"""Names of the metrics that rise as depth improves; all others fall."""

MAIN_METRICS = ("abs_rel", "a1", "rmse", "silog")
"""The metrics that are shown side by side for several protocols."""

RESAMPLES_SEED = 0
UNKNOWN = Interval(math.nan, math.nan, math.nan)


def seeded_interval(make: Callable[[torch.Generator], Interval]) -> Interval:
    """Return an interval of a relative change, resampled with one seed; `UNKNOWN` if the mean before is 0."""
    try:
        return make(torch.Generator().manual_seed(RESAMPLES_SEED))
    except InputError:
        return UNKNOWN


def results_of(run: Run, rows: Iterable[Row]) -> list[Result]:
    """Return the results that a run asks for, protocol by protocol."""
    by_protocol: dict[str, list[Result]] = {protocol.sha256: [] for protocol in run.protocols}
    for row in rows:
        for result in row.results:
            if (found := by_protocol.get(result.initial["protocol_sha256"])) is not None:
                found.append(result)
    return [result for results in by_protocol.values() for result in results]


def of_protocol(protocol: EvaluationProtocol, results: Iterable[Result]) -> list[Result]:
    """Return the results under one protocol."""
    return [result for result in results if result.initial["protocol_sha256"] == protocol.sha256]


def summarize(protocol: EvaluationProtocol, results: Sequence[Result]) -> dict[str, list[Summary]]:
    """Return the table of each preset under one protocol: every metric before and after.

    Averages follow the protocol; intervals and wins are over images. Results of other protocols do not count.
    """
    tables: dict[str, list[Summary]] = {}
    measured = of_protocol(protocol, results)
    for preset in dict.fromkeys(result.preset for result in measured):
        rows = [result for result in measured if result.preset == preset]
        sides = [_shared(row) for row in rows]
        averages = [average(protocol, list(side)) for side in zip(*sides, strict=True)]
        names = {name for row, *_ in sides for name in row.metrics}
        tables[preset] = [
            _summary(metric, [values[metric] for values in averages], rows)
            for metric in averages[0]
            if metric in names
        ]
    return tables


def _shared(row: Result) -> list[ImageMetrics]:
    """Return the sides of a row, with the metrics that all have."""
    sides = [ImageMetrics.from_record(side) for side in row.sides]
    shared = [name for name in sides[0].metrics if all(name in side.metrics for side in sides)]
    return [replace(side, metrics={name: side.metrics[name] for name in shared}) for side in sides]


def _summary(metric: str, averages: Sequence[float], results: Sequence[Result]) -> Summary:
    """Return the summary of a metric from its averages, before and, after a refinement, after."""
    if len(averages) == 1:
        known = [before for r in results if not math.isnan(before := r.values(metric)[0])]
        nothing = math.nan
        return Summary(metric, averages[0], nothing, nothing, nothing, nothing, nothing, len(known))
    measured = [pair for r in results if not any(map(math.isnan, pair := r.values(metric)))]
    first, second = [before for before, _ in measured], [after for _, after in measured]
    interval = seeded_interval(lambda generator: bootstrap_interval(first, second, generator=generator))
    return Summary(
        metric=metric,
        initial=averages[0],
        refined=averages[1],
        change=interval.change,
        low=interval.low,
        high=interval.high,
        wins=win_rate(first, second, lower_is_better=not HIGHER_IS_BETTER.fullmatch(metric)),
        images=len(measured),
    )


def side_by_side(tables: Mapping[str, Sequence[Summary]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of the main metrics of one preset, a row for each protocol.

    Args:
        tables: name of the protocol -> its table.
    """
    present = {summary.metric for table in tables.values() for summary in table}
    metrics = [name for name in MAIN_METRICS if name in present]
    rows = []
    for protocol, table in tables.items():
        found = {summary.metric: summary for summary in table}
        rows.append([protocol, *(_before_after(found.get(name)) for name in metrics)])
    return ["protocol", *metrics], rows


def _before_after(summary: Summary | None) -> str:
    if summary is None or math.isnan(summary.initial):
        return "-"
    if math.isnan(summary.refined):
        return f"{summary.initial:.4g}"
    change = "" if math.isnan(summary.change) else f" ({summary.change:+.1f} %)"
    return f"{summary.initial:.4g} -> {summary.refined:.4g}{change}"


def write_tables(run: Run, rows: Sequence[Row], folder: Path) -> dict[str, dict[str, list[Summary]]]:
    """Write rows (JSON lines, CSV) and the summary; return the tables by protocol and preset."""
    results = results_of(run, rows)
    io.save_text(folder / "rows.jsonl", "".join(io.json_line(r.model_dump()) for r in results))
    io.save_text(folder / "rows.csv", _csv(results))
    summaries = {protocol.name: summarize(protocol, results) for protocol in run.protocols}
    table: dict[str, list[dict[str, Any]]] = {}
    for protocol, presets in summaries.items():
        for preset, metrics in presets.items():
            table.setdefault(preset, []).extend({"protocol": protocol, **vars(row)} for row in metrics)
    io.save_json(folder / "summary.json", table)
    return summaries


def _csv(results: Sequence[Result]) -> str:
    metrics = list(dict.fromkeys(name for r in results for name in r.initial["metrics"]))
    names = ["initial", "refined"] if any(r.refined is not None for r in results) else ["initial"]
    buffer = text_io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [f"{name}_{when}" for name in metrics for when in names]
    writer.writerow(["image", "preset", "protocol", "protocol_sha256", *columns, f"clipped_{names[-1]}"])
    for r in results:
        values = [side["metrics"].get(name, "") for name in metrics for side in r.sides]
        protocol = [r.initial["protocol"], r.initial["protocol_sha256"]]
        writer.writerow([r.image, r.preset, *protocol, *values, r.answer["clipped"]])
    return buffer.getvalue()
