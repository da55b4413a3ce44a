from __future__ import annotations

import math

import pytest
import torch

from redepth.ops.filters import (
    dilate,
    fill_holes,
    gaussian_blur,
    gradient,
    length,
    resample,
    wide_gaussian_blur,
)
from tests.support.helpers import seeded


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4.0])
def test_the_blur_of_a_point_is_the_gaussian(sigma: float, device: torch.device) -> None:
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64, device=device)
    point[..., 20, 20] = 1
    blurred = gaussian_blur(point, sigma)
    t = torch.arange(41, dtype=torch.float64, device=device) - 20
    expected = torch.exp(-(t**2) / (2 * sigma**2)) * (t.abs() <= math.ceil(3 * sigma))
    expected = expected / expected.sum()
    assert torch.allclose(blurred[0, 0], expected[:, None] * expected, atol=1e-15)


def test_a_constant_stays_up_to_its_border_and_channels_do_not_mix() -> None:
    values = torch.rand(2, 3, 1, 1, dtype=torch.float64, generator=seeded()).expand(2, 3, 7, 9)
    assert torch.allclose(gaussian_blur(values, 2.0), values)


def test_the_blur_is_the_same_alone_and_in_a_batch(device: torch.device) -> None:
    values = torch.rand(3, 2, 12, 10, generator=seeded()).to(device)
    alone = torch.stack([gaussian_blur(v[None, None], 1.2)[0, 0] for v in values.flatten(0, 1)])
    assert torch.allclose(gaussian_blur(values, 1.2).flatten(0, 1), alone, atol=1e-6)


def test_the_gradient_of_a_plane_is_its_slopes(device: torch.device) -> None:
    row, column = torch.arange(6.0)[:, None], torch.arange(8.0)
    plane = (3 * column - 4 * row)[None, None].to(device)
    slopes = gradient(plane)
    lengths = length(slopes).cpu()
    slopes = slopes.cpu()
    assert torch.allclose(slopes[:, 0], torch.full((1, 6, 8), 3.0))
    assert torch.allclose(slopes[:, 1], torch.full((1, 6, 8), -4.0))
    assert torch.allclose(lengths, torch.full((1, 1, 6, 8), 5.0))


def test_growing_takes_the_largest_of_a_square(device: torch.device) -> None:
    values = torch.rand(2, 1, 9, 11, generator=seeded()).to(device)
    grown_by_two = dilate(values, 2)
    assert float(grown_by_two[1, 0, 4, 5]) == float(values[1, 0, 2:7, 3:8].max())
    assert float(grown_by_two[0, 0, 0, 10]) == float(values[0, 0, :3, 8:].max())
    assert torch.equal(dilate(values, 0), values)


def test_holes_are_filled_from_around_them(device: torch.device) -> None:
    row, column = torch.arange(48.0)[:, None], torch.arange(64.0)
    plane = (3 * column - 4 * row).expand(2, 3, 48, 64).clone().to(device)
    known = torch.ones_like(plane, dtype=torch.bool)
    known[..., 20:24, 30:34] = False
    holed = plane.masked_fill(~known, torch.nan)
    filled = fill_holes(holed, known)
    assert torch.equal(filled[known], plane[known])
    assert float((filled - plane)[~known].abs().max()) < 16
    known[:, :, :40] = False
    filled = fill_holes(plane.masked_fill(~known, torch.inf), known)
    assert bool(torch.isfinite(filled).all())
    assert float(filled.min()) == float(plane[known].min())
    assert float(filled.max()) == float(plane[known].max())
    assert fill_holes(plane, torch.ones_like(known)) is plane
    with pytest.raises(ValueError, match="no pixel is known"):
        fill_holes(plane, torch.zeros_like(known))


def plane(height: int, width: int, device: torch.device) -> torch.Tensor:
    """An affine function of the position in the picture, in [0, 1] along each side."""
    rows, columns = ((torch.arange(n, device=device).double() + 0.5) / n for n in (height, width))
    return (2 - 3 * rows[:, None] + 5 * columns)[None, None]


@pytest.mark.parametrize("size", [(12, 17), (30, 44), (31, 43), (90, 100), (200, 7), (2, 3)])
def test_a_plane_stays_a_plane_up_to_the_border(size: tuple[int, int], device: torch.device) -> None:
    found = resample(plane(31, 43, device), *size)
    assert torch.allclose(found, plane(*size, device), atol=1e-12)


def test_resampling_is_bilinear_where_a_map_grows_and_a_mean_where_it_shrinks() -> None:
    values = torch.rand(2, 3, 8, 10, dtype=torch.float64, generator=seeded())
    grown = resample(values, 24, 30)
    bilinear = torch.nn.functional.interpolate(values, (24, 30), mode="bilinear")
    assert torch.allclose(grown[..., 2:-2, 2:-2], bilinear[..., 2:-2, 2:-2])
    assert resample(values, 8, 10).equal(values)
    noise = torch.rand(1, 1, 400, 400, dtype=torch.float64, generator=seeded())
    assert float(resample(noise, 40, 40).std()) < float(noise.std()) / 8


def test_a_single_value_fills_the_map() -> None:
    assert resample(torch.full((1, 1, 1, 5), 3.0), 4, 10).unique().tolist() == [3.0]


@pytest.mark.parametrize("sigma", [0.7, 3.0, 40.0])
@pytest.mark.parametrize("size", [(9, 14), (1, 5), (2, 3)])
def test_a_wide_blur_is_the_blur(sigma: float, size: tuple[int, int], device: torch.device) -> None:
    values = torch.rand(2, 3, *size, generator=seeded(), dtype=torch.float64).to(device)
    assert torch.allclose(wide_gaussian_blur(values, sigma), gaussian_blur(values, sigma), atol=1e-12)
