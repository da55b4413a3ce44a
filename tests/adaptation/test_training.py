"""The loop: what a step minimises, the schedule, the average, when it stops, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.adaptation import state
from redepth.adaptation.learned import Average, Learned
from redepth.adaptation.lessons import TOTAL, Lesson, LoadedPhoto, Place, Predictor, Validation
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.processes import Processes
from redepth.adaptation.training import TrainingReport, rate_factor
from redepth.config.adaptation import Adapt
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.optim.limits import Deadline
from tests.support.helpers import relative_error, tiny_depth_model
from tests.support.small_photos import write_photo
from tests.support.trainings import GreyDistance, LikeGrey, run, same, some_photos, weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[PhotoFile]:
    return some_photos(tmp_path_factory.mktemp("photos"))


def distances_of(values: Mapping[int, float], photos: list[PhotoFile]) -> Validation:
    """A validation whose n-th call for a photo returns the given numbers in turn."""
    ordered = iter(values.values())
    return Validation(tuple(photos[:1]), lambda raw, photo: next(ordered))


def test_it_learns_and_the_log_has_a_line_for_each_step_and_validation(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    before = weights(tiny_depth_model())
    model, trained = run(tmp_path, photos, steps=20, learning_rate=3e-3)
    rows = state.read_log(tmp_path)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    validated = {row["step"]: row["distance"] for row in rows if "distance" in row}
    assert list(validated) == [0, 3, 6, 9, 12, 15, 18, 20]
    assert validated == trained.distances
    assert trained.chosen == min(validated, key=lambda step: validated[step])
    assert (trained.steps, trained.finished, trained.stopped) == (20, True, "all 20 steps are done")
    assert not same(weights(model), before)
    assert not any(p.requires_grad for p in model.network().parameters())
    assert rows[1]["losses"]["learn"].keys() == {"error", "total"}
    total = rows[1]["losses"]["learn"]["total"] + 0.5 * rows[1]["losses"]["keep"]["total"]
    assert rows[1]["loss"] == pytest.approx(total)


def test_the_gradient_of_photos_one_by_one_is_that_of_their_mean(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    """One step against the same step written out: the mean of the losses at once, and torch's own AdamW."""
    lesson = Lesson("learn", tuple(photos), len(photos), LikeGrey(), weight=2.0)
    options = {"steps": 1, "warm_up": 0, "ema": 0.0, "batch": len(photos), "clip_norm": 1e6}
    model, _ = run(tmp_path, photos, lessons=[lesson], validation=None, **options)

    expected = tiny_depth_model()
    parameters = dict(expected.network().requires_grad_().named_parameters())
    losses = []
    for photo in photos:
        image = expected.prepare(loaded(photo))
        error = expected.decode(expected.encode(image)) - image.mean(dim=1, keepdim=True)
        losses.append((error**2).mean())
    (2.0 * torch.stack(losses).mean()).backward()
    gradients = {k: p.grad.clone() for k, p in parameters.items() if p.grad is not None}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=1e-4)
    before = weights(expected)
    optimizer.step()

    after = weights(model)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, value in weights(expected).items():
        # AdamW's first step is the sign of the gradient: where that is rounding, nothing can be compared.
        clear = gradients[name].abs() > 1e-5 * largest if name in gradients else torch.ones_like(value).bool()
        change, wanted = (after[name] - before[name])[clear], (value - before[name])[clear]
        assert torch.allclose(change, wanted, rtol=1e-3, atol=1e-8), name
    unused = set(parameters) - set(gradients)
    assert unused
    assert all(torch.equal(after[name], before[name]) for name in unused)


def loaded(photo: PhotoFile) -> Tensor:
    from redepth.adaptation.streaming import load

    return load(photo).tensor(torch.device("cpu"))


def test_the_norm_of_the_gradient_is_clipped_and_logged(photos: list[PhotoFile], tmp_path: Path) -> None:
    lesson = Lesson("learn", tuple(photos), 2, LikeGrey())
    for name, norm in (("free", 1e6), ("clipped", 1e-3)):
        run(tmp_path / name, photos, lessons=[lesson], validation=None, steps=1, clip_norm=norm)
    free, clipped = (state.load_state(tmp_path / n, identity_in(tmp_path / n)) for n in ("free", "clipped"))
    assert free is not None
    assert clipped is not None
    whole = state.read_log(tmp_path / "free")[0]["norm"]
    assert whole == pytest.approx(state.read_log(tmp_path / "clipped")[0]["norm"], rel=1e-6)
    # AdamW's first moment after one step is a tenth of the gradient.
    for stored, norm in ((free, whole), (clipped, 1e-3)):
        moments = stored[1]["optimizer exp_avg"].values()
        assert 10 * float(sum(m.double().square().sum() for m in moments) ** 0.5) == pytest.approx(
            norm, rel=1e-3
        )


