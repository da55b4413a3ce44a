from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from redepth.contracts import StepDraws, Surface
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.guidance import Given, SkyMask
from redepth.ops.filters import gaussian_blur
from redepth.ops.statistics import agreement_weight
from redepth.optim.draws import draw_steps, load_draws, record_draws, save_draws
from redepth.optim.objectives import Sky
from redepth.optim.outcome import Outcome, StepReport
from redepth.optim.parameterizations import PARAMETERIZATIONS, check_supported
from redepth.optim.refiner import Refiner
from redepth.renderers.blinn_phong import BlinnPhong
from tests.priors.test_rules_on_models import latent_prior
from tests.support.helpers import (
    CPU,
    GOLDEN,
    TAME,
    TargetPrior,
    change_error,
    make_refiner,
    photo,
    relative_error,
    seeded,
    tiny_depth_model,
    tiny_prior,
)

ALL = sorted(PARAMETERIZATIONS)


def same(actual: Outcome, expected: Outcome, device: torch.device) -> bool:
    """Whether two runs at `TAME` rates have the same result; on a GPU the order of sums varies."""
    if device.type == "cpu":
        return torch.equal(actual.members, expected.members)
    return change_error(actual, expected) < 0.02


GENTLE = {"embeddings": 1e-3, "decoder": 1e-4, "encoder": 1e-4, "depth": 1e-3, "correction": 1e-3}


