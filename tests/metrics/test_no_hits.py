"""Values that mean "no hit": which are left out, and which are depth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from redepth.errors import InputError
from redepth.metrics import beyond_gap, stored_no_hits

UNITS = (1.0, 1000.0, 0.001, 0.3048, 1e-6)


def scene(far: float = 80.0) -> NDArray[np.float32]:
    """Depth that rises smoothly from 1, the first row is free."""
    depth = np.linspace(1, far, 20 * 30, dtype=np.float32).reshape(20, 30)
    return np.concatenate([np.full((1, 30), 2, np.float32), depth])


def with_sky(value: float, depth: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    depth = scene() if depth is None else depth
    depth[0] = value
    return depth


def first_row(found: NDArray[np.bool_]) -> bool:
    return bool(found[0].all() and not found[1:].any())


def gap(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    return beyond_gap(depth.astype(np.float64), np.isfinite(depth) & (depth > 0))


def test_the_largest_number_of_16_bits_is_found_in_metres() -> None:
    for value in (655.35, 65.535, 65535 / 256):
        assert first_row(stored_no_hits(with_sky(value, scene(40))))
        assert not stored_no_hits(with_sky(value, scene(value - 0.5))).any()


@pytest.mark.parametrize("value", [1e10, 65504, 65535, 32767, 2**31 - 1, 2**32 - 1])
def test_a_usual_no_hit_value_is_found(value: float) -> None:
    assert first_row(stored_no_hits(with_sky(value)))
    assert first_row(stored_no_hits(with_sky(value, np.rint(scene(60_000))))) == (value != 32767)


def test_a_smooth_map_may_pass_a_no_hit_value() -> None:
    millimetres = np.arange(60_000, 65_535, dtype=np.float32).reshape(5, -1)
    assert not stored_no_hits(millimetres).any()
    # The greatest number of the integer type is a cut, whatever lies before it.
    cut = np.arange(60_000, 65_536, dtype=np.float32).reshape(32, -1)
    assert (stored_no_hits(cut) == (cut == 65535)).all()
    assert not stored_no_hits(cut + np.float32(0.5)).any()
    assert not stored_no_hits(scene(255)).any()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("value", [1e5, 1e10, 3e38 / 1e6, 1e-4, 1e-10])
def test_a_gap_of_a_thousand_has_no_unit(value: float, unit: float) -> None:
    assert first_row(gap(with_sky(value).astype(np.float64) * unit))


@pytest.mark.parametrize("unit", UNITS)
def test_a_wide_scene_is_kept(unit: float) -> None:
    assert not gap(with_sky(900) * np.float32(unit)).any()
    continuous = np.geomspace(0.1, 1e6, 600).reshape(20, 30)
    assert not gap(continuous * unit).any()
    assert not gap(np.full((4, 4), 5.0)).any()
    assert not gap(np.zeros((4, 4))).any()


def test_the_group_that_varies_is_the_scene() -> None:
    mostly_sky = np.full((20, 30), 1e10)
    mostly_sky[0] = np.linspace(1, 5, 30)
    assert (gap(mostly_sky) == (mostly_sky == 1e10)).all()
    two_skies = with_sky(1e10)
    two_skies[1, :5] = 1e6
    assert (gap(two_skies) == (two_skies > 80)).all()
    # A few stray values may differ from each other.
    stray = scene().astype(np.float64)
    stray[0] = np.geomspace(1e6, 2e6, 30)
    assert first_row(gap(stray))


def test_two_scenes_are_refused() -> None:
    dome = scene().astype(np.float64)
    dome[:8] = np.linspace(1e6, 2e6, 240).reshape(8, 30)
    with pytest.raises(InputError, match=r"has depths of .* and 1e\+06 to 2e\+06 and none between"):
        gap(dome)
