"""The tables of docs/results.md, from the stored rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.accuracy.studies import (
    EXPERIMENTS,
    STORED,
    STUDIES,
    TUNED,
    TUNING,
    arguments,
    is_of_todays_preset,
    preset_today,
    stored_rows,
    stored_study,
    tuning_arguments,
)
from redepth.config.hashing import preset_sha256
from redepth.experiments.adapt_arms import PER_PHOTO
from redepth.experiments.study import Study
from redepth.experiments.summary import METRIC, NORMALS, RESAMPLES_SEED, Cell, percent, summarize, table
from redepth.metrics import bootstrap_interval, paired_difference
from training.loop import json_lines
from training.train_embedded import FINETUNED_NAME, NORMALS_NAME, PRIOR_NAMES

LABELS = STORED / "supervised.json"
REFINED = {
    "relief": ("relief", "trained"),
    "shapes": ("unshifted", "preset"),
    "in-domain": ("unshifted", "preset"),
}
"""Split -> the study and the arm that refined its scenes, for the comparison with training on labels."""

FOLDED_ABOVE = 7
"""Tables with more rows are folded on the page."""

HASH_DIGITS = 12


def with_tables(text: str) -> str:
    """Put each table between its marks: ``<!-- study: NAME -->`` or ``<!-- tuning -->``, ``<!-- end -->``."""
    contents: dict[str, str] = {f"study: {name}": study_section(name) for name in STUDIES}
    contents |= {"tuning": tuning_table(), "labels": labels_table(), "compute": compute_table()}
    contents["adapted"] = adapted_table(stored_cells("adapt"))

    def section(mark: re.Match[str]) -> str:
        return f"<!-- {mark[1]} -->\n\n{contents[mark[1]]}\n\n<!-- end -->"

    names = "|".join(map(re.escape, contents))
    return re.sub(rf"<!-- ({names}) -->.*?<!-- end -->", section, text, flags=re.DOTALL)


def grid_of(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stored_cells(name: str) -> list[Cell]:
    """Return the statistics of a stored study."""
    return summarize(stored_study(EXPERIMENTS / name), stored_rows(EXPERIMENTS / name))


# --- the studies ----------------------------------------------------------------------------------


def study_section(name: str) -> str:
    """Return a study's command, preset hash and table."""
    study = stored_study(EXPERIMENTS / name)
    title, headings, cells = table(study, summarize(study, stored_rows(EXPERIMENTS / name)))
    grid = grid_of(headings, cells)
    if len(cells) > FOLDED_ABOVE:
        grid = f"<details><summary>table</summary>\n\n{grid}\n\n</details>"
    caption = title.splitlines()[-1]
    return f"`redepth experiment {STUDIES[name]}`: {caption}. {preset_note(study, arguments(name))}\n\n{grid}"


def preset_note(study: Study, options: list[str]) -> str:
    """Return the hash of the preset that a study was measured with, and whether it is today's."""
    note = f"Preset hash `{preset_sha256(study.base)[:HASH_DIGITS]}`"
    if is_of_todays_preset(study, options):
        return f"{note}."
    today = preset_sha256(preset_today(options))[:HASH_DIGITS]
    if today in note:
        return f"{note}: **measured with other settings of `adapt`** than today's."
    return f"{note}: **measured with another preset**, today's is `{today}`."


def tuning_table() -> str:
    """Return the result of every setting on the images for tuning."""
    rows, outdated = [], []
    for name in TUNED:
        study = stored_study(TUNING / name)
        cells = summarize(study, stored_rows(TUNING / name))
        (cell,) = (cell for cell in cells if cell.split != study.grid.besides)
        wins = f"{100 * cell.wins:.0f} %"
        rows.append([f"`{name}`", cell.scenes, str(cell.images), percent(cell.change, cell.images), wins])
        if not is_of_todays_preset(study, tuning_arguments(name)):
            outdated.append(f"`{name}`")
    grid = grid_of(["name", "scenes", "images", "change, 95 %", "wins"], rows)
    return f"{grid}\n\nMeasured with another preset: {', '.join(outdated)}." if outdated else grid


# --- adapted models -------------------------------------------------------------------------------


