"""An adaptation from photos to checkpoint: its result, its resuming, and what is refused before any work."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import redepth
from redepth import io
from redepth.adaptation import run, targets
from redepth.adaptation.losses import relative_depth_in
from redepth.adaptation.record import Adapted, Event, Job, differences, job_sha256
from redepth.adaptation.targets import load_target, stored_targets
from redepth.adaptation.validation import distance
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import ConfigError, InputError, WeightsError
from redepth.optim.limits import Deadline
from redepth.photo_inputs import decode
from redepth.pipeline import Pipeline
from redepth.runtime.lock import locked
from redepth.runtime.resume import load_identity
from tests.support.adaptations import SETTINGS, write_photos
from tests.support.helpers import CPU
from tests.support.small_photos import write_photo

SEED = 3


def smoke(*overrides: str) -> Preset:
    return resolve(load_preset("smoke", [*SETTINGS, *overrides]))


@dataclass(frozen=True)
class Made:
    """A finished adaptation with its photos, and the folder of its refinements."""

    photos: list[Path]
    refined: Path
    result: Adapted
    events: list[Event]

    def adapt(self, out: Path, *overrides: str, **options: Any) -> Adapted:
        """Call it again, with the same refinements."""
        options = {"refined": self.refined, "seed": SEED, "device": "cpu", **options}
        return redepth.adapt(self.photos, smoke(*overrides), out, **options)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return weights(self.result)


def weights(result: Adapted) -> dict[str, torch.Tensor]:
    return load_file(result.checkpoint / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("adapt")
    events: list[Event] = []
    photos = write_photos(home / "photos")
    result = redepth.adapt(
        photos,
        smoke(),
        home / "out",
        refined=home / "refined",
        seed=SEED,
        device="cpu",
        on_event=events.append,
    )
    return Made(photos, home / "refined", result, events)


@pytest.fixture
def never_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(run, "make_targets", explode)
    monkeypatch.setattr(run, "train", explode)


def predict(model: DepthAnything, path: Path) -> torch.Tensor:
    pixels = torch.from_numpy(decode(path).values).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model.decode(model.encode(model.prepare(pixels)))


# --- the result -----------------------------------------------------------------------------------


def test_the_result_is_better_on_held_out_photos_and_says_by_how_much(made: Made) -> None:
    result = made.result
    assert (result.training, len(result.held_out), result.steps) == (3, 2, 6)
    assert [v.step for v in result.validations] == [0, 2, 4, 6]
    assert result.finished
    assert result.chosen == min(result.validations, key=lambda v: v.distance).step > 0
    # What the summary says is what the checkpoint on disk does, measured from the photos anew.
    files = {file.name: file for file in run.photo_files.find(made.photos)}
    held_out = [files[name] for name in result.held_out]
    rows = stored_targets(held_out, smoke(), made.refined, seed=SEED)
    for checkpoint, expected in ((None, result.before), (result.checkpoint, result.after)):
        chosen = str(checkpoint or "embedded:relief-depth")
        model = DepthAnything(checkpoint=chosen, longer_side=56, antialias=True, scale=7.0).load(CPU)
        measured = []
        for photo in held_out:
            target = load_target(made.refined, rows[photo.name])
            raw = predict(model, photo.path)
            measured.append(distance(raw, target, relative_depth_in(model, target.unit)))
        assert statistics.mean(measured) == pytest.approx(expected, rel=1e-5)


def test_the_folder_holds_what_the_page_says(made: Made) -> None:
    folder = made.result.folder
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapt.json", "checkpoint", "preset.yaml", "report.html", "summary.json", "training"}
    assert {path.name for path in (folder / "checkpoint").iterdir()} == set(made.result.files)
    assert load_identity(folder / "summary.json", Adapted, "adaptation") == made.result
    assert not io.damage(made.result.checkpoint, made.result.files)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f"{name}: " in html for name in made.result.held_out)
    assert html.count("data:image/jpeg") == 2 * 7
    card = (folder / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert f"| after | {made.result.after:.2f} % |" in card
    assert "photo-0" not in card


def test_the_progress_has_every_stage_in_order(made: Made) -> None:
    assert list(dict.fromkeys(event.stage for event in made.events)) == ["check", "refine", "train", "write"]
    last = {event.stage: event for event in made.events}
    assert [(e.done, e.total) for e in last.values()] == [(5, 5), (5, 5), (6, 6), (2, 2)]
    assert not any(event.failed for event in made.events)


@pytest.mark.parametrize("way", ["preset.yaml", "--set"])
def test_the_adapted_prediction_is_the_initial_map_of_a_refinement(way: str, made: Made) -> None:
    checkpoint = made.result.checkpoint
    if way == "--set":
        preset: Any = smoke(f"depth_model.checkpoint={checkpoint}")
    else:
        preset = made.result.folder / "preset.yaml"
    pipeline = Pipeline(preset, device="cpu")
    assert pipeline.refiner.depth_model.scale == 7.0
    refinement = pipeline.refine(made.photos[0])
    model = DepthAnything(checkpoint=str(checkpoint), longer_side=56, antialias=True, scale=7.0).load(CPU)
    expected = predict(model, made.photos[0])
    assert torch.allclose(refinement.outcome.initial, expected, rtol=1e-5, atol=1e-6)
    start = DepthAnything(checkpoint="embedded:relief-depth", longer_side=56, antialias=True).load(CPU)
    assert not torch.allclose(predict(start, made.photos[0]), expected, rtol=1e-2)


# --- again ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("never_trains")
def test_a_finished_adaptation_is_returned_as_it_is(made: Made) -> None:
    events: list[Event] = []
    assert made.adapt(made.result.folder, on_event=events.append) == made.result
    assert events == []


@pytest.mark.usefixtures("never_trains")
@pytest.mark.parametrize(
    ("overrides", "options", "words"),
    [
        (("adapt.steps=7",), {}, "adapt.steps 6 was used, it is 7 now"),
        ((), {"seed": 4}, "seed 3 was used, it is 4 now"),
        ((), {"keep": True}, "0 photos to keep were used, it is 1 now, of which 0 are the same"),
    ],
)
def test_other_settings_are_an_error_with_the_difference(
    overrides: tuple[str, ...], options: dict[str, Any], words: str, made: Made, tmp_path: Path
) -> None:
    if options.get("keep"):
        options = {"keep": [write_photo(tmp_path / "kept.png", 9)]}
    before = (made.result.folder / "adapt.json").read_bytes()
    with pytest.raises(ConfigError, match=words) as error:
        made.adapt(made.result.folder, *overrides, **options)
    assert "--fresh" in str(error.value)
    assert (made.result.folder / "adapt.json").read_bytes() == before


def test_what_changes_no_number_is_no_difference(made: Made) -> None:
    job = load_identity(made.result.folder / "adapt.json", Job, "adaptation")
    other = smoke("adapt.loaders=2", "output.write=all", "optim.vram=8GB", "optim.members_per_batch=1")
    renamed = {f"other-{name}": value for name, value in reversed(job.photos.items())}
    for same_job in ({"preset": other}, {"photos": renamed}):
        assert list(differences(job, job.model_copy(update=same_job))) == []
        assert job_sha256(job.model_copy(update=same_job)) == job_sha256(job)
    # A limit of time may end a refinement earlier.
    limited = job.model_copy(update={"preset": smoke("optim.budget=1h")})
    assert list(differences(job, limited)) == ["optim.budget None was used, it is 1h now"]
    assert job_sha256(limited) != job_sha256(job)
    less = dict(list(job.photos.items())[1:])
    (words,) = differences(job, job.model_copy(update={"photos": less}))
    assert words == "5 photos were used, it is 4 now, of which 4 are the same"


def interrupt_at(step: int) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.stage == "train" and event.done == step:
            raise KeyboardInterrupt

    return on_event


def test_one_that_was_ended_continues_to_the_same_weights(made: Made, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        made.adapt(tmp_path, on_event=interrupt_at(5))
    assert not (tmp_path / "summary.json").exists()
    events: list[Event] = []
    again = made.adapt(tmp_path, on_event=events.append)
    # From the last step on, and no photo is refined again.
    assert [e.done for e in events if e.stage == "train"] == [6]
    assert not [e for e in events if e.stage in ("check", "refine")]
    assert same(weights(again), made.weights)
    assert again.validations == made.result.validations


@pytest.mark.slow
def test_fresh_trains_again_and_keeps_refinements_that_hold(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.result.folder, tmp_path / "out"))
    events: list[Event] = []
    result = made.adapt(folder, "adapt.steps=2", fresh=True, on_event=events.append)
    assert (result.steps, [v.step for v in result.validations]) == (2, [0, 2])
    assert [e.done for e in events if e.stage == "train"] == [1, 2]
    assert not [e for e in events if e.stage == "refine"]


@pytest.mark.usefixtures("never_trains")
def test_fresh_that_is_killed_leaves_no_old_result_as_the_new_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(made.result.folder, tmp_path / "out"))
    (folder / "training" / "mine").mkdir()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    # Before the new job is written, all of the old one's training is gone.
    monkeypatch.setattr(run, "claim", killed)
    with pytest.raises(KeyboardInterrupt):
        made.adapt(folder, "adapt.steps=2", fresh=True)
    assert not (folder / "summary.json").exists()
    assert [path.name for path in (folder / "training").iterdir()] == ["mine"]
    # And a result is that of its own job alone.
    job = load_identity(made.result.folder / "adapt.json", Job, "adaptation")
    assert run.finished_result(made.result.folder, job) == made.result
    other = job.model_copy(update={"preset": smoke("adapt.steps=2")})
    assert run.finished_result(made.result.folder, other) is None


@pytest.mark.parametrize("damaged", ["checkpoint/model.safetensors", "report.html"])
def test_a_damaged_result_is_written_again_from_the_state(damaged: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.result.folder, tmp_path / "out"))
    (folder / damaged).write_bytes(b"")
    events: list[Event] = []
    result = made.adapt(folder, on_event=events.append)
    assert {event.stage for event in events} == {"write"}
    assert same(weights(result), made.weights)
    assert (folder / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") == 2 * 7


@pytest.mark.usefixtures("never_trains")
def test_without_the_state_the_report_is_written_from_the_numbers(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.result.folder, tmp_path / "out"))
    shutil.rmtree(folder / "training")
    (folder / "report.html").unlink()
    result = made.adapt(folder)
    assert f"to {result.after:.2f} %" in (folder / "report.html").read_text(encoding="utf-8")
    assert result == made.adapt(folder)
    assert not io.damage(folder, result.report)


@pytest.mark.usefixtures("never_trains")
@pytest.mark.parametrize("change", ["moved", "missing", "damaged"])
def test_the_preset_names_the_checkpoint_where_it_is(change: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.result.folder, tmp_path / "moved"))
    if change == "missing":
        (folder / "preset.yaml").unlink()
    if change == "damaged":
        (folder / "preset.yaml").write_bytes(b"\xff")
    made.adapt(folder)
    options = load_preset(folder / "preset.yaml").depth_model.options
    assert options["checkpoint"] == str(folder / "checkpoint")
    assert options["scale"] == 7.0


@pytest.mark.slow
def test_the_time_limit_gives_the_best_so_far_and_the_next_call_continues(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    # A second for each look at the clock: the budget ends during the training, whatever the machine.
    monkeypatch.setattr(run, "_deadline", lambda text: Deadline(text, lambda: float(next(clock)), 0.0))
    partial = made.adapt(tmp_path, budget="3s")
    assert not partial.finished
    assert 0 < partial.steps < 6
    assert "3s" in partial.stopped
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()
    monkeypatch.undo()
    result = made.adapt(tmp_path)
    assert result.finished
    assert same(weights(result), made.weights)


# --- photos that cannot be used -------------------------------------------------------------------


def test_damaged_photos_are_named_before_any_work_and_the_others_used(made: Made, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(made.photos[0].read_bytes()[:200])
    events: list[Event] = []
    files = [broken, *made.photos]
    options: dict[str, Any] = {"refined": made.refined, "seed": SEED, "device": "cpu"}
    result = redepth.adapt(files, smoke("adapt.steps=2"), tmp_path / "out", on_event=events.append, **options)
    assert result.failed == ["broken"]
    assert "broken.png" in result.left_out["broken"]
    assert result.training + len(result.held_out) == 5
    failed = [event for event in events if event.failed]
    assert [(e.stage, e.total) for e in failed] == [("check", 6)]
    # It stays known, also to a call that finds the result finished.
    assert redepth.adapt(files, smoke("adapt.steps=2"), tmp_path / "out", **options) == result


@pytest.mark.usefixtures("never_trains")
def test_one_albedo_is_not_lit_on_several_photos(made: Made, tmp_path: Path) -> None:
    io.save_npy(tmp_path / "one.npy", np.full((48, 64, 3), 0.4, np.float32))
    with pytest.raises(InputError, match="an albedo belongs to one photo, 5 were given"):
        made.adapt(tmp_path / "out", f"renderer.albedo={tmp_path / 'one.npy'}")
    for number, folder in enumerate(("a", "b")):
        write_photo(tmp_path / folder / "cat.png", number)
    (tmp_path / "albedos").mkdir()
    shutil.copy(tmp_path / "one.npy", tmp_path / "albedos" / "cat.npy")
    twins = [tmp_path / "a" / "cat.png", tmp_path / "b" / "cat.png"]
    with pytest.raises(InputError, match="has one albedo for both, by their name cat"):
        redepth.adapt(twins, smoke(f"renderer.albedo={tmp_path / 'albedos'}"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_photo_without_an_albedo_is_named_before_any_work(made: Made, tmp_path: Path) -> None:
    albedos = tmp_path / "albedos"
    for photo in made.photos[1:]:
        io.save_npy(albedos / f"{photo.stem}.npy", np.full((48, 64, 3), 0.4, np.float32))
    events: list[Event] = []
    options = {"on_event": events.append, "refined": tmp_path / "refined"}
    result = made.adapt(
        tmp_path / "out", f"renderer.albedo={albedos}", "adapt.steps=2", "optim.steps=1", **options
    )
    assert result.failed == [made.photos[0].stem]
    assert "must hold one albedo of its name" in result.left_out[made.photos[0].stem]
    assert [event.stage for event in events if event.failed] == ["check"]


def test_what_cannot_be_trusted_is_left_out_with_the_reason(made: Made, tmp_path: Path) -> None:
    rows = stored_targets(run.photo_files.find(made.photos), smoke(), made.refined, seed=SEED)
    found = {name: row.diagnostics["over_smoothing"]["value"] for name, row in rows.items()}
    worst = max(found, key=lambda name: found[name])
    # A threshold that the worst one alone is above; another one needs no new refinement.
    low, high = sorted(found.values())[-2:]
    strict = ("adapt.trust.flagged=false", "diagnostics.thresholds.hallucinated_edges=1")
    threshold = f"diagnostics.thresholds.over_smoothing={(low + high) / 2}"
    events: list[Event] = []
    result = made.adapt(tmp_path / "out", *strict, threshold, "adapt.steps=1", on_event=events.append)
    assert list(result.left_out) == [worst]
    assert f"{high:.2g}, above {(low + high) / 2:.2g}" in result.left_out[worst]
    assert result.failed == []
    assert result.training + len(result.held_out) == 4
    assert not [event for event in events if event.stage == "refine"]
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert worst in html.partition("Left out</h2>")[2]
    nothing = ("adapt.trust.flagged=false", "diagnostics.thresholds.hallucinated_edges=0")
    with pytest.raises(InputError, match=r"none of \d refined .* can be trusted"):
        made.adapt(tmp_path / "none", *nothing)


def test_a_photo_to_keep_and_one_to_learn_from_may_share_a_name(made: Made, tmp_path: Path) -> None:
    files = []
    for folder in ("learn", "keep"):
        files.append(tmp_path / folder / "broken.png")
        files[-1].parent.mkdir()
        files[-1].write_bytes(b"\x89PNG" + folder.encode())
    learned, kept = files
    options: dict[str, Any] = {"refined": made.refined, "seed": SEED, "device": "cpu"}
    photos = [learned, *made.photos]
    result = redepth.adapt(photos, smoke("adapt.steps=1"), tmp_path / "out", keep=str(kept), **options)
    assert result.failed == ["broken", "broken (--keep)"]
    assert {name: why.partition(":")[0] for name, why in result.left_out.items()} == {
        "broken": str(learned),
        "broken (--keep)": str(kept),
    }


def test_held_out_photos_are_refined_and_judged_first(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    options: dict[str, Any] = {"refined": tmp_path / "refined", "on_event": events.append}
    nothing = ("adapt.trust.flagged=false", "diagnostics.thresholds.hallucinated_edges=0")
    with pytest.raises(InputError, match="none of 2 refined held-out photos can be trusted") as error:
        made.adapt(tmp_path / "out", *nothing, **options)
    assert "adapt.held_out=0" in str(error.value)
    assert [(e.done, e.total) for e in events if e.stage == "refine"] == [(1, 5), (2, 5)]
    assert caplog.messages == []


def test_few_held_out_photos_are_a_warning(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made.adapt(tmp_path / "out", "adapt.steps=1")
    assert "few held-out photos decide when to stop (2): give more photos" in caplog.text


def test_where_no_photo_can_be_refined_the_error_says_why(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk melted")

    monkeypatch.setattr(targets.Pipeline, "refine", fails)
    with pytest.raises(
        InputError, match=r"none of 2 held-out photos could be refined; photo-.*the disk melted"
    ):
        made.adapt(tmp_path / "out", refined=tmp_path / "refined")


def test_a_folder_has_one_adaptation_at_a_time(made: Made, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="is writing there"):
        made.adapt(tmp_path)


@pytest.mark.usefixtures("never_trains")
def test_bad_input_is_refused_before_any_work(made: Made, tmp_path: Path) -> None:
    photos, out = made.photos, tmp_path / "out"
    (tmp_path / "empty").mkdir()
    inside = write_photo(out / "sub" / "a.png")
    other = write_photo(tmp_path / "other.png", 9)
    (tmp_path / "file").touch()
    (out / "start").mkdir()
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InputError, "holds no photo", {"photos": [tmp_path / "empty"]}),
        (InputError, "no photo given", {"photos": []}),
        (InputError, "one photo .* adapt.held_out=0", {"photos": photos[:1]}),
        (InputError, "holds no photo", {"keep": [tmp_path / "empty"]}),
        (InputError, "inside the folder of the results", {"photos": [*photos, inside]}),
        (InputError, "inside the folder of the results", {"keep": [inside]}),
        (InputError, "cannot learn from this photo and stay as it is", {"keep": photos[:1]}),
        (
            ConfigError,
            "keep_weight=0 keeps the model as it is on no photo",
            {"keep": other, "overrides": ["adapt.anchor.keep_weight=0"]},
        ),
        (ConfigError, "--refined .*file.* is no folder", {"refined": tmp_path / "file"}),
        (ConfigError, "--refined .*file.* is no folder", {"refined": tmp_path / "file" / "sub"}),
        (ConfigError, "is the folder of the results, or around it", {"refined": out}),
        (ConfigError, "is the folder of the results, or around it", {"refined": tmp_path}),
        (
            ConfigError,
            "depth_model.checkpoint .* is inside the folder of the results",
            {"overrides": [f"depth_model.checkpoint={out / 'start'}"]},
        ),
        (ConfigError, "the time limit 'soon'", {"budget": "soon"}),
        (ConfigError, "optim.vram", {"vram": "much"}),
        (ConfigError, "adapt.method", {"overrides": ["adapt.method=magic"]}),
        (
            ConfigError,
            r"Precomputed cannot be adapted: .* \(.*depth-anything, ",
            {
                "overrides": [
                    "depth_model.name=precomputed",
                    "depth_model.path=x",
                    "depth_model.predicts=depth",
                    "optim.parameterization=low-rank",
                ]
            },
        ),
        (WeightsError, "no embedded checkpoint", {"overrides": ["depth_model.checkpoint=embedded:none"]}),
    ]
    for kind, words, changes in cases:
        options: dict[str, Any] = {"photos": photos, "overrides": [], "device": "cpu", **changes}
        given = options.pop("photos")
        overrides = [*SETTINGS, *options.pop("overrides")]
        if "depth_model.name=precomputed" in overrides:
            overrides.remove("depth_model.longer_side=56")
        with pytest.raises(kind, match=words):
            redepth.adapt(given, "smoke", out, overrides=overrides, **options)


@pytest.mark.usefixtures("never_trains")
def test_a_folder_without_a_usable_photo_is_an_error(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG" + name.encode())
    events: list[Event] = []
    with pytest.raises(InputError, match="no photo can be used"):
        redepth.adapt([tmp_path], smoke(), tmp_path / "out", device="cpu", on_event=events.append)
    assert [event.failed for event in events] == [True, True]


# --- methods --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("learns", ["decoder", "low-rank"])
def test_score_needs_no_refinement_of_what_it_learns_from(learns: str, made: Made, tmp_path: Path) -> None:
    if learns == "low-rank":
        pytest.importorskip("peft")
    events: list[Event] = []
    keep = [write_photo(tmp_path / "kept.png", 9)]
    result = redepth.adapt(
        made.photos,
        smoke("adapt.method=score", f"adapt.learns={learns}", "adapt.steps=2", "adapt.anchor.weight=1"),
        tmp_path / "out",
        keep=keep,
        seed=SEED,
        device="cpu",
        on_event=events.append,
    )
    assert [e.done for e in events if e.stage == "refine"] == [1, 2]  # the held-out ones
    assert (result.steps, result.keep, result.training) == (2, 1, 3)
    assert 0 < result.learned[0] < result.learned[1]
    DepthAnything(checkpoint=str(result.checkpoint), longer_side=56).load(CPU)
    html = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "photos to keep" in html


@pytest.mark.slow
def test_without_held_out_photos_the_last_weights_are_the_result(made: Made, tmp_path: Path) -> None:
    result = made.adapt(tmp_path, "adapt.held_out=0", "adapt.steps=3")
    assert (result.before, result.after, result.chosen, result.held_out) == (None, None, 3, [])
    assert result.training == 5
    assert not same(weights(result), made.weights)
    assert "No photos were held out" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_photos_to_keep_change_what_is_learned(made: Made, tmp_path: Path) -> None:
    keep = [write_photo(tmp_path / "kept.png", 9)]
    result = made.adapt(tmp_path / "out", "adapt.steps=2", "adapt.anchor.keep_photos=1", keep=keep)
    alone = made.adapt(tmp_path / "alone", "adapt.steps=2")
    assert result.keep == 1
    assert not same(weights(result), weights(alone))
