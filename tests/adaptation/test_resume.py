"""A training that is ended at any moment continues to the weights of one that was not, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from redepth.adaptation import state
from redepth.adaptation.lessons import LoadedPhoto, Place, Predictor, Validation
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.training import TrainingReport
from tests.support.trainings import GreyDistance, LikeGrey, lessons_of, run, same, some_photos, weights

ROOT = Path(__file__).parents[2]


class Ended(Exception):
    """What ends a training in a test."""


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / state.STATE_FILE)


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    some_photos(photos)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "tests.support.train_process", str(photos)]
    settings = json.dumps({"steps": 6})

    def train(out: Path, kill_after: int) -> int:
        command = [*program, str(out), settings, str(kill_after)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode

    assert train(tmp_path / "whole", 0) == 0
    # Before the first state, and after it.
    for kill_after in (2, 5):
        assert train(tmp_path / "killed", kill_after) == -signal.SIGKILL
    assert len(state.read_log(tmp_path / "killed")) == 7
    assert train(tmp_path / "killed", 0) == 0

    assert same(tensors_in(tmp_path / "killed"), tensors_in(tmp_path / "whole"))
    assert state.read_log(tmp_path / "killed") == state.read_log(tmp_path / "whole")
    files = [tmp_path / name / "checkpoint" / "model.safetensors" for name in ("killed", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("learns", ["decoder", "low-rank", "all"])
@pytest.mark.parametrize("after", [3, 4])
def test_what_ends_it_between_two_steps_changes_nothing(learns: str, after: int, tmp_path: Path) -> None:
    photos = some_photos(tmp_path / "photos")
    whole, expected = run(tmp_path / "whole", photos, learns=learns)

    def end(report: TrainingReport) -> None:
        if report.step == after:
            raise Ended

    with pytest.raises(Ended):
        run(tmp_path / "ended", photos, learns=learns, on_report=end)
    steps: list[int] = []
    resumed, trained = run(
        tmp_path / "ended", photos, learns=learns, on_report=lambda report: steps.append(report.step)
    )
    assert steps == [4, 5, 6]
    assert same(weights(resumed), weights(whole))
    assert trained.distances == expected.distances
    assert same(tensors_in(tmp_path / "ended"), tensors_in(tmp_path / "whole"))
    assert state.read_log(tmp_path / "ended") == state.read_log(tmp_path / "whole")


@dataclass
class Interruption:
    """Interrupts a training in or after its fifth step, or in the change and validation of an earlier one."""

    when: str
    changes: int = 0

    def on_report(self, report: TrainingReport) -> None:
        if self.when == "report" and report.step == 5:
            raise KeyboardInterrupt

    def on_change(self, *_: Any) -> None:
        self.changes += 1
        if self.when == "change" and self.changes == 5:
            raise KeyboardInterrupt

    def loss(self, model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, torch.Tensor]:
        if self.when == "gradient" and (place.step, place.slot) == (4, 2):
            raise KeyboardInterrupt
        return LikeGrey(0.3)(model, photo, place)

    def distance(self, raw: torch.Tensor, photo: PhotoFile) -> float:
        if self.when == "validation" and self.changes == 6:
            raise KeyboardInterrupt
        return GreyDistance()(raw, photo)


@pytest.mark.parametrize(("when", "step"), [("gradient", 4), ("report", 5), ("change", 3), ("validation", 3)])
def test_an_interrupt_loses_no_step_that_is_done(when: str, step: int, tmp_path: Path) -> None:
    """While weights change or are validated, the state is that of the last validation."""
    photos = some_photos(tmp_path / "photos")
    whole, expected = run(tmp_path / "whole", photos)
    interruption = Interruption(when)
    first, second = lessons_of(photos, 4)
    hook = register_optimizer_step_post_hook(interruption.on_change)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(
                tmp_path / "ended",
                photos,
                lessons=[replace(first, loss=interruption.loss), second],
                validation=Validation(tuple(photos[:2]), interruption.distance),
                on_report=interruption.on_report,
            )
    finally:
        hook.remove()
    reports: list[int] = []
    resumed, trained = run(tmp_path / "ended", photos, on_report=lambda report: reports.append(report.step))
    assert reports == list(range(step + 1, 7))
    assert same(weights(resumed), weights(whole))
    assert trained.distances == expected.distances
    assert same(tensors_in(tmp_path / "ended"), tensors_in(tmp_path / "whole"))
    assert state.read_log(tmp_path / "ended") == state.read_log(tmp_path / "whole")


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    photos = some_photos(tmp_path / "photos")

    def end(report: TrainingReport) -> None:
        if report.step == 5:
            raise Ended

    with pytest.raises(Ended):
        run(tmp_path / "out", photos, on_report=end)
    log = tmp_path / "out" / state.LOG_FILE
    log.write_text(log.read_text()[:-20])
    run(tmp_path / "out", photos)
    rows = state.read_log(tmp_path / "out")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "distance" in row] == [0, 3, 6]


def test_infinite_distances_are_stored(tmp_path: Path) -> None:
    record = state.StateRecord(identity={}, step=3, distances={0: float("inf"), 3: 1.0})
    state.save_state(tmp_path, record, {"weights": {"a": torch.ones(2)}})
    stored = state.load_state(tmp_path, {})
    assert stored is not None
    assert stored[0] == record
    assert torch.equal(stored[1]["weights"]["a"], torch.ones(2))
