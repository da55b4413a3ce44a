"""The method ``score``: the step of the refiner, with the prediction of the trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redepth.adaptation.learned import Learned, Trainee
from redepth.adaptation.lessons import TOTAL, Lesson, LoadedPhoto, Place
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.scoring import Score
from redepth.adaptation.streaming import load
from redepth.config.adaptation import Adapt
from redepth.errors import ConfigError
from redepth.optim.draws import draw_step
from redepth.optim.parameterizations import Parameterization
from tests.support.helpers import CPU, make_refiner, relative_error, tiny_depth_model, tiny_prior
from tests.support.trainings import run, same, some_photos, weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[PhotoFile]:
    return some_photos(tmp_path_factory.mktemp("photos"))


class Alone:
    """A model as losses see it, without a training."""

    device = CPU

    def __init__(self) -> None:
        self.model = tiny_depth_model()
        self.learned = Learned(self.model, Adapt(learns="decoder"), 0)
        trainee = Trainee(self.model, self.learned, "float32", CPU)
        self.prepare, self.predict = trainee.prepare, trainee.forward


def loaded(photos: list[PhotoFile]) -> LoadedPhoto:
    return load(photos[0])


def test_at_the_start_it_is_the_step_of_a_refinement(photos: list[PhotoFile]) -> None:
    """The losses and the gradient of the decoder are those of a member of the parameterization decoder."""
    refiner = make_refiner(tiny_prior(), lights=2, parameterization="decoder")
    photo, place = loaded(photos), Place(0, 3, 1, 0.5)
    alone = Alone()
    losses = Score(refiner)(alone, photo, place)
    losses[TOTAL].backward()

    problem = refiner.make_problem(photo.tensor(CPU))
    state = Parameterization(
        "decoder", refiner.depth_model, problem.image, problem.features, problem.initial, 1, problem.unit
    )
    draws = draw_step(refiner.renderer, refiner.prior, place.generator(), 0.5, check=True)
    wanted, _, _ = refiner.step(
        state, problem.image, problem.linear, problem.condition, draws, problem.guidance
    )
    wanted["total"].sum().backward()

    assert losses.keys() == {"prior", "smoothness", "total"}
    for name, value in losses.items():
        assert value.shape == ()
        assert value.item() == pytest.approx(wanted[name][0].item(), rel=1e-4)
    names = alone.model.decoder_parameters()
    for (name, own), theirs in zip(names.items(), state.groups()["decoder"], strict=True):
        assert (own.grad is None) == (theirs.grad is None), name
        if own.grad is not None and theirs.grad is not None and float(theirs.grad.norm()) > 1e-6:
            assert relative_error(own.grad, theirs.grad[0]) < 1e-3, name


def test_the_draws_are_those_of_the_place(photos: list[PhotoFile]) -> None:
    score, alone, photo = Score(make_refiner(lights=1)), Alone(), loaded(photos)
    places = [Place(0, 1, 0, 0.1), Place(0, 1, 1, 0.1), Place(0, 2, 0, 0.1), Place(1, 1, 0, 0.1)]
    values = [float(score(alone, photo, place)[TOTAL]) for place in places]
    assert len(set(values)) == 4
    assert float(score(alone, photo, places[0])[TOTAL]) == values[0]


def test_the_anchor_sees_the_start_in_the_unit_of_the_photo(photos: list[PhotoFile]) -> None:
    alone, photo, place = Alone(), loaded(photos), Place(0, 0, 0, 0.0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def anchor(raw: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
        seen.append((raw.detach(), initial))
        return (raw - initial).abs().mean() + 1

    refiner = make_refiner()
    plain = Score(refiner)(alone, photo, place)
    anchored = Score(refiner, anchor=anchor, anchor_weight=3.0)(alone, photo, place)
    assert relative_error(*seen[0]) < 1e-5
    with torch.no_grad():
        for parameter in alone.learned.parameters.values():
            parameter *= 1.01
    Score(refiner, anchor=anchor)(alone, photo, place)
    assert relative_error(*seen[1]) > 1e-3
    assert torch.equal(seen[0][1], seen[1][1])
    assert float(anchored["anchor"]) == pytest.approx(1, rel=1e-4)
    assert float(anchored[TOTAL]) == pytest.approx(float(plain[TOTAL]) + 3 * float(anchored["anchor"]))
    assert "anchor" not in Score(refiner, anchor=anchor, anchor_weight=0.0)(alone, photo, place)


def test_the_starting_model_stays_and_the_trained_one_learns(photos: list[PhotoFile], tmp_path: Path) -> None:
    refiner = make_refiner(tiny_prior())
    before = weights(refiner.depth_model)
    prompts: list[str] = []

    def prompt(photo: PhotoFile) -> str:
        prompts.append(photo.name)
        return "a coin"

    lessons = [Lesson("learn", tuple(photos), 2, Score(refiner, prompt))]
    model, _ = run(tmp_path / "a", photos, lessons=lessons, steps=2, validation=None)
    again, _ = run(tmp_path / "b", photos, lessons=lessons, steps=2, validation=None)
    assert same(weights(refiner.depth_model), before)
    assert not same(weights(model), before)
    assert same(weights(again), weights(model))
    assert len(prompts) == 8
    assert all(not p.requires_grad and p.grad is None for p in refiner.depth_model.network().parameters())


def test_a_prior_that_learns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot use prior\.score=vsd"):
        Score(make_refiner(tiny_prior(score="vsd")))
