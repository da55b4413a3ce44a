"""The tables of an ablation: for the terminal, and as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io as text_io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from redepth import io
from redepth.ablations.records import Average, Row, average
from redepth.ablations.run import Ablation
from redepth.ablations.variants import Variant
from redepth.components import versions
from redepth.runtime.resume import Task

CSV_HEADINGS = ("photo", "change_percent", "turn_degrees", "silog_initial", "silog_refined", "flagged")
MEANING = (
    "Means over the photos. change: mean absolute change of the raw output over the range of the initial "
    "one. turn: mean angle between the normals before and after. SI-log: before and after, on the photos "
    "with ground truth. seconds: of the optimisation."
)


def headings(ablation: Ablation, rows: Mapping[Task, Row]) -> list[str]:
    """Return the headings of the table of variants."""
    measured = any(row.silog for row in rows.values())
    keys = list(ablation.variants[0].values)
    return [*keys, "photos", "change", "turn", *(["SI-log"] if measured else []), "flagged", "seconds"]


def line(variant: Variant, mean: Average | None, columns: Sequence[str]) -> list[str]:
    """Return the cells of a variant under these headings; without a mean no photo was refined."""
    cells = dict(zip(variant.values, variant.texts, strict=True))
    if mean is None:
        return [cells.get(column, "0" if column == "photos" else "-") for column in columns]
    flagged = (f"{name.replace('_', ' ')} ({count})" for name, count in sorted(mean.flagged.items()))
    cells |= {
        "photos": str(mean.photos),
        "change": f"{100 * mean.change:.2f} %",
        "turn": "-" if math.isnan(mean.turn) else f"{mean.turn:.1f}°",
        "SI-log": f"{mean.silog[0]:.2f} -> {mean.silog[1]:.2f}" if mean.silog else "-",
        "flagged": ", ".join(flagged) or "none",
        "seconds": f"{mean.seconds:.1f}",
    }
    return [cells[column] for column in columns]


def averages(ablation: Ablation, rows: Mapping[Task, Row]) -> dict[str, Average]:
    """Return the means of each variant that has refined a photo."""
    by_variant: dict[str, list[Row]] = {}
    for (variant, _), row in rows.items():
        by_variant.setdefault(variant, []).append(row)
    return {v.name: average(by_variant[v.name]) for v in ablation.variants if v.name in by_variant}


def write_tables(
    ablation: Ablation, preset: str, rows: Mapping[Task, Row], failures: Mapping[Task, str], folder: Path
) -> None:
    """Write ``table.csv``, ``table.json`` and ``table.md``.

    Args:
        ablation: what was compared.
        preset: that the variants are made of.
        rows: by variant and photo.
        failures: why the others have no row.
        folder: of the files.
    """
    io.save_text(folder / "table.csv", _csv(ablation, rows))
    io.save_text(folder / "table.md", _markdown(ablation, preset, rows, failures))
    means = averages(ablation, rows)
    record = {
        "preset": preset,
        "seed": ablation.seed,
        "prompt": ablation.prompt,
        "protocol": None if ablation.protocol is None else ablation.protocol.summary(),
        "versions": versions(),
        "variants": [
            {
                "name": variant.name,
                "values": dict(variant.values),
                "mean": None if variant.name not in means else vars(means[variant.name]),
            }
            for variant in ablation.variants
        ],
        "photos": [row.model_dump(mode="json") | {"folder": _relative(row, folder)} for row in rows.values()],
        "failed": {f"{variant}: {photo}": error for (variant, photo), error in failures.items()},
    }
    io.save_json(folder / "table.json", record)


def _csv(ablation: Ablation, rows: Mapping[Task, Row]) -> str:
    buffer = text_io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ending = ("members", "steps", "seconds", "folder")
    writer.writerow([*ablation.variants[0].values, *CSV_HEADINGS, *ending])
    variants = {variant.name: variant for variant in ablation.variants}
    for row in rows.values():
        before, after = row.silog or ("", "")
        turn = "" if row.turn is None else row.turn
        numbers = [row.photo, 100 * row.change, turn, before, after, " ".join(row.flagged)]
        end = [row.members, row.steps, row.seconds, _relative(row, ablation.out)]
        writer.writerow([*variants[row.variant].texts, *numbers, *end])
    return buffer.getvalue()


def _markdown(ablation: Ablation, preset: str, rows: Mapping[Task, Row], failures: Mapping[Task, str]) -> str:
    columns = headings(ablation, rows)
    means = averages(ablation, rows)
    lines = [line(variant, means.get(variant.name), columns) for variant in ablation.variants]
    each = [
        [row.photo, *line(variant, average([row]), columns)]
        for label in ablation.labels.values()
        for variant in ablation.variants
        if (row := rows.get((variant.name, label))) is not None
    ]
    # A photo has one row under each variant.
    photo_columns = [column for column in ["photo", *columns] if column != "photos"]
    position = columns.index("photos") + 1
    each = [[*cells[:position], *cells[position + 1 :]] for cells in each]
    parts = [
        f"# Comparison of {len(ablation.variants)} variants of {preset}",
        f"Seed {ablation.seed}. {MEANING}",
        *([] if ablation.protocol is None else [ablation.protocol.line]),
        _grid(columns, lines),
        "## Photos",
        _grid(photo_columns, each),
    ]
    if failures:
        parts += [
            "## Failed",
            *(f"- {photo} ({variant}): {error}" for (variant, photo), error in failures.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _grid(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(columns)
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in (columns, rule, *lines))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _relative(row: Row, folder: Path) -> str:
    return io.displayed(row.folder.relative_to(folder).as_posix())
