"""The GPU benchmark, run on a CPU: rows are kept even if the run is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.speed import gpu, gpu_parts, gpu_steps, records, report
from benchmarks.speed.gpu_part import Part
from benchmarks.speed.ways import Way

COMMAND = [sys.executable, "-m", "benchmarks.speed.gpu", "--tiny", "--minutes", "20"]


def test_parts_run_in_the_order_of_value() -> None:
    assert gpu.chosen("shading,rates") == ["rates", "shading"]
    assert set(gpu.chosen("")) == set(gpu.LIMITS) - set(gpu.OFF_BY_DEFAULT)
    assert set(gpu.LIMITS) == set(gpu_parts.PARTS)
    with pytest.raises(typer.BadParameter, match="no everything; there are: rates,"):
        gpu.chosen("everything")


def test_a_part_that_fails_or_takes_too_long_ends_with_its_children(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as log:
        assert (
            gpu.run_part([sys.executable, "-c", "raise SystemExit(3)"], 60, log) == "FAILED with exit code 3"
        )
        assert gpu.run_part([sys.executable, "-c", "print(1)"], 60, log) == "done"
        child = tmp_path / "child"
        code = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; "
        code += f"time.sleep(600)']); open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(600)"
        assert gpu.run_part([sys.executable, "-c", code], 3, log) == "stopped after 3 s"
    pid = int(child.read_text())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_command_stores_rows_log_and_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--parts", "rates,shading", "--out", str(tmp_path)],
        cwd=records.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = records.load(tmp_path / "rows.jsonl")
    assert {row.benchmark for row in rows} == {"rates", "shading"}
    assert all(row.extra["tiny"] for row in rows)
    assert (tmp_path / "tables.md").read_text().startswith("| what | rate |")
    assert "== shading" in (tmp_path / "log.txt").read_text()
    assert "matrix product" in done.stdout


@pytest.mark.slow
def test_a_killed_run_keeps_its_rows(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, "--parts", "rates,steps", "--out", str(tmp_path)],
            cwd=records.ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        deadline = time.monotonic() + 170
        while "member-step" not in (rows.read_text() if rows.exists() else ""):
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = records.load(rows)
    assert {row.benchmark for row in found} == {"rates", "refine"}
    assert "| what | rate |" in report.text(found)
    # The part runs in a session of its own and is still running.
    subprocess.run(["pkill", "-KILL", "-f", str(tmp_path)], check=False)


def test_a_way_that_fails_does_not_stop_the_others_and_sets_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(part: Part) -> None:
        for name in ("one", "two"):
            gpu_steps.measure(part, Failing(name == "one"), Way(name, 1))

    class Failing:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def one(self, way: Way, *, inside: bool) -> list[records.Row]:
            if self.fails:
                raise RuntimeError("does not fit")
            return [Part(tmp_path, tmp_path, True).row("refine", "x", way.name, records.timing([1, 1]))]

    monkeypatch.setitem(gpu_parts.PARTS, "steps", steps)
    rows = tmp_path / "rows.jsonl"
    with pytest.raises(typer.Exit) as ended:
        gpu_parts.main("steps", rows, tmp_path, tiny=True)
    assert ended.value.exit_code == 1
    assert [row.implementation for row in records.load(rows)] == ["two"]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--out", str(tmp_path)], cwd=records.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    rows = records.load(tmp_path / "rows.jsonl")
    assert {"rates", "tests", "refine", "kernels", "shading", "group-norm", "decoders"} == {
        row.benchmark for row in rows
    }
    judged = [row for row in rows if "gradient_error" in row.extra]
    assert len(judged) > 5
    assert all(row.extra["gradient_error"] < 1e-4 for row in judged)


# --- the page -------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_those_of_the_stored_rows() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.with_tables(page) == page
    assert "<!-- rows: h100" in page


def test_a_table_of_rows_that_are_not_stored_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no rows named 'nothing'"):
        report.with_tables("<!-- rows: nothing steps -->\n<!-- end -->")


def test_the_report_prints_a_folder(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report.main)
    assert CliRunner().invoke(app, []).exit_code == 2
    (tmp_path / "rows.jsonl").write_text((records.RESULTS / "h100-1.jsonl").read_text())
    done = CliRunner().invoke(app, [str(tmp_path)])
    assert done.exit_code == 0
    assert "TFLOP/s" in done.output


def test_an_abbreviated_commit_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    """Each row has the commit: if only the rows refused it, all timings would be lost."""
    app = typer.Typer()
    app.command()(gpu.main)
    arguments = ["--minutes", "1", "--out", str(tmp_path / "out"), "--tiny", "--commit", "46a4ac4"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "whole commit hash" in done.stderr
    assert not (tmp_path / "out").exists()
