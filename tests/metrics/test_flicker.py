"""Flicker: what changes from frame to frame and no motion explains."""

from __future__ import annotations

import pytest
import torch

from redepth.errors import InputError
from redepth.metrics.flicker import flicker
from tests.support.helpers import seeded

MAP = torch.rand(1, 1, 20, 30, generator=seeded())
EVERYWHERE = torch.ones_like(MAP, dtype=torch.bool)


def test_equal_maps_do_not_flicker() -> None:
    assert flicker(MAP, MAP, EVERYWHERE) == 0


def test_it_is_the_mean_difference_over_the_standard_deviation() -> None:
    now, last = torch.tensor([0.0, 2.0, 0.0, 2.0]), torch.tensor([0.5, 2.0, 0.5, 2.0])
    expected = 0.25 / ((1.0 + 0.75**2) / 2) ** 0.5
    assert flicker(now, last, torch.ones(4, dtype=torch.bool)) == pytest.approx(expected)


def test_one_scale_and_shift_changes_nothing_and_one_of_each_frame_does() -> None:
    last = MAP + 0.1 * torch.rand(MAP.shape, generator=seeded(1))
    figure = flicker(MAP, last, EVERYWHERE)
    assert flicker(3 * MAP + 7, 3 * last + 7, EVERYWHERE) == pytest.approx(figure, rel=1e-5)
    assert flicker(1.5 * MAP, last, EVERYWHERE) > 2 * figure


def test_only_valid_pixels_count() -> None:
    last = MAP.clone()
    last[..., :5] = torch.nan
    valid = EVERYWHERE.clone()
    valid[..., :5] = False
    assert flicker(MAP, last, valid) == 0
    with pytest.raises(InputError, match="not finite"):
        flicker(MAP, last, EVERYWHERE)


def test_what_has_no_flicker_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel"):
        flicker(MAP, MAP, ~EVERYWHERE)
    with pytest.raises(InputError, match="constant"):
        flicker(torch.ones(5), torch.ones(5), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="one shape"):
        flicker(MAP, MAP[..., 1:], EVERYWHERE)
