from __future__ import annotations

import pytest
import torch

from redepth.ops import color, geometry, shading
from redepth.renderers.blinn_phong import BlinnPhong
from tests.helpers import photo, seeded


def test_gradcheck_in_depth_and_image() -> None:
    depth = torch.rand(2, 1, 4, 5, dtype=torch.float64, generator=seeded()) * 0.2 + 1
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=seeded(1)) * 0.5 + 0.2
    light = BlinnPhong(lights=2).sample(2, seeded(2))
    fields = [light[k].double() for k in ("direction", "diffuse", "specular", "shininess")]

    def relight(z: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return shading.blinn_phong(geometry.normals_from_depth(z), i, *fields)

    assert torch.autograd.gradcheck(relight, (depth.requires_grad_(), image.requires_grad_()))


def test_a_flat_surface_under_a_frontal_light_is_the_photo_times_kd_plus_ks() -> None:
    image = photo(6, 8) * 0.5
    one = torch.ones(1, 1)
    direction = torch.tensor([[[0.0, 0.0, 1.0]]])
    normals = geometry.normals_from_depth(torch.ones(1, 1, 6, 8))
    linear = color.srgb_to_linear(image)
    relit = shading.blinn_phong(normals, linear, direction, 0.7 * one, 0.3 * one, 8 * one)[:, 0]
    assert torch.allclose(relit, color.linear_to_srgb(0.7 * linear + 0.3), atol=1e-5)


def test_black_and_saturated_pixels_have_finite_gradients_and_stay_in_range() -> None:
    for value in (0.0, 1.0):
        depth = (torch.rand(1, 1, 8, 8, generator=seeded()) + 1).requires_grad_()
        image = torch.full((1, 3, 8, 8), value, requires_grad=True)
        light = BlinnPhong(lights=3).sample(1, seeded())
        relit = BlinnPhong(lights=3)(depth, color.srgb_to_linear(image), light)
        assert relit.shape == (1, 3, 3, 8, 8)
        assert relit.min() >= 1e-3
        assert relit.max() <= 1
        relit.sum().backward()
        assert torch.isfinite(depth.grad).all()
        assert torch.isfinite(image.grad).all()


def test_several_lights_are_the_single_lights_side_by_side() -> None:
    depth = torch.rand(2, 1, 8, 8, generator=seeded()) + 1
    linear = color.srgb_to_linear(photo(8, 8))
    light = BlinnPhong(lights=3).sample(2, seeded())
    together = BlinnPhong(lights=3)(depth, linear, light)
    for j in range(3):
        single = type(light)({k: v[:, j : j + 1] for k, v in light.tensors.items()})
        assert torch.allclose(together[:, j : j + 1], BlinnPhong()(depth, linear, single), atol=1e-6)


def test_sampled_light_has_the_papers_distribution() -> None:
    light = BlinnPhong().sample(4000, seeded())
    direction = light.direction[:, 0]
    assert torch.allclose(direction.norm(dim=1), torch.ones(4000), atol=1e-5)
    plane = direction[:, :2] / direction[:, 2:]
    assert plane.abs().max() <= 1
    assert plane.mean(dim=0).abs().max() < 0.05
    assert plane.std(dim=0) == pytest.approx([3**-0.5] * 2, rel=0.05)
    assert set(light["shininess"].flatten().tolist()) == {4.0, 8.0, 16.0, 32.0, 64.0, 128.0}
    assert torch.allclose(light["diffuse"] + light["specular"], torch.ones(4000, 1))


def test_shininess_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="min_log2_shininess 5 is above max_log2_shininess 3"):
        BlinnPhong(min_log2_shininess=5, max_log2_shininess=3)


def test_colours_go_there_and_back() -> None:
    image = photo() * 0.9 + 0.05
    assert torch.allclose(color.linear_to_srgb(color.srgb_to_linear(image)), image, atol=1e-6)
