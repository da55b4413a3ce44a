from __future__ import annotations

import pytest
import torch

from redepth.contracts import Surface
from redepth.guidance import UNGUIDED, Guidance, SkyMask
from redepth.optim.objectives import Sky, Smoothness, laplacian, normalize_range
from tests.support.helpers import seeded


def surface(raw: torch.Tensor) -> Surface:
    return Surface(raw, raw, raw)


def known(sky: torch.Tensor | None) -> Guidance:
    return UNGUIDED if sky is None else Guidance({SkyMask: SkyMask(sky)})


def test_a_constant_output_has_no_loss_and_a_finite_gradient() -> None:
    raw = torch.full((2, 1, 5, 5), 3.0, requires_grad=True)
    loss = Smoothness()(surface(raw))
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_each_row_is_normalised_by_its_range() -> None:
    raw = torch.rand(2, 1, 6, 6, generator=seeded())
    scaled = torch.cat([raw[:1], 100 * raw[1:] + 7])
    assert torch.allclose(Smoothness()(surface(raw)), Smoothness()(surface(scaled)), rtol=1e-4)
    assert normalize_range(scaled).flatten(1).amax(dim=1).tolist() == [1.0, 1.0]


def test_the_laplacian_of_a_paraboloid_is_constant_inside() -> None:
    x = torch.arange(7, dtype=torch.float64)
    values = (x[:, None] ** 2 + x[None] ** 2).view(1, 1, 7, 7)
    assert torch.allclose(laplacian(values)[0, 0, 1:-1, 1:-1], torch.full((5, 5), 4.0, dtype=torch.float64))


def test_gradcheck() -> None:
    raw = torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=seeded())
    span = (raw.max() - raw.min()).item()

    def fixed_range(values: torch.Tensor) -> torch.Tensor:
        return laplacian((values - raw.min()) / span).abs().mean()

    probe = raw.clone().requires_grad_()
    Smoothness()(surface(probe)).sum().backward()
    other = raw.clone().requires_grad_()
    assert torch.autograd.gradcheck(fixed_range, (other,))
    fixed_range(other).backward()
    assert torch.allclose(probe.grad, other.grad)


def sky_surface(raw: torch.Tensor, predicts: str = "disparity") -> Surface:
    """The upper two of four rows are sky."""
    sky = torch.zeros(1, 1, *raw.shape[-2:], dtype=torch.bool)
    sky[..., :2, :] = True
    return Surface(raw, raw, raw, predicts, known(sky))  # type: ignore[arg-type]


def test_the_sky_term_is_the_mean_nearness_of_the_sky_per_member() -> None:
    raw = torch.zeros(2, 1, 4, 5)
    raw[:, :, 2:] = 2.0
    raw[1, 0, 0, 0] = 1.0
    assert Sky()(sky_surface(raw)).tolist() == pytest.approx([0.0, 0.5 / 10])
    assert Sky()(sky_surface(300 * raw + 7)).tolist() == pytest.approx([0.0, 0.5 / 10])
    assert Sky()(sky_surface(9 - raw, "depth")).tolist() == pytest.approx([0.0, 0.5 / 10])
    assert Sky(tolerance=0.2)(sky_surface(raw)).tolist() == pytest.approx([0.0, 0.3 / 10])
    assert Sky(tolerance=0.6)(sky_surface(raw)).tolist() == [0.0, 0.0]


def test_the_sky_term_has_a_gradient_in_the_sky_alone() -> None:
    raw = torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=seeded()).requires_grad_()
    Sky()(sky_surface(raw)).sum().backward()
    span = float(raw.detach().max() - raw.detach().min())
    assert torch.allclose(raw.grad[..., :2, :], torch.full((2, 5), 1 / (10 * span), dtype=torch.float64))
    assert not raw.grad[..., 2:, :].any()


@pytest.mark.parametrize("sky", [None, torch.zeros(1, 1, 4, 5, dtype=torch.bool)])
def test_the_sky_term_is_zero_without_sky_and_for_a_constant(sky: torch.Tensor | None) -> None:
    raw = torch.rand(3, 1, 4, 5, generator=seeded())
    assert Sky()(Surface(raw, raw, raw, "disparity", known(sky))).tolist() == [0.0, 0.0, 0.0]
    constant = torch.ones(1, 1, 4, 5, requires_grad=True)
    loss = Sky()(sky_surface(constant))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert torch.isfinite(constant.grad).all()