def identity_in(folder: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(folder / state.STATE_FILE, "pt") as file:
        return dict(state.StateRecord.model_validate_json(file.metadata()[state.RECORD]).identity)


def test_the_rate_rises_and_falls_to_zero() -> None:
    factors = [rate_factor(step, 4, 20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(factors[4:]))
    assert rate_factor(20, 4, 20) == pytest.approx(0.0)
    assert rate_factor(0, 0, 1) == 1.0


def test_the_average_has_its_closed_form() -> None:
    model = tiny_depth_model()
    learned = Learned(model, Adapt(learns="all"), 0)
    average = Average(learned, 0.9)
    name, parameter = next(iter(learned.parameters.items()))
    values = [parameter.detach().clone().double()]
    for step in range(5):
        with torch.no_grad():
            parameter.add_(0.1 * (step + 1))
        values.append(parameter.detach().clone().double())
        average.update()
    expected = 0.9**5 * values[0] + sum(0.1 * 0.9 ** (5 - k) * values[k] for k in range(1, 6))
    assert relative_error(average.values[name].double(), expected) < 1e-6


def test_the_result_is_the_average_at_the_best_validation(photos: list[PhotoFile], tmp_path: Path) -> None:
    values = {0: 5.0, 3: 4.0, 6: 2.0, 9: 3.0, 12: 3.0}
    best, trained = run(tmp_path / "best", photos, steps=12, validation=distances_of(values, photos))
    assert trained.distances == values
    assert trained.chosen == 6
    # The same training looked at after 6 steps.
    stored = state.load_state(tmp_path / "best", identity_in(tmp_path / "best"))
    assert stored is not None
    assert all(torch.equal(weights(best)[k], v) for k, v in stored[1]["best"].items())
    assert not all(torch.equal(stored[1]["best"][k], v) for k, v in stored[1]["average"].items())
    assert not all(torch.equal(stored[1]["weights"][k], v) for k, v in stored[1]["average"].items())


def test_it_stops_early_and_a_model_that_got_worse_stays_as_it_was(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    values = {step: 1.0 + step for step in range(0, 30, 3)}
    model, trained = run(tmp_path, photos, steps=30, patience=2, validation=distances_of(values, photos))
    assert (trained.steps, trained.chosen, trained.finished) == (6, 0, True)
    assert trained.stopped == "2 validations without improvement since step 0"
    assert same(weights(model), weights(tiny_depth_model()))


def test_without_held_out_photos_the_result_is_the_last_average(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    model, trained = run(tmp_path, photos, validation=None)
    assert (trained.distances, trained.chosen, trained.steps) == ({}, 6, 6)
    stored = state.load_state(tmp_path, identity_in(tmp_path))
    assert stored is not None
    assert all(torch.equal(weights(model)[k], v) for k, v in stored[1]["average"].items())


def test_the_time_ends_it_with_the_best_weights_and_it_goes_on(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    ticks = iter(range(100))
    deadline = Deadline.start("4s", clock=lambda: float(next(ticks)))
    reports: list[TrainingReport] = []
    _, ended = run(tmp_path / "a", photos, deadline=deadline, on_report=reports.append)
    assert not ended.finished
    assert 0 < ended.steps < 6
    assert ended.stopped == "the time of 4s has ended"
    assert ended.steps in ended.distances
    assert all(report.left is not None and report.left <= 4 for report in reports if report.step)
    went_on, trained = run(tmp_path / "a", photos)
    whole, expected = run(tmp_path / "b", photos)
    assert replace(trained, seconds=0) == replace(expected, seconds=0)
    assert same(weights(went_on), weights(whole))


def test_a_finished_training_is_not_repeated(photos: list[PhotoFile], tmp_path: Path) -> None:
    model, trained = run(tmp_path, photos)
    distance = GreyDistance()
    again, repeated = run(tmp_path, photos, validation=Validation(tuple(photos[:2]), distance))
    assert repeated == trained
    assert distance.seen == []
    assert same(weights(again), weights(model))


@pytest.mark.parametrize("learns", ["decoder", "low-rank", "all"])
def test_reports_tell_what_is_left(learns: str, photos: list[PhotoFile], tmp_path: Path) -> None:
    reports: list[TrainingReport] = []
    run(tmp_path, photos, learns=learns, on_report=reports.append)
    assert [report.step for report in reports] == list(range(1, 7))
    assert [report.distance is not None for report in reports] == [True] * 6
    assert reports[-1].left == 0


def test_bfloat16_is_that_of_the_network_alone(photos: list[PhotoFile], tmp_path: Path) -> None:
    types = set()

    def loss(model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        raw = model.predict(model.prepare(photo.tensor(model.device)))
        types.add((raw.dtype, (raw @ raw.mT).dtype))
        return {TOTAL: (raw**2).mean()}

    lessons = [Lesson("learn", tuple(photos), 2, loss)]
    half, _ = run(tmp_path / "half", photos, lessons=lessons, precision="bfloat16", validation=None)
    run(tmp_path / "full", photos, lessons=lessons, precision="float32", validation=None)
    assert types == {(torch.float32, torch.float32)}
    assert {p.dtype for p in half.network().parameters()} == {torch.float32}
    first, second = (state.read_log(tmp_path / name)[0]["loss"] for name in ("half", "full"))
    assert first != second
    assert first == pytest.approx(second, rel=0.02)


# --- what it refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_photo_and_step_and_keeps_the_state(
    bad: float, photos: list[PhotoFile], tmp_path: Path
) -> None:
    def loss(model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        named = LikeGrey()(model, photo, place)
        worse = bad if place.step == 4 and place.slot == 1 else 1.0
        return {TOTAL: worse * named[TOTAL]}

    lessons = [Lesson("learn", tuple(photos), 2, loss)]
    with pytest.raises(RedepthError, match=r"step 5: the loss of photo\d \(total (nan|inf)\) is not finite"):
        run(tmp_path, photos, lessons=lessons)
    stored = state.load_state(tmp_path, identity_in(tmp_path))
    assert stored is not None
    assert stored[0].step == 3


def test_a_gradient_that_is_not_finite_names_the_photos(photos: list[PhotoFile], tmp_path: Path) -> None:
    def loss(model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        raw = model.predict(model.prepare(photo.tensor(model.device)))
        # The derivative of the root of 0 is infinite.
        return {TOTAL: (raw - raw.detach()).abs().sum().sqrt()}

    lessons = [Lesson("learn", tuple(photos[:1]), 1, loss)]
    with pytest.raises(RedepthError, match="step 1: the gradient of photo0 is not finite"):
        run(tmp_path, photos, lessons=lessons)


def test_a_folder_of_another_training_is_refused(photos: list[PhotoFile], tmp_path: Path) -> None:
    run(tmp_path, photos)
    with pytest.raises(ConfigError, match=r"another training \(adapt.ema 0.5 was used, it is 0.9 now\)"):
        run(tmp_path, photos, ema=0.9)
    with pytest.raises(ConfigError, match="another training"):
        run(tmp_path, photos[1:])
    with pytest.raises(ConfigError, match=r"another training \(seed 0 was used, it is 1 now\)"):
        run(tmp_path, photos, seed=1)
    run(tmp_path, photos, loaders=1)


def test_a_damaged_state_is_one_line(photos: list[PhotoFile], tmp_path: Path) -> None:
    run(tmp_path, photos)
    path = tmp_path / state.STATE_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is not the state of a training"):
        run(tmp_path, photos)


def test_a_limit_of_gpu_memory_is_refused_on_a_cpu(photos: list[PhotoFile], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vram=8GB limits the memory of a CUDA GPU.* computes on cpu"):
        run(tmp_path, photos, vram="8GB")


def test_out_of_memory_says_what_needs_less(photos: list[PhotoFile], tmp_path: Path) -> None:
    def loss(model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ConfigError, match=r"more memory than there is: .*adapt.learns=low-rank"):
        run(tmp_path, photos, lessons=[Lesson("learn", tuple(photos), 1, loss)])


def test_a_lesson_without_photos_and_a_loss_without_gradient_are_refused(
    photos: list[PhotoFile], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no photo is left for 'learn'"):
        run(tmp_path, photos, lessons=[Lesson("learn", (), 1, LikeGrey())])

    def loss(model: Predictor, photo: LoadedPhoto, place: Place) -> Mapping[str, Tensor]:
        return {TOTAL: LikeGrey()(model, photo, place)[TOTAL].detach()}

    with pytest.raises(ConfigError, match="has no gradient"):
        run(tmp_path, photos, lessons=[Lesson("learn", tuple(photos), 1, loss)])


def test_a_photo_that_is_gone_names_its_file(tmp_path: Path) -> None:
    photos = some_photos(tmp_path / "photos", 3)
    photos[0].path.unlink()
    with pytest.raises(InputError, match=r"photo0.png: no such file"):
        run(tmp_path / "out", photos, validation=None)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_photo_that_is_replaced_meanwhile_ends_the_training(held_out: bool, tmp_path: Path) -> None:
    photos = some_photos(tmp_path / "photos", 4)

    def replace_it(report: TrainingReport) -> None:
        if report.step == 1:
            write_photo(photos[0].path, 9)

    validation = Validation(tuple(photos[:1]), GreyDistance()) if held_out else None
    lessons = one_lesson(photos[1:] if held_out else photos)
    with pytest.raises(InputError, match=r"photo0\.png: changed since the run began"):
        run(tmp_path / "out", photos, lessons=lessons, validation=validation, on_report=replace_it)


def one_lesson(photos: list[PhotoFile]) -> list[Lesson]:
    return [Lesson("learn", tuple(photos), 4, LikeGrey(0.3))]


def test_order_and_names_of_the_photos_change_nothing(photos: list[PhotoFile], tmp_path: Path) -> None:
    def end(report: TrainingReport) -> None:
        if report.step == 4:
            raise KeyboardInterrupt

    def train(folder: Path, given: list[PhotoFile], **options: Any) -> Any:
        validation = Validation(tuple(given), GreyDistance())
        return run(folder, given, lessons=one_lesson(given), validation=validation, **options)

    renamed = [replace(photo, name=f"other {photo.name}") for photo in photos[::-1]]
    whole, expected = train(tmp_path / "whole", photos)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "ended", photos, on_report=end)
    went_on, trained = train(tmp_path / "ended", renamed)
    assert same(weights(went_on), weights(whole))
    assert trained.distances == expected.distances


def test_the_photos_that_make_it_another_training_are_named(photos: list[PhotoFile], tmp_path: Path) -> None:
    run(tmp_path, photos, lessons=one_lesson(photos[1:]), validation=None)
    with pytest.raises(ConfigError, match=r"another training \(photo0 did not belong to it\): .*--fresh"):
        run(tmp_path, photos, lessons=one_lesson(photos), validation=None)
    with pytest.raises(ConfigError, match=r"\(it has photo1, photo2, which cannot be used now\)"):
        run(tmp_path, photos, lessons=one_lesson(photos[3:]), validation=None)


def test_the_global_generator_is_left_alone(photos: list[PhotoFile], tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run(tmp_path, photos, learns="low-rank")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("learns", ["low-rank", "all"])
def test_it_trains_and_goes_on_on_a_device(
    learns: str, photos: list[PhotoFile], device: torch.device, tmp_path: Path
) -> None:
    """The losses of the first steps are those of a CPU; later ones differ by rounding."""
    options: dict[str, Any] = {"learns": learns, "precision": "float32", "learning_rate": 1e-5}

    def end(report: TrainingReport) -> None:
        if report.step == 4:
            raise KeyboardInterrupt

    where = {"processes": Processes(device)}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "there", photos, model=tiny_depth_model(device), on_report=end, **where, **options)
    model, trained = run(tmp_path / "there", photos, model=tiny_depth_model(device), **where, **options)
    run(tmp_path / "here", photos, **options)
    assert trained.finished
    assert {p.device.type for p in model.network().parameters()} == {device.type}
    here, there = (state.read_log(tmp_path / name) for name in ("here", "there"))
    assert [row["step"] for row in here] == [row["step"] for row in there]
    for expected, found in zip(here, there, strict=True):
        if "loss" in expected:
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
