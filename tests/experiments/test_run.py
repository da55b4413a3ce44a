"""`redepth experiment`: rows, resuming, wrong input, and every experiment from end to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.data.datasets.synthetic import Synthetic
from redepth.errors import ConfigError, InputError
from redepth.experiments.grids import EXPERIMENTS, SIZES
from redepth.experiments.output import write
from redepth.experiments.planning import plan
from redepth.experiments.run import ArmResult, run_study
from redepth.experiments.study import EVALUATION_SEED, TUNING_SEED, Study
from redepth.optim.refiner import Refiner
from redepth.runtime.executors import Resources
from tests.support.command import call

TINY = ["optim.steps=2", "optim.members=1"]
ONE_THREAD = Resources(threads=1)
ARMS = ["trained", "smoothness only", "oracle"]


def make(name: str = "prior", *overrides: str, **options: Any) -> Study:
    settings: dict[str, Any] = {"images": 2, "size": 32} | options
    if name == "prior":
        settings.setdefault("arms", ARMS)
    return plan(name, "smoke", [*TINY, *overrides], **settings)


def test_files_of_albedos_are_refused_before_any_work(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "one.npy", np.full((32, 32, 3), 0.4, np.float32))
    for albedo in (tmp_path, tmp_path / "one.npy"):
        with pytest.raises(ConfigError, match="the scenes of an experiment have no files of albedos"):
            make("prior", f"renderer.albedo={albedo}")
    assert make("prior", "renderer.albedo=grey").arms


def test_rooms_have_no_strength() -> None:
    assert [s.strength for s in make(splits=["rooms", "unseen-rooms"], strengths=[]).sets] == [None, None]
    with pytest.raises(ConfigError, match="no shift to scale in rooms"):
        make(splits=["rooms"], strengths=[0.5])


def test_stored_scenes_are_not_tuned_on() -> None:
    study = make(splits=["relief", "path-traced", "path-traced-rooms"], tuning=True)
    assert [s.split for s in study.sets] == ["relief"]
    assert set(study.skipped) == {"path-traced", "path-traced-rooms"}
    with pytest.raises(InputError, match="path-traced-rooms: its scenes are stored: there are none apart"):
        make(splits=["path-traced-rooms"], tuning=True)
    (rooms,) = make(splits=["path-traced-rooms"]).sets
    assert rooms.images == ["living_room-00", "library-01"]


def test_the_true_albedo_is_lit_where_the_scenes_keep_it(tmp_path: Path) -> None:
    study = make("albedo", splits=["rooms", "path-traced"])
    assert list(study.arms) == ["photo", "grey"]
    assert study.skipped == {"true albedo": "needs the true albedo, which path-traced does not keep"}
    with pytest.raises(ConfigError, match=r"no arm of albedo can run: .*path-traced does not keep"):
        make("albedo", splits=["path-traced"], arms=["true albedo"])
    rows, failures = run_study(make("albedo", splits=["rooms"], images=1), tmp_path, ONE_THREAD)
    assert failures == {}
    assert [row.arm for row in rows] == ["photo", "grey", "true albedo"]
    assert len({row.after["silog"] for row in rows}) == 3


def numbers(rows: list[ArmResult]) -> list[dict[str, Any]]:
    """The rows without their times."""
    return [row.model_dump(exclude={"seconds", "memory_mib"}) for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, list[ArmResult]]:
    folder = tmp_path_factory.mktemp("finished")
    study = make()
    rows, failures = run_study(study, folder, ONE_THREAD)
    assert failures == {}
    write(study, rows, failures, folder)
    return study, folder, rows


def test_rows_say_what_was_measured_and_how(finished: tuple[Study, Path, list[ArmResult]]) -> None:
    study, folder, rows = finished
    assert [row.arm for row in rows] == [arm for arm in ARMS for _ in range(2)]
    stored = [
        ArmResult.model_validate_json(line) for line in (folder / "rows.jsonl").read_text().splitlines()
    ]
    assert stored == rows
    for row in rows:
        assert row.before["silog"] > 0
        assert row.before["normals_mean"] != row.after["normals_mean"]
        assert set(row.diagnostics) >= {"geometry_collapse", "hallucinated_edges"}
        assert row.protocol_sha256 == study.protocol.sha256
        assert row.seconds > 0
        assert row.image.endswith(str(EVALUATION_SEED + row.seed))
    first = {row.arm: row for row in rows if row.seed == 0}
    assert len({row.before["silog"] for row in first.values()}) == 1, "all arms start alike"
    assert len({row.after["silog"] for row in first.values()}) == len(ARMS)


def test_a_finished_experiment_does_nothing_again_and_a_damaged_row_is_made_again(
    finished: tuple[Study, Path, list[ArmResult]], tmp_path: Path
) -> None:
    study, folder, rows = finished
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    paths = sorted(copy.glob("images/*/*.json"))
    assert len(paths) == len(rows)
    paths[0].write_text('{"rows": [{"experi')
    paths[1].unlink()
    times = [path.stat().st_mtime_ns for path in paths[2:]]
    again, _ = run_study(study, copy, ONE_THREAD)
    assert numbers(again) == numbers(rows)
    assert [path.stat().st_mtime_ns for path in paths[2:]] == times


def test_a_row_of_another_version_or_another_scene_is_made_again(
    finished: tuple[Study, Path, list[ArmResult]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    study, folder, rows = finished
    copy, load = Path(shutil.copytree(folder, tmp_path / "copy")), Synthetic.load
    changed = study.sets[0].images[1]

    def otherwise(self: Synthetic, name: str) -> Any:
        sample = load(self, name)
        return replace(sample, truth=2 * sample.truth) if name == changed else sample

    monkeypatch.setattr(Synthetic, "load", otherwise)
    again, _ = run_study(study, copy, ONE_THREAD)
    assert numbers(again)[::2] == numbers(rows)[::2]
    words = [message.partition(": ")[2] for message in caplog.messages if "again" in message]
    assert words == ["measured again: the ground truth changed"] * len(ARMS)
    caplog.clear()
    monkeypatch.setattr("redepth.components.__version__", "9.9")
    monkeypatch.setattr("redepth.experiments.run.run_tasks", lambda *_: {})
    run_study(study, copy, ONE_THREAD)
    assert len([message for message in caplog.messages if "redepth 0" in message]) == len(rows)


@pytest.mark.slow
def test_more_arms_go_on_in_a_folder_and_another_experiment_is_refused(
    finished: tuple[Study, Path, list[ArmResult]], tmp_path: Path
) -> None:
    _, folder, _ = finished
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    more, failures = run_study(make(arms=[*ARMS, "imperfect teacher"]), copy, ONE_THREAD)
    assert failures == {}
    assert len(more) == 8
    for other, words in (
        (make("targets"), "experiment prior and targets"),
        (make(seed=3), "seed 0 and 3"),
        (make(tuning=True), "tuning False and True"),
        (make(images=1), "images 2 of relief and 1 of relief"),
        (make("prior", "optim.steps=3"), "smoke have other settings; arm oracle has other settings"),
        (make("prior", "optim.steps=3", arms=["random weights"]), "smoke and smoke have other settings"),
    ):
        with pytest.raises(ConfigError, match=f"holds another experiment.*{words}.*--fresh"):
            run_study(other, copy, ONE_THREAD)
    (tmp_path / "bench" / "images" / "smoke").mkdir(parents=True)
    (tmp_path / "bench" / "images" / "smoke" / "a.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds images of something else"):
        run_study(make(), tmp_path / "bench", ONE_THREAD, fresh=True)
    rows, _ = run_study(make(images=1), copy, ONE_THREAD, fresh=True)
    assert len(rows) == len(list(copy.glob("images/*/*.json"))) == 3


def test_a_stored_study_is_read_with_the_current_names_of_options() -> None:
    study = make()
    former = study.model_dump_json().replace('"condition_on"', '"tell"')
    assert former != study.model_dump_json()
    assert Study.model_validate_json(former) == study
    unknown = study.model_dump()
    unknown["base"]["prior"]["name"] = "of-a-package-that-is-not-installed"
    assert Study.model_validate(unknown).base.prior.options == study.base.prior.options


def test_a_failed_scene_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, load = make(arms=["trained"]), Synthetic.load
    bad = study.sets[0].images[0]

    def sometimes(self: Synthetic, name: str) -> Any:
        if name == bad:
            raise InputError(f"{name}: is damaged")
        return load(self, name)

    monkeypatch.setattr(Synthetic, "load", sometimes)
    rows, failures = run_study(study, tmp_path, ONE_THREAD)
    assert [row.image for row in rows] == [study.sets[0].images[1]]
    assert list(failures.values()) == [f"{bad}: is damaged"]
    monkeypatch.undo()
    assert len(run_study(study, tmp_path, ONE_THREAD)[0]) == 2


COMMAND = ["experiment", "prior", "--preset", "smoke", "--size", "32", "--images", "2", "--threads", "1"]
COMMAND += [part for override in TINY for part in ("--set", override)]
COMMAND += [part for arm in ARMS for part in ("--arm", arm)]


@pytest.mark.slow
def test_ctrl_c_inside_a_refinement_keeps_the_rows_before_and_the_command_goes_on(
    finished: tuple[Study, Path, list[ArmResult]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, rows = finished
    step = Refiner.step
    calls: list[int] = []

    def pressed(self: Refiner, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # the second step of the third task: there is a part to keep, and it must not be
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(Refiner, "step", pressed)
    done = call(*COMMAND, "--out", tmp_path)
    assert done.code == 130
    assert "finished tasks are kept" in done.err
    assert len(list(tmp_path.glob("images/*/*.json"))) == 2
    monkeypatch.undo()
    done = call(*COMMAND, "--out", tmp_path)
    assert done.code == 0, done.err
    stored = [
        ArmResult.model_validate_json(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()
    ]
    assert numbers(stored) == numbers(rows)
    for words in ("trained minus it", "smoothness only", "95 %"):
        assert words in done.out
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        f"{k}-{what}.jpg" for k in range(2) for what in ("depth", "normals")
    ]


@pytest.mark.slow
def test_parts_of_one_ensemble_are_the_runs_of_fewer_members(tmp_path: Path) -> None:
    """Members have independent random numbers: a run of one member is the first part of size 1."""
    study = make("ensemble", images=1)
    rows, failures = run_study(study, tmp_path / "many", ONE_THREAD)
    assert failures == {}
    counts = {f"N = {size}": max(SIZES) // size for size in SIZES}
    assert {arm: sum(row.arm == arm for row in rows) for arm in counts} == counts
    assert all(row.members == int(row.arm.split()[-1]) for row in rows)
    (alone,), _ = run_study(make(images=1, arms=["trained"]), tmp_path / "one", ONE_THREAD)
    assert rows[0].after["silog"] == pytest.approx(alone.after["silog"], rel=1e-4)
    ones = {row.after["silog"] for row in rows if row.members == 1}
    assert len(ones) == max(SIZES)
    cells = {cell.arm: cell for cell in write(study, rows, failures, tmp_path / "many")}
    assert cells["N = 1"].spread is not None
    assert cells["N = 20"].spread is None
    assert cells["N = 20"].against is None
    assert cells["N = 1"].against is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"ensemble", "prior", "adapt"}))
def test_the_other_experiments_run_from_end_to_end(name: str, tmp_path: Path) -> None:
    arguments = ["--preset", "smoke", "--size", "32", "--images", "1", "--threads", "1", "--set", TINY[0]]
    done = call("experiment", name, *arguments, "--out", tmp_path)
    assert done.code == 0, done.err
    assert EXPERIMENTS[name].question.split()[0] in done.out
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["arms"]) >= 5
    assert (tmp_path / "pictures").is_dir() == EXPERIMENTS[name].pictures


def test_tuning_takes_other_images(tmp_path: Path) -> None:
    study = make(tuning=True)
    assert study.tuning
    assert study.sets[0].options["seed"] == TUNING_SEED
    assert not set(study.sets[0].images) & set(make().sets[0].images)
    pytest.importorskip("skimage")
    with pytest.raises(ConfigError, match="motorcycle has 1 images: tuning on 1 leaves fewer to report"):
        plan("prior", "smoke", images=1, dataset="motorcycle", tuning=True)


def test_another_data_set_runs_without_the_arms_that_need_scenes() -> None:
    pytest.importorskip("skimage")
    study = plan("prior", "smoke", images=5, dataset="motorcycle")
    assert [found.label for found in study.sets] == ["motorcycle"]
    assert study.protocol.name == "motorcycle"
    assert "needs the true surface" in study.skipped["oracle"]
    assert study.arms["trained"].preset.depth_model.options["longer_side"] == 96


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["priors"], "unknown experiment 'priors'; did you mean 'prior'"),
        (["prior", "--images", "0"], "--images 0: give at least 1"),
        (["prior", "--arm", "traned"], "has no arm 'traned'; did you mean 'trained'"),
        (["prior", "--preset", "smok"], "unknown preset 'smok'"),
        (["prior", "--set", "optim.stps=3"], "unknown key 'optim.stps'"),
        (["prior", "--set", "prior.checkpoint=embedded:no"], "no embedded checkpoint 'no'"),
        (["prior", "--dataset", "kitti"], "root: field required"),
        (["prior", "--dataset", "kitti", "--root", "/nowhere"], "no image with ground truth there"),
        (["prior", "--dataset", "motorcycle", "--split", "sky"], "splits and strengths are of the data set"),
        (["shift", "--dataset", "motorcycle"], "splits and strengths are of the data set"),
        (["prior", "--split", "broad", "--strength", "0.5"], "--strength: no shift to scale in broad"),
        (["prior", "--option", "count=3"], "takes --split, --strength and --size, and no --option"),
        (["prior", "--dataset", "motorcycle", "--arm", "oracle"], "no arm of prior can run: oracle: needs"),
    ],
)
def test_bad_input_is_one_line_before_any_work(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = call("experiment", *arguments, "--out", tmp_path / "out")
    assert done.code == 2
    assert words in done.err
    assert len(done.complaints) == 1
    assert not (tmp_path / "out").exists()
