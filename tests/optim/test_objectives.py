from __future__ import annotations

import math

import pytest
import torch

from redepth.contracts import Surface
from redepth.guidance import UNGUIDED, Guidance, SkyMask
from redepth.optim.objectives import DarkSmoothness, Sky, Smoothness, laplacian, normalize_range
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


def photo_of(brightness: torch.Tensor, raw: torch.Tensor) -> Surface:
    """The raw output over a grey photo, whose brightness is (H, W)."""
    return Surface(raw, raw, brightness.expand(1, 3, *brightness.shape))


def test_dark_smoothness_counts_where_the_photo_is_dark() -> None:
    rough = torch.rand(2, 1, 8, 12, generator=seeded())
    smooth_left = torch.cat([torch.linspace(0, 0.4, 8).expand(8, 8), rough[0, 0, :, 8:]], dim=1)[None, None]
    dark_left = torch.ones(8, 12)
    dark_left[:, :6] = 0.0
    loss = DarkSmoothness()(photo_of(dark_left, torch.cat([rough[:1], smooth_left])))
    assert loss[0] > 0.1
    assert loss[1] < 1e-6
    grey = DarkSmoothness()(photo_of(torch.full((8, 12), 0.7), rough))
    black = DarkSmoothness()(photo_of(torch.zeros(8, 12), rough))
    assert (grey < 1e-3 * black).all()
    inside = laplacian(normalize_range(rough))[..., 1:-1, 1:-1].abs().sum(dim=(1, 2, 3))
    assert torch.allclose(black, inside / rough[0].numel())


def test_dark_smoothness_leaves_the_border_of_a_plane_alone() -> None:
    plane = photo_of(torch.zeros(7, 9), torch.linspace(1, 2, 9).expand(1, 1, 7, 9))
    assert DarkSmoothness()(plane).item() < 1e-6
    assert Smoothness()(plane).item() > 0.05
    assert DarkSmoothness()(photo_of(torch.zeros(7, 9), torch.full((1, 1, 7, 9), 3.0))).tolist() == [0.0]


def test_the_darkness_is_the_linear_luma_of_a_weight_of_a_third() -> None:
    raw = torch.rand(1, 1, 6, 6, generator=seeded())
    grey = torch.full((6, 6), 0.05 ** (1 / 2.2))
    black = DarkSmoothness()(photo_of(torch.zeros(6, 6), raw))
    assert torch.allclose(DarkSmoothness()(photo_of(grey, raw)), black / math.e, rtol=1e-4)
    assert torch.allclose(DarkSmoothness(darkness=0.1)(photo_of(grey, raw)), black / math.e**0.5, rtol=1e-4)
