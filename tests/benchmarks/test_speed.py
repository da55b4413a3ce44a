"""The benchmarks run, and their rows follow the schema."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from benchmarks.speed import (
    bench_decoders,
    bench_refine,
    bench_shading,
    memory,
    plot,
    random_models,
    records,
    report,
    stages,
)
from benchmarks.speed.records import Row, Steps, Timing
from benchmarks.speed.ways import ALONE, EMBEDDED, THEIRS, Bench, Effort, Measured, Subject, Way, teraflop
from redepth.config import load_preset
from tests.support.helpers import CPU, make_refiner, photo, tiny_prior

STORED = sorted(path for kind in ("*.json", "*.jsonl") for path in records.RESULTS.glob(kind))


def row(**fields: Any) -> Row:
    known: dict[str, Any] = {
        "benchmark": "shading",
        "case": "forward",
        "implementation": "triton",
        "median_ms": 2.0,
        "p20_ms": 1.5,
        "p80_ms": 2.5,
        "repeats": 7,
        "shape": report.SHADING_SHAPE,
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
        ({"of_steps": {}}, "Field required"),
    ],
)
def test_a_row_with_missing_or_unknown_fields_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        row(**fields)


def test_rows_come_back_as_they_were_saved(tmp_path: Path) -> None:
    rows = [row(), row(**records.against_floor(28, 2.0, 100.0), extra={"rows": 8})]
    records.save(tmp_path / "rows.json", rows)
    assert records.load(tmp_path / "rows.json") == rows


def test_rows_are_stored_when_they_are_made(tmp_path: Path) -> None:
    def failing() -> Iterator[Row]:
        yield row()
        yield row(case="backward")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.save_each(tmp_path / "rows.json", failing())
    assert [found.case for found in records.load(tmp_path / "rows.json")] == ["forward", "backward"]


def test_a_row_names_the_precision_that_the_run_ended_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that overflows continues in float32."""
    prior = tiny_prior(dtype="bfloat16")
    refiner = make_refiner(prior)
    subject = Subject(EMBEDDED, torch.device("cpu"), tiny=True)
    bench = Bench(subject, Effort(1, 2, 1), records.circumstances(CPU) | {"lights": 1, "extra": {}}, 1, 1)
    measured = Measured(steps_ms=[3.0, 3.0], together=1)
    for expected in ("bfloat16", "float32"):
        (member_step,) = bench.finished(Way("x", 1), refiner, measured, inside=False)
        assert member_step.dtype == expected
        prior.upcast()


def test_appended_rows_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    rows = [row(), row(case="backward")]
    for count, found in enumerate(rows, 1):
        records.append(path, found)
        assert records.load(path) == rows[:count]


def test_the_environment_names_the_commit_if_there_is_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(records.COMMIT, "1" * 40)
    assert records.checkout() == ("1" * 40, False)


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
    verdicts = list(report.targets(rows))
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


# --- the refinement -------------------------------------------------------------------------------


