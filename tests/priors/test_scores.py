from __future__ import annotations

import pytest
import torch

from redepth.priors import scores
from tests.helpers import relative_error, seeded

ALPHA = torch.tensor([0.9, 0.5, 0.1])


def pictures(seed: int) -> torch.Tensor:
    return torch.randn(3, 3, 4, 4, dtype=torch.float64, generator=seeded(seed))


def test_conversions_between_noise_velocity_and_sample_agree() -> None:
    x, eps, alpha = pictures(0), pictures(1), ALPHA.double()
    noisy = scores.add_noise(x, eps, alpha)
    a = alpha.view(-1, 1, 1, 1)
    velocity = a.sqrt() * eps - (1 - a).sqrt() * x
    assert torch.allclose(scores.noise_from_velocity(velocity, noisy, alpha), eps)
    assert torch.allclose(scores.noise_from_sample(x, noisy, alpha), eps)


def test_guidance_over_text_is_guidance_plus_one_over_uncond() -> None:
    text, uncond = pictures(0), pictures(1)
    assert torch.allclose(
        scores.guide(text, uncond, 50.0, "text"), scores.guide(text, uncond, 51.0, "uncond")
    )
    assert torch.equal(scores.guide(text, uncond, 0.0, "text"), text)


def test_weightings() -> None:
    assert scores.weight(ALPHA, "uniform").tolist() == [1, 1, 1]
    assert torch.allclose(scores.weight(ALPHA, "sds"), 1 - ALPHA)
    assert torch.allclose(scores.weight(ALPHA, "fantasia3d"), ALPHA.sqrt() * (1 - ALPHA))


def test_x0_weighting_makes_the_gradient_the_distance_to_the_reconstruction() -> None:
    x, eps, sample, alpha = pictures(0), pictures(1), pictures(2), ALPHA.double()
    noisy = scores.add_noise(x, eps, alpha)
    predicted = scores.noise_from_sample(sample, noisy, alpha)
    gradient = scores.sds_gradient(predicted, eps, scores.weight(alpha, "x0"))
    assert relative_error(gradient, x - sample) < 1e-10


def test_non_finite_predictions_push_nowhere() -> None:
    predicted = pictures(0)
    predicted[0, 0, 0, 0], predicted[1, 0, 0, 0] = float("nan"), float("inf")
    gradient = scores.sds_gradient(predicted, pictures(1), torch.ones(3))
    assert gradient[0, 0, 0, 0] == 0
    assert gradient[1, 0, 0, 0] == 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_losss_derivative_is_the_gradient(reduction: str) -> None:
    x, gradient = pictures(0).requires_grad_(), pictures(1)
    loss = scores.distillation_loss(x, gradient, reduction)  # type: ignore[arg-type]
    assert loss.shape == (3,)
    loss.sum().backward()
    share = x[0].numel() if reduction == "mean" else 1
    assert torch.allclose(x.grad, gradient / share)
    expected = 0.5 * (gradient**2).flatten(1).sum(dim=1) / share
    assert torch.allclose(loss, expected)


def test_the_expected_gradient_under_a_gaussian_prior_is_its_score() -> None:
    """For data N(mu, s^2) the optimal e is known, so E[e - eps] over eps is too."""
    mu, s, x, alpha = 0.3, 0.5, 1.2, torch.tensor([0.4], dtype=torch.float64)
    eps = torch.randn(1, 200_000, dtype=torch.float64, generator=seeded())
    noisy = scores.add_noise(torch.full_like(eps, x), eps, alpha)
    variance = float(alpha * s**2 + 1 - alpha)
    optimal = (1 - alpha).sqrt() * (noisy - alpha.sqrt() * mu) / variance
    found = scores.sds_gradient(optimal, eps, torch.ones(1)).mean()
    expected = float((1 - alpha).sqrt() * alpha.sqrt()) * (x - mu) / variance
    assert float(found) == pytest.approx(expected, abs=0.01)
