"""Win rates and bootstrap intervals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from redepth.errors import InputError
from redepth.metrics import bootstrap_interval, paired_difference, win_rate
from tests.support.helpers import seeded
from tests.support.metrics import depths


def test_wins_are_strict() -> None:
    assert win_rate([1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 4.0, 1.0]) == 0.5
    assert win_rate([1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 4.0, 1.0], lower_is_better=False) == 0.25


def test_the_interval_is_that_of_a_paired_comparison() -> None:
    before = (10 + 5 * torch.rand(200, generator=seeded())).tolist()
    after = [0.9 * value for value in before]
    interval = bootstrap_interval(before, after, generator=seeded())
    # Each image improves by the same share, and so does every resample.
    assert (interval.change, interval.low, interval.high) == pytest.approx((-10.0, -10.0, -10.0))


def test_a_paired_difference_is_that_of_two_changes_of_the_same_images() -> None:
    before = (10 + 5 * torch.rand(200, generator=seeded())).tolist()
    ours, theirs = ([factor * value for value in before] for factor in (0.7, 0.95))
    interval = paired_difference(before, ours, theirs, generator=seeded())
    # The factor that both share cancels.
    assert (interval.change, interval.low, interval.high) == pytest.approx((-25, -25, -25))
    # If two differ by chance alone, the interval includes 0 and its width follows from their noise.
    noise = torch.randn(2, 200, generator=seeded(1), dtype=torch.float64)
    ours, theirs = (torch.tensor(before, dtype=torch.float64) + noise).tolist()
    chance = paired_difference(before, ours, theirs, generator=seeded())
    assert chance.low < 0 < chance.high
    spread = 100 * (noise[0] - noise[1]).std() / (sum(before) / 200) / 200**0.5
    assert chance.high - chance.low == pytest.approx(2 * 1.96 * float(spread), rel=0.1)
    assert paired_difference(before, theirs, ours, generator=seeded()).change == pytest.approx(-chance.change)


def test_the_interval_covers_as_often_as_it_says() -> None:
    hits, trials = 0, 120
    for trial in range(trials):
        generator = seeded(trial)
        after = (0.9 + 0.2 * torch.randn(60, generator=generator, dtype=torch.float64)).tolist()
        interval = bootstrap_interval([1.0] * 60, after, generator=generator, resamples=400, level=0.8)
        hits += interval.low <= -10.0 <= interval.high
    assert 0.7 < hits / trials < 0.9


def test_the_generator_decides_the_interval() -> None:
    before = depths(0, 1, 40).flatten().tolist()
    after = depths(1, 1, 40).flatten().tolist()
    one, again, other = (bootstrap_interval(before, after, generator=seeded(s)) for s in (0, 0, 1))
    assert one == again
    assert one != other
    assert one.low < one.change < one.high
    assert one.change == pytest.approx(100 * (sum(after) / sum(before) - 1))
    wide = bootstrap_interval(before, after, generator=seeded(), level=0.99)
    assert wide.low < one.low
    assert wide.high > one.high


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1.0], [], "1 values before and 0 after"),
        ([], [], "0 values before"),
        ([1.0, math.nan], [1.0, 1.0], "not finite"),
    ],
)
def test_values_that_are_no_pairs_are_refused(before: Any, after: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        win_rate(before, after)
    with pytest.raises(InputError, match=message):
        bootstrap_interval(before, after, generator=seeded())
    with pytest.raises(InputError, match=message):
        paired_difference(before, after, after, generator=seeded())


def test_a_change_relative_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="mean before is 0"):
        bootstrap_interval([0.0, 1.0], [1.0, 1.0], generator=seeded())
    with pytest.raises(InputError, match="mean before is 0"):
        paired_difference([0.0, 1.0], [1.0, 1.0], [1.0, 2.0], generator=seeded())