@pytest.mark.parametrize("name", ALL)
def test_lockstep_one_by_one_and_any_batch_size_give_the_same_members(name: str) -> None:
    """Equal up to float noise, which AdamW's normalised step amplifies where a gradient is near 0."""
    outcomes = [
        make_refiner(parameterization=name, members_per_batch=size, learning_rates=GENTLE).run(
            photo(), seed=5
        )
        for size in ("auto", 1, 2)
    ]
    first = outcomes[0]
    change = float((first.members - first.initial).norm())
    for other in outcomes[1:]:
        assert relative_error(other.members, first.members) < 1e-3
        assert float((other.members - first.members).norm()) < 1e-2 * change
        for row, expected in zip(other.history["total"], first.history["total"], strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
    assert float((first.members - first.refined).norm()) > 0.1 * change


def test_members_and_lights_are_scored_under_their_own_light_and_noise(device: torch.device) -> None:
    """A prior that is conditioned on light and window gets those of each row, in lockstep as alone."""
    rates = {"embeddings": 1e-3, "offset": 1e-3}
    settings: dict[str, Any] = {"lights": 3, "parameterization": "embeddings", "learning_rates": rates}
    together = make_refiner(tiny_prior(device=device, dtype="float32"), device=device, **settings).run(
        photo(), seed=5
    )
    alone = make_refiner(
        tiny_prior(device=device, dtype="float32"), device=device, **settings, members_per_batch=1
    ).run(photo(), seed=5)
    for row, expected in zip(alone.history["prior"], together.history["prior"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    firsts = [row[0] for row in together.history["prior"]]
    assert max(firsts) - min(firsts) > 1e-3 * max(firsts)


@pytest.mark.parametrize("name", ALL)
def test_every_parameterization_lowers_the_loss_and_moves_only_what_it_names(
    name: str, device: torch.device
) -> None:
    refiner = make_refiner(device=device, parameterization=name, members=1, steps=25, objectives={})
    refiner.objectives = {}
    before = [p.clone() for p in refiner.depth_model.decoder_parameters().values()]
    outcome = refiner.run(photo(), draws=[next(draw_steps(refiner.renderer, refiner.prior, 0, [0], 1))] * 25)
    losses = outcome.history["total"][0]
    assert losses[-1] < losses[0]
    # The shared model stays frozen.
    for old, new in zip(before, refiner.depth_model.decoder_parameters().values(), strict=True):
        assert torch.equal(old, new)
    assert float(outcome.offsets[0]) != 0


@pytest.mark.parametrize("name", ALL)
def test_members_agree_with_those_of_a_cpu(name: str, device: torch.device) -> None:
    settings: dict[str, Any] = {"parameterization": name, "learning_rates": TAME}
    here, there = make_refiner(**settings).run(photo()), make_refiner(device=device, **settings).run(photo())
    assert same(there, here, device)


def test_a_released_encoder_leaves_the_device_and_comes_back(device: torch.device) -> None:
    refiner = make_refiner(device=device)
    first = refiner.run(photo())
    assert {p.device.type for p in refiner.depth_model.encoder_parameters().values()} == {"cpu"}
    assert {p.device.type for p in refiner.depth_model.decoder_parameters().values()} == {device.type}
    assert torch.allclose(refiner.run(photo()).initial, first.initial, atol=1e-5)


class Rescaled(DepthAnything):
    """The tiny model whose raw output is multiplied by a number, under ``scale = auto``."""

    factor = 1.0

    def decode(self, *args: Any) -> torch.Tensor:
        return self.factor * super().decode(*args)


def rescaled(factor: float, **optim: Any) -> Refiner:
    refiner = make_refiner(**optim)
    model = Rescaled(checkpoint=str(GOLDEN / "tiny-random-depth-anything"), longer_side=70)
    model.scale, model.factor = "auto", factor
    refiner.depth_model = model.load(CPU)
    return refiner


@pytest.mark.parametrize("name", ALL)
def test_under_auto_the_range_of_the_raw_output_changes_nothing(name: str) -> None:
    """A power of two is exact in binary; 1000 leaves float noise, which AdamW's normalised step amplifies."""
    reports: dict[float, list[StepReport]] = {1.0: [], 1024.0: [], 1000.0: []}
    outcomes = {
        factor: rescaled(factor, parameterization=name, learning_rates=GENTLE).run(
            photo(), seed=2, on_step=seen.append
        )
        for factor, seen in reports.items()
    }
    first = outcomes[1.0]
    assert first.unit > 0
    change = float((first.members - first.initial).norm())
    assert change > 0
    for factor, tolerance in ((1024.0, 0.0), (1000.0, 2e-2)):
        other = outcomes[factor]
        assert other.unit == pytest.approx(factor * first.unit, rel=1e-5)
        assert float((other.members / factor - first.members).norm()) <= tolerance * change
        assert relative_error(other.initial, factor * first.initial) < 1e-6
        assert relative_error(other.member_depths, first.member_depths) <= tolerance
        raw = reports[factor][0].raw
        assert relative_error(raw, factor * reports[1.0][0].raw) < 1e-6
        for row, expected in zip(other.history["total"], first.history["total"], strict=True):
            assert row == pytest.approx(expected, rel=1e-3)


def test_a_number_for_scale_leaves_the_raw_output_unchanged() -> None:
    outcome = make_refiner(steps=1).run(photo())
    assert outcome.unit == 1.0
    assert torch.allclose(outcome.initial_depth, 7.0 / (outcome.initial + 0.1))


def test_a_prediction_without_scale_is_an_error() -> None:
    with pytest.raises(RedepthError, match="scale=auto finds no scale"):
        rescaled(0.0).run(photo())


def test_the_same_seed_gives_the_same_result_and_another_one_does_not() -> None:
    first, second, other = (make_refiner().run(photo(), seed=s) for s in (1, 1, 2))
    assert torch.equal(first.members, second.members)
    assert first.history == second.history
    assert not torch.equal(first.members, other.members)


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = make_refiner(tiny_prior()).run(photo(), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(make_refiner(tiny_prior()).run(photo(), seed=1).members, first.members)


def test_a_run_is_recorded_and_replayed(tmp_path: Path, device: torch.device) -> None:
    refiner = make_refiner(tiny_prior(device=device, dtype="float32"), 2, device, learning_rates=TAME)
    seen: list[StepDraws] = []
    recorded = refiner.run(photo(), seed=3, on_step=lambda report: seen.append(report.draws))
    save_draws(tmp_path / "draws.safetensors", seen)
    loaded = load_draws(tmp_path / "draws.safetensors")
    assert torch.equal(loaded[1].noise["noise"], seen[1].noise["noise"].cpu())
    replayed = refiner.run(photo(), seed=99, draws=loaded)
    assert same(replayed, recorded, device)
    # Draws made beforehand are the same for any grouping of the members.
    drawn = record_draws(refiner.renderer, refiner.prior, 3, members=3, steps=3)
    prior = tiny_prior(device=device, dtype="float32")
    grouped = make_refiner(prior, 2, device, members_per_batch=2, learning_rates=TAME)
    assert change_error(grouped.run(photo(), draws=drawn), recorded) < 0.02
    assert torch.equal(drawn[2].noise["noise"], loaded[2].noise["noise"])


def test_a_members_draws_depend_on_the_seed_and_its_index_alone() -> None:
    renderer, prior = BlinnPhong(lights=2), tiny_prior()
    together = draw_steps(renderer, prior, 7, range(3), 3)
    alone = draw_steps(renderer, prior, 7, [2], 3)
    for _ in range(3):
        all_rows, row = next(together), next(alone)
        assert torch.equal(all_rows.noise["noise"][2:], row.noise["noise"])
        assert torch.equal(all_rows.illumination.direction[2:], row.illumination.direction)
        assert not torch.equal(all_rows.noise["noise"][0], all_rows.noise["noise"][1])


def test_a_replay_that_does_not_fit_and_a_file_that_is_none_are_errors(tmp_path: Path) -> None:
    refiner = make_refiner()
    short = [next(draw_steps(refiner.renderer, refiner.prior, 0, range(2), 1))]
    with pytest.raises(RedepthError, match="holds 1 steps of 2 members; this run needs 3 steps of 3 members"):
        refiner.run(photo(), draws=short)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a record of draws"):
        load_draws(tmp_path / "x.safetensors")
    save_file({"0.illumination.direction": torch.ones(1, 1, 3)}, tmp_path / "old.safetensors")
    with pytest.raises(InputError, match="in another frame: record the draws anew"):
        load_draws(tmp_path / "old.safetensors")


def test_history_has_every_loss_of_every_step_and_the_total_is_their_sum() -> None:
    refiner = make_refiner(prior_weight=0.5)
    refiner.objectives = {"smoothness": (0.25, refiner.objectives["smoothness"][1])}
    history = refiner.run(photo()).history
    assert set(history) == {"prior", "smoothness", "total"}
    assert [len(row) for row in history["total"]] == [3, 3, 3]
    for member in range(3):
        for step in range(3):
            terms = 0.5 * history["prior"][member][step] + 0.25 * history["smoothness"][member][step]
            assert history["total"][member][step] == pytest.approx(terms, rel=1e-5)


class SilentPrior(TargetPrior):
    """A prior whose evaluation is an error."""

    def __call__(self, *_: Any) -> torch.Tensor:
        raise AssertionError("a prior without weight is evaluated")


def test_a_prior_without_weight_is_not_evaluated_and_the_draws_stay_the_same() -> None:
    reports: list[list[StepReport]] = [[], []]
    make_refiner().run(photo(), on_step=reports[0].append)
    outcome = make_refiner(SilentPrior(), prior_weight=0).run(photo(), on_step=reports[1].append)
    assert set(outcome.history) == {"smoothness", "total"}
    assert outcome.history["total"] == outcome.history["smoothness"]
    for evaluated, silent in zip(*reports, strict=True):
        assert torch.equal(evaluated.draws.illumination.direction, silent.draws.illumination.direction)
        assert torch.equal(evaluated.draws.noise["jitter"], silent.draws.noise["jitter"])


class Interrupting:
    """An `on_step` that raises Ctrl-C after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, report: StepReport) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_an_interrupt_keeps_finished_steps(device: torch.device) -> None:
    tame: dict[str, Any] = {"device": device, "learning_rates": TAME}
    outcome = make_refiner(steps=10, **tame).run(photo(), on_step=Interrupting(4))
    assert outcome.partial
    assert outcome.steps_done == [4, 4, 4]
    expected = make_refiner(steps=4, **tame).run(photo())
    assert same(outcome, expected, device)
    in_turn = make_refiner(device=device, steps=4, members_per_batch=1).run(photo(), on_step=Interrupting(6))
    assert in_turn.steps_done == [4, 2]
    assert in_turn.reason == "interrupted"


def test_a_plateau_stops_a_member_only_where_the_rule_is_on(device: torch.device) -> None:
    flat: dict[str, Any] = {"steps": 12, "learning_rates": dict.fromkeys(("embeddings", "offset"), 0.0)}
    rule = {"enabled": True, "window": 2, "min_improvement": 0.5}
    assert (
        make_refiner(device=device, **flat, parameterization="embeddings").run(photo()).steps_done == [12] * 3
    )
    stopped = make_refiner(device=device, **flat, parameterization="embeddings", early_stop=rule).run(photo())
    assert stopped.steps_done == [4] * 3
    assert stopped.offsets.tolist() == [0.0] * 3
    assert not stopped.partial
    rule["min_improvement"] = 0.02
    # Without layers that amplify float noise, the two must agree closely.
    moving: dict[str, Any] = {"parameterization": "depth", "steps": 30, "early_stop": rule}
    together = make_refiner(device=device, **moving).run(photo())
    alone = make_refiner(device=device, **moving, members_per_batch=1).run(photo())
    assert len(set(alone.steps_done)) > 1
    assert alone.steps_done == together.steps_done
    for name in ("members", "member_depths", "offsets"):
        error = relative_error(getattr(alone, name), getattr(together, name))
        assert error < (1e-5 if device.type == "cpu" else 1e-3), name


class Exhausting(TargetPrior):
    """A prior that runs out of memory for more than two pictures."""

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(relit) > 2:
            raise torch.OutOfMemoryError
        return super().__call__(relit, *rest)


@pytest.mark.parametrize("together", ["auto", 5])
def test_out_of_memory_halves_the_batch_and_changes_nothing(
    together: Any, caplog: pytest.LogCaptureFixture, device: torch.device
) -> None:
    with caplog.at_level(logging.WARNING):
        refiner = make_refiner(
            Exhausting(), device=device, members=5, members_per_batch=together, learning_rates=TAME
        )
        outcome = refiner.run(photo())
    assert "going on with 2 members at a time" in caplog.text
    expected = make_refiner(device=device, members=5, members_per_batch=2, learning_rates=TAME).run(photo())
    assert same(outcome, expected, device)
    assert outcome.members_per_batch == 2


def test_one_member_that_does_not_fit_is_an_error_with_advice() -> None:
    class Full(TargetPrior):
        def __call__(self, *_: Any) -> torch.Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(RedepthError, match="not even one member fits into the memory of cpu: lower"):
        make_refiner(Full(), members=5).run(photo())


def test_the_batch_that_fits_is_kept_for_the_next_photo(caplog: pytest.LogCaptureFixture) -> None:
    refiner = make_refiner(Exhausting(), members=5)
    assert refiner.run(photo()).members_per_batch == 2
    caplog.clear()
    assert refiner.run(photo()).members_per_batch == 2
    assert "out of memory" not in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory",
        "DefaultCPUAllocator: can't allocate memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_out_of_memory_is_also_recognised_by_its_message(message: str) -> None:
    class Failing(Exhausting):
        def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
            if len(relit) > 1:
                raise RuntimeError(message)
            return TargetPrior.__call__(self, relit, *rest)

    assert make_refiner(Failing()).run(photo()).members_per_batch == 1


def test_other_errors_of_a_component_are_not_taken_for_memory() -> None:
    class Broken(TargetPrior):
        def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
            raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        make_refiner(Broken()).run(photo())


class Diverging(TargetPrior):
    """A prior whose loss is not finite after some calls."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.good -= 1
        return super().__call__(relit, *rest) * (1 if self.good >= 0 else float("nan"))


@pytest.mark.parametrize("name", ["depth", "embeddings+decoder"])
def test_a_loss_that_is_not_finite_keeps_the_steps_before_it(name: str, device: torch.device) -> None:
    settings: dict[str, Any] = {"device": device, "parameterization": name, "learning_rates": TAME}
    outcome = make_refiner(Diverging(2), steps=5, **settings).run(photo())
    assert outcome.partial
    assert "not finite at step 3" in outcome.reason
    assert outcome.steps_done == [2, 2, 2]
    expected = make_refiner(steps=2, **settings).run(photo())
    assert same(outcome, expected, device)
    with pytest.raises(RedepthError, match="member 0 is not finite at step 1"):
        make_refiner(Diverging(0), device=device).run(photo())


class Poisoning(TargetPrior):
    """A prior whose loss is finite and whose gradient is not, after some calls."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    def __call__(self, relit: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.good -= 1
        if self.good < 0:
            relit.register_hook(lambda gradient: gradient * float("nan"))
        return super().__call__(relit, *rest)


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_that_is_not_finite_keeps_the_steps_before_it(name: str, device: torch.device) -> None:
    settings: dict[str, Any] = {"device": device, "parameterization": name, "learning_rates": TAME}
    outcome = make_refiner(Poisoning(2), steps=5, **settings).run(photo())
    assert outcome.partial
    assert outcome.reason.startswith("the gradient is not finite at step 3")
    assert outcome.steps_done == [2, 2, 2]
    expected = make_refiner(steps=2, **settings).run(photo())
    assert same(outcome, expected, device)


def test_the_cosine_schedule_falls_to_its_final_rate() -> None:
    refiner = make_refiner(schedule="cosine", final_rate=0.1)
    factors = [refiner.rate_factor(step, 11) for step in (0, 5, 10)]
    assert factors == pytest.approx([1.0, 0.55, 0.1])


def test_unknown_and_unsupported_parameterizations_are_errors_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'embeddings'"):
        check_supported("embedings", tiny_depth_model())
    model = tiny_depth_model()
    model.supports = frozenset({"depth"})  # type: ignore[misc]
    with pytest.raises(ConfigError, match="cannot be refined through 'full'; it supports: depth"):
        check_supported("full", model)


def test_a_photo_of_the_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, H, W\)"):
        make_refiner().run(torch.rand(3, 56, 70))


# --- the sky, and blending ------------------------------------------------------------------------


def upper_sky(height: int = 56, width: int = 70) -> torch.Tensor:
    sky = torch.zeros(1, 1, height, width, dtype=torch.bool)
    sky[..., : height // 2, :] = True
    return sky


def sky_of(mask: torch.Tensor) -> Given:
    return Given(data=(SkyMask(mask),))


def test_a_given_sky_reaches_objectives_and_outcome_at_network_size() -> None:
    seen: list[Surface] = []

    class Watching:
        def __call__(self, surface: Surface) -> torch.Tensor:
            seen.append(surface)
            return surface.raw.new_zeros(len(surface.raw))

    refiner = make_refiner(steps=1)
    refiner.objectives = {"watching": (1.0, Watching())}
    outcome = refiner.run(photo(), given=sky_of(upper_sky(112, 140)))
    assert outcome.sky_given
    assert torch.equal(outcome.sky, upper_sky())
    assert outcome.sky.shape == outcome.initial.shape
    assert torch.equal(seen[0].sky, outcome.sky)
    assert seen[0].predicts == "disparity"
    detected = refiner.run(photo())
    assert not detected.sky_given
    assert detected.sky.dtype == torch.bool
    assert detected.sky.shape == outcome.sky.shape


def nearness_of_sky(raw: torch.Tensor) -> torch.Tensor:
    low, high = raw.amin(dim=(1, 2, 3)), raw.amax(dim=(1, 2, 3))
    return (raw[:, :, :28].mean(dim=(1, 2, 3)) - low) / (high - low)


def test_the_sky_objective_keeps_the_sky_far_and_changes_nothing_without_sky() -> None:
    plain, kept = make_refiner(steps=12), make_refiner(steps=12)
    kept.objectives = {**kept.objectives, "sky": (5.0, Sky())}
    outcome, other = (
        kept.run(photo(), given=sky_of(upper_sky())),
        plain.run(photo(), given=sky_of(upper_sky())),
    )
    assert (nearness_of_sky(outcome.members) < 0.8 * nearness_of_sky(other.members)).all()
    assert [row[-1] < row[0] for row in outcome.history["sky"]] == [True] * 3
    without = kept.run(photo(), given=sky_of(torch.zeros_like(upper_sky())))
    assert torch.equal(without.members, other.members)
    assert {loss for row in without.history["sky"] for loss in row} == {0.0}


def test_blending_by_agreement_changes_the_result_and_not_the_members() -> None:
    mean, blended = make_refiner(), make_refiner(blend="agreement", blend_tolerance=0.05)
    first, second = (refiner.run(photo(), seed=2) for refiner in (mean, blended))
    assert torch.equal(first.members, second.members)
    assert torch.equal(first.refined, first.members.mean(dim=0, keepdim=True))
    assert torch.equal(first.blend_weight, torch.ones_like(first.initial))
    weight = agreement_weight(first.initial, first.members, 0.05)
    assert torch.equal(second.blend_weight, weight)
    assert 0 < float(weight.min()) < float(weight.max()) < 1
    expected = first.initial + weight * (first.refined - first.initial)
    assert torch.allclose(second.refined, expected)
    deep = first.initial_depth + weight * (first.refined_depth - first.initial_depth)
    assert torch.allclose(second.refined_depth, deep)
    assert torch.equal(first.uncertainty, second.uncertainty)


def test_blending_detail_keeps_the_low_frequencies_of_the_initial_depth() -> None:
    mean, blended = make_refiner(), make_refiner(blend="detail", blend_scale=0.1)
    first, second = (refiner.run(photo(), seed=2) for refiner in (mean, blended))
    assert torch.equal(first.members, second.members)
    sigma = 0.1 * min(first.initial.shape[-2:])
    wide = gaussian_blur(first.refined - first.initial, sigma)
    assert torch.allclose(second.refined, first.refined - wide, atol=1e-5)
    assert not torch.allclose(second.refined, first.refined, rtol=1e-3)
    left = gaussian_blur(second.refined - second.initial, 3 * sigma).std()
    assert left < 0.5 * gaussian_blur(first.refined - first.initial, 3 * sigma).std()
    deep = first.refined_depth - first.initial_depth
    expected = first.refined_depth - gaussian_blur(deep, sigma)
    assert torch.allclose(second.refined_depth, expected, atol=1e-5)
    assert torch.equal(first.uncertainty, second.uncertainty)


@pytest.mark.parametrize(("pixels", "sigma"), [(3.0, 3.0), (1000.0, 5.6), (None, 5.6)])
def test_the_filter_of_detail_has_a_largest_sigma(pixels: float | None, sigma: float) -> None:
    refiner = make_refiner(blend="detail", blend_scale=0.1, blend_pixels=pixels)
    outcome = refiner.run(photo(), seed=2)
    side = min(outcome.initial.shape[-2:])
    assert outcome.blend_scale * side == pytest.approx(sigma)
    change = outcome.members.mean(dim=0, keepdim=True) - outcome.initial
    assert torch.allclose(outcome.refined, outcome.initial + change - gaussian_blur(change, sigma), atol=1e-5)
    assert outcome.blend_record()["scale"] == outcome.blend_scale


def test_a_single_member_is_the_blended_result() -> None:
    outcome = make_refiner(members=1, blend="agreement").run(photo())
    assert torch.allclose(outcome.refined, outcome.members)


@pytest.mark.slow
def test_rounding_grows_at_rates_that_show_and_stays_small_at_tame_ones() -> None:
    """What `TAME` rests on: comparisons between devices would compare this growth otherwise."""

    def error(**rates: Any) -> float:
        settings: dict[str, Any] = {"steps": 24, "schedule": "cosine", **rates}
        noise = 1e-7 * torch.randn(photo().shape, generator=seeded())
        exact, changed = (
            make_refiner(latent_prior("sds", dtype="float32", device=CPU), **settings).run(picture)
            for picture in (photo(), photo() + noise)
        )
        return change_error(changed, exact)

    assert error() > 0.2
    assert error(learning_rates=TAME) < 0.02
