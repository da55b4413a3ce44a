"""What an experiment's rows say: statistics with intervals, the table, files and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth import io, viz
from redepth.components import versions
from redepth.errors import InputError
from redepth.experiments.plot import draw
from redepth.experiments.run import PICTURED, ArmResult
from redepth.experiments.study import SYNTHETIC, Study, scenes_label
from redepth.metrics import Interval, bootstrap_interval, paired_difference, win_rate
from redepth.ops.geometry import ORTHOGRAPHIC, normals_from_depth
from redepth.runtime.resume import Task, row_path

METRIC, NORMALS = "silog", "normals_mean"
RESAMPLES_SEED = 0
UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Cell:
    """One arm on one set of scenes. Where an image was drawn several times, its mean counts.

    Attributes:
        arm: its name.
        split: of the scenes.
        strength: of the split's shift, if it has one.
        images: how many.
        before: mean SI-log of the initial depth.
        after: of the refined one.
        change: relative change of the mean in percent, with its 95 % interval (bootstrap over images).
        against: where there is a reference arm, its change minus this one's: percent of ``before`` by which
            it is lower, if negative, image by image; over the images that both have.
        wins: share of images that improved.
        normals_before: mean angle in degrees between predicted and true normals; None where not measured.
        normals_after: likewise.
        draws: parts of the ensemble that were measured.
        spread: standard deviation over those parts of the change in percent; None for one.
        collapse: mean of the signature ``geometry_collapse``.
        edges: mean of ``hallucinated_edges``.
        flagged: share of refinements with any signature above its threshold.
        seconds: mean time of a refinement.
        memory_mib: largest peak memory; None where it is not known.
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

    @property
    def scenes(self) -> str:
        """What tables and plots call its scenes."""
        return scenes_label(self.split, self.strength)


Key = tuple[str, str, float | None]


def summarize(study: Study, rows: Sequence[ArmResult]) -> list[Cell]:
    """Return the statistics of every arm on every set of scenes, in the order of the study."""
    groups: dict[Key, list[ArmResult]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.split, row.strength), []).append(row)
    reference = study.grid.reference
    return [_cell(own, groups.get((reference, *key[1:]), [])) for key, own in groups.items()]


def _cell(rows: Sequence[ArmResult], reference: Sequence[ArmResult]) -> Cell:
    first = rows[0]
    before, after = (_by_image(rows, side, METRIC) for side in ("before", "after"))
    pairs = list(before.values()), list(after.values())
    spread = _spread(rows)
    return Cell(
        arm=first.arm,
        split=first.split,
        strength=first.strength,
        images=len(before),
        before=_mean(pairs[0]),
        after=_mean(pairs[1]),
        change=_interval(lambda g: bootstrap_interval(*pairs, generator=g)),
        against=_against(rows, reference),
        wins=win_rate(*pairs),
        normals_before=_mean_or_none([r.before.get(NORMALS) for r in rows]),
        normals_after=_mean_or_none([r.after.get(NORMALS) for r in rows]),
        draws=len({r.draw for r in rows}),
        spread=spread,
        collapse=_mean_or_none([r.diagnostics.get("geometry_collapse") for r in rows]),
        edges=_mean_or_none([r.diagnostics.get("hallucinated_edges") for r in rows]),
        flagged=_mean([float(bool(r.flagged)) for r in rows]),
        seconds=_mean([r.seconds for r in rows]),
        memory_mib=max((r.memory_mib for r in rows if r.memory_mib is not None), default=None),
    )


def _against(rows: Sequence[ArmResult], reference: Sequence[ArmResult]) -> Interval | None:
    if not reference or reference[0].arm == rows[0].arm:
        return None
    theirs, ours = (_by_image(side, "after", METRIC) for side in (rows, reference))
    before = _by_image(rows, "before", METRIC)
    shared = [image for image in theirs if image in ours]
    if not shared:
        return None
    columns = [[side[image] for image in shared] for side in (before, ours, theirs)]
    return _interval(lambda g: paired_difference(*columns, generator=g))


def _interval(make: Callable[[torch.Generator], Interval]) -> Interval:
    try:
        return make(torch.Generator().manual_seed(RESAMPLES_SEED))
    except InputError:  # a mean of 0 before: nothing is relative to it
        return UNKNOWN


def _by_image(rows: Sequence[ArmResult], side: str, metric: str) -> dict[str, float]:
    """Return each image's value, averaged over its draws."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.image, []).append(getattr(row, side)[metric])
    return {image: _mean(values) for image, values in found.items()}


def _spread(rows: Sequence[ArmResult]) -> float | None:
    """Standard deviation over the draws of the relative change of the mean over images."""
    changes = []
    for number in sorted({row.draw for row in rows}):
        own = [row for row in rows if row.draw == number]
        before, after = (_mean([getattr(r, side)[METRIC] for r in own]) for side in ("before", "after"))
        changes.append(100 * (after / before - 1) if before else math.nan)
    return float(np.std(changes, ddof=1)) if len(changes) > 1 else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


# --- the table ------------------------------------------------------------------------------------


def percent(interval: Interval | None, images: int) -> str:
    """Return a change, with its 95 % interval where there is more than one image."""
    if interval is None or math.isnan(interval.change):
        return "-"
    ends = f" ({interval.low:+.1f} to {interval.high:+.1f})" if images > 1 else ""
    return f"{interval.change:+.1f} %{ends}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


Column = tuple[str, Callable[[Cell], str]]
"""Heading, and the text of a cell."""

COLUMNS: Mapping[str, Column] = {
    "spread": ("sd over draws", lambda c: _number(c.spread, "{:.1f} %")),
    "collapse": ("collapse", lambda c: _number(c.collapse, "{:.2f}")),
    "edges": ("false edges", lambda c: _number(c.edges, "{:.3f}")),
    "flagged": ("flagged", lambda c: f"{100 * c.flagged:.0f} %"),
    "memory": ("peak MiB", lambda c: _number(c.memory_mib, "{:.0f}")),
}
"""Columns that some experiments' tables have: by key."""


