"""`redepth experiment adapt`: its plan, its photos, its adapted models and what is measured of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.adaptation.record import Adapted, Validated
from redepth.components import resolve
from redepth.errors import ConfigError
from redepth.experiments import adapting, grids, unlabelled
from redepth.experiments.adapting import adaptation_of, measured_preset, model_folder, seconds_of
from redepth.experiments.feed_forward import predict
from redepth.experiments.planning import plan
from redepth.experiments.study import EVALUATION_SEED, TUNING_SEED, Study, open_scenes
from redepth.pipeline import Pipeline
from redepth.protocols import prepare


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
    assert counts == {16, 32, 64, 128, 256}
    folders = {name: model_folder(Path(), run) for name, run in runs.items() if run.adapt}
    assert folders["distil"] == folders["distil + per photo"]
    assert len(set(folders.values())) == len(folders) - 1


def test_those_that_refine_photos_for_others_come_first_and_a_model_is_adapted_once() -> None:
    study = make(arms=["distil, 16 photos", "score", "distil", "distil + per photo", "score, random weights"])
    first, others = adapting._in_order(study, Path())
    assert first == ["distil on relief", "score, random weights on relief"]
    assert sorted(others) == ["distil, 16 photos on relief", "score on relief"]


@pytest.mark.parametrize("split", ["in-domain", "path-traced"])
def test_splits_that_nothing_can_be_adapted_to_are_refused(split: str) -> None:
    with pytest.raises(ConfigError, match=f"experiment adapt cannot adapt to {split}: the starting model"):
        make(splits=[split])


def test_other_data_has_no_photos_to_adapt_to() -> None:
    pytest.importorskip("skimage")
    study = plan("adapt", "smoke", dataset="motorcycle")
    assert list(study.arms) == ["per photo"]
    assert "needs more photos of the same kind" in study.skipped["distil"]


# --- the photos -----------------------------------------------------------------------------------


def test_photos_are_written_without_loss(tmp_path: Path) -> None:
    study = make("adapt.steps=1", arms=["distil, 16 photos"])
    photos = adapting._write_photos(study, tmp_path)
    assert {label: len(paths) for label, paths in photos.items()} == {"relief": 16, "in-domain": 128}
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
    from redepth.bench import measure_both

    initial = measure_both(study.protocol, sample, outcome)["initial"]
    assert prediction.measured.row.metrics == initial.row.metrics
    assert prediction.seconds > 0
