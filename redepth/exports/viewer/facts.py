"""What the page says of a result in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redepth import io
from redepth.exports.source import Source


def title_of(source: Source) -> str:
    """Return the name of the photo, or a word for it."""
    return io.displayed(Path(source.source).name) if source.source else "refinement"


def facts_of(source: Source, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return title, subtitle, settings and warnings of a result.

    Args:
        source: the result.
        record: its `Source.record`.
    """
    members, steps = record["members_done"], max(record["steps_done"], default=0)
    preset, seed = source.preset.name, record["seed"]
    parts = [preset, _counted(members, "member"), _counted(steps, "step"), f"seed {seed}"]
    if record["partial"]:
        parts.append("partial")
    return {
        "title": title_of(source),
        "subtitle": " · ".join(parts),
        "rows": _rows(source, record),
        "warnings": list(source.warnings),
    }


def _rows(source: Source, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings and figures, each with its name."""
    height, width = source.photo.shape[:2]
    network = source.network_size
    rows = [
        ("Preset", source.preset.name),
        ("Depth model", source.preset.depth_model.name),
        ("Re-lit by", source.preset.renderer.name),
        ("Scored by", source.preset.prior.name),
        ("Prompt", record["prompt"] or "none"),
        ("Seed", str(record["seed"])),
        ("Photo", f"{width} x {height} pixels; the depth model saw {network[1]} x {network[0]}"),
        ("Camera", f"{source.camera.kind}, from: {source.camera_origin}"),
        ("The numbers", source.meaning),
    ]
    metrics = record.get("metrics", {})
    if metrics:
        before, after = (metrics[name]["silog"] for name in ("initial", "refined"))
        figures = f"{before:.2f} before, {after:.2f} after; smaller is better"
        rows.append(("SI-log error", f"{figures} (protocol {metrics['protocol']['name']})"))
    if record["unknown"]:
        share = 100 * record["unknown"]["share"]
        rows.append(("Unknown", f"{share:.1f} % of the photo: striped here"))
    if record["partial"]:
        rows.append(("Partial", record["reason"] or "the run ended early"))
    return rows


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
