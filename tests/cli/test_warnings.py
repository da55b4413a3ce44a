"""An ordinary run prints no warning, and what is flagged is one short line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import call, record


@pytest.mark.slow
def test_a_healthy_run_of_the_embedded_preset_prints_no_warning(
    tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    photos = [real_photos[name] for name in ("coins", "gravel")]
    done = call("refine", *photos, "--preset", "embedded-relief", "--device", "cpu", "--out", tmp_path)
    assert done.code == 0
    assert done.complaints == []
    for photo in photos:
        found = record(tmp_path / photo.stem)["diagnostics"]
        assert not any(signature["flagged"] for signature in found.values())
        assert {signature["calibrated_for"] for signature in found.values()} == {"embedded-relief"}


def test_a_flagged_run_prints_one_short_line(tmp_path: Path, real_photos: dict[str, Path]) -> None:
    options = ("--preset", "smoke", "--device", "cpu", "--set", "diagnostics.thresholds.collapse_order=0")
    done = call("refine", real_photos["coins"], *options, "--out", tmp_path)
    assert done.code == 0
    (line,) = done.complaints
    assert line.startswith("warning: coins.png: geometry collapse (order) ")
    assert line.endswith(", above 0: lower optim.learning_rates (not calibrated for this preset)")
    assert len(line) <= 130
    meaning = record(tmp_path / "coins")["diagnostics"]["geometry_collapse"]["meaning"]
    assert meaning not in line
