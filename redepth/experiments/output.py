"""The files of an experiment: rows, summary, plot and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth import io, viz
from redepth.components import versions
from redepth.experiments.plot import draw
from redepth.experiments.run import PICTURED, ArmResult
from redepth.experiments.study import SYNTHETIC, Scene, Study
from redepth.experiments.summary import Cell, summarize
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.ops.geometry import normals_from_depth
from redepth.runtime.resume import Task, row_path


def write(study: Study, rows: Sequence[ArmResult], failures: Mapping[Task, str], folder: Path) -> list[Cell]:
    """Write ``rows.jsonl``, ``summary.json``, ``plot.png`` and ``pictures/``; return the statistics."""
    cells = summarize(study, rows)
    io.save_text(folder / "rows.jsonl", "".join(io.json_line(row.model_dump()) for row in rows))
    grid = study.grid
    record: dict[str, Any] = {
        "experiment": study.experiment,
        "question": grid.question,
        "reference": grid.reference,
        "dataset": study.dataset,
        "preset": study.base.name,
        "preset_sha256": study.preset_sha256,
        "tuning": study.tuning,
        "seed": study.seed,
        "scenes": {scenes.label: scenes.options for scenes in study.sets},
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
    """Draw sheets of some scenes: the photo, the truth, before and each arm, as depths and as normals."""
    first_set = [scene for scene in study.scenes() if scene.scenes == study.sets[0]]
    for scene in first_set[:PICTURED]:
        maps = _stored_maps(study, folder, scene)
        if not maps:
            continue
        any_arm = next(iter(maps.values()))
        truth = any_arm["truth"]
        depths = {"truth": truth, "before": any_arm["initial"]}
        depths |= {arm: arm_maps["refined"] for arm, arm_maps in maps.items()}
        low, high = viz.display_range(np.log(truth[truth > 0]))
        # Near is bright, as in every other depth picture of redepth.
        coloured = {name: viz.colorize(-_log(depth), lo=-high, hi=-low) for name, depth in depths.items()}
        sheets = {"depth": coloured}
        if study.dataset == SYNTHETIC:  # normals need the camera, which is known for these scenes alone
            sheets["normals"] = {name: viz.normals_to_rgb(_normals(depth)) for name, depth in depths.items()}
        for kind, panels in sheets.items():
            sheet = viz.side_by_side({"photo": any_arm["photo"], **panels}, columns=5, title=scene.image)
            io.save_jpeg(folder / "pictures" / f"{scene.number}-{kind}.jpg", sheet)


def _stored_maps(study: Study, folder: Path, scene: Scene) -> dict[str, dict[str, NDArray[Any]]]:
    """Return arm -> the maps of a scene that its task has stored, for the arms that have some."""
    maps = {}
    for arm in study.arms:
        path = row_path(folder, (arm, scene.name)).with_suffix(".npz")
        if path.is_file():
            maps[arm] = dict(np.load(path))
    return maps


def _log(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.where(depth > 0, depth, np.nan)).astype(np.float32)


def _normals(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    normals = normals_from_depth(torch.from_numpy(depth)[None, None], ORTHOGRAPHIC)
    array: NDArray[np.float32] = normals[0].permute(1, 2, 0).numpy()
    return array
