"""Choose the thresholds of the failure signatures for embedded-relief, and measure their error rates.

    python -m benchmarks.accuracy.calibration            # half an hour on one core; goes on where it ended
    python -m benchmarks.accuracy.calibration --page     # writes the tables of the page alone

It writes docs/results/diagnostics.json and the tables in docs/diagnostics.md. The thresholds themselves stand
in the preset, under ``diagnostics``; a test compares them with the record.

Healthy are runs of the preset as it ships: of scenes of known depth whose error did not rise, and of photos.
Each of them is then spoiled on purpose (`failures.FAILURES`). Half of the scenes and photos choose the
thresholds, the other half measures the rates; some scenes are also refined with settings far from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.accuracy.calibration_runs import HALVES, PRESET, SPLITS, Half, Kept, Run, kept_runs
from benchmarks.accuracy.failures import FAILURES, Case
from redepth.metrics.diagnostics import THRESHOLDS

DOCS = Path(__file__).parents[2] / "docs"
RESULT, PAGE = DOCS / "results" / "diagnostics.json", DOCS / "diagnostics.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Values = dict[str, float]
"""Key of `THRESHOLDS` -> value, where it can be measured."""

QUIET, CAUGHT = 0.98, 0.9
"""A threshold lies between the value that this share of the healthy runs stays below, and the value that this
share of the failures exceeds."""


# --- the record -----------------------------------------------------------------------------------


def measure_runs(folder: Path) -> dict[str, Any]:
    """Return the record: each run, its values, and for each failure the value that counts."""
    from redepth.components import versions

    rows = [row(run, kept) for run, kept in kept_runs(folder)]
    thresholds = choose(rows)
    return {
        "preset": PRESET,
        "versions": versions(),
        "thresholds": thresholds,
        "runs": rows,
    }


def row(run: Run, kept: Kept) -> dict[str, Any]:
    """Return the record of a run."""
    found: dict[str, Any] = {
        "image": run.image,
        "half": run.half,
        "group": run.split or "photo",
        "settings": run.settings,
        "errors": kept.errors,
        "healthy": kept.improved and not run.settings,
        "values": _values(kept.case),
    }
    if found["healthy"]:
        found["spoiled"] = {
            failure.name: _values(failure.of(kept.case)).get(failure.key, 0.0)
            for failure in FAILURES
            if failure.fits(kept.case)
        }
    return found


def _values(case: Case) -> Values:
    return {key: round(value, 5) for found in case.measure() for key, value in found.values.items()}


def choose(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Choose the thresholds on the runs of the first half, each between its healthy runs and its failures."""
    healthy = [row for row in rows if row["half"] == "choosing" and row["healthy"]]
    return {key: _separating(*_both_sides(healthy, key)) for key in THRESHOLDS}


