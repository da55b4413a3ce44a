"""Faults of the machine around the folder of the results."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redepth import io
from redepth.bench import run as bench_run
from redepth.errors import ConfigError, OutputError
from redepth.pipeline import Pipeline
from redepth.runtime.lock import locked
from redepth.runtime.output import results_folder
from tests.support.command import SMOKE, call, one_line

STEP = ("-s", "optim.steps=1")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("file", "is a file"),
        ("file/inside", "part of it is a file"),
        ("x" * 300, "File name too long"),
        ("/proc/redepth/out", "cannot be written to"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    where: str, why: str, tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(Pipeline, "refine", never)
    done = call("refine", real_photos["coins"], *SMOKE, "--out", tmp_path / where)
    assert done.code == 2
    (line,) = done.complaints
    assert line.startswith("error: --out")
    assert why in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize("command", ["refine", "bench", "experiment", "compare", "adapt"])
@pytest.mark.parametrize("where", ["file", "/proc/redepth", "read-only"])
def test_every_command_tries_its_folder_before_any_work(
    where: str, command: str, tmp_path: Path, real_photos: dict[str, Path]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "read-only").mkdir(mode=0o500)
    if where == "read-only" and os.access(tmp_path / where, os.W_OK):
        pytest.skip("this user may write to any folder")
    what: dict[str, tuple[Any, ...]] = {
        "refine": (real_photos["coins"],),
        "compare": (real_photos["coins"], "--vary", "renderer.name=ggx,lambert"),
        "bench": ("synthetic", "--limit", "1"),
        "experiment": ("renderer", "--images", "1", "--arm", "lambert"),
        "adapt": (real_photos["coins"], real_photos["moon"]),
    }
    one_line(call(command, *what[command], *SMOKE, "--out", tmp_path / where), f"--out {tmp_path / where}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "read-only"]


def test_a_full_disk_is_refused_before_any_work(
    tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    done = call("refine", real_photos["coins"], *SMOKE, "--out", tmp_path / "out")
    assert done.code == 2
    assert "the disk is full (1 MiB are free)" in done.complaints[0]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_fails_the_photos_that_do_not_fit_before_their_work(
    tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refined: list[int] = []
    refine = Pipeline.refine

    def counted(self: Pipeline, *args: Any, **options: Any) -> Any:
        refined.append(1)
        return refine(self, *args, **options)

    monkeypatch.setattr(Pipeline, "refine", counted)
    # Room at the start and for the first photo, none for the second.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30 if not refined else 2**20))
    photos = [real_photos[name] for name in ("coins", "moon")]
    done = call("refine", *photos, *SMOKE, *STEP, "--out", tmp_path)
    assert done.code == 2
    assert len(refined) == 1
    assert (tmp_path / "coins" / "run.json").is_file()
    assert not (tmp_path / "moon").exists()
    assert any("moon" in line and "disk is full" in line for line in done.complaints)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_photo_whose_files_cannot_be_written_is_named_and_the_next_one_runs(
    number: int, tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync
    flushed: list[int] = []

    def failing(descriptor: int) -> None:
        flushed.append(1)
        if len(flushed) == 3:
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    photos = [real_photos[name] for name in ("coins", "moon")]
    done = call("refine", *photos, *SMOKE, *STEP, "--out", tmp_path)
    assert done.code == 2
    (line, count) = [line for line in done.complaints if line.startswith("error")]
    assert "coins" in line
    assert ("the disk is full" if number == errno.ENOSPC else "cannot be written: Input/output error") in line
    assert count == "error: 1 of 2 inputs failed"
    assert (tmp_path / "moon" / "run.json").is_file()
    assert not list(tmp_path.rglob(".redepth-*"))


def test_an_error_of_writing_names_the_file_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io.save_text(tmp_path / "a.txt", "old")
    # What numpy raises on a full disk has no number.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    full = r"a\.txt: cannot be written: the disk is full, 0 MiB are free"
    with pytest.raises(OutputError, match=full), io.atomic_path(tmp_path / "a.txt"):
        raise OSError("4096 requested and 12 written")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_what_killed_runs_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine = [".redepth-notes", ".redepth-12.npy", "photo/.redepth.yaml", f"deep/a/.redepth-{'0' * 32}.npy"]
    left = [f".redepth-{'a' * 32}", f"photo/.redepth-{'0' * 32}.npy", f"images/p/.redepth-{'b' * 32}.jpg"]
    for name in mine + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with results_folder(tmp_path):
        pass
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(mine)


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path, real_photos: dict[str, Path]) -> None:
    with locked(tmp_path):
        for command in (
            ("refine", real_photos["coins"], *SMOKE),
            ("bench", "synthetic", "--limit", "1", "--preset", "smoke"),
            ("experiment", "prior", "--preset", "smoke", "--size", "32", "--images", "1"),
            ("adapt", real_photos["coins"], real_photos["moon"], *SMOKE),
        ):
            done = call(*command, "--out", tmp_path)
            assert done.code == 2
            assert f"process {os.getpid()}" in done.complaints[-1]
    with pytest.raises(ConfigError, match="part of it is a file"), results_folder(Path(__file__) / "a"):
        pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_terminate_and_hang_up_end_a_run_as_ctrl_c_does(
    number: int, code: int, tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = Pipeline.refine

    def ended(self: Pipeline, photo: Any, **options: Any) -> Any:
        if photo.source.stem == "moon":
            os.kill(os.getpid(), number)
        return refine(self, photo, **options)

    monkeypatch.setattr(Pipeline, "refine", ended)
    # A suite that was started under nohup ignores hang-up.
    former = signal.signal(number, signal.SIG_DFL)
    photos = [real_photos[name] for name in ("coins", "moon", "brick")]
    try:
        done = call("refine", *photos, *SMOKE, *STEP, "--out", tmp_path)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, former)
    assert done.code == code
    assert str(tmp_path / "coins") in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coins"]


def test_results_that_vanish_while_the_others_are_refined_are_no_success(
    tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = Pipeline.refine

    def removing(self: Pipeline, photo: Any, **options: Any) -> Any:
        if photo.source.stem == "moon":
            shutil.rmtree(tmp_path / "out")
        return refine(self, photo, **options)

    monkeypatch.setattr(Pipeline, "refine", removing)
    photos = [real_photos[name] for name in ("coins", "moon")]
    done = call("refine", *photos, *SMOKE, *STEP, "--out", tmp_path / "out")
    assert done.code == 2
    assert any("coins" in line and "were removed meanwhile" in line for line in done.complaints)
    assert str(tmp_path / "out" / "coins") not in done.out
    assert (tmp_path / "out" / "moon" / "run.json").is_file()


@pytest.mark.parametrize("swallowed", [False, True], ids=["made an error", "swallowed"])
def test_an_interruption_that_a_library_keeps_to_itself_ends_the_run(
    swallowed: bool, tmp_path: Path, real_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refine = Pipeline.refine
    asked: list[str] = []

    def keeping(self: Pipeline, photo: Any, **options: Any) -> Any:
        asked.append(photo.source.stem)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if not swallowed:
                raise OSError("Unable to load weights") from None
        return refine(self, photo, **options)

    monkeypatch.setattr(Pipeline, "refine", keeping)
    photos = [real_photos[name] for name in ("coins", "moon")]
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = call("refine", *photos, *SMOKE, *STEP, "--out", tmp_path)
    finally:
        signal.signal(signal.SIGINT, former)
    assert done.code == 130
    assert asked == ["coins"]
    assert (tmp_path / "coins" / "run.json").is_file() == swallowed
    assert "interrupted: " in done.complaints[-1]


def test_ctrl_c_anywhere_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("redepth.config.load_preset", pressed)
    done = call("refine", __file__, *SMOKE)
    assert (done.code, done.complaints) == (130, ["error: interrupted"])


def test_an_error_that_a_library_makes_of_an_interruption_is_the_same_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as interruption:
            raise RuntimeError("Error building a schema") from interruption

    monkeypatch.setattr("redepth.config.load_preset", pressed)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = call("refine", __file__, *SMOKE)
    finally:
        signal.signal(signal.SIGINT, former)
    assert (done.code, done.complaints) == (130, ["error: interrupted"])


def test_the_table_is_printed_when_the_report_finds_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("report.html: cannot be written: the disk is full")

    monkeypatch.setattr(bench_run, "write_tables", full)
    command = ("bench", "synthetic", "--limit", "1", "--preset", "smoke", *STEP, "--out", tmp_path)
    done = call(*command)
    assert done.code == 2
    assert "silog" in done.out
    assert "report:" not in done.out
    assert [line for line in done.complaints if "report.html" in line and "disk is full" in line]
    monkeypatch.undo()
    assert call(*command).code == 0
