from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redepth.ops import filters, panorama
from tests.support.helpers import seeded
from tests.support.panoramas import box_distance


def around(width: int, height: int = 4) -> Tensor:
    """A smooth function of the direction, (1, 1, H, W)."""
    turn = (torch.arange(width, dtype=torch.float64) + 0.5) / width * 2 * torch.pi
    return (2 + turn.sin() + 0.5 * (3 * turn).cos()).expand(1, 1, height, width)


def seam_and_steps(values: Tensor) -> tuple[Tensor, Tensor]:
    """The steps across the edge (..., H), and those between neighbours (..., H, W - 1)."""
    return (values[..., 0] - values[..., -1]).abs(), values.diff(dim=-1).abs()


def test_the_photo_goes_on_at_the_other_side() -> None:
    picture = torch.arange(8.0).expand(1, 1, 2, 8)
    assert panorama.extend(picture, 2)[0, 0, 0].tolist() == [6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert panorama.margin_columns(512) == 64
    assert panorama.margin_columns(4) == 1


@pytest.mark.parametrize("columns", [1, 8, 16, 32])
def test_closing_undoes_extending(columns: int) -> None:
    values = torch.rand(2, 1, 5, 64, dtype=torch.float64, generator=seeded())
    closed = panorama.close(panorama.extend(values, columns), columns / 64)
    assert torch.allclose(closed, values)


def test_a_map_without_a_margin_is_closed_already() -> None:
    values = torch.rand(1, 1, 3, 6, generator=seeded())
    assert panorama.close(values, 0.0) is values


def test_closing_blends_linearly_between_the_two_answers() -> None:
    """One answer is 1 higher on the right half: at the edge both count one half."""
    extended = torch.zeros(1, 1, 1, 80, dtype=torch.float64)
    extended[..., 40:] = 1.0
    closed = panorama.close(extended, 8 / 64)[0, 0, 0]
    assert closed.shape == (64,)
    # Column j < 8 has weight (j + 1/2 + 8) / 16 of the left answer, 0, the rest is the right one's.
    assert closed[:8].tolist() == pytest.approx([1 - (j + 8.5) / 16 for j in range(8)])
    assert closed[-8:].tolist() == pytest.approx([(8.5 + 7 - j) / 16 for j in range(8)])
    assert closed[0].item() - closed[-1].item() == pytest.approx(-1 / 16), "one step of the ramp"
    assert (closed[8:32] == 0).all()
    assert (closed[33:56] == 1).all()


@pytest.mark.parametrize("width", [81, 90, 97])
def test_answers_that_differ_leave_no_seam_at_any_size(width: int) -> None:
    """Each end of the extended map has an error of its own, as a network's has."""
    margin = 1 / 8
    turn = ((torch.arange(width, dtype=torch.float64) + 0.5) / width) * (1 + 2 * margin) - margin
    truth = 2 + torch.sin(2 * torch.pi * turn)
    closed = panorama.close((truth + 0.8 * turn)[None, None, None], margin)
    seam, steps = seam_and_steps(closed)
    assert seam.max() <= steps.max()
    assert closed.shape[-1] == round(width / 1.25)


def test_resizing_goes_across_the_edge() -> None:
    values = around(32)
    large = panorama.resize(values, 40, 320)
    assert torch.allclose(large, around(320, 40), atol=0.03)
    seam, steps = seam_and_steps(large)
    assert seam.max() <= steps.max()
    # The same map from another beginning is the same map.
    assert torch.allclose(panorama.resize(values.roll(4, -1), 40, 320), large.roll(40, -1))


def test_resizing_into_blocks_of_rows_is_resizing() -> None:
    values = torch.rand(1, 1, 20, 40, generator=seeded())
    target = torch.empty(1, 1, 600, 100)
    panorama.resize_into(target, values)
    rows = torch.nn.functional.interpolate(values, size=(600, 40), mode="bilinear")
    assert torch.allclose(target[..., 300:310, :], panorama.resize(rows[..., 300:310, :], 10, 100))


def test_resizing_beyond_one_turn_is_extending() -> None:
    values = torch.rand(1, 1, 5, 32, dtype=torch.float64, generator=seeded())
    extended = panorama.resize(values, 5, 48, margin=8 / 32)
    assert torch.allclose(extended, panorama.extend(values, 8))


def test_a_closed_blur_knows_no_edge() -> None:
    values = torch.rand(1, 1, 6, 24, dtype=torch.float64, generator=seeded())
    for sigma in (1.0, 3.0, 20.0):
        blurred = filters.gaussian_blur(values, sigma, closed=True)
        shifted = filters.gaussian_blur(values.roll(7, -1), sigma, closed=True)
        assert torch.allclose(shifted, blurred.roll(7, -1))
    constant = torch.full((1, 1, 6, 24), 2.0, dtype=torch.float64)
    assert torch.allclose(filters.detail(constant, 0.3, closed=True), torch.zeros_like(constant), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(512, 1024), (512, 1023), (512, 1025)])
def test_the_shape_of_a_panorama(height: int, width: int) -> None:
    panorama.check_shape(height, width)


@pytest.mark.parametrize(("height", "width"), [(513, 1024), (480, 640), (1024, 512)])
def test_another_shape_is_none(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"twice as wide as high, this photo is {width} x {height}"):
        panorama.check_shape(height, width)


def test_a_room_is_the_same_room_after_closing() -> None:
    distance = box_distance(32, 64)
    assert torch.allclose(panorama.close(panorama.extend(distance, 8), 1 / 8), distance)
