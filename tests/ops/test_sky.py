from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy.failures import Case, outdoors
from redepth.ops.sky import sky_mask


def overlap(found: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """The share of the sky that was found, and the share of what was found that is none."""
    return float((found & true).sum() / true.sum()), float((found & ~true).sum() / found.sum().clamp(min=1))


@pytest.mark.parametrize("blue", [True, False])
@pytest.mark.parametrize("predicts", ["disparity", "depth"])
def test_sky_is_found_whatever_the_network_predicts(blue: bool, predicts: str, device: torch.device) -> None:
    case = outdoors(1, blue=blue)
    raw = case.initial if predicts == "disparity" else 9 - 2 * case.initial
    found = sky_mask(case.photo.to(device), raw.to(device), predicts).cpu()  # type: ignore[arg-type]
    share, wrong = overlap(found, case.sky)
    assert found.dtype == torch.bool
    assert share > 0.9
    assert wrong < 0.01


def photo_changed(case: Case, inside: torch.Tensor, colour: list[float]) -> torch.Tensor:
    return torch.where(inside, torch.tensor(colour).view(1, 3, 1, 1), case.photo)


def test_each_condition_is_needed() -> None:
    case = outdoors()
    assert case.sky is not None
    near = torch.where(case.sky, 3.0, case.initial)
    assert not sky_mask(case.photo, near).any()
    assert not sky_mask(photo_changed(case, case.sky, [0.4, 0.6, 0.2]), case.initial).any()
    assert not sky_mask(photo_changed(case, case.sky, [0.2, 0.2, 0.2]), case.initial).any()
    rough = case.photo + 0.1 * torch.randn(case.photo.shape, generator=torch.Generator().manual_seed(0))
    assert not sky_mask(rough.clamp(0, 1), case.initial).any()
    # Not from the upper border down: a lake.
    assert not sky_mask(case.photo.flip(-2), case.initial.flip(-2)).any()


def test_a_narrow_strip_and_a_constant_prediction_are_no_sky(device: torch.device) -> None:
    case = outdoors()
    assert not sky_mask(case.photo.to(device), torch.ones_like(case.initial).to(device)).any()
    strip = torch.full_like(case.photo, 0.3)
    strip[..., :3, :] = 0.8
    raw = torch.ones_like(case.initial) + torch.linspace(0, 1, 140)[:, None]
    raw[..., :6, :] = 0
    assert not sky_mask(strip.to(device), raw.to(device)).any()


def test_a_wire_in_front_of_the_sky_does_not_cut_it() -> None:
    case = outdoors()
    case.photo[..., 20, :] = 0.7 * case.photo[..., 20, :]
    share, _ = overlap(sky_mask(case.photo, case.initial), case.sky)
    assert share > 0.85
