"""The rules against an analytic prior: for data N(mu, sigma^2) the model's noise is known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import pytest
import torch
from torch import Generator, Tensor

from redepth.contracts import Condition, Illumination, Noise
from redepth.errors import WeightsError
from redepth.priors import scores
from redepth.priors.distillation import DiffusionPrior, StepInputs
from redepth.priors.schedule import LEAST_SIGMA, Schedule
from redepth.priors.scores import RULES, Branch
from tests.support.helpers import CPU, SCHEDULE, seeded

MEANS = {"text": 0.8, "uncond": 0.3, "negative": -0.5, "source": 0.8, "artefacts": -0.2}
SIGMA = 0.5
PHOTO = 0.1
X = 1.2
SAMPLES = 400_000
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


@dataclass(kw_only=True, eq=False)
class GaussianPrior(DiffusionPrior):
    """The optimal denoiser of N(mu_branch, SIGMA^2), on rows of one million independent numbers."""

    supported_branches: ClassVar[frozenset[Branch]] = frozenset(MEANS)
    samples: int = SAMPLES
    spread: float = 1.0
    predicts: Literal["flow", "sample"] = "flow"

    @property
    def noise_scale(self) -> float:
        return self.spread

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        return relit.flatten(1)[:, :1].expand(-1, self.samples).double()

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        noise = torch.randn(batch, self.samples, generator=generator, dtype=torch.float64)
        return {"noise": self.noise_scale * noise}

    def network(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> Mapping[Branch, Tensor]:
        a, s = self.schedule.at(timestep, noisy)
        spread, found = self.spread**2, {}
        for name in branches:
            residual = (noisy - a * MEANS[name]) / (a**2 * SIGMA**2 + s**2 * spread)
            noise, clean = s * spread * residual, MEANS[name] + a * SIGMA**2 * residual
            found[name] = {"epsilon": noise, "sample": clean, "flow": noise - clean}[self.schedule.predicts]
        return found

    def describe(self) -> dict[str, Any]:
        return {}

    def load(self, device: torch.device) -> GaussianPrior:
        return self


def gaussian(score: str, *, flow: bool = False, **options: Any) -> GaussianPrior:
    prior = GaussianPrior(score=score, reduction="sum", **options)  # type: ignore[arg-type]
    prior.flow_predicts = prior.predicts  # type: ignore[misc]
    prior.use_schedule(FLOW if flow else SCHEDULE | {"prediction_type": "epsilon"}, CPU)
    return prior


def gradient(prior: GaussianPrior, x: float = X, photo: float = PHOTO, progress: float = 0.0) -> float:
    """The mean over the numbers of the gradient that reaches the picture's one value."""
    picture = torch.full((1, 3, 1, 1), x, dtype=torch.float64, requires_grad=True)
    condition = Condition({"photo": torch.full((1, 3, 1, 1), photo, dtype=torch.float64)})
    prior(picture, condition, Illumination(), prior.draw(1, seeded(), progress)).sum().backward()
    assert picture.grad is not None
    return float(picture.grad.sum()) / prior.samples


LEVEL = {"t_min": 0.4, "t_max": 0.4}


def level(flow: bool = False, t: int = 400) -> tuple[float, float, float]:
    """a, s and the variance of x_t / of the data at the level that `LEVEL` fixes."""
    schedule = Schedule.from_config(FLOW if flow else SCHEDULE | {"prediction_type": "epsilon"})
    a, s = float(schedule.a[t]), float(schedule.s[t])
    return a, s, a**2 * SIGMA**2 + s**2


def guided_mean(scale: float, base: str) -> float:
    start = MEANS["text"] if base == "text" else MEANS["uncond"]
    return start + scale * (MEANS["text"] - MEANS["uncond"])


@pytest.mark.parametrize("base", ["text", "uncond"])
@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_sds_pulls_towards_the_guided_mean(base: Any, scale: float) -> None:
    a, s, variance = level()
    found = gradient(gaussian("sds", guidance_scale=scale, guidance_base=base, **LEVEL))
    expected = a * s * (X - guided_mean(scale, base)) / variance
    assert found == pytest.approx(expected, abs=0.01)


def test_sds_x0_is_sds_times_s_over_a() -> None:
    _, s, variance = level()
    found = gradient(gaussian("sds-x0", guidance_scale=2.0, **LEVEL))
    assert found == pytest.approx(s**2 * (X - guided_mean(2.0, "text")) / variance, abs=0.01)
    weighted = gradient(gaussian("sds", guidance_scale=2.0, weighting="x0", **LEVEL))
    assert found == pytest.approx(weighted, rel=1e-5)


