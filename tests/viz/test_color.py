"""Colours: ranges, colour maps and normals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from redepth import viz


def test_colorize_runs_from_lo_to_hi_and_clips() -> None:
    colours = viz.colorize([[-5.0, 0.0, 0.5, 1.0, 9.0]], "gray", 0.0, 1.0)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours[0, :, 0], [0, 0, 128, 255, 255])


def test_colorize_range_ignores_outliers() -> None:
    values = np.linspace(0, 1, 10_000).reshape(100, 100)
    values[0, 0], values[0, 1] = 1e6, -1e6
    colours = viz.colorize(values, "gray")
    assert abs(int(colours[50, 0, 0]) - 128) <= 2
    assert viz.display_range(values, values + 10) == pytest.approx((0.02, 10.98), abs=0.002)


def test_colorize_makes_invalid_pixels_grey() -> None:
    colours = viz.colorize([[0.0, np.nan, 1.0, np.inf]], "inferno")
    assert colours[0, 1].tolist() == colours[0, 3].tolist() == [160, 160, 160]
    assert colours[0, 0].tolist() != colours[0, 2].tolist()
    assert (viz.colorize(np.full((3, 4), np.nan)) == 160).all()


def test_colorize_of_a_constant_is_one_colour() -> None:
    assert len(np.unique(viz.colorize(np.full((3, 4), 7.0)).reshape(-1, 3), axis=0)) == 1


def test_default_colours_make_near_bright() -> None:
    luminance = viz.colorize(np.linspace(0, 1, 64)[None]).astype(float).sum(axis=2)[0]
    assert (np.diff(luminance) > -3).all()
    assert luminance[-1] > luminance[0] + 400


def test_colorize_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 3\)"):
        viz.colorize(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="no colour map 'nope'"):
        viz.colorize(np.zeros((2, 2)), "nope")


def test_normals_have_the_usual_colours() -> None:
    normals = [[[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, np.nan, 1]]]
    expected = [[255, 128, 128], [128, 255, 128], [128, 128, 255], [0, 128, 128], [160, 160, 160]]
    assert viz.normals_to_rgb(normals)[0].tolist() == expected
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        viz.normals_to_rgb(np.zeros((3, 4, 4)))


def test_pyplot_stays_out() -> None:
    code = (
        "import sys, redepth.viz as v; assert not {'torch', 'matplotlib'} & set(sys.modules);"
        "v.side_by_side({'a': [[0.0, 1.0]]}); assert 'matplotlib' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
