"""The bench commands: what they print; `tests/bench` has the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redepth import bench as benchmark
from redepth.bench import Summary
from redepth.cli import bench
from tests.support.command import call, one_line


def test_ctrl_c_says_that_the_finished_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_benchmark", interrupted)
    done = call("bench", "synthetic", "--limit", "1", "--preset", "smoke", "--out", tmp_path)
    assert done.code == 130
    line = f"error: interrupted; finished tasks are kept in {tmp_path}, and the same command resumes the run"
    assert done.complaints[-1] == line


def test_a_second_preset_of_one_name_keeps_what_was_written(tmp_path: Path) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text("extends: smoke\nname: smoke\noptim: {steps: 1}\n")
    presets = bench._presets(["smoke", str(changed)], ["optim.members=1"])
    assert list(presets) == ["smoke", str(changed)]
    assert [preset.optim.steps for preset in presets.values()] == [3, 1]


def test_a_preset_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    smoke = ("--preset", "smoke")
    one_line(call("bench", "synthetic", *smoke, *smoke, "--out", tmp_path), "--preset smoke: given twice")


def test_a_change_that_is_unknown_is_a_dash() -> None:
    unknown = Summary("a", 0.0, 1.0, float("nan"), float("nan"), float("nan"), 0.5, 2)
    known = Summary("b", 2.0, 1.0, -50.0, -60.0, -40.0, 1.0, 2)
    table = bench._table("title", [unknown, known], before="initial", after="refined")
    cells = [[cell.plain for cell in row] for row in table.rows]
    assert [row[3] for row in cells] == ["-", "-50.0 %"]
    assert [row[4] for row in cells] == ["-", "-60.0 to -40.0 %"]


def test_a_comparison_is_json_with_null_for_what_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Summary("a", 0.0, 1.0, float("nan"), float("nan"), float("nan"), 0.5, 2)
    pair = benchmark.Comparison("embedded-relief", "smoke", [unknown], "motorcycle")
    monkeypatch.setattr(benchmark, "compare", lambda *_: iter([pair]))
    done = call("bench", "compare", tmp_path / "x", tmp_path / "y", "--json")
    assert (done.code, done.err) == (0, "")
    row = {"metric": "a", "a": 0, "b": 1, "change": None, "low": None, "high": None, "wins": 0.5, "images": 2}
    expected = {"a": str(tmp_path / "x"), "b": str(tmp_path / "y")}
    comparisons = [{"a": "embedded-relief", "b": "smoke", "protocol": "motorcycle", "metrics": [row]}]
    assert json.loads(done.out) == {**expected, "comparisons": comparisons}


def test_a_misspelt_command_is_no_data_set() -> None:
    one_line(call("bench", "compair", "x", "y"), "did you mean 'compare'")
    one_line(call("bench", "motorcyle"), "unknown dataset", "did you mean 'motorcycle'")


def test_a_photo_without_its_truth_or_behind_a_dead_link_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[str] = []

    def measured(run: benchmark.Run, *_: Any, **__: Any) -> tuple[list[Any], dict[Any, str]]:
        images.extend(run.images)
        return [], {}

    monkeypatch.setattr(benchmark, "run_benchmark", measured)
    for part in ("photos", "depth"):
        (tmp_path / part).mkdir()
    for name in ("photos/a.png", "depth/a.npy", "photos/b.png", "depth/c.npy"):
        (tmp_path / name).touch()
    (tmp_path / "photos" / "c.png").symlink_to(tmp_path / "gone.png")
    done = call("bench", "folder", "--root", tmp_path, "--preset", "smoke", "--out", tmp_path / "out")
    assert images == ["a", "c"], "c is tried, and fails"
    assert any("left out" in line and "photos/b.png" in line for line in done.complaints)


def test_an_error_of_usage_names_the_help_of_the_command() -> None:
    one_line(call("bench", "run", "--limits", "1"), "(redepth bench run --help lists all options)")
    one_line(call("refine", "x.png", "--wide"), "(redepth refine --help lists all options)")