def test_csd_is_the_guidance_term_without_the_picture() -> None:
    a, s, variance = level()
    expected = 3 * a * s * (MEANS["uncond"] - MEANS["text"]) / variance
    for x in (X, -2.0):
        assert gradient(gaussian("csd", guidance_scale=3.0, **LEVEL), x) == pytest.approx(expected, rel=1e-4)
    assert gradient(gaussian("csd", guidance_scale=0.0, **LEVEL)) == 0


@pytest.mark.parametrize("progress", [0.0, 0.75])
def test_csds_negative_prompt_fades_out(progress: float) -> None:
    a, s, variance = level()
    away = 2.0 * (1 - progress)
    mean = 3 * MEANS["text"] + (away - 3) * MEANS["uncond"] - away * MEANS["negative"]
    found = gradient(gaussian("csd", guidance_scale=3.0, negative_scale=2.0, **LEVEL), progress=progress)
    assert found == pytest.approx(-a * s * mean / variance, rel=1e-4)


def test_nfsd_has_no_noise_in_it() -> None:
    a, s, variance = level()
    mean = MEANS["uncond"] - MEANS["negative"] + 2 * (MEANS["text"] - MEANS["uncond"])
    found = gradient(gaussian("nfsd", guidance_scale=2.0, **LEVEL))
    assert found == pytest.approx(-a * s * mean / variance, rel=1e-4)
    low = {"t_min": 0.1, "t_max": 0.1}
    a, s, variance = level(t=100)
    expected = a * s * (X - MEANS["uncond"] - 2 * (MEANS["text"] - MEANS["uncond"])) / variance
    assert gradient(gaussian("nfsd", guidance_scale=2.0, **low)) == pytest.approx(expected, abs=0.01)


def on_the_path(mean: float, t: int) -> float:
    """Where the deterministic path from X under N(mean, SIGMA^2) passes the level t."""
    a, _, variance = level(t=t)
    return a * mean + (X - mean) * variance**0.5 / SIGMA


def test_ism_compares_two_levels_of_the_inverted_path() -> None:
    options: dict[str, Any] = {"guidance_scale": 2.0, "inversion_steps": 100, "interval": 40, "samples": 1}
    found = gradient(gaussian("ism", **options, **LEVEL))
    a, s, variance = level()
    told = s * (on_the_path(MEANS["uncond"], 400) - a * guided_mean(2.0, "text")) / variance
    a, s, variance = level(t=360)
    untold = s * (on_the_path(MEANS["uncond"], 360) - a * MEANS["uncond"]) / variance
    assert found == pytest.approx(told - untold, rel=0.03)


def test_sdi_takes_its_noise_from_inverting_the_picture() -> None:
    # Guidance 1 over uncond is the prompt alone: then the path is the one of N(mu_text, SIGMA^2).
    options: dict[str, Any] = {"inversion_steps": 100, "inversion_guidance": 1.0, "samples": 1}
    found = gradient(gaussian("sdi", guidance_scale=2.0, **options, **LEVEL))
    a, s, variance = level()
    noisy = on_the_path(MEANS["text"], 400)
    expected = s * (noisy - a * guided_mean(2.0, "text")) / variance - (noisy - a * X) / s
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("t", [60, 300])
@pytest.mark.parametrize("score", ["sdi", "ism"])
def test_inverting_does_not_multiply_the_error_of_a_predicted_picture(score: str, t: int) -> None:
    """A model that predicts pictures and errs by 10 %: the path stays as large as x_t is."""
    options: dict[str, Any] = {"guidance_scale": 1.0, "guidance_base": "uncond", "inversion_guidance": 1.0}
    options |= {"t_min": t / 1000, "t_max": t / 1000, "samples": 4096}
    prior = gaussian(score, flow=True, predicts="sample", **options)
    perfect, sizes = prior.predict, []

    def nearly(noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]) -> Any:
        sizes.append(float(noisy.square().mean().sqrt()))
        error = 0.1 * X * torch.randn(noisy.shape, generator=seeded(3))
        return {k: v + error for k, v in perfect(noisy, timestep, inputs, branches).items()}

    prior.predict = nearly  # type: ignore[method-assign]
    drawn = prior.draw(1, seeded())
    x = torch.full_like(drawn["noise"], X)
    usual = prior.schedule.add_noise(x, drawn["noise"], drawn["timestep"])
    found = RULES[score].gradient(prior._query(x, StepInputs(Condition({}), Illumination(), drawn)))
    assert len(sizes) == {"sdi": 6, "ism": 7}[score]
    assert max(sizes) < 1.5 * max(X, float(usual.square().mean().sqrt()))
    assert float(found.square().mean().sqrt()) < 2 * 0.1 * X / LEAST_SIGMA


