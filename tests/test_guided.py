"""Known points, normals and planes from the command line and from Python to the files of a result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import redepth
from redepth import pipeline
from redepth.errors import ConfigError, InputError
from redepth.optim.outcome import Outcome
from redepth.optim.planning import run_within_limits
from tests.support.command import call

SMALL = ["optim.steps=2", "optim.members=1"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    ramp = np.linspace(30, 220, 64)[None, :] * np.ones((48, 1))
    rows = np.arange(48)[:, None] * 0.5
    Image.fromarray(np.stack([ramp, ramp - rows / 2, ramp], -1).astype(np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def agreeing(picture: Path, count: int = 12) -> list[list[float]]:
    """Points that agree with the initial depth under a scale and a shift."""
    initial = redepth.refine(picture, "smoke", overrides=SMALL, prompt="").initial
    spots = [(5 * i % 64, 7 * i % 48) for i in range(1, count + 1)]
    return [[x, y, float(1 / (0.05 * initial[y, x] + 0.1))] for x, y in spots]


def test_known_points_give_metres_and_guide(picture: Path, tmp_path: Path) -> None:
    rows = agreeing(picture)
    table = tmp_path / "points.csv"
    table.write_text("x,y,metres\n" + "".join(f"{x},{y},{z}\n" for x, y, z in rows))
    options = [f"--set={option}" for option in SMALL]
    arguments = ["refine", str(picture), "--preset=smoke", "--anchors", str(table), "--guide", *options]
    assert call(*arguments, "--out", str(tmp_path / "out")).code == 0
    record = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert record["metres"]["points"] == 12
    assert record["metres"]["inliers"] > 8
    assert record["metres"]["from"] == str(table)
    assert "anchors" in record["losses"]
    metres = np.load(tmp_path / "out" / "a" / "depth.npy")
    x, y, z = (np.array(column) for column in zip(*rows, strict=True))
    assert np.median(np.abs(metres[y.astype(int), x.astype(int)] / z - 1)) < 0.1

    result = redepth.refine(picture, "smoke", overrides=SMALL, prompt="", anchors=rows)
    assert result.metric_fit is not None
    assert result.depth_m is not None
    assert "anchors" not in result.outcome.history


def test_points_that_the_answer_contradicts_lose_no_work(
    picture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = agreeing(picture)

    def turned(*args: Any, **kwargs: Any) -> Outcome:
        outcome = run_within_limits(*args, **kwargs)
        return replace(outcome, members=outcome.initial.max() - outcome.members)

    monkeypatch.setattr(pipeline, "run_within_limits", turned)
    with caplog.at_level("WARNING"):
        result = redepth.refine(picture, "smoke", overrides=[*SMALL, "optim.blend=none"], anchors=rows)
    assert "after refinement the known points are nearer" in caplog.text
    assert result.metric_fit is not None
    assert result.metric_fit.scale == pytest.approx(0.05, rel=0.1)


def test_two_points_are_taken_with_a_warning_and_one_is_refused(picture: Path) -> None:
    rows = agreeing(picture, 3)
    result = redepth.refine(picture, "smoke", overrides=SMALL, prompt="", anchors=rows[:2])
    assert any("metres are uncertain" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="at least 2"):
        redepth.refine(picture, "smoke", overrides=SMALL, prompt="", anchors=rows[:1])
    with pytest.raises(ConfigError, match="no known points to guide"):
        redepth.refine(picture, "smoke", overrides=SMALL, prompt="", guide=True)


def test_normals_and_planes_add_their_objectives(picture: Path, tmp_path: Path) -> None:
    normals = np.zeros((48, 64, 3), np.float32)
    normals[..., 2] = -1.0
    labels = np.zeros((48, 64), np.uint8)
    labels[10:40, 10:50] = 1
    result = redepth.refine(
        picture,
        "smoke",
        overrides=SMALL,
        prompt="",
        normals=normals,
        normals_frame="opencv",
        planes=labels,
    )
    assert {"normals", "planes"} <= set(result.outcome.history)
    np.save(tmp_path / "n.npy", normals)
    done = call(
        "refine", str(picture), "--preset=smoke", "--normals", str(tmp_path / "n.npy"), "--out", str(tmp_path)
    )
    assert done.code != 0
    assert "away from the viewer" in done.err.replace("\n", " ")
