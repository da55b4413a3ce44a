from __future__ import annotations

import pytest

from redepth.config.units import duration, memory, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("60s", 60), ("2m", 120), ("2 min", 120), ("1.5h", 5400), (" 3 S ", 3)],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * 10**9), ("8 gb", 8 * 10**9), ("8GiB", 2**33), ("800MB", 8 * 10**8), ("0.5MiB", 2**19)],
)
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert memory(text) == expected


@pytest.mark.parametrize("text", ["", "s", "0", "0.0s", "-1s", "1e3", "1m30s", "nan", "5 years", "8GB"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number of seconds, or one with s, m or h"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "8", "8G", "0GB", "8 s", "-8GB"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MB, GB, MiB or GiB"):
        memory(text)


@pytest.mark.parametrize(
    ("length", "text"), [(0.2, "1 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3725, "1 h 02 min")]
)
def test_durations_are_for_people(length: float, text: str) -> None:
    assert duration(length) == text
