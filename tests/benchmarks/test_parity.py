from __future__ import annotations

import pytest

from benchmarks.accuracy.parity import MEASURES


@pytest.mark.parametrize("what", MEASURES)
def test_recorded_arrays_are_reproduced(what: str) -> None:
    measure, bound = MEASURES[what]
    assert measure() < bound
