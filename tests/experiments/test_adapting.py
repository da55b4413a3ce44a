"""`redepth experiment adapt`: its plan, its photos, its adapted models and what is measured of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.adaptation.record import Adapted, Event, Validated
from redepth.bench import measure_both
from redepth.cli import progress
from redepth.components import resolve
from redepth.errors import ConfigError, InputError
from redepth.experiments import adapting, grids, unlabelled
from redepth.experiments.adapting import adaptation_of, measured_preset, model_folder, seconds_of
from redepth.experiments.feed_forward import predict
from redepth.experiments.planning import plan
from redepth.experiments.run import ArmResult, run_study
from redepth.experiments.study import EVALUATION_SEED, TUNING_SEED, Study, open_scenes
from redepth.pipeline import Pipeline
from redepth.protocols import prepare
from redepth.runtime.executors import Resources
from tests.support.command import call


def make(*overrides: str, **options: Any) -> Study:
    return plan("adapt", "smoke", overrides, **{"images": 2, "size": 48, "splits": ["relief"]} | options)


# --- the plan -------------------------------------------------------------------------------------


def test_each_set_of_scenes_has_its_own_adapted_models_which_know_no_scene_that_is_measured() -> None:
    study = make(splits=[], arms=["per photo", "distil", "distil + per photo"])
    assert list(study.arms) == [
        "per photo",
        "distil on relief",
        "distil + per photo on relief",
        "distil on shapes",
        "distil + per photo on shapes",
    ]
    measured: dict[str, list[str]] = {}
    for arm, scene in study.tasks():
        kinds = measured.setdefault(arm, [])
        if (kind := scene.partition("/")[0]) not in kinds:
            kinds.append(kind)
    assert measured == {
        "per photo": ["relief", "shapes", "in-domain"],
        "distil on relief": ["relief", "in-domain"],
        "distil + per photo on relief": ["relief"],
        "distil on shapes": ["shapes", "in-domain"],
        "distil + per photo on shapes": ["shapes"],
    }


def test_seeds_of_photos_are_apart_from_those_of_scenes() -> None:
    most = 10_000  # scenes that a data set can have
    firsts = sorted([TUNING_SEED, unlabelled.ADAPTATION_SEED, unlabelled.KEEP_SEED, EVALUATION_SEED])
    assert all(b - a >= most for a, b in pairwise(firsts))


def test_arms_differ_in_what_they_name() -> None:
    study = make(arms=[arm.name for arm in grids.experiment("adapt").arms(make().base)])
    assert study.skipped == {}
    runs = {run.label or name: run for name, run in study.arms.items()}
    assert runs["score, random weights"].preset.prior.options["weights"] == "random"
    assert runs["score, random weights"].preset.adapt.method == "score"
    assert runs["distil, smoothness only"].preset.optim.prior_weight == 0
    assert runs["distil, smoothness only"].preset.adapt.method == "distil"
    assert runs["distil"].preset.prior == study.base.prior
    assert adaptation_of(runs["distil, nothing kept"]).keep == 0
    counts = {run.adapt.photos for run in runs.values() if run.factor == "photos" and run.adapt}
    assert counts == {8, 16, 32, 64, 128}
    folders = {name: model_folder(Path(), run) for name, run in runs.items() if run.adapt}
    assert folders["distil"] == folders["distil + per photo"]
    assert len(set(folders.values())) == len(folders) - 1


def test_those_that_refine_photos_for_others_come_first_and_a_model_is_adapted_once() -> None:
    study = make(arms=["distil, 16 photos", "score", "distil", "distil + per photo", "score, random weights"])
    first, others = adapting._in_order(study, Path())
    assert first == ["distil on relief", "score, random weights on relief"]
    assert sorted(others) == ["distil, 16 photos on relief", "score on relief"]


@pytest.mark.parametrize("split", ["in-domain", "path-traced", "path-traced-rooms"])
def test_splits_that_nothing_can_be_adapted_to_are_refused(split: str) -> None:
    with pytest.raises(ConfigError, match=f"experiment adapt cannot adapt to {split}: the starting model"):
        make(splits=[split])


def test_other_data_has_no_photos_to_adapt_to() -> None:
    pytest.importorskip("skimage")
    study = plan("adapt", "smoke", dataset="motorcycle")
    assert list(study.arms) == ["per photo"]
    assert "needs more photos of the same kind" in study.skipped["distil"]


def test_a_depth_model_that_cannot_be_trained_has_the_reference_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.ones((48, 48), np.float32))
    given = (
        "depth_model.name=precomputed",
        f"depth_model.path={tmp_path / 'map.npy'}",
        "depth_model.predicts=depth",
        "optim.parameterization=depth",
    )
    study = make(*given)
    assert list(study.arms) == ["per photo"]
    assert "cannot be" in study.skipped["distil"]


# --- the photos -----------------------------------------------------------------------------------


def test_photos_are_written_without_loss(tmp_path: Path) -> None:
    study = make("adapt.steps=1", arms=["distil, 16 photos"])
    photos = adapting._write_photos(study, tmp_path)
    assert {label: len(paths) for label, paths in photos.items()} == {"relief": 16, "in-domain": 256}
    assert photos["relief"][0].name == f"relief-{unlabelled.ADAPTATION_SEED}.png"
    assert photos["in-domain"][0].name == f"in-domain-{unlabelled.KEEP_SEED}.png"
    reader = open_scenes("relief", 1.0, 1, 48, unlabelled.ADAPTATION_SEED)
    drawn = reader.load(reader.names()[0]).pixels()
    assert np.array_equal(io.load_photo(photos["relief"][0]), io.to_uint8(drawn) / np.float32(255))


def test_a_measured_scene_among_the_photos_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "ADAPTATION_SEED", EVALUATION_SEED - 15)
    with pytest.raises(ConfigError, match="relief: 1 measured scenes are among the photos to adapt to"):
        adapting._write_photos(make(arms=["distil, 16 photos"]), tmp_path)


# --- the models -----------------------------------------------------------------------------------


def test_the_time_of_an_adaptation_counts_photos_that_others_have_refined() -> None:
    study = make(arms=["distil, 16 photos", "score"])
    adapted = Adapted(
        folder=Path(),
        steps=1,
        chosen=1,
        stopped="all steps are done",
        validations=[Validated(step=0, distance=1)],
        training=14,
        held_out=["a", "b"],
        seconds={"refine": 0.0, "train": 100.0, "write": 1.0},
        refine_seconds=5.0,
    )
    assert seconds_of(adapted, study.arms["distil, 16 photos on relief"]) == 101 + 16 * 5
    assert seconds_of(adapted, study.arms["score on relief"]) == 101 + 2 * 5


def test_a_controls_prior_concerns_the_adaptation_alone(tmp_path: Path) -> None:
    study = make(arms=["per photo", "distil, random weights"])
    arm = study.arms["distil, random weights on relief"]
    measured = measured_preset(study, tmp_path, arm)
    assert measured.prior == study.base.prior
    checkpoint = tmp_path / "adapted" / f"relief, {adaptation_of(arm).name}" / "checkpoint"
    assert measured.depth_model.options["checkpoint"] == str(checkpoint)
    assert measured_preset(study, tmp_path, study.arms["per photo"]) == resolve(study.base)


def test_a_prediction_is_measured_as_the_start_of_a_refinement_is() -> None:
    study = make(arms=["per photo"])
    scene = next(study.scenes())
    sample = prepare(study.protocol, study.reader(scene.scenes).load(scene.image))
    pipeline = Pipeline(study.base, device="cpu")
    prediction = predict(pipeline, study.protocol, sample)
    outcome = pipeline.refine(sample.pixels(), prompt="").outcome
    initial = measure_both(study.protocol, sample, outcome)["initial"]
    assert prediction.measured.row.metrics == initial.row.metrics
    assert prediction.seconds > 0


# --- from end to end ------------------------------------------------------------------------------

SETTINGS = {
    "optim.steps": 2,
    "optim.members": 1,
    "adapt.steps": 2,
    "adapt.batch": 2,
    "adapt.validate_every": 1,
    "adapt.anchor.keep_photos": 1,
    "adapt.trust.flagged": "true",
    "adapt.trust.least": 0,
}
COMMAND = ["experiment", "adapt", "--preset", "smoke", "--size", "48", "--images", "1", "--split", "relief"]
COMMAND += [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
ARMS = ["per photo", "distil, 16 photos", "score"]


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The stored rows without their times."""
    times = {"seconds", "memory_mib", "adapt_seconds", "hardware"}
    rows = [ArmResult.model_validate_json(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [row.model_dump(exclude=times) for row in rows]


@pytest.mark.slow
def test_a_run_that_is_ended_within_an_adaptation_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [part for arm in ARMS for part in ("--arm", arm)]
    whole = call(*COMMAND, *arms, "--threads", "1", "--workers", "2", "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    rows = numbers(tmp_path / "whole")
    assert [(row["arm"], row["adapted_to"], row["split"]) for row in rows] == [
        ("per photo", "", "relief"),
        ("per photo", "", "in-domain"),
        ("score", "relief", "relief"),
        ("score", "relief", "in-domain"),
        ("distil, 16 photos", "relief", "relief"),
        ("distil, 16 photos", "relief", "in-domain"),
    ]
    assert rows[0]["before"] == rows[2]["before"] == rows[4]["before"]
    assert len({row["after"]["silog"] for row in rows}) == len(rows)
    for words in ("in-domain, 95 %", "adaptation, min", "per photo minus it"):
        assert words in whole.out

    def pressed(self: Any, name: str, event: Event) -> None:
        if event.stage == "train" and event.done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress._AdaptationLines, "__call__", pressed)
    ended = call(*COMMAND, *arms, "--threads", "1", "--out", tmp_path / "ended")
    assert ended.code == 130
    assert not list((tmp_path / "ended").glob("images/*/*.json"))
    monkeypatch.undo()
    again = call(*COMMAND, *arms, "--threads", "1", "--out", tmp_path / "ended")
    assert again.code == 0, again.err
    assert numbers(tmp_path / "ended") == rows
    models = sorted((tmp_path / "ended").glob("adapted/*/checkpoint/model.safetensors"))
    times = [path.stat().st_mtime_ns for path in models]
    assert len(times) == 2
    more = call(*COMMAND, *arms, "--arm", "distil, 16 photos", "--threads", "1", "--out", tmp_path / "ended")
    assert more.code == 0
    assert [path.stat().st_mtime_ns for path in models] == times


@pytest.mark.slow
def test_an_adaptation_that_fails_leaves_the_other_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> Adapted:
        raise InputError("none of 16 refined photos can be trusted")

    monkeypatch.setattr(adapting, "adapt", failing)
    study = make("optim.steps=2", "optim.members=1", images=1, arms=["per photo", "distil, 16 photos"])
    rows, failures = run_study(study, tmp_path, Resources(threads=1))
    assert [row.arm for row in rows] == ["per photo", "per photo"]
    assert failures == {
        ("distil, 16 photos on relief", scene.name): "none of 16 refined photos can be trusted"
        for scene in study.scenes()
    }