@pytest.mark.parametrize("score", ["sdi", "ism"])
def test_inverting_with_predicted_pictures_finds_the_path_of_velocities(score: str) -> None:
    options: dict[str, Any] = {
        "guidance_scale": 2.0,
        "inversion_guidance": 1.0,
        "interval": 200,
        "samples": 1,
    }
    found, expected = (
        gradient(gaussian(score, flow=True, predicts=kind, inversion_steps=100, **options, **LEVEL))
        for kind in ("sample", "flow")
    )
    assert found == pytest.approx(expected, rel=0.1)


def test_dds_is_the_difference_to_the_photo_and_zero_at_it() -> None:
    a, s, variance = level()
    found = gradient(gaussian("dds", guidance_scale=3.0, **LEVEL))
    assert found == pytest.approx(a * s * (X - PHOTO) / variance, rel=1e-4)
    assert gradient(gaussian("dds", guidance_scale=3.0, **LEVEL), x=PHOTO) == 0


def test_the_bridge_leads_from_the_artefacts_to_the_prompt() -> None:
    a, s, variance = level()
    found = gradient(gaussian("sds-bridge", guidance_scale=3.0, **LEVEL))
    assert found == pytest.approx(3 * a * s * (MEANS["artefacts"] - MEANS["text"]) / variance, rel=1e-4)


@pytest.mark.parametrize("score", ["rfds", "flow-sds"])
@pytest.mark.parametrize("base", ["text", "uncond"])
@pytest.mark.parametrize("t", [20, 400, 900])
def test_rfds_pulls_towards_the_guided_mean(score: Any, base: Any, t: int) -> None:
    _, s, variance = level(flow=True, t=t)
    where = {"t_min": t / 1000, "t_max": t / 1000}
    found = gradient(gaussian(score, flow=True, guidance_scale=2.0, guidance_base=base, **where))
    assert found == pytest.approx(s * (X - guided_mean(2.0, base)) / variance, abs=0.01)


def test_rfds_holds_at_pure_noise() -> None:
    """There x_t does not depend on x, and the model's velocity is the noise less the mean."""
    options: dict[str, Any] = {"guidance_scale": 0.0, "t_min": 1.0, "t_max": 1.0}
    found = gradient(gaussian("rfds", flow=True, **options))
    assert found == pytest.approx(X - MEANS["text"], rel=1e-6)


def test_on_a_flow_model_sds_and_sds_x0_are_parts_of_rfds() -> None:
    a, s, _ = level(flow=True)
    found = {score: gradient(gaussian(score, flow=True, **LEVEL)) for score in ("rfds", "sds", "sds-x0")}
    assert found["sds"] == pytest.approx(a * found["rfds"], rel=1e-5)
    assert found["sds-x0"] == pytest.approx(s * found["rfds"], rel=1e-5)


@pytest.mark.parametrize("t", [20, 400])
@pytest.mark.parametrize("spread", [1.0, 2.0])
@pytest.mark.parametrize("score", ["rfds", "sds", "sds-x0"])
def test_a_flow_model_that_predicts_pictures_is_scored_likewise(score: str, spread: float, t: int) -> None:
    """Also where its noise has another spread. Near 0 the velocity is shortened, as in sampling."""
    a, s, _ = level(flow=True, t=t)
    nearer = s * spread**2 * (X - guided_mean(2.0, "text")) / (a**2 * SIGMA**2 + s**2 * spread**2)
    expected = {"rfds": nearer * s / max(s, LEAST_SIGMA), "sds": a * nearer, "sds-x0": s * nearer}
    options: dict[str, Any] = {"guidance_scale": 2.0, "t_min": t / 1000, "t_max": t / 1000}
    prior = gaussian(score, flow=True, predicts="sample", spread=spread, **options)
    assert gradient(prior) == pytest.approx(expected[score], abs=0.02)


def test_a_learned_copy_is_taught_with_noise_of_the_models_spread() -> None:
    drawn = gaussian("vsd", flow=True, spread=2.0).draw(1, seeded())
    assert float(drawn["learned_noise"].std()) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("score", ["sds", "csd", "dds", "sds-x0"])
