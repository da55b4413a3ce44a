"""redepth adapt: progress, messages and exit codes; the same command continues; so do two processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from redepth import io
from redepth.adaptation import run, training
from redepth.adaptation.record import Adapted
from redepth.optim.limits import Deadline
from redepth.runtime.resume import load_identity
from tests.support.adaptations import SETTINGS, write_photos
from tests.support.command import ENVIRONMENT, Finished, call, one_line
from tests.support.small_photos import write_photo

OPTIONS = ("--preset", "smoke", "--device", "cpu", *(f"--set={setting}" for setting in SETTINGS))


@dataclass(frozen=True)
class Made:
    """Photos, the folder of their refinements, and a finished call."""

    photos: Path
    refined: Path
    out: Path
    done: Finished

    def command(self, out: Path, *more: str) -> tuple[str | Path, ...]:
        return ("adapt", self.photos, *OPTIONS, "--refined", self.refined, "--out", out, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("adapt")
    write_photos(home / "photos")
    command = ("adapt", home / "photos", *OPTIONS, "--refined", home / "refined", "--out", home / "out")
    return Made(home / "photos", home / "refined", home / "out", call(*command))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_each_stage_has_its_lines_and_the_result_says_how_to_use_it(made: Made) -> None:
    assert made.done.code == 0, made.done.err
    lines = made.done.err.splitlines()
    for stage, total in (("check", 5), ("refine", 5), ("train", 6), ("write", 2)):
        shown = [line for line in lines if line.startswith(f"{stage} ")]
        assert [int(re.findall(r"\d+", line)[0]) for line in shown] == list(range(1, total + 1))
        assert all(f"/{total}" in line for line in shown)
        # Not at the first one, whose pace is not known, and not at the end.
        assert ["left" in line for line in shown] == [0 < n < total - 1 for n in range(total)]
    result = load_identity(made.out / "summary.json", Adapted, "adaptation")
    assert f"{result.before:.2f} % -> {result.after:.2f} %, step {result.chosen}" in made.done.out
    assert "3 photos learned from, 2 held out, 0 left out, 0 to keep" in made.done.out
    assert f"redepth refine PHOTO --preset {made.out / 'preset.yaml'}" in made.done.out


def test_the_result_is_used_by_refine(made: Made, tmp_path: Path) -> None:
    photo = made.photos / "photo-0.png"
    for number, chosen in enumerate(
        [
            ("--preset", made.out / "preset.yaml", "--device", "cpu"),
            (*OPTIONS, "--set", f"depth_model.checkpoint={made.out / 'checkpoint'}"),
        ]
    ):
        out = tmp_path / str(number)
        done = call("refine", photo, *chosen, "--write", "initial", "--out", out)
        assert done.code == 0, done.err
    first, second = ((tmp_path / n / "photo-0" / "initial.npy").read_bytes() for n in "01")
    assert first == second


def test_a_finished_one_says_so_and_does_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.out.rglob("*") if "checkpoint" in str(path)}
    monkeypatch.setattr(run, "make_targets", None)
    monkeypatch.setattr(run, "train", None)
    done = call(*made.command(made.out))
    assert (done.code, done.err) == (0, "")
    assert f"{made.out} is finished already" in done.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_one_line_with_the_difference(made: Made) -> None:
    done = call(*made.command(made.out, "--seed", "1"))
    one_line(done, "holds another adaptation", "seed 0 was used, it is 1 now", "--fresh")


def test_quiet_leaves_the_files_alone(made: Made, tmp_path: Path) -> None:
    done = call(*made.command(tmp_path / "out", "--set", "adapt.steps=1", "-q"))
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "out" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_training_keeps_the_state_and_says_how_to_continue(
    number: int, code: int, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = training.save_state

    def ended(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        if arguments[1].step == 4:
            os.kill(os.getpid(), number)

    former = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    monkeypatch.setattr(training, "save_state", ended)
    try:
        done = call(*made.command(tmp_path / "out"))
    finally:
        signal.signal(number, former)
    assert done.code == code
    assert done.complaints[-1].startswith(f"error: interrupted; what is done is kept in {tmp_path / 'out'}")
    monkeypatch.undo()
    again = call(*made.command(tmp_path / "out"))
    assert again.code == 0
    assert [line.split(":")[0] for line in again.err.splitlines() if line.startswith("train ")] == [
        "train 5/6",
        "train 6/6",
    ]
    assert same(tmp_path / "out", made.out)


def test_damaged_photos_are_named_and_the_exit_code_says_so(made: Made, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG" + name.encode())
    files = (tmp_path / "one.png", tmp_path / "two.png", tmp_path / "three.png")
    command = made.command(tmp_path / "out", "--set", "adapt.steps=1")
    write_photo(tmp_path / "three.png", 8)
    done = call(command[0], *files, *command[1:])
    assert done.code == 2
    first, second, last = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert "one.png" in first
    assert "two.png" in second
    assert last == "error: 2 photos could not be used: repair them, and start again with --fresh"
    # Before any work.
    assert done.err.index("two.png") < done.err.index("refine 6/6")
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_limit_that_ends_before_the_training_gives_no_result(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_deadline", lambda text: Deadline(text, lambda: 9.0, 0.0))
    command = ("adapt", made.photos, *OPTIONS, "--refined", tmp_path / "refined", "--out", tmp_path / "out")
    done = call(*command, "--budget", "3s")
    assert done.code == 2
    assert "1 of 5 photos are refined, and nothing is trained" in done.complaints[-1]
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.usefixtures("never_loads")
def test_bad_options_are_one_line_before_any_work(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((made.photos / "none.png",), "none.png"),
        ((made.photos / "photo-0.png",), "one photo cannot be learned from and held out at once"),
        ((made.photos, "--keep", tmp_path / "empty"), "holds no photo"),
        ((made.photos, "--budget", "soon"), "the time limit 'soon'"),
        ((made.photos, "--set", "adapt.lerns=all"), "adapt.lerns"),
        ((made.photos, "--set", "depth_model.checkpoint=embedded:none"), "no embedded checkpoint"),
        ((made.photos, "--device", "cuda:7"), "cuda:7"),
    ):
        done = call("adapt", *arguments, "--preset", "smoke", "--out", tmp_path / "out")
        one_line(done, words)
    done = call("adapt", made.photos, "--preset", "smoke", "--out", made.photos)
    one_line(done, "inside the folder of the results")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_of_two_processes_the_first_one_alone_reports_a_damaged_photo(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    shutil.copytree(made.photos, tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG")
    _, _, *options = made.command(tmp_path / "out", "--set", "adapt.steps=2")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*start, "-m", "redepth", "adapt", str(tmp_path / "photos"), *map(str, options)]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    # torchrun's own code; that of the first process is in its report.
    assert done.returncode == 1
    assert done.stderr.count("1 photos could not be used") == 1
    assert done.stdout.count("3 photos learned from, 2 held out, 1 left out") == 1
    assert len(re.findall(r"exitcode  : 2", done.stderr)) == 1
    assert (tmp_path / "out" / "summary.json").is_file()


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_only_the_first_one_prints(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    command = made.command(tmp_path / "out")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*start, "-m", "redepth", *map(str, command)]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 photos learned from") == 1
    assert done.stderr.count("train 6/6") == 1
    one, two = (
        load_identity(out / "summary.json", Adapted, "adaptation") for out in (made.out, tmp_path / "out")
    )
    assert [v.step for v in two.validations] == [v.step for v in one.validations]
    for ours, theirs in zip(one.validations, two.validations, strict=True):
        assert theirs.distance == pytest.approx(ours.distance, rel=1e-3)
    assert not io.damage(two.checkpoint, two.files)


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share_is_an_error(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    command = made.command(tmp_path / "out", "--set", "adapt.batch=3")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*start, "-m", "redepth", *map(str, command)]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "adapt.batch 3 is not divisible by 2 processes" in done.stderr
