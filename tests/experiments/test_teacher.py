from __future__ import annotations

import pytest
import torch

from redepth.experiments.teacher import Teacher
from redepth.ops import color
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.helpers import TargetPrior, photo, seeded

HEIGHT, WIDTH = 20, 24


def surface(seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(1, 1, 4, 4, generator=seeded(seed))
    return 1 + torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")


def test_the_loss_is_half_the_squared_distance_of_pictures_in_the_priors_units() -> None:
    renderer, image = BlinnPhong(lights=2), photo(HEIGHT, WIDTH)
    teacher = Teacher(TargetPrior(), renderer)
    with pytest.raises(ValueError, match="set the photo's surface first"):
        teacher.condition(image, "")
    teacher.set_surface(surface())
    condition = teacher.condition(image, "")
    light = renderer.draw(3, seeded())
    linear = color.srgb_to_linear(image)
    noise = teacher.draw(6, seeded())

    def loss(depth: torch.Tensor) -> torch.Tensor:
        relit = renderer(depth.expand(3, -1, -1, -1), linear, light)
        return teacher(relit.flatten(0, 1), condition, light.flatten(), noise)

    assert torch.allclose(loss(surface()), torch.zeros(6), atol=1e-12)
    other = loss(surface(1))
    pictures = [2 * renderer(s, linear, light.rows(slice(1, 2)))[0, 1] - 1 for s in (surface(), surface(1))]
    assert other[3] == pytest.approx(float(0.5 * ((pictures[0] - pictures[1]) ** 2).mean()), rel=1e-4)
    assert other.min() > 0


def test_it_draws_the_random_numbers_of_the_prior_that_it_replaces() -> None:
    prior = TargetPrior()
    mine, theirs = (p.draw(4, seeded(3)) for p in (Teacher(prior, BlinnPhong()), prior))
    assert torch.equal(mine["jitter"], theirs["jitter"])