def adapted_table(cells: Sequence[Cell]) -> str:
    """Return a row for each kind of photos: refinement photo by photo beside a model that is adapted once."""
    kinds = dict.fromkeys(cell.scenes for cell in cells if cell.adapted_to == cell.scenes)
    rows = [adapted_row(kind, {cell.arm: cell for cell in cells if cell.scenes == kind}) for kind in kinds]
    headings = ["scenes", "per photo", "adapted: distil", "share of the gain", "in-domain", "adapted: score"]
    return grid_of([*headings, "distil, then per photo", "s a photo: per photo, adapted", "adaptation"], rows)


def adapted_row(kind: str, arms: Mapping[str, Cell]) -> list[str]:
    """Return one row of that table; ``arms`` are the cells on these scenes by arm."""
    reference, distil = arms[PER_PHOTO], arms["distil"]
    changes = [percent(arms[name].change, arms[name].images) for name in ("score", "distil + per photo")]
    return [
        kind,
        percent(reference.change, reference.images),
        percent(distil.change, distil.images),
        f"{100 * distil.change.change / reference.change.change:.0f} %",
        percent(distil.besides, distil.images),
        *changes,
        f"{reference.seconds:.1f}, {distil.seconds:.2g}",
        f"{(distil.adapt_seconds or 0) / 60:.0f} min",
    ]


# --- the comparison with labels -------------------------------------------------------------------


def labels_table() -> str:
    """Return refinement beside the networks trained on labels, on the same scenes."""
    splits = json.loads(LABELS.read_text(encoding="utf-8"))["splits"]
    rows = [labels_row(split, splits[split]["rows"], study, arm) for split, (study, arm) in REFINED.items()]
    headings = ["scenes", "initial", "refined, no labels", "fine-tuned on labels", "refined minus fine-tuned"]
    return grid_of([*headings, "normals: initial, refined, fine-tuned, photo to normals"], rows)


def labels_row(split: str, supervised: Sequence[Mapping[str, Any]], study: str, arm: str) -> list[str]:
    """Return one split's row of that table; images are paired."""
    rows = {
        row.image: row for row in stored_rows(EXPERIMENTS / study) if (row.split, row.arm) == (split, arm)
    }
    refined = [rows[row["image"]] for row in supervised]
    before = [row.before[METRIC] for row in refined]
    after = [row.after[METRIC] for row in refined]
    tuned = [row[FINETUNED_NAME]["silog"] for row in supervised]

    def change(values: Sequence[float]) -> str:
        interval = bootstrap_interval(before, values, generator=resampling())
        return f"{mean(values):.2f}, {percent(interval, len(values))}"

    difference = percent(paired_difference(before, after, tuned, generator=resampling()), len(supervised))
    degrees = [
        mean(row.before[NORMALS] for row in refined),
        mean(row.after[NORMALS] for row in refined),
        mean(row[FINETUNED_NAME]["normals"] for row in supervised),
        mean(row["photo to normals"]["normals"] for row in supervised),
    ]
    normals = ", ".join(f"{angle:.1f}" for angle in degrees)
    return [split, f"{mean(before):.2f}", change(after), change(tuned), difference, f"{normals} deg"]


def resampling() -> torch.Generator:
    """Return the generator for the bootstrap of the intervals."""
    return torch.Generator().manual_seed(RESAMPLES_SEED)


def compute_table() -> str:
    """Return how much training the shipped prior and the networks it is compared with had."""
    prior = PRIOR_NAMES["relighting"]
    logs = {
        "the shipped prior": [f"{prior}-0-first-cycle", f"{prior}-0"],
        "depth model, fine-tuned": [f"{FINETUNED_NAME}-0"],
        "photo to normals": [f"{NORMALS_NAME}-0"],
    }
    rows = []
    for network, names in logs.items():
        efforts = [training_effort(json_lines(training_log(name))) for name in names]
        pictures = sum(count for count, _ in efforts)
        minutes = sum(time for _, time in efforts)
        rows.append([network, f"{pictures:,}".replace(",", " "), f"{minutes:.0f}"])
    return grid_of(["network", "pictures", "minutes of one core"], rows)


def training_log(run: str) -> Path:
    """Return the stored log of a training run."""
    return STORED / f"training-{run}.jsonl"


def training_effort(log: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Return the pictures and the minutes of a training run from its log.

    The clock starts anew where the run was resumed, and the first row comes after as many pictures as lie
    between the first two.
    """
    pictures = log[-1]["samples"] - log[0]["samples"] + (log[1]["samples"] - log[0]["samples"])
    before_resuming = [row["seconds"] for row, after in pairwise(log) if after["seconds"] < row["seconds"]]
    return pictures, (sum(before_resuming) + log[-1]["seconds"]) / 60
