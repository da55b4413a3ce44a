"""A folder of numbered photos as the frames of a clip."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from redepth.errors import InputError
from redepth.io.discovery import find_photos
from redepth.io.files import StrPath
from redepth.io.names import displayed

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAMED = 5

Numbers = tuple[Decimal, ...]


def find_sequence(folder: StrPath, *, warn: Callable[[str], object]) -> list[Path]:
    """Return the photos of a folder in the order of all numbers in their names: 9 comes before 10.

    The first number that differs decides. A decimal number, such as a time in seconds, is one number. The
    suffix does not count.

    Args:
        folder: holds the photos, whose names differ in their numbers.
        warn: is called with a line about numbers that are missing, over which the clip goes on, and with one
            where the names could mean another order.

    Raises:
        InputError: it is no folder, holds no photo, a name has no number, or two have the same.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: --sequence reads a folder of numbered photos, and this is none")
    numbered: dict[Numbers, Path] = {}
    for photo in find_photos([folder], warn=warn):
        numbers = _numbers(photo)
        if numbers in numbered:
            written = ", ".join(map(str, numbers))
            raise InputError(
                f"{photo}: has the number {written}, and so has {numbered[numbers].name}; keep one of them"
            )
        numbered[numbers] = photo
    order = sorted(numbered)
    photos = [numbered[numbers] for numbers in order]
    if other := _other_order(photos):
        warn(f"{folder}: {other}; rename the photos, or take one clip out, if another order is meant")
    if missing := _missing(_counted(order)):
        warn(f"{folder}: frames are missing: {missing}; the clip goes on over the gap")
    return photos


def _numbers(photo: Path) -> Numbers:
    numbers = tuple(Decimal(text) for text in _NUMBER.findall(photo.stem))
    if not numbers:
        raise InputError(
            f"{photo}: has no number in its name, which gives its place in the sequence; rename it or "
            "move it out of the folder"
        )
    return numbers


def _other_order(photos: Sequence[Path]) -> str:
    """Return in words where the names could mean another order than this one; empty if they cannot."""
    whole = [[int(text) for text in re.findall(r"\d+", photo.stem)] for photo in photos]
    for before, after in pairwise(range(len(photos))):
        names = f"{displayed(photos[before].name)} comes before {displayed(photos[after].name)}"
        if whole[before] > whole[after]:
            return f"{names}, because a number with a point is taken as a decimal number"
        if _numbers(photos[before])[-1] > _numbers(photos[after])[-1]:
            return f"{names}, because the first number that differs decides, and not the last one"
    return ""


def _counted(order: Sequence[Numbers]) -> list[int]:
    """Return the one number that differs if it counts frames: it is whole; else nothing."""
    if len({len(numbers) for numbers in order}) != 1:
        return []
    differing = [column for column in zip(*order, strict=True) if len(set(column)) > 1]
    if len(differing) != 1 or any(number.as_tuple().exponent for number in differing[0]):
        return []
    return [int(number) for number in differing[0]]


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
