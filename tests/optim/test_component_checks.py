"""A broken component is named at the first step, with what is expected of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Condition, Features, Illumination, Noise
from redepth.errors import RedepthError
from redepth.optim.refiner import Refiner
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.helpers import TargetPrior, make_refiner, photo


def steps_taken(refiner: Refiner) -> tuple[int, str]:
    """Run a refiner; return how many steps it took, and its error."""
    reports: list[Any] = []
    with pytest.raises(RedepthError) as caught:
        refiner.run(photo(), on_step=reports.append)
    assert "\n" not in str(caught.value)
    return len(reports), str(caught.value)


# --- renderers ------------------------------------------------------------------------------------


class BrokenRenderer(BlinnPhong):
    """Blinn-Phong whose pictures are spoiled."""

    def __init__(self, spoil: Callable[[Tensor], Any]) -> None:
        super().__init__(lights=2)
        self.spoil = spoil

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        spoiled: Tensor = self.spoil(super().__call__(depth, image_linear, illumination))
        return spoiled


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda x: x.flatten(0, 1), r"\(6, 3, 56, 70\) as float32 on cpu: expected \(3, 2, 3, 56, 70\), "),
    (lambda x: x.permute(0, 1, 3, 4, 2), r"\(3, 2, 56, 70, 3\) as float32 on cpu: expected \(3, 2, 3, "),
    (lambda x: x[..., :-1], r"\(3, 2, 3, 56, 69\) as float32"),
    (lambda x: x.double(), r"as float64 on cpu: expected .* as float32 on cpu"),
    (lambda x: x.to("meta"), r"as float32 on meta: expected .* on cpu"),
    (lambda x: x.detach(), "without a gradient: the picture must depend on the depth; compute it in"),
    (lambda x: x / 0, "a picture that is not finite for a finite depth, at step 1: look for a division"),
    (lambda x: None, r"returned None: expected \(3, 2, 3, 56, 70\)"),
])  # fmt: skip
def test_a_renderer_of_another_layout_is_named(spoil: Callable[[Tensor], Any], says: str) -> None:
    refiner = make_refiner()
    refiner.renderer = BrokenRenderer(spoil)
    taken, message = steps_taken(refiner)
    assert taken == 0
    assert message.startswith("the renderer BrokenRenderer returned ")
    assert re.search(says, message)


# --- priors ---------------------------------------------------------------------------------------


class BrokenPrior(TargetPrior):
    """A prior whose losses are spoiled."""

    def __init__(self, spoil: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.spoil = spoil

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        spoiled: Tensor = self.spoil(super().__call__(relit, condition, illumination, noise))
        return spoiled


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda x: x.mean(), r"returned \(\) as float32 on cpu: expected one loss per picture, \(3,\) on cpu"),
    (lambda x: x[:, None], r"returned \(3, 1\) as float32"),
    (lambda x: x[:2], r"returned \(2,\) as float32"),
    (lambda x: x.to("meta"), r"returned \(3,\) as float32 on meta"),
    (lambda x: x.detach(), "returned values without a gradient: the loss must depend on the picture"),
    (lambda x: x.tolist(), r"returned \[.*: one loss per picture, \(3,\)$"),
])  # fmt: skip
def test_a_prior_of_another_layout_is_named(spoil: Callable[[Tensor], Any], says: str) -> None:
    refiner = make_refiner(BrokenPrior(spoil))
    taken, message = steps_taken(refiner)
    assert taken == 0
    assert message.startswith("the prior BrokenPrior returned ")
    assert re.search(says, message)


def test_a_prior_that_is_not_finite_is_named() -> None:
    taken, message = steps_taken(make_refiner(BrokenPrior(lambda x: x / 0)))
    assert taken == 1
    assert message.startswith("the prior's loss (BrokenPrior) of member 0 is not finite at step 1: ")


class BadDraws(TargetPrior):
    def draw(self, batch: int, generator: torch.Generator, progress: float = 0.0) -> Noise:
        return Noise({"jitter": torch.rand(batch + 1, generator=generator)})


class NoCondition(TargetPrior):
    def condition(self, image: Tensor, prompt: str) -> Condition:
        nothing: Any = None
        return nothing


class NoNoise(TargetPrior):
    def draw(self, batch: int, generator: torch.Generator, progress: float = 0.0) -> Noise:
        tensors: Any = {"jitter": torch.rand(batch, generator=generator)}
        return tensors  # type: ignore[no-any-return]


@pytest.mark.parametrize(("prior", "says"), [
    (BadDraws(), r"^the prior BadDraws drew \(2,\) .* draw must return Noise with tensors \(1, \.\.\.\)"),
    (NoNoise(), r"^the prior NoNoise returned .*: draw must return Noise"),
    (NoCondition(), "^the prior NoCondition returned None: condition must return a Condition"),
])  # fmt: skip
def test_a_prior_of_other_records_is_named(prior: TargetPrior, says: str) -> None:
    with pytest.raises(RedepthError, match=says):
        make_refiner(prior).run(photo())


# --- objectives -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "says"), [
    (lambda surface: surface.raw.mean(), r"returned \(\) as float32 on cpu: expected one loss per member"),
    (lambda surface: surface.raw.mean(dim=(2, 3)), r"returned \(3, 1\) as float32"),
    (lambda surface: surface.raw.mean(dim=(1, 2, 3)).detach(), "without a gradient: the loss must depend"),
    (lambda surface: 0.0, "returned 0.0: one loss per member"),
])  # fmt: skip
def test_an_objective_of_another_layout_is_named(objective: Any, says: str) -> None:
    refiner = make_refiner()
    refiner.objectives = {"mine": (1.0, objective)}
    taken, message = steps_taken(refiner)
    assert taken == 0
    assert message.startswith("the objective 'mine' (function) returned ")
    assert re.search(says, message)


def test_an_objective_without_its_data_is_zero_and_needs_no_gradient() -> None:
    refiner = make_refiner()
    refiner.objectives = {"absent": (1.0, lambda surface: surface.raw.new_zeros(len(surface.raw)))}
    assert refiner.run(photo()).steps_done == [3, 3, 3]


def test_losses_that_do_not_depend_on_the_depth_are_an_error() -> None:
    refiner = make_refiner(prior_weight=0.0)
    refiner.objectives = {"absent": (1.0, lambda surface: surface.raw.new_zeros(len(surface.raw)))}
    with pytest.raises(RedepthError, match=r"^no loss depends on the depth: set optim\.prior_weight"):
        refiner.run(photo())


# --- depth models ---------------------------------------------------------------------------------


def broken_model(monkeypatch: pytest.MonkeyPatch, method: str, spoil: Callable[[Any], Any]) -> Refiner:
    refiner = make_refiner(parameterization="embeddings")
    model = refiner.depth_model
    own = getattr(model, method)
    monkeypatch.setattr(model, method, lambda *args, **options: spoil(own(*args, **options)))
    return refiner


@pytest.mark.parametrize(("method", "spoil", "says"), [
    ("prepare", lambda x: x[0], r"returned \(3, 56, 70\) as float32 on cpu: prepare must return"),
    ("prepare", lambda x: (255 * x).to(torch.uint8), "as uint8 on cpu: prepare must return"),
    ("encode", lambda features: features.maps, "encode must return Features"),
    ("decode", lambda raw: raw[:, 0], r"returned \(1, 56, 70\) as float32 on cpu: expected \(1, 1, 56, 70\)"),
    ("decode", lambda raw: raw[..., ::2, ::2], r"returned \(1, 1, 28, 35\)"),
    ("decode", lambda raw: raw.half(), "as float16 on cpu: expected .* as float32"),
    ("decode", lambda raw: raw.detach(), "without a gradient: decode must depend on what is optimized"),
    ("decode", lambda raw: raw[:1], r"returned \(1, 1, 56, 70\) as float32 on cpu: expected \(3, 1, "),
])  # fmt: skip
def test_a_depth_model_of_another_layout_is_named(
    monkeypatch: pytest.MonkeyPatch, method: str, spoil: Callable[[Any], Any], says: str
) -> None:
    taken, message = steps_taken(broken_model(monkeypatch, method, spoil))
    assert taken == 0
    assert message.startswith("the depth model DepthAnything returned ")
    assert re.search(says, message)


def test_a_prediction_that_is_not_finite_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    _, message = steps_taken(broken_model(monkeypatch, "decode", lambda raw: raw / 0))
    assert message == "the prediction of the depth model DepthAnything is not finite: check its weights"


# --- no cost later --------------------------------------------------------------------------------


def test_values_are_read_at_the_first_step_of_a_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.optim import component_checks

    read: list[Tensor] = []
    check = component_checks.check_values

    def counted(renderer: str, relit: Tensor, *rest: Any) -> None:
        read.append(relit)
        check(renderer, relit, *rest)

    monkeypatch.setattr(component_checks, "check_values", counted)
    make_refiner(members=3, members_per_batch=2, steps=4).run(photo())
    assert [len(relit) for relit in read] == [2, 1]


def test_layouts_are_checked_without_values() -> None:
    """Tensors on the meta device have no values to read."""
    from redepth.optim.component_checks import check_loss, check_relit

    depth = torch.ones(2, 1, 8, 8, device="meta", requires_grad=True)
    relit = depth[:, None].expand(2, 3, 3, 8, 8)
    check_relit("the renderer", relit, 3, depth)
    check_loss("the prior", relit.mean(dim=(2, 3, 4)).flatten(), 6, "picture", relit, gradient=True)
    with pytest.raises(RedepthError, match="the renderer returned"):
        check_relit("the renderer", relit, 2, depth)


def test_features_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = broken_model(monkeypatch, "encode", lambda features: features)
    assert isinstance(refiner.predict(photo())[1], Features)
