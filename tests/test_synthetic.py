from __future__ import annotations

import pytest
import torch

from redepth.data.synthetic import FAMILIES, Domain, _Canvas, scenes
from redepth.ops.geometry import normals_from_depth, relative_depth
from tests.helpers import seeded

DOMAINS: list[Domain] = ["mid", "broad"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_scenes_are_valid_photos_of_valid_surfaces(domain: Domain) -> None:
    drawn = scenes(24, domain, seeded(), height=48, width=64)
    assert drawn.image.shape == (24, 3, 48, 64)
    assert drawn.depth.shape == (24, 1, 48, 64)
    assert torch.isfinite(drawn.image).all()
    assert drawn.image.min() >= 0
    assert drawn.image.max() <= 1
    assert drawn.depth.min() >= 0.399
    assert drawn.depth.max() <= 1.601
    assert drawn.image.flatten(1).std(dim=1).min() > 0.005


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_disparity_gives_the_depth_back_exactly(domain: Domain) -> None:
    drawn = scenes(4, domain, seeded())
    assert torch.allclose(relative_depth(drawn.disparity), drawn.depth, rtol=1e-5)
    assert drawn.disparity.min() > 0


def test_a_seed_gives_the_same_scenes_and_another_one_others() -> None:
    first, second, other = (scenes(3, "broad", seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.depth, second.depth)
    assert not torch.equal(first.depth, other.depth)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_makes_relief_that_differs_from_scene_to_scene(family: str) -> None:
    h = FAMILIES[family](_Canvas(6, 32, 40, seeded()))
    assert h.shape == (6, 32, 40)
    assert torch.isfinite(h).all()
    assert h.flatten(1).std(dim=1).min() > 1e-3
    assert not torch.allclose(h[0], h[1])


def test_bumps_are_lit_from_above() -> None:
    """Slopes that face up are brighter: the light stays in the upper half plane."""
    drawn = scenes(48, "mid", seeded())
    upward = -normals_from_depth(drawn.depth)[:, 1]
    grey = drawn.image.mean(dim=1)
    centred = (upward - upward.mean(dim=(1, 2), keepdim=True)) * (grey - grey.mean(dim=(1, 2), keepdim=True))
    assert (centred.mean(dim=(1, 2)) > 0).float().mean() > 0.9