def test_bench_decoders_measures_and_stores_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = ["--device", "cpu", "--tiny", "--size", "small", "--members", "2", "--rounds", "2"]
    done = CliRunner().invoke(
        bench_decoders.app, [*arguments, "--out", str(out)], catch_exceptions=False, env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    rows = records.load(out)
    assert {row.implementation for row in rows} == set(bench_decoders.FORMS)
    assert {row.shape[0] for row in rows} == {2}
    refused = CliRunner().invoke(bench_decoders.app, ["--size", "large"], env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert "no large" in refused.output


def step_row(way: str = "10 together", ms: float = 10.0, **fields: Any) -> Row:
    """A row on steps whose floor is 5 ms."""
    steps = Steps(
        preset=fields.pop("preset", report.PAPER),
        members=10,
        steps=1000,
        micro_batch=10,
        warmup_s=fields.pop("warmup_s", 0.0),
        tflop=4.0,
        tflop_s=800.0,
        times_floor=ms / 5,
        extrapolated_s=10 * ms,
    )
    times = {"median_ms": ms, "p20_ms": ms, "p80_ms": ms}
    known = {"benchmark": "refine", "case": "member-step", "implementation": way, "of_steps": steps}
    return row(**(known | times | fields))


def test_a_row_with_a_wrong_distance_from_the_floor_is_refused() -> None:
    assert step_row().of_steps.floor_ms == pytest.approx(5.0)  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="times_floor is not median_ms over"):
        row(of_steps=step_row().of_steps, median_ms=11.0, p20_ms=11.0, p80_ms=11.0)


def test_marks_time_the_stages_and_do_not_change_the_result() -> None:
    refiner = make_refiner(tiny_prior(), steps=4)
    expected = refiner.run(photo(), seed=1)
    with stages.whole(refiner) as marks:
        refiner.run(photo(), seed=1)
    assert [list(step) for step in marks.steps()] == [[stages.REST]] * 3
    with stages.split(refiner) as marks:
        outcome = refiner.run(photo(), seed=1)
    assert torch.equal(outcome.members, expected.members)
    names = stages.names(refiner)
    for step in marks.steps():
        assert set(step) == set(names)
        assert all(took >= 0 for took in step.values())
    # All patches are removed.
    assert not {"step", "stepper"} & set(vars(refiner))
    assert "predict" not in vars(refiner.prior)


def test_the_networks_have_the_papers_sizes_and_the_docs_their_operations() -> None:
    with torch.device("meta"):
        made = [make(random_models.REAL) for make in (random_models.unet, random_models.vae)]
        depth = random_models.depth_anything(random_models.REAL)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (*made, depth)]
    # Those of the published checkpoints.
    assert sizes == [859_520_964, 83_653_863, 24_785_089]
    page = (records.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    found = random_models.counts()
    for tflop in found.values():
        assert f"{tflop:.3f}" in page
    assert f"{random_models.a_step(found):.2f} TFLOP a member-step" in page
    assert f"{random_models.a_step(found, 'tiny VAE'):.2f} with the tiny VAE" in page


def test_targets_of_the_refinement_are_judged_at_real_sizes_only() -> None:
    gigabyte = 1e9 / 2**20
    fast = {"dtype": "float16", "device": "NVIDIA H200"}
    rows = [
        step_row("10 together", 9.5, peak_mib=30 * gigabyte, **fast),
        step_row("5 together", 9.9, peak_mib=23 * gigabyte, **fast),
        step_row("within 8GB", 12.0, peak_mib=9 * gigabyte, **fast),
        step_row("3 together", 10.0, preset=EMBEDDED),
        step_row(ALONE, 16.0, preset=EMBEDDED),
        step_row(THEIRS, 19.0, preset=EMBEDDED),
        row(benchmark="refine", case="command", median_ms=29e3, p20_ms=29e3, p80_ms=30e3, peak_mib=2000.0),
    ]
    verdicts = [(text.split(":")[0], holds) for text, holds in report.targets(rows)]
    assert verdicts == [
        ("within 8GB", False),
        ("triton", True),
        ("triton", False),
        (f"{report.PAPER}, 5 together, extrapolated", True),
        ("embedded-relief, 3 together", True),
        ("embedded-relief, 3 together", False),
    ]
    tiny = [found.model_copy(update={"extra": {"tiny": True}}) for found in rows]
    assert not list(report.targets(tiny))


def test_counted_operations_grow_with_the_members() -> None:
    one, three = (teraflop(make_refiner(tiny_prior(), members=n), photo()) for n in (1, 3))
    assert one > 0
    assert three == pytest.approx(3 * one)


@pytest.mark.slow
def test_a_command_is_timed_with_its_memory_and_a_failure_is_an_error() -> None:
    seconds, peak = bench_refine.run_command("--version")
    assert seconds > 0
    assert peak > 5
    with pytest.raises(RuntimeError, match="unknown preset 'nothing'"):
        bench_refine.run_command("show", "nothing")


@pytest.mark.slow
def test_bench_refine_measures_the_embedded_preset_and_the_command(tmp_path: Path) -> None:
    given = ["--tiny", "--only", "embedded", "--only", "command", "--seconds", "0"]
    done = CliRunner().invoke(bench_refine.app, [*given, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    (path,) = tmp_path.glob("refine-*.json")
    rows = {(r.implementation, r.case): r for r in records.load(path)}
    members = load_preset("embedded-relief").optim.members
    assert (f"{members} together", "member-step") in rows
    assert rows["redepth refine --preset smoke", "command"].peak_mib


def test_an_unknown_part_is_refused() -> None:
    done = CliRunner().invoke(bench_refine.app, ["--only", "everything"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "there are: embedded, command" in done.output


@pytest.mark.slow
def test_the_command_at_real_size_runs_narrow(tmp_path: Path) -> None:
    from benchmarks.speed import real_size

    done = CliRunner().invoke(real_size.app, ["--tiny", "--steps", "1", "--out", str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    first, following = records.load(tmp_path / "rows.json")
    assert (first.case, following.case) == ("first run", "next run")
    assert first.extra["downloaded_files"] == 15


@pytest.mark.slow
def test_memory_is_measured_by_size_and_over_photos(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = CliRunner().invoke(memory.app, ["--tiny", "--out", str(path)])
    assert done.exit_code == 0, done.output
    rows = records.load(path)
    assert [found.case for found in rows] == ["size", "size", "growth"]
    assert "| 800 x 600 | 0 |" in report.memory_table(rows)
    assert report.growth_table(rows).count(" MB |") == 5
