"""What a run's rows say about pixels that were not measured, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from redepth.bench.records import Result
from redepth.metrics import LeftOut

_REASONS = {
    "no_hit": "no-hit",
    "not_finite": "not finite",
    "negative": "negative",
    "zero": "zero",
    "masked": "outside the mask",
    "out_of_range": "outside the protocol's range",
    "out_of_region": "outside the protocol's region",
}


def losses(results: Sequence[Result]) -> list[str]:
    """Sum up what of the ground truth was not measured, and the warnings of the rows.

    Returns:
        If a row has a warning, one line with the pixels of all images by reason, and one line for each kind
        of warning, with the number of its images and one of them. Lines name the protocol if there are
        several.
    """
    by_protocol: dict[str, list[Result]] = {}
    for result in results:
        by_protocol.setdefault(result.protocol, []).append(result)
    lines = {protocol: _losses(rows) for protocol, rows in by_protocol.items()}
    if len(lines) < 2:
        return [line for of_one in lines.values() for line in of_one]
    return [f"{protocol}: {line}" for protocol, of_one in lines.items() for line in of_one]


def _losses(results: Sequence[Result]) -> list[str]:
    images: dict[str, LeftOut] = {}
    warned: dict[str, dict[str, str]] = {}
    for result in results:
        for row in result.sides:
            counts = row.get("left_out") or {"pixels": 0}
            images.setdefault(result.image, LeftOut(**counts))
            for line in row.get("warnings", []):
                warned.setdefault(_kind(line), {}).setdefault(result.image, line)
    if not warned:
        return []
    return [_total(list(images.values())), *(_summed(lines, len(images)) for lines in warned.values())]


def _total(parts: Sequence[LeftOut]) -> str:
    counts = {text: sum(getattr(part, name) for part in parts) for name, text in _REASONS.items()}
    shown = ", ".join(f"{count} {text}" for text, count in counts.items() if count) or "nothing"
    return f"left out of {sum(part.pixels for part in parts)} pixels of ground truth: {shown}"


def _kind(line: str) -> str:
    """Return a warning without its numbers."""
    return line.partition(":")[0].translate(str.maketrans("", "", "0123456789."))


def _summed(lines: dict[str, str], images: int) -> str:
    name, line = next(iter(lines.items()))
    return f"{len(lines)} of {images} images, such as {name}: {line}"
