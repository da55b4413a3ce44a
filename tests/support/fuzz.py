"""Helpers of the fuzz targets in tests/fuzz: how many inputs are tried, and how a seed is mutated."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

VARIABLE = "REDEPTH_FUZZ_EXAMPLES"


def examples(default: int) -> int:
    """Return how many inputs a target tries: the environment's number, else the default."""
    return int(os.environ.get(VARIABLE, default))


def fuzzing(default: int) -> settings:
    """Return settings for so many inputs, the same in each run unless the environment sets a number."""
    return settings(
        max_examples=examples(default),
        derandomize=VARIABLE not in os.environ,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def mutate(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw one of the seeds with a few of its bytes changed, dropped, doubled or put elsewhere.

    Half of the changes are in the first 512 bytes, where headers are.
    """
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 6]))):
        end = len(content) if draw(st.booleans()) else min(512, len(content))
        place = draw(st.integers(0, max(end - 1, 0)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64]))
        kind = draw(st.sampled_from(["flip", "set", "set", "number", "cut", "drop", "double", "insert"]))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "number":
            # Sizes and counts at their limits, in both byte orders.
            number = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 100_001]))
            size = 2 if number <= 0xFFFF else 4
            content[place : place + size] = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
        elif kind == "cut":
            del content[place:]
        elif kind == "drop":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
        else:
            content[place:place] = draw(st.binary(max_size=length))
    return bytes(content)