def table(study: Study, cells: Sequence[Cell]) -> tuple[str, list[str], list[list[str]]]:
    """Return title, headings and rows of the table; what all rows share is said in the title."""
    sets, counts = ({getattr(c, name) for c in cells} for name in ("scenes", "images"))
    columns: list[Column] = [("arm", lambda c: c.arm)]
    shared = []
    for values, column, words in (
        (sets, ("scenes", lambda c: c.scenes), "on {}"),
        (counts, ("images", lambda c: str(c.images)), "images a set: {}"),
    ):
        if len(values) > 1:
            columns.append(column)
        else:
            shared.append(words.format(*values))
    columns += [
        ("SI-log", lambda c: f"{c.before:.2f} to {c.after:.2f}"),
        ("change, 95 %", lambda c: percent(c.change, c.images)),
        ("wins", lambda c: f"{100 * c.wins:.0f} %"),
        ("normals, deg", _normals_text),
        *(COLUMNS[key] for key in study.grid.columns),
        ("s", lambda c: f"{c.seconds:.1f}"),
    ]
    if any(cell.against is not None for cell in cells):
        columns.append((f"{study.grid.reference} minus it", lambda c: percent(c.against, c.images)))
    shared += ["tuning images"] if study.tuning else []
    title = f"{study.grid.question}\nPreset {study.base.name}, {', '.join(shared)}"
    lines = [[text(cell) for _, text in columns] for cell in cells]
    return f"{title}, seed {study.seed}", [name for name, _ in columns], lines


def _normals_text(cell: Cell) -> str:
    before, after = cell.normals_before, cell.normals_after
    return "-" if before is None or after is None else f"{before:.1f} to {after:.1f}"


# --- files ----------------------------------------------------------------------------------------


def write(study: Study, rows: Sequence[ArmResult], failures: Mapping[Task, str], folder: Path) -> list[Cell]:
    """Write ``rows.jsonl``, ``summary.json``, ``plot.png`` and ``pictures/``, and return the statistics."""
    cells = summarize(study, rows)
    io.save_text(folder / "rows.jsonl", "".join(json.dumps(row.model_dump()) + "\n" for row in rows))
    grid = study.grid
    record: dict[str, Any] = {
        "experiment": study.experiment,
        "question": grid.question,
        "reference": grid.reference,
        "dataset": study.dataset,
        "preset": study.base.name,
        "tuning": study.tuning,
        "seed": study.seed,
        "scenes": {found.label: found.options for found in study.sets},
        "protocol": {"name": study.protocol.name, "sha256": study.protocol.sha256},
        "versions": versions(),
        "skipped": study.skipped,
        "failed": {f"{arm}: {scene}": error for (arm, scene), error in failures.items()},
        "arms": [asdict(cell) for cell in cells],
    }
    io.save_json(folder / "summary.json", record)
    draw(study, cells, folder / "plot.png")
    if grid.pictures:
        _draw_pictures(study, folder)
    return cells


def _draw_pictures(study: Study, folder: Path) -> None:
    """Draw for some scenes a sheet of depths and one of normals: the photo, the truth, before, each arm."""
    for scene in [scene for scene in study.scenes() if scene.scenes == study.sets[0]][:PICTURED]:
        maps = {
            arm: dict(np.load(path))
            for arm in study.arms
            if (path := row_path(folder, (arm, scene.name)).with_suffix(".npz")).is_file()
        }
        if not maps:
            continue
        some = next(iter(maps.values()))
        depths = {"truth": some["truth"], "before": some["initial"]}
        depths |= {arm: found["refined"] for arm, found in maps.items()}
        low, high = viz.display_range(np.log(some["truth"][some["truth"] > 0]))
        # Near is bright, as in every other picture of a surface here.
        coloured = {name: viz.colorize(-_log(depth), lo=-high, hi=-low) for name, depth in depths.items()}
        sheets = {"depth": coloured}
        if study.dataset == SYNTHETIC:  # normals need the camera; that of the scenes is known
            sheets["normals"] = {name: viz.normals_to_rgb(_normals(depth)) for name, depth in depths.items()}
        for what, panels in sheets.items():
            sheet = viz.side_by_side({"photo": some["photo"], **panels}, columns=5, title=scene.image)
            io.save_jpeg(folder / "pictures" / f"{scene.number}-{what}.jpg", sheet)


def _log(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.where(depth > 0, depth, np.nan)).astype(np.float32)


def _normals(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    normals = normals_from_depth(torch.from_numpy(depth)[None, None], ORTHOGRAPHIC)
    array: NDArray[np.float32] = normals[0].permute(1, 2, 0).numpy()
    return array
