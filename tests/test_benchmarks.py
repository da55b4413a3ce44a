"""The benchmarks run, and what they store follows their schema."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from benchmarks import bench_shading, plot, records
from benchmarks.records import Row, Timing

STORED = sorted(records.RESULTS.glob("*.json"))


def row(**fields: Any) -> Row:
    known: dict[str, Any] = {
        "benchmark": "shading",
        "case": "forward",
        "implementation": "triton",
        "median_ms": 2.0,
        "p20_ms": 1.5,
        "p80_ms": 2.5,
        "repeats": 7,
        "shape": bench_shading.TARGET_SHAPE,
        "lights": 1,
        "dtype": "float32",
        "device": "a GPU",
        "threads": 1,
        "versions": {"torch": "2"},
        "commit": "0" * 40,
        "dirty": False,
        "date": date(2026, 1, 2),
    }
    return Row.model_validate(known | fields)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_stored_rows_follow_the_schema(path: Path) -> None:
    rows = records.load(path)
    assert rows
    assert len({(r.device, r.commit, r.date) for r in rows}) == 1, "one file is one run"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"median_ms": 0.0}, "greater than 0"),
        ({"median_ms": 3.0}, "p20_ms <= median_ms <= p80_ms"),
        ({"commit": "main"}, "pattern"),
        ({"shape": (1, 0)}, "greater than or equal to 1"),
        ({"bytes_floor": 12}, "together or not at all"),
        ({"notes": "quick"}, "Extra inputs"),
    ],
)
def test_a_row_that_says_too_little_or_too_much_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        row(**fields)


def test_rows_come_back_as_they_were_saved(tmp_path: Path) -> None:
    rows = [row(), row(**records.against_floor(28, 2.0, 100.0), extra={"rows": 8})]
    records.save(tmp_path / "rows.json", rows)
    assert records.load(tmp_path / "rows.json") == rows


def test_the_floor_is_bytes_over_time_over_bandwidth() -> None:
    # 3 GB in 2 ms are 1500 GB/s.
    found = records.against_floor(3_000_000_000, 2.0, 3000.0)
    assert found["fraction_of_copy"] == pytest.approx(0.5)
    assert bench_shading.bytes_floor("forward", (2, 3, 5), 1) == 30 * 28
    assert bench_shading.bytes_floor("backward", (2, 3, 5), 1) == 30 * 32
    assert bench_shading.bytes_floor("both", (2, 3, 5), 4) == 30 * (64 + 68)


def test_timing_is_the_median_and_the_middle_three_fifths() -> None:
    assert records.timing([1, 2, 3, 4, 100, 6]) == Timing(3.5, 2, 6, 6)


def test_targets_are_judged_by_speed_and_bandwidth() -> None:
    rows = [
        row(**records.against_floor(1_700_000_000, 2.0, 1000.0)),
        row(implementation="eager", median_ms=15.0, p80_ms=20.0),
        row(implementation="compile", median_ms=4.0, p80_ms=4.0),
        row(lights=4),
        row(shape=(1, 2, 2)),
    ]
    verdicts = list(bench_shading.targets(rows))
    assert [holds for _, holds in verdicts] == [True, False, True]
    assert "85% of copy bandwidth" in verdicts[0][0]
    assert "7.5 times eager" in verdicts[1][0]


def test_bench_shading_measures_and_stores_rows_that_can_be_drawn(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = ["--device", "cpu", "--size", "1x20x30", "--lights", "2", "--only", "eager", "--seconds", "0"]
    done = CliRunner().invoke(bench_shading.app, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    rows = records.load(out)
    assert [r.case for r in rows] == ["forward", "backward", "both"]
    assert {(r.implementation, r.shape, r.lights, r.repeats) for r in rows} == {("eager", (1, 20, 30), 2, 5)}
    assert all(r.versions["torch"] and r.device.startswith("CPU") and r.fraction_of_copy for r in rows)
    plot.main(out)
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size", "518"], "a size is BxHxW"),
        (["--only", "cuda"], "there are: triton, eager"),
        (["--sweep", "--device", "cpu"], "needs a CUDA GPU"),
    ],
)
def test_wrong_arguments_of_bench_shading_are_refused(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(bench_shading.app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert complaint in done.output
