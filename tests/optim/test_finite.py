"""What is not finite is never an answer: the error says what became so, and at which step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.config import load_preset
from redepth.errors import ConfigError, RedepthError
from redepth.optim.group import FinishedGroup, Group
from tests.support.helpers import TargetPrior, make_refiner, photo


class Scaled(TargetPrior):
    """A prior whose loss is multiplied by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, relit: Tensor, *rest: Any) -> Tensor:
        return super().__call__(relit, *rest) * self.factor


def test_an_objective_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.optim.objectives import Smoothness

    monkeypatch.setattr(Smoothness, "__call__", lambda _, surface: surface.raw.mean((1, 2, 3)) * float("nan"))
    with pytest.raises(RedepthError, match=r"^the loss of objective 'smoothness' of member 0 .* at step 1: "):
        make_refiner().run(photo())


def test_losses_whose_sum_alone_overflows_are_named_as_the_loss() -> None:
    with pytest.raises(RedepthError, match=r"^the loss of member 0 is not finite at step 1: "):
        make_refiner(Scaled(1e37), prior_weight=1e6).run(photo())


def test_a_last_step_that_overflows_is_an_error() -> None:
    """The losses of a step are those of its start, so nothing but the result shows it."""
    refiner = make_refiner(steps=2)
    refiner.optim = refiner.optim.model_copy(update={"weight_decay": 1e30})
    with pytest.raises(RedepthError, match=r"of member 0 is not finite (after|at) step [12]: lower optim"):
        refiner.run(photo())
    with pytest.raises(
        RedepthError, match=r"^the output of member 0 is not finite after step 1: lower optim"
    ):
        refiner.run(photo(), plan=replace(refiner.preset_plan, steps=1))


def test_an_ensemble_whose_mean_overflows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Group.finish

    def huge(group: Group) -> FinishedGroup:
        done = finish(group)
        big = [result._replace(raw=torch.full_like(result.raw, 3e38)) for result in done.results]
        return replace(done, results=big)

    monkeypatch.setattr(Group, "finish", huge)
    with pytest.raises(RedepthError, match=r"^the members' joint output is not finite: "):
        make_refiner(steps=1).run(photo())


@pytest.mark.parametrize(
    "override",
    [
        "optim.weight_decay=1e30",
        "optim.blend_scale=1e-308",
        "optim.blend_tolerance=1e-308",
        "optim.prior_weight=1e30",
        "optim.objectives.smoothness.weight=1e30",
        "optim.learning_rates.depth=1.5",
        "prior.guidance_scale=1e30",
        "prior.clip=1e-300",
        "renderer.field_of_view=179.9999999",
        "renderer.grey=1e-300",
        "depth_model.scale=1e300",
        "depth_model.margin=1e-300",
        "optim.budget=" + "9" * 400,
        "optim.vram=" + "9" * 400 + "GB",
    ],
)
def test_a_value_that_cannot_work_is_out_of_range(override: str) -> None:
    from redepth.components import resolve

    with pytest.raises(ConfigError) as error:
        resolve(load_preset("smoke", ["renderer.camera=pinhole", override]))
    assert override.partition("=")[0] in str(error.value)
    assert len(str(error.value)) < 400


def test_a_decay_that_makes_weights_grow_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim: weight_decay 100 times the largest learning rate 0.5"):
        load_preset("smoke", ["optim.weight_decay=100", "optim.learning_rates.depth=0.5"])
