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
        of warning, with the number of its images and one of them.
    """
    images: dict[str, LeftOut] = {}
    warned: dict[str, dict[str, str]] = {}
    for result in results:
        for row in (result.initial, result.refined):
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
