"""What of a ground truth is not measured: counted once, by reason, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from redepth.metrics import LeftOut, clip_warnings

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
