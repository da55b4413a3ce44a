from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redepth.errors import WeightsError
from redepth.priors.schedule import LEAST_SIGMA, Schedule
from tests.support.helpers import SCHEDULE, seeded

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
KINDS = ("epsilon", "v_prediction", "sample", "flow")
T = torch.tensor([10, 500, 990])


def schedule(kind: str) -> Schedule:
    return Schedule.from_config(FLOW if kind == "flow" else SCHEDULE | {"prediction_type": kind})


def pictures(seed: int) -> Tensor:
    return torch.randn(3, 3, 4, 4, generator=seeded(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_target_stands_for_the_noise_and_the_picture(kind: str) -> None:
    x, eps, found = pictures(0), pictures(1), schedule(kind)
    noisy = found.add_noise(x, eps, T)
    prediction = found.target(x, eps, T)
    noise = found.noise_of(prediction, noisy, T)
    assert torch.allclose(noise, eps, atol=2e-3)
    assert torch.allclose(found.sample_of(eps, noisy, T), x, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_the_true_noise_lands_on_the_noisier_picture(kind: str) -> None:
    x, eps, found = pictures(0), pictures(1), schedule(kind)
    clean = torch.full_like(T, -1)
    noisy = found.step(x, eps, clean, T)
    assert torch.allclose(noisy, found.add_noise(x, eps, T), atol=1e-5)
    assert torch.allclose(found.step(noisy, eps, T, clean), x, atol=2e-3)


def test_variance_preserving_and_flow_levels() -> None:
    vp, flow = schedule("epsilon"), schedule("flow")
    assert torch.allclose(vp.a**2 + vp.s**2, torch.ones(1000))
    assert torch.allclose(flow.a + flow.s, torch.ones(1000))
    for found in (vp, flow):
        assert (found.s.diff() > 0).all()
    assert flow.flow
    assert not vp.flow
    assert flow.s[-1] == 1


def test_the_training_target_of_a_flow_model_stands_for_the_velocity() -> None:
    x, eps = pictures(0), pictures(1)
    for predicts in ("flow", "sample"):
        found = Schedule.from_config(FLOW, predicts)  # type: ignore[arg-type]
        noisy, target = found.add_noise(x, eps, T), found.target(x, eps, T)
        velocity = found.velocity_of(target, noisy, T)
        # The first level is below the bound on sigma.
        assert torch.allclose(velocity[1:], (eps - x)[1:], atol=1e-5)
        share = 1.0 if predicts == "flow" else 0.011 / LEAST_SIGMA
        assert torch.allclose(velocity[0], share * (eps - x)[0], atol=1e-5)


def test_the_level_before_0_is_the_clean_picture() -> None:
    x = pictures(0)
    assert torch.equal(schedule("epsilon").add_noise(x, pictures(1), torch.full((3,), -1)), x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_train_timesteps": 500}, "a noise schedule of 500 timesteps; 1000 are supported"),
        ({"prediction_type": "score"}, "prediction_type is 'score'"),
    ],
)
def test_another_schedule_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        Schedule.from_config(SCHEDULE | change)


def test_a_model_of_pictures_is_not_asked_for_the_noise_of_nearly_clean_ones() -> None:
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    timesteps = torch.tensor([-1, 0, 48, 49, 50, 999])
    found = Schedule.from_config(flow, "sample").raised(timesteps)
    assert found.tolist() == [49, 49, 49, 49, 50, 999]
    assert float(Schedule.from_config(flow, "sample").s[49]) == pytest.approx(LEAST_SIGMA)
    for kind in ("epsilon", "v_prediction", "flow"):
        assert schedule(kind).raised(timesteps).tolist() == [0, 0, 48, 49, 50, 999]
    still = Schedule(torch.ones(1000), torch.full((1000,), 1e-3), "sample")
    assert still.raised(timesteps).tolist() == [999] * 6
