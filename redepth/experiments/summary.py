"""The statistics of an experiment's rows, with intervals, and their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from redepth.bench.tables import RESAMPLES_SEED, seeded_interval
from redepth.experiments.run import ArmResult
from redepth.experiments.study import Study, scenes_label
from redepth.metrics import Interval, bootstrap_interval, paired_difference, win_rate

__all__ = [
    "METRIC",
    "NORMALS",
    "RESAMPLES_SEED",
    "Cell",
    "percent",
    "summarize",
    "table",
]

METRIC, NORMALS, ABS_REL = "silog", "normals_mean", "abs_rel"


@dataclass(frozen=True)
class Cell:
    """The statistics of one arm on one set of scenes. An image with several draws counts by their mean.

    Attributes:
        arm: name of the arm.
        split: split of the scenes.
        strength: strength of the split's shift, if it has one.
        images: number of images.
        before: mean SI-log of the initial depth.
        after: mean SI-log of the refined depth.
        change: relative change of the mean in percent, with its 95 % interval (bootstrap over images).
        against: the reference arm's change minus this arm's, in percent of ``before``, paired by image over
            the images of both; negative if the reference is better. None for the reference itself, or
            without one.
        wins: share of images that improved.
        normals_before: mean angle in degrees between predicted and true normals; None if not measured.
        normals_after: the same after refinement.
        draws: number of parts of the ensemble that were measured.
        spread: standard deviation over those parts of the change in percent; None for a single part.
        collapse: mean of the signature ``geometry_collapse``.
        edges: mean of the signature ``hallucinated_edges``.
        flagged: share of refinements with any signature above its threshold.
        seconds: mean time of a refinement.
        memory_mib: largest peak memory; None if it is unknown.
        abs_rel_before: mean AbsRel of the initial depth; None if a row lacks it.
        abs_rel_after: mean AbsRel of the refined depth.
        abs_rel_change: its relative change, as ``change``.
        abs_rel_wins: share of images whose AbsRel fell.
        adapted_to: the scenes that the arm's depth model was adapted to; empty if it was not.
        adapt_seconds: time of that adaptation.
        besides: the same arm's ``change`` on `Experiment.besides`; None without one.
    """

    arm: str
    split: str
    strength: float | None
    images: int
    before: float
    after: float
    change: Interval
    against: Interval | None
    wins: float
    normals_before: float | None
    normals_after: float | None
    draws: int
    spread: float | None
    collapse: float | None
    edges: float | None
    flagged: float
    seconds: float
    memory_mib: float | None
    abs_rel_before: float | None = None
    abs_rel_after: float | None = None
    abs_rel_change: Interval | None = None
    abs_rel_wins: float | None = None
    adapted_to: str = ""
    adapt_seconds: float | None = None
    besides: Interval | None = None

    @property
    def scenes(self) -> str:
        """The name of its scenes in tables and plots."""
        return scenes_label(self.split, self.strength)


Key = tuple[str, str, str, float | None]
"""Arm, the scenes that it is adapted to, split and strength of the scenes that it is measured on."""


def summarize(study: Study, rows: Sequence[ArmResult]) -> list[Cell]:
    """Return the statistics of every arm on every set of scenes, in the order of the study."""
    groups: dict[Key, list[ArmResult]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.adapted_to, row.split, row.strength), []).append(row)
    grid, cells = study.grid, []
    for (arm, adapted_to, split, strength), group in groups.items():
        cell = _cell(group, groups.get((grid.reference, "", split, strength), []))
        besides = groups.get((arm, adapted_to, grid.besides, None))
        if besides is not None and split != grid.besides:
            cell = replace(cell, besides=_change(besides))
        cells.append(cell)
    return cells


def _change(rows: Sequence[ArmResult]) -> Interval:
    """Return the relative change of the mean SI-log."""
    before = list(_by_image(rows, "before", METRIC).values())
    after = list(_by_image(rows, "after", METRIC).values())
    return seeded_interval(lambda generator: bootstrap_interval(before, after, generator=generator))


def _cell(rows: Sequence[ArmResult], reference: Sequence[ArmResult]) -> Cell:
    first = rows[0]
    before = list(_by_image(rows, "before", METRIC).values())
    after = list(_by_image(rows, "after", METRIC).values())
    memory = [r.memory_mib for r in rows if r.memory_mib is not None]
    return Cell(
        arm=first.arm,
        split=first.split,
        strength=first.strength,
        images=len(before),
        before=_mean(before),
        after=_mean(after),
        change=_change(rows),
        against=_against(rows, reference),
        wins=win_rate(before, after),
        normals_before=_mean_or_none([r.before.get(NORMALS) for r in rows]),
        normals_after=_mean_or_none([r.after.get(NORMALS) for r in rows]),
        draws=len({r.draw for r in rows}),
        spread=_spread(rows),
        collapse=_mean_or_none([r.diagnostics.get("geometry_collapse") for r in rows]),
        edges=_mean_or_none([r.diagnostics.get("hallucinated_edges") for r in rows]),
        flagged=_mean([float(bool(r.flagged)) for r in rows]),
        seconds=_mean([r.seconds for r in rows]),
        memory_mib=max(memory) if memory else None,
        adapted_to=first.adapted_to,
        adapt_seconds=first.adapt_seconds,
        **_abs_rel(rows),
    )


def _abs_rel(rows: Sequence[ArmResult]) -> dict[str, Any]:
    """Return the statistics of AbsRel; none if a row lacks it."""
    if any(ABS_REL not in row.before or ABS_REL not in row.after for row in rows):
        return {}
    before, after = (list(_by_image(rows, side, ABS_REL).values()) for side in ("before", "after"))
    return {
        "abs_rel_before": _mean(before),
        "abs_rel_after": _mean(after),
        "abs_rel_change": seeded_interval(
            lambda generator: bootstrap_interval(before, after, generator=generator)
        ),
        "abs_rel_wins": win_rate(before, after),
    }


def _abs_rel_text(cell: Cell) -> str:
    if cell.abs_rel_before is None:
        return "-"
    change = percent(cell.abs_rel_change, cell.images)
    wins = f"{100 * (cell.abs_rel_wins or 0):.0f} %"
    return f"{cell.abs_rel_before:.4f} to {cell.abs_rel_after:.4f}, {change}, wins {wins}"


def _against(rows: Sequence[ArmResult], reference: Sequence[ArmResult]) -> Interval | None:
    """Return the reference's change minus that of the rows; None for the reference itself or without one."""
    if not reference or reference[0].arm == rows[0].arm:
        return None
    before = _by_image(rows, "before", METRIC)
    after = _by_image(rows, "after", METRIC)
    reference_after = _by_image(reference, "after", METRIC)
    shared = [image for image in after if image in reference_after]
    if not shared:
        return None
    return seeded_interval(
        lambda generator: paired_difference(
            [before[image] for image in shared],
            [reference_after[image] for image in shared],
            [after[image] for image in shared],
            generator=generator,
        )
    )


