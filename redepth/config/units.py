"""Times and amounts of memory with units: ``60s``, ``2m``, ``8GB`` are read, a duration is written."""

from __future__ import annotations

import re

TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MEMORY = {"MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}


def seconds(text: str) -> float:
    """Return the seconds of ``60s``, ``2m``, ``1.5h``, or of a number without a unit, which is in seconds.

    Raises:
        ValueError: the text is not a time above 0.
    """
    return _amount(text, TIMES, "a number of seconds, or one with s, m or h, such as 60s or 2m")


def memory(text: str) -> int:
    """Return the bytes of ``8GB`` (10^9 each), ``800MB``, ``8GiB`` (2^30 each) or ``800MiB``.

    Raises:
        ValueError: the text is not an amount of memory above 0.
    """
    return int(_amount(text, MEMORY, "a number with MB, GB, MiB or GiB, such as 8GB"))


def duration(length: float) -> str:
    """Return a duration in seconds for people: ``5 s``, ``1 min 01 s``, ``1 h 02 min``."""
    whole = max(1, round(length))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _amount(text: str, units: dict[str, float], expected: str) -> float:
    known = {unit.lower(): factor for unit, factor in units.items()}
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in known or float(match[1]) == 0:
        raise ValueError(f"must be {expected}")
    return float(match[1]) * known[match[2]]