def _both_sides(healthy: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the values of the healthy runs, and those of their failures that have to show under the key."""
    rows = list(healthy)
    good = [row["values"][key] for row in rows if key in row["values"]]
    names = [failure.name for failure in FAILURES if failure.key == key]
    bad = [row["spoiled"][name] for row in rows for name in names if name in row["spoiled"]]
    return good, bad


def _separating(good: Iterable[float], bad: Iterable[float]) -> float:
    """Return the middle between the two values that bound `QUIET` and `CAUGHT`, with two digits."""
    low, high = np.quantile(list(good), QUIET), np.quantile(list(bad), 1 - CAUGHT)
    return float(f"{(low + high) / 2:.2g}")


# --- rates ----------------------------------------------------------------------------------------

Row = Mapping[str, Any]


def flags(values: Values, thresholds: Mapping[str, float]) -> list[str]:
    """Return the keys whose value is above the threshold."""
    return [key for key, value in values.items() if value > thresholds[key]]


def false_alarms(record: Mapping[str, Any], half: Half, group: str = "") -> tuple[int, int]:
    """Return how many healthy runs of a half, and of a group, are flagged, and their number."""
    rows = [r for r in _of(record, half) if r["healthy"] and group in ("", r["group"])]
    return sum(bool(flags(row["values"], record["thresholds"])) for row in rows), len(rows)


def detections(record: Mapping[str, Any], half: Half, name: str = "") -> tuple[int, int]:
    """Return how many constructed failures of a half exceed their own threshold, and their number."""
    found = [
        row["spoiled"][failure.name] > record["thresholds"][failure.key]
        for row in _of(record, half)
        if row["healthy"]
        for failure in FAILURES
        if failure.name in row["spoiled"] and name in ("", failure.name)
    ]
    return sum(found), len(found)


def _of(record: Mapping[str, Any], half: Half) -> list[Row]:
    return [row for row in record["runs"] if row["half"] == half]


# --- the page -------------------------------------------------------------------------------------


def tables(record: dict[str, Any]) -> str:
    """Return the tables of the page, from the record."""
    return "\n\n".join(
        "\n".join(make(record)) for make in (_thresholds, _alarms, _failures, _worse, _bad, _photos)
    )


def _thresholds(record: dict[str, Any]) -> list[str]:
    lines = ["| threshold | value | healthy runs: median, 95 %, largest | failures: 5 %, median |", _rule(4)]
    healthy = [row for row in record["runs"] if row["healthy"]]
    for key, threshold in record["thresholds"].items():
        good, bad = _both_sides(healthy, key)
        values = (*np.quantile(good, (0.5, 0.95, 1)), *np.quantile(bad, (0.05, 0.5)))
        a, b, c, d, e = (f"{value:.3f}" for value in values)
        lines.append(f"| `{key}` | {threshold:g} | {a}, {b}, {c} | {d}, {e} |")
    return lines


def _alarms(record: dict[str, Any]) -> list[str]:
    lines = ["| flagged healthy runs | choosing | reporting |", _rule(3)]
    for title, group in [("all", ""), ("photos", "photo"), *((f"scenes, {s}", s) for s in SPLITS)]:
        lines.append(_rates(title, lambda half, group=group: false_alarms(record, half, group)))
    return lines


def _failures(record: dict[str, Any]) -> list[str]:
    lines = ["| flagged failures | choosing | reporting |", _rule(3)]
    lines.append(_rates("all", lambda half: detections(record, half)))
    for failure in FAILURES:
        title = f"{failure.name}, by `{failure.key}`"
        lines.append(_rates(title, lambda half, name=failure.name: detections(record, half, name)))
    return lines


def _worse(record: dict[str, Any]) -> list[str]:
    """Scenes whose error rose are no constructed failures, and no healthy runs either."""
    lines = ["| flagged scenes whose error rose | choosing | reporting |", _rule(3)]
    for title, factor in (("all", 1.0), ("by more than a tenth", 1.1), ("by more than a half", 1.5)):

        def rate(half: Half, factor: float = factor) -> tuple[int, int]:
            rows = [r for r in _of(record, half) if r["errors"] and not r["settings"]]
            worse = [r for r in rows if r["errors"][1] > factor * r["errors"][0]]
            return sum(bool(flags(r["values"], record["thresholds"])) for r in worse), len(worse)

        lines.append(_rates(title, rate))
    return lines


def _bad(record: dict[str, Any]) -> list[str]:
    lines = ["| settings far from the preset's | scenes | error rose | flagged |", _rule(4)]
    rows = [row for row in record["runs"] if row["settings"]]
    for name in dict.fromkeys(row["settings"] for row in rows):
        runs = [row for row in rows if row["settings"] == name]
        rose = sum(row["errors"][1] > row["errors"][0] for row in runs)
        flagged = sum(bool(flags(row["values"], record["thresholds"])) for row in runs)
        lines.append(f"| {name} | {len(runs)} | {rose} | {flagged} |")
    return lines


def _photos(record: dict[str, Any]) -> list[str]:
    keys = list(record["thresholds"])
    lines = [f"| photo | half | {' | '.join(f'`{key}`' for key in keys)} |", _rule(len(keys) + 2)]
    for row in record["runs"]:
        if row["group"] == "photo":
            cells = (_cell(row["values"].get(key), record["thresholds"][key]) for key in keys)
            lines.append(f"| {row['image']} | {row['half']} | {' | '.join(cells)} |")
    return lines


def _rule(columns: int) -> str:
    return "|" + " --- |" * columns


def _rates(title: str, rate: Callable[[Half], tuple[int, int]]) -> str:
    return f"| {title} | " + " | ".join(_rate(*rate(half)) for half in HALVES) + " |"


def _rate(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.0f} %)" if total else "-"


def _cell(value: float | None, threshold: float) -> str:
    if value is None:
        return "-"
    return f"**{value:.3f}**" if value > threshold else f"{value:.3f}"


def write_page() -> None:
    """Put the tables of the stored record between the marks of the page."""
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(f"{page[:start]}\n\n{tables(json.loads(RESULT.read_text()))}\n\n{page[end:]}")


def main(
    folder: Annotated[Path, typer.Option(help="Where finished runs are kept.")] = Path("out/calibration"),
    page: Annotated[bool, typer.Option("--page", help="Write the tables from the stored record.")] = False,
) -> None:
    """Make the missing runs, choose the thresholds, and write the record and the tables of the page."""
    from redepth.io import save_json

    if not page:
        save_json(RESULT, measure_runs(folder))
    write_page()


if __name__ == "__main__":
    typer.run(main)
