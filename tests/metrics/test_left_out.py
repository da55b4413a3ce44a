"""What of a ground truth is not measured: counted once, by reason, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from redepth.metrics import LeftOut, clip_warnings, runaway_warnings

VALUES = np.array([[np.nan, np.inf, -1, 0], [65504, 2, 3, 4]], np.float32)
NO_HIT = VALUES == 65504


def test_every_pixel_counts_once() -> None:
    mask = np.array([[True] * 4, [True, True, False, False]])
    found = LeftOut.of(VALUES, NO_HIT, mask)
    assert found == LeftOut(8, not_finite=2, negative=1, zero=1, no_hit=1, masked=2)
    assert found.known == 3
    assert found.record()["no_hit"] == 1
    assert LeftOut.of(VALUES, NO_HIT, None).masked == 0


def test_what_may_be_a_mistake_is_a_line() -> None:
    assert LeftOut.of(VALUES, NO_HIT, None).warnings() == [
        "left out of 8 pixels of the ground truth: 1 no-hit, 2 not finite, 1 negative, 1 zero"
    ]
    assert LeftOut(100, zero=90).warnings() == []
    whole = LeftOut(100, masked=50, out_of_range=5, out_of_region=45)
    assert whole.warnings() == []
    (line,) = replace(whole, masked=51, out_of_range=4).warnings()
    assert "mask leaves out 51.0 % of the known" in line
    (line,) = replace(whole, out_of_range=6).warnings()
    assert "range leaves out 12.0 % of the known" in line
    assert clip_warnings(0.1) == []
    assert "clipped at 25.0 % of" in clip_warnings(0.25)[0]


def test_a_pixel_near_infinity_that_decides_the_error_is_a_line() -> None:
    truth = torch.linspace(1, 4, 1000, dtype=torch.float64).view(20, 50)
    mask = torch.ones(20, 50, dtype=torch.bool)
    depth = 1.1 * truth
    assert runaway_warnings(depth, truth, mask) == []
    depth[0, 0] = 1e5
    (line,) = runaway_warnings(depth, truth, mask)
    assert line.startswith(
        "depth that ran away decides abs_rel: 1 of 1000 measured pixels are aligned to more than"
    )
    # |1e5 - 1| / 1 beside 999 errors of 0.1.
    assert f"(up to 1e+05) and are {100 * 99999 / (99999 + 99.9):.1f} % of it" in line
    # Far, but without weight: an error of 40 beside 999 of 1.
    assert runaway_warnings(torch.where(depth > 1e4, 41.0, 2 * truth), truth, mask) == []
    # Not measured, or only twice as far as anything.
    mask[0, 0] = False
    assert runaway_warnings(depth, truth, mask) == []
    assert runaway_warnings(torch.where(mask, truth, 8.0), truth, ~mask) == []
