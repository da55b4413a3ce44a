"""The contact sheet of an ablation: photos from top to bottom, variants from left to right."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth import io, viz
from redepth.ablations.records import Row
from redepth.ablations.run import Ablation
from redepth.ablations.variants import Variant
from redepth.errors import InputError
from redepth.exports import RECORD
from redepth.runtime.resume import Task, read_record
from redepth.viz.sheet import Panel, compose

MOST_VARIANTS_SHOWN = 6
MOST_PHOTOS_SHOWN = 6
"""Variants and photos of one sheet; more of them are on further sheets."""

SIDE = 320
"""The longer side of a picture in pixels."""

_GREY = (160, 160, 160)
_SHEET = re.compile(r"sheet(-\d+)?\.png")
_RAW = {"disparity": ("disparity.npy",), "depth": ("raw_depth.npy", "depth.npy")}
"""The names that the refined output may have, by what it is; the first one that is there counts."""


def draw_sheets(ablation: Ablation, preset: str, rows: Mapping[Task, Row], folder: Path) -> list[Path]:
    """Draw ``sheet.png``, or ``sheet-1.png`` and so on, in place of those of an earlier call.

    Args:
        ablation: what was compared.
        preset: that the variants are made of.
        rows: by variant and photo; the others are grey.
        folder: of the sheets.
    """
    parts = [
        (photos, variants)
        for photos in _parts(ablation.photos, MOST_PHOTOS_SHOWN)
        for variants in _parts(ablation.variants, MOST_VARIANTS_SHOWN)
    ]
    names = ["sheet.png"] if len(parts) == 1 else [f"sheet-{n}.png" for n in range(1, len(parts) + 1)]
    for old in sorted(folder.iterdir()):
        if _SHEET.fullmatch(old.name) and old.name not in names:
            old.unlink()
    title = f"{len(ablation.variants)} variants of {preset}, seed {ablation.seed}"
    for name, (photos, variants) in zip(names, parts, strict=True):
        picture = _sheet(ablation, photos, variants, rows, title)
        io.save_png(folder / name, picture)
    return [folder / name for name in names]


def _parts(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Split into parts of nearly one size, none larger than ``most``."""
    count = -(-len(items) // most)
    ends = [round(i * len(items) / count) for i in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def _sheet(
    ablation: Ablation,
    photos: Sequence[Path],
    variants: Sequence[Variant],
    rows: Mapping[Task, Row],
    title: str,
) -> Image.Image:
    labels = ablation.labels
    lines: list[list[Panel]] = []
    for photo in photos:
        found = {variant.name: rows.get((variant.name, labels[photo])) for variant in variants}
        lines += _lines_of_photo(photo, labels[photo], variants, found, ablation.max_pixels)
    legend = "above: normals after (red right, green up, blue to viewer); below: refined map (near is bright)"
    return compose(lines, title, legend)


def _lines_of_photo(
    path: Path,
    label: str,
    variants: Sequence[Variant],
    rows: Mapping[str, Row | None],
    max_pixels: int,
) -> list[list[Panel]]:
    """Return two lines of panels: photo and normals, initial and refined map."""
    try:
        first = Panel(_photo(path, max_pixels), label)
    except InputError:
        first = Panel(Image.new("RGB", (SIDE, SIDE), _GREY), label, "cannot be read")
    size = first.picture.size
    grey = Image.new("RGB", size, _GREY)
    above, below = [first], [Panel(grey, "Initial map", "no result")]
    for variant in variants:
        row = rows[variant.name]
        try:
            if row is None:
                raise InputError("failed")
            normals, initial, refined = _pictures(row, size)
        except InputError as error:
            above.append(Panel(grey, variant.label, str(error)))
            below.append(Panel(grey, "Refined map", str(error)))
            continue
        if below[0].caption:
            below[0] = Panel(initial, "Initial map")
        turn = "" if row.turn is None else f"normals turned by {row.turn:.1f}°"
        above.append(Panel(normals, variant.label, turn))
        below.append(Panel(refined, "Refined map", _numbers(row)))
    return [above, below]


def _numbers(row: Row) -> str:
    silog = "" if row.silog is None else f", SI-log {row.silog[0]:.2f} to {row.silog[1]:.2f}"
    return f"changed by {100 * row.change:.2f} %{silog}"


# --- pictures from the files of a result ----------------------------------------------------------


def _photo(path: Path, max_pixels: int) -> Image.Image:
    pixels = io.load_photo(path, max_pixels=max_pixels)
    height, width = pixels.shape[:2]
    small = viz.reduced_photo(pixels, max(1, max(height, width) // (2 * SIDE)))
    return _resized(Image.fromarray(small), _size(width, height))


def _pictures(row: Row, size: tuple[int, int]) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Return the normals, the initial and the refined map. Raises InputError if a file is not there."""
    try:
        record = read_record(row.folder / RECORD) or {}
        predicts = record["output"]["predicts"]
        name = next(name for name in _RAW[predicts] if (row.folder / name).is_file())
        initial, refined = (_map(row.folder / file, predicts) for file in ("initial.npy", name))
        with Image.open(row.folder / "normals.png") as picture:
            normals = _resized(picture.convert("RGB"), size)
    except (OSError, ValueError, LookupError, StopIteration):
        raise InputError("files of the result are missing") from None
    # Variants that start from one map have one range: their colours can be compared.
    low, high = viz.display_range(initial)
    before, after = (
        _resized(Image.fromarray(viz.colorize(m, lo=low, hi=high)), size) for m in (initial, refined)
    )
    return normals, before, after


def _map(path: Path, predicts: str) -> NDArray[np.float32]:
    """Return every k-th pixel of a map as disparity."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    reduced = viz.reduced_map(values, viz.reduction(values.shape[0], values.shape[1], 2 * SIDE)).astype(
        np.float32
    )
    if predicts == "disparity":
        return reduced
    known = reduced > 0
    return np.where(known, 1 / np.where(known, reduced, 1), np.nan).astype(np.float32)


def _size(width: int, height: int) -> tuple[int, int]:
    factor = SIDE / max(width, height)
    return max(1, round(factor * width)), max(1, round(factor * height))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
