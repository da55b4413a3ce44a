"""The files of a result: they are those of one refinement, whenever its process ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redepth
from redepth import io
from redepth.refinement import Refinement
from tests.support.small_photos import write_depth, write_photo

WRITTEN = "output.write=[map, preview, initial, uncertainty, normals, comparison, points]"
SMALL = ["optim.steps=1", "optim.members=1", WRITTEN]
FILES = {
    *("disparity.npy", "disparity.png", "initial.npy", "uncertainty.npy", "normals.png", "comparison.png"),
    *("points.ply", "run.json"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Refinement]:
    """Two refinements of one photo that differ in the seed, and one that predicts depth."""
    base = tmp_path_factory.mktemp("photos")
    photo, depth = write_photo(base / "a.png"), write_depth(base / "a.npy")
    pipeline = redepth.Pipeline("smoke", overrides=SMALL, device="cpu")
    given = ["depth_model.name=precomputed", f"depth_model.path={depth}", "depth_model.predicts=depth"]
    other = redepth.Pipeline(
        "smoke", overrides=[*SMALL, *given, "optim.parameterization=low-rank"], device="cpu"
    )
    return [*(pipeline.refine(photo, seed=seed) for seed in (0, 1)), other.refine(photo)]


def seed_of(folder: Path) -> int:
    """The seed that the record names, after a check that all files are those that it lists."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert io.damage(folder, record["files"]) == ""
    assert {path.name for path in folder.iterdir()} == {*record["files"], "run.json"}
    return record["seed"]


def test_the_record_lists_the_other_files(results: list[Refinement], tmp_path: Path) -> None:
    folder = results[0].save(tmp_path / "a")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert {*record["files"], "run.json"} == FILES
    assert seed_of(folder) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_that_a_limit_shortened_is_not_calibrated(results: list[Refinement]) -> None:
    preset = results[0].preset
    diagnostics = preset.diagnostics.model_copy(update={"calibrated_for": "embedded-relief"})
    whole = replace(results[0], preset=preset.model_copy(update={"diagnostics": diagnostics}))
    for steps_done, expected in (([1], "embedded-relief"), ([0], ""), ([1, 1], "")):
        run = replace(whole, outcome=replace(whole.outcome, steps_done=steps_done))
        assert {found.calibrated_for for found in run.diagnostics.values()} == {expected}


class Killed(BaseException):
    """The process ends here."""


def test_a_kill_at_any_file_leaves_the_old_or_the_new(
    results: list[Refinement], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results[0].save(tmp_path / "a")
    states = []
    for number in range(20):
        left = iter(range(number))

        def dying(function: Callable[..., Any], left: Any = left) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise Killed
                return function(*args, **options)

            return call

        with monkeypatch.context() as patched:
            for name in ("replace", "rename"):  # what gives a file or a folder its name
                patched.setattr(os, name, dying(getattr(os, name)))
            try:
                results[1].save(folder)
            except Killed:
                states.append("absent" if not folder.exists() else seed_of(folder))
            else:
                break
    # Eight files, then the two renames of the swap.
    assert states[:9] == [0] * 9
    assert set(states) == {0, 1, "absent"}
    io.recover(tmp_path)
    assert seed_of(folder) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_result_of_another_kind_takes_the_place_of_the_old_and_leaves_the_users_files(
    results: list[Refinement], tmp_path: Path
) -> None:
    folder = results[0].save(tmp_path / "a")
    (folder / "notes.txt").write_text("mine")
    results[2].save(folder)
    names = {path.name for path in folder.iterdir()}
    depth = {name.replace("disparity", "depth") for name in FILES}
    assert names == depth | {"notes.txt"}
    # Without a record, all names of results are ours.
    (folder / "run.json").write_text("{")
    results[0].save(folder)
    assert {path.name for path in folder.iterdir()} == FILES | {"notes.txt"}
    assert np.array_equal(np.load(folder / "disparity.npy"), results[0].refined)


def test_a_name_that_is_not_utf_8_is_saved(results: list[Refinement], tmp_path: Path) -> None:
    photo = write_photo(tmp_path / os.fsdecode(b"bad\xff.png"))
    result = redepth.Pipeline("smoke", overrides=SMALL, device="cpu").refine(photo)
    record = json.loads((result.save(tmp_path / "a") / "run.json").read_text(encoding="utf-8"))
    assert record["photo"]["source"] == str(photo)
