"""Pictures for people: the normals as colours, the comparison sheet, and the card for a notebook."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from redepth import io, viz
from redepth.exports.source import (
    Array,
    MapName,
    NotWrittenError,
    Source,
    Written,
    frame_of_normals,
    inverted,
)
from redepth.exports.viewer.facts import facts_of


def disparity_of(source: Source, name: MapName, factor: int) -> Array:
    """Return a map as disparity for display, whatever the model predicts: near is bright.

    Args:
        source: the result.
        name: of the map.
        factor: every factor-th row and column is kept.
    """
    raw = viz.reduced_map(source.map_of(name), factor)
    return raw if source.predicts == "disparity" else inverted(raw)


def comparison_of(source: Source) -> Image.Image:
    """Draw photo, initial, refined, difference and the normals before and after on one sheet."""
    height, width = source.photo.shape[:2]
    factor = viz.reduction(height, width)
    record = source.record()
    facts = facts_of(source, record)
    truth = source.ground_truth
    spread = viz.reduced_map(source.map_of("uncertainty"), factor) if record["members_done"] > 1 else None
    return viz.comparison(
        viz.reduced_photo(source.photo, factor),
        disparity_of(source, "initial", factor),
        disparity_of(source, "refined", factor),
        source.normals_before,
        source.normals_after,
        uncertainty=spread,
        ground_truth=None if truth is None else inverted(truth.reduced(factor)),
        title=facts["title"],
        subtitle=" · ".join([facts["subtitle"], *_findings(source)]),
        photo_size=(height, width),
    )


def _findings(source: Source) -> list[str]:
    """Return what the subtitle of a sheet says of the result: the error before and after, and flags."""
    found = []
    if source.evaluations:
        before, after = (source.evaluations[name].metrics["silog"] for name in ("initial", "refined"))
        protocol = source.evaluations["refined"].protocol
        found.append(f"SI-log {before:.2f} to {after:.2f} (protocol {protocol})")
    if source.flagged:
        found.append("FLAGGED: " + ", ".join(signature.title for signature in source.flagged))
    return found


def card_of(source: Source) -> str:
    """Return a card for a notebook: photo, maps, normals, the key facts and what to check, as HTML."""
    height, width = source.photo.shape[:2]
    factor = viz.reduction(height, width)
    record = source.record()
    shown = facts_of(source, record)
    facts = {
        "photo": f"{width} x {height} pixels",
        "prompt": record["prompt"],
        "camera": source.camera.kind,
        "mean change": f"{source.change:.1%} of the initial range",
        "normals turned by": f"{source.turn:.1f}°",
        "SI-log error": dict(shown["rows"]).get("SI-log error", ""),
        "time": f"{record['timings']['optimise_seconds']:.1f} s on {record['device']}",
    }
    return viz.card(
        viz.reduced_photo(source.photo, factor),
        disparity_of(source, "initial", factor),
        disparity_of(source, "refined", factor),
        source.normals_after,
        title=shown["title"],
        subtitle=shown["subtitle"],
        facts={name: value for name, value in facts.items() if value},
        remark=source.meaning,
        notes=shown["warnings"],
    )


def write_normals(source: Source, folder: Path) -> Written:
    """Write the normals of the refined surface as colours."""
    height, width = source.photo.shape[:2]
    picture = viz.normals_picture(
        source.normals_after, height, width, in_strips=source.large, closed=source.camera.closed
    )
    io.save_png(folder / "normals.png", picture)
    holds = f"(1 + n) / 2 of the unit normals as red, green, blue, {frame_of_normals(source)}"
    return Written("normals.png", holds)


def write_comparison(source: Source, folder: Path) -> Written:
    """Write the comparison sheet."""
    io.save_png(folder / "comparison.png", source.comparison())
    return Written("comparison.png", "photo, maps and normals before and after")


def write_albedo(source: Source, folder: Path) -> Written:
    """Write the albedo that was lit. Raises NotWrittenError: the photo itself was."""
    albedo = source.albedo
    if albedo is None:
        raise NotWrittenError("the photo itself was re-lit; choose another albedo (--albedo)")
    io.save_png(folder / "albedo.png", albedo)
    return Written("albedo.png", "the albedo that was re-lit, sRGB, at the network's size")