def _by_image(rows: Sequence[ArmResult], side: str, metric: str) -> dict[str, float]:
    """Return each image's value, averaged over its draws."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.image, []).append(getattr(row, side)[metric])
    return {image: _mean(draws) for image, draws in values.items()}


def _spread(rows: Sequence[ArmResult]) -> float | None:
    """Return the standard deviation, over the draws, of the relative change of the mean over images."""
    changes = []
    for number in sorted({row.draw for row in rows}):
        draw = [row for row in rows if row.draw == number]
        before = _mean([row.before[METRIC] for row in draw])
        after = _mean([row.after[METRIC] for row in draw])
        changes.append(100 * (after / before - 1) if before else math.nan)
    return float(np.std(changes, ddof=1)) if len(changes) > 1 else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


# --- the table ------------------------------------------------------------------------------------


def percent(interval: Interval | None, images: int) -> str:
    """Return a change, with its 95 % interval if there is more than one image."""
    if interval is None or math.isnan(interval.change):
        return "-"
    ends = f" ({interval.low:+.1f} to {interval.high:+.1f})" if images > 1 else ""
    return f"{interval.change:+.1f} %{ends}"


def _minutes(cell: Cell) -> float | None:
    return None if cell.adapt_seconds is None else cell.adapt_seconds / 60


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


Column = tuple[str, Callable[[Cell], str]]
"""Heading, and a function that writes the text of a cell."""

COLUMNS: Mapping[str, Column] = {
    "spread": ("sd over draws", lambda c: _number(c.spread, "{:.1f} %")),
    "collapse": ("collapse", lambda c: _number(c.collapse, "{:.2f}")),
    "edges": ("false edges", lambda c: _number(c.edges, "{:.3f}")),
    "flagged": ("flagged", lambda c: f"{100 * c.flagged:.0f} %"),
    "abs_rel": ("AbsRel", _abs_rel_text),
    "besides": ("in-domain, 95 %", lambda c: percent(c.besides, c.images)),
    "adaptation": ("adaptation, min", lambda c: _number(_minutes(c), "{:.1f}")),
    "memory": ("peak MiB", lambda c: _number(c.memory_mib, "{:.0f}")),
}
"""Columns of some experiments only, by key; see `Experiment.columns`."""


def table(study: Study, cells: Sequence[Cell]) -> tuple[str, list[str], list[list[str]]]:
    """Return title, headings and rows of the table.

    A single set of scenes and a number of images that all rows share are in the title, else in a column.
    """
    cells = [cell for cell in cells if cell.split != study.grid.besides] or list(cells)
    columns: list[Column] = [("arm", lambda c: c.arm)]
    shared = []
    sets = {cell.scenes for cell in cells}
    if len(sets) > 1:
        columns.append(("scenes", lambda c: c.scenes))
    else:
        shared.append(f"on {cells[0].scenes}")
    counts = {cell.images for cell in cells}
    if len(counts) > 1:
        columns.append(("images", lambda c: str(c.images)))
    else:
        shared.append(f"images a set: {cells[0].images}")
    if study.tuning:
        shared.append("tuning images")
    columns += [
        ("SI-log", lambda c: f"{c.before:.2f} to {c.after:.2f}"),
        ("change, 95 %", lambda c: percent(c.change, c.images)),
        ("wins", lambda c: f"{100 * c.wins:.0f} %"),
        ("normals, deg", _normals_text),
        *(COLUMNS[key] for key in study.grid.columns),
        ("s", lambda c: f"{c.seconds:.1f}" if c.seconds >= 0.1 else f"{c.seconds:.2g}"),
    ]
    if any(cell.against is not None for cell in cells):
        columns.append((f"{study.grid.reference} minus it", lambda c: percent(c.against, c.images)))
    title = f"{study.grid.question}\nPreset {study.base.name}, {', '.join(shared)}, seed {study.seed}"
    headings = [heading for heading, _ in columns]
    return title, headings, [[text(cell) for _, text in columns] for cell in cells]


def _normals_text(cell: Cell) -> str:
    before, after = cell.normals_before, cell.normals_after
    return "-" if before is None or after is None else f"{before:.1f} to {after:.1f}"