def test_flow_models_are_scored_by_the_other_rules_too(score: str) -> None:
    a, s, variance = level(flow=True)
    expected = {
        "sds": a * s * (X - guided_mean(2.0, "text")) / variance,
        "sds-x0": s**2 * (X - guided_mean(2.0, "text")) / variance,
        "csd": 2 * a * s * (MEANS["uncond"] - MEANS["text"]) / variance,
        "dds": a * s * (X - PHOTO) / variance,
    }
    found = gradient(gaussian(score, flow=True, guidance_scale=2.0, **LEVEL))
    assert found == pytest.approx(expected[score], abs=0.01)


def test_rfds_is_refused_for_another_kind_of_model() -> None:
    with pytest.raises(WeightsError, match=r"rfds is defined for flow-matching models.*'epsilon'"):
        gaussian("rfds")


# --- what the rules share ---------------------------------------------------------------------------


def test_every_score_has_a_rule_and_a_source() -> None:
    assert set(RULES) == set(get_args(scores.Score))
    functions = (scores.sds, scores.sds_x0, scores.csd, scores.nfsd, scores.ism, scores.dds, scores.bridge)
    for function in (*functions, scores.vsd, scores.rfds, scores.SDI):
        assert "arXiv" in (function.__doc__ or "")


def test_weightings_scale_the_gradient() -> None:
    a, s, _ = level()
    plain = gradient(gaussian("csd", **LEVEL))
    for weighting, factor in {"uniform": 1.0, "sds": s**2, "fantasia3d": a * s**2, "x0": s / a}.items():
        found = gradient(gaussian("csd", weighting=weighting, **LEVEL))
        assert found == pytest.approx(factor * plain, rel=1e-5)


def test_guidance_over_text_is_guidance_plus_one_over_uncond() -> None:
    text, uncond = (torch.randn(3, 4, generator=seeded(k)) for k in (0, 1))
    assert torch.allclose(
        scores.guide(text, uncond, 50.0, "text"), scores.guide(text, uncond, 51.0, "uncond"), atol=1e-4
    )
    assert torch.equal(scores.guide(text, uncond, 0.0, "text"), text)


def test_clipping_bounds_rows_and_keeps_what_is_not_finite() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [float("nan"), float("inf")]])
    clipped = scores.clip(rows, 1.0)
    assert clipped[0].square().mean().sqrt().item() == pytest.approx(1.0)
    assert torch.allclose(clipped[0] / clipped[0].norm(), torch.tensor([0.6, 0.8]))
    assert torch.equal(clipped[1], rows[1])
    assert not torch.isfinite(clipped[2]).any()
    assert torch.equal(scores.clip(rows[:2], None), rows[:2])
    assert abs(gradient(gaussian("csd", clip=0.01, **LEVEL))) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_losss_derivative_is_the_gradient(reduction: Any) -> None:
    x = torch.randn(3, 3, 4, 4, generator=seeded()).double().requires_grad_()
    gradient = torch.randn(3, 3, 4, 4, generator=seeded(1)).double()
    loss = scores.distillation_loss(x, gradient, reduction)
    assert loss.shape == (3,)
    loss.sum().backward()
    share = x[0].numel() if reduction == "mean" else 1
    assert torch.allclose(x.grad, gradient / share)
    assert torch.allclose(loss, 0.5 * (gradient**2).flatten(1).sum(dim=1) / share)


@pytest.mark.parametrize(
    ("annealing", "progress", "highest"),
    [("constant", 0.9, 600), ("linear", 0.5, 350), ("sqrt", 0.25, 350), ("sqrt", 1.0, 100)],
)
def test_timesteps_fall_as_their_annealing_says(annealing: Any, progress: float, highest: int) -> None:
    prior = gaussian("sds", t_min=0.1, t_max=0.6, t_annealing=annealing)
    drawn = prior.draw_timesteps(20_000, seeded(), progress)
    assert int(drawn.min()) == 100
    assert int(drawn.max()) == highest


def test_a_rule_without_its_prompt_is_refused_and_the_others_named() -> None:
    @dataclass(kw_only=True, eq=False)
    class Unconditional(GaussianPrior):
        supported_branches: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond"})

    for score, options in (("nfsd", {}), ("sds-bridge", {}), ("csd", {"negative_scale": 1.0})):
        with pytest.raises(ValueError, match=f"{score} needs a prompt .*stable-diffusion-xl"):
            Unconditional(score=score, **options)  # type: ignore[arg-type]
    Unconditional(score="csd")
