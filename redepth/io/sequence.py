"""A folder of numbered photos as the frames of a clip."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from redepth.errors import InputError
from redepth.io.discovery import find_photos
from redepth.io.files import StrPath

_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_NAMED = 5


def find_sequence(folder: StrPath, *, warn: Callable[[str], object]) -> list[Path]:
    """Return the photos of a folder in the order of their numbers: frame 9 comes before frame 10.

    The number is the last one in the name, without the suffix.

    Args:
        folder: holds the photos, whose names differ in their numbers.
        warn: is called with a line about numbers that are missing. The clip goes on over such a gap.

    Raises:
        InputError: it is no folder, holds no photo, a name has no number, or two have the same.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: --sequence reads a folder of numbered photos, and this is none")
    numbered: dict[int, Path] = {}
    for photo in find_photos([folder], warn=warn):
        match = _NUMBER.search(photo.stem)
        if match is None:
            raise InputError(
                f"{photo}: has no number in its name, which gives its place in the sequence; rename it or "
                "move it out of the folder"
            )
        number = int(match[1])
        if number in numbered:
            raise InputError(
                f"{photo}: has the number {number}, and so has {numbered[number].name}; keep one of them"
            )
        numbered[number] = photo
    order = sorted(numbered)
    if missing := _missing(order):
        warn(f"{folder}: frames are missing: {missing}; the clip goes on over the gap")
    return [numbered[number] for number in order]


def _missing(numbers: Sequence[int]) -> str:
    """Return in words the numbers between others that are not there; a usual step of 2 or 10 is none."""
    steps = Counter(after - before for before, after in pairwise(numbers))
    if not steps:
        return ""
    usual = min(steps, key=lambda step: (-steps[step], step))
    gaps = []
    for before, after in pairwise(numbers):
        if after - before > usual:
            first, last = before + usual, after - usual
            gaps.append(str(first) if first >= last else f"{first} to {last}")
    more = f" and {len(gaps) - _NAMED} more gaps" if len(gaps) > _NAMED else ""
    return ", ".join(gaps[:_NAMED]) + more
