"""The method distil: what the losses of a photo are made of, and that they lead to the refinements."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from redepth import io
from redepth.adaptation.distilling import Distil, Keep
from redepth.adaptation.lessons import LoadedPhoto, Place
from redepth.adaptation.losses import distil_loss, drift, keep_loss, relative_depth_in
from redepth.adaptation.methods import Material, validation_of
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.targets import Target, TargetRow, load_target, make_targets
from redepth.adaptation.validation import distance
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.contracts import DepthModel
from redepth.errors import InputError
from redepth.ops.camera import Camera
from redepth.optim.refiner import unit_of
from redepth.pipeline import Pipeline
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.helpers import CPU, tiny_depth_model
from tests.support.small_photos import write_photo

PLACE = Place(seed=0, step=0, slot=0, progress=0.0)


class Learner:
    """A `lessons.Predictor`: all weights of a depth model, with gradients."""

    def __init__(self, model: DepthModel) -> None:
        self.model, self.device = model, CPU
        self.weights = {
            part: {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
            for part, parameters in (
                ("encoder", model.encoder_parameters()),
                ("decoder", model.decoder_parameters()),
            )
        }

    def parameters(self) -> list[Tensor]:
        return [value for part in self.weights.values() for value in part.values()]

    def reached(self) -> set[str]:
        """The parts of which most weights have a gradient; a network may have some that it does not use."""
        return {
            part
            for part, values in self.weights.items()
            if sum(v.grad is not None and bool(v.grad.any()) for v in values.values()) > len(values) / 2
        }

    def prepare(self, photo: Tensor) -> Tensor:
        return self.model.prepare(photo)

    def predict(self, image: Tensor) -> Tensor:
        features = self.model.encode(image, self.weights["encoder"])
        return self.model.decode(features, self.weights["decoder"])


@dataclass(frozen=True)
class Stored:
    preset: Preset
    folder: Path
    photos: list[LoadedPhoto]
    rows: dict[str, TargetRow]

    @property
    def model(self) -> DepthModel:
        return Pipeline(self.preset, device="cpu").refiner.depth_model

    def distance(self, model: DepthModel) -> Callable[[Tensor, PhotoFile], float]:
        """The distance of the validation on the photos."""
        files = [photo.file for photo in self.photos]
        validation = validation_of(Material(self.preset, [], files, [], self.folder, self.rows), model)
        assert validation is not None
        return validation.distance


def loaded(path: Path) -> LoadedPhoto:
    pixels = torch.from_numpy(io.to_uint8(io.load_photo(path))).permute(2, 0, 1)
    return LoadedPhoto(PhotoFile(path.name, path, io.sha256_of(path)), pixels)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    home = tmp_path_factory.mktemp("distilling")
    photos = [loaded(write_photo(home / f"{name}.png", seed)) for seed, name in enumerate("ab")]
    # Enough of a change that there is something to learn.
    overrides = ["depth_model.longer_side=56", "optim.steps=4", "optim.learning_rates.embeddings=0.1"]
    preset = resolve(load_preset("smoke", overrides))
    files = [photo.file for photo in photos]
    rows, failures = make_targets(files, preset, home / "out", device="cpu")
    assert not failures
    return Stored(preset, home / "out", photos, rows)


def test_the_losses_are_those_of_the_stored_refinement(stored: Stored) -> None:
    model, photo = stored.model, stored.photos[0]
    learner, settings = Learner(model), stored.preset.adapt
    losses = Distil(model, stored.folder, stored.rows, settings)(learner, photo, PLACE)
    target = load_target(stored.folder, stored.rows["a.png"])
    # The model that learns is still the starting one.
    expected = distil_loss(target.initial, target, relative_depth_in(model, target.unit))
    assert float(losses["distil"].detach()) == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 0.01
    assert float(losses["drift"].detach()) == pytest.approx(0, abs=1e-9)
    losses["total"].backward()
    assert learner.reached() == {"encoder", "decoder"}


def test_the_anchor_is_part_of_the_total(stored: Stored) -> None:
    model, photo = stored.model, stored.photos[0]
    learner = Learner(model)
    with torch.no_grad():
        for value in learner.parameters():
            value.mul_(1.02)
        raw = learner.predict(learner.prepare(photo.tensor(CPU)))
    target = load_target(stored.folder, stored.rows["a.png"])
    for weight in (0.0, 2.5):
        anchor = stored.preset.adapt.anchor.model_copy(update={"weight": weight, "scale": 0.1})
        settings = stored.preset.adapt.model_copy(update={"anchor": anchor})
        losses = Distil(model, stored.folder, stored.rows, settings)(learner, photo, PLACE)
        low = drift(raw, target.initial, 0.1)
        total = distil_loss(raw, target, relative_depth_in(model, target.unit)) + weight * low
        assert float(low) > 1e-4
        assert float(losses["total"].detach()) == pytest.approx(float(total), rel=1e-4)
        assert set(losses) == ({"distil", "drift", "total"} if weight else {"distil", "total"})


def test_the_tolerance_of_the_settings_weighs_the_pixels(stored: Stored) -> None:
    model, photo = stored.model, stored.photos[0]
    trust = stored.preset.adapt.trust.model_copy(update={"tolerance": 1e-3})
    strict = stored.preset.adapt.model_copy(update={"trust": trust})
    found = [
        float(
            Distil(model, stored.folder, stored.rows, settings)(Learner(model), photo, PLACE)[
                "distil"
            ].detach()
        )
        for settings in (stored.preset.adapt, strict)
    ]
    assert 0 < found[1] < found[0] / 2


def test_learning_leads_to_the_refinements_of_all_photos(stored: Stored) -> None:
    model = stored.model
    learner, settings = Learner(model), stored.preset.adapt
    loss = Distil(model, stored.folder, stored.rows, settings)
    far = stored.distance(model)

    def distances() -> list[float]:
        with torch.no_grad():
            return [far(learner.predict(learner.prepare(p.tensor(CPU))), p.file) for p in stored.photos]

    before = distances()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-4)
    for _ in range(12):
        optimizer.zero_grad()
        for photo in stored.photos:
            loss(learner, photo, PLACE)["total"].backward()
        optimizer.step()
    assert all(after < 0.8 * start for start, after in zip(before, distances(), strict=True))


def test_a_held_out_photo_is_compared_with_its_own_refinement(stored: Stored) -> None:
    model = stored.model
    far = stored.distance(model)
    for photo in stored.photos:
        target = load_target(stored.folder, stored.rows[photo.name])
        relative_depth = relative_depth_in(model, target.unit)
        assert far(target.refined, photo.file) == 0
        assert far(target.initial, photo.file) == distance(target.initial, target, relative_depth) > 0.5
    # In metres the scale counts; the constants are those of the model.
    metric = copy.copy(model)
    metric.invariance, metric.predicts = "metric", "depth"
    scaled = stored.distance(metric)
    target = load_target(stored.folder, stored.rows["a.png"])
    assert scaled(1.1 * target.refined, stored.photos[0].file) == pytest.approx(9.531, abs=0.01)


def test_what_is_kept_is_the_starting_model_s_prediction(stored: Stored) -> None:
    start, photo = stored.model, stored.photos[1]
    learner, keep = Learner(start), Keep(start, BlinnPhong())
    assert float(keep(learner, photo, PLACE)["total"].detach()) == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        for value in learner.parameters():
            value.mul_(1.05)
        image = learner.prepare(photo.tensor(CPU))
        raw, initial = learner.predict(image), start.decode(start.encode(image))
    losses = keep(learner, photo, PLACE)
    expected = keep_loss(raw, initial, relative_depth_in(start, 1.0))
    assert set(losses) == {"total"}
    assert float(losses["total"].detach()) == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 0.01
    losses["total"].backward()
    assert learner.reached() == {"encoder", "decoder"}
    assert all(value.grad is None for value in start.decoder_parameters().values())


def test_the_camera_and_the_unit_of_a_kept_photo(stored: Stored) -> None:
    start, photo = tiny_depth_model(), stored.photos[0]
    start.scale = "auto"
    learner = Learner(start)
    with torch.no_grad():
        for value in learner.parameters():
            value.mul_(1.01)
        image = learner.prepare(photo.tensor(CPU))
        raw, initial = learner.predict(image), start.decode(start.encode(image))
    unit = unit_of(start, initial)
    assert unit != pytest.approx(1, rel=0.1)
    relative_depth = relative_depth_in(start, unit)
    camera = Camera(field_of_view=40.0).of_picture(40, 50)
    found = Keep(start, BlinnPhong(camera="pinhole", field_of_view=40.0))(learner, photo, PLACE)
    expected = keep_loss(raw, initial, relative_depth, camera)
    assert float(found["total"].detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(keep_loss(raw, initial, relative_depth)) != pytest.approx(float(expected), rel=1e-4)


def test_a_refinement_that_is_gone_is_an_error_of_the_input(stored: Stored, tmp_path: Path) -> None:
    model = stored.model
    loss = Distil(model, tmp_path, stored.rows, stored.preset.adapt)
    with pytest.raises(InputError, match=r"refinement of a\.png .*a\.png\.npz is missing"):
        loss(Learner(model), stored.photos[0], PLACE)


def test_a_target_moves_to_a_device_as_a_whole(device: torch.device) -> None:
    maps = torch.ones(1, 1, 2, 3)
    moved = Target(maps, maps, maps, 2.0).to(device)
    assert {m.device.type for m in (moved.initial, moved.refined, moved.trust)} == {device.type}
    assert moved.unit == 2.0
