from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.ops import color, geometry, shading
from redepth.ops.camera import ORTHOGRAPHIC, Camera
from tests.support.helpers import photo, seeded

WIDE = Camera(field_of_view=70.0)
ONE = torch.ones(1, 1, dtype=torch.float64)
Model = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def per_light(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


MODELS: dict[str, Model] = {
    "lambert": lambda n, a, light, view: shading.lambert(n, a, light),
    "phong": lambda n, a, light, view: shading.phong(
        n, a, light, per_light(0.7, 0.2), per_light(0.3, 0.8), per_light(4, 16), view
    ),
    "blinn-phong": lambda n, a, light, view: shading.blinn_phong(
        n, a, light, per_light(0.7, 0.2), per_light(0.3, 0.8), per_light(4, 16), view
    ),
    "ggx": lambda n, a, light, view: shading.ggx(n, a, light, per_light(0.4, 0.8), per_light(0.0, 0.7), view),
    "oren-nayar": lambda n, a, light, view: shading.oren_nayar(n, a, light, per_light(0.2, 0.7), view),
    "spherical-harmonics": lambda n, a, light, view: shading.spherical_harmonics(
        n, a, shading.project_lights(light[:, :, None], torch.ones_like(light[:, :, None]))
    ),
}


def two_lights() -> Tensor:
    return shading.normalize(torch.tensor([[[0.3, -0.5, 1.0], [-0.9, 0.2, 1.0]]], dtype=torch.float64))


def unit(polar: float, azimuth: float) -> Tensor:
    """A unit vector by its angle to the z axis."""
    flat = math.sin(polar)
    vector = [flat * math.cos(azimuth), flat * math.sin(azimuth), math.cos(polar)]
    return torch.tensor(vector, dtype=torch.float64)


def at_one_pixel(vector: Tensor) -> Tensor:
    return vector.view(1, 3, 1, 1)


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, WIDE], ids=["orthographic", "pinhole"])
@pytest.mark.parametrize("name", MODELS)
def test_gradcheck_in_depth_and_albedo(name: str, camera: Camera) -> None:
    depth = torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=seeded()) * 0.2 + 1
    albedo = torch.rand(1, 3, 4, 5, dtype=torch.float64, generator=seeded(1)) * 0.5 + 0.2

    def relight(z: Tensor, a: Tensor) -> Tensor:
        view = camera.view(4, 5, like=z)
        return MODELS[name](geometry.normals_from_depth(z, camera), a, two_lights(), view)

    assert torch.autograd.gradcheck(relight, (depth.requires_grad_(), albedo.requires_grad_()))


@pytest.mark.parametrize("name", MODELS)
def test_lights_are_reflected_one_by_one(name: str) -> None:
    normals = geometry.normals_from_depth(torch.rand(1, 1, 6, 7, generator=seeded(), dtype=torch.float64) + 1)
    albedo = photo(6, 7).double()
    view = ORTHOGRAPHIC.view(6, 7, like=normals)
    both = MODELS[name](normals, albedo, two_lights(), view)
    swapped = MODELS[name](normals, albedo, two_lights().flip(1), view)
    assert both.shape == (1, 2, 3, 6, 7)
    assert both.min() >= 0
    assert not torch.allclose(both, swapped)
    if name in ("lambert", "spherical-harmonics"):
        assert torch.allclose(both.flip(1), swapped)


def test_lambert_is_the_cosine_times_the_albedo() -> None:
    normal, light = at_one_pixel(unit(0.5, 1.0)), unit(0.9, 2.0).view(1, 1, 3)
    cosine = float(unit(0.5, 1.0) @ unit(0.9, 2.0))
    reflected = shading.lambert(normal, torch.full((1, 3, 1, 1), 0.4).double(), light)
    assert reflected.flatten().tolist() == pytest.approx([0.4 * cosine] * 3)
    assert shading.lambert(-normal, torch.ones(1, 3, 1, 1).double(), light).max() == 0


def test_the_phong_highlight_is_whole_where_the_mirrored_light_meets_the_eye() -> None:
    view = at_one_pixel(unit(0.0, 0.0))
    normal, light = at_one_pixel(unit(0.4, 1.0)), unit(0.8, 1.0).view(1, 1, 3)
    black = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    for model in (shading.phong, shading.blinn_phong):
        shine = model(normal, black, light, 0 * ONE, 0.6 * ONE, 64 * ONE, view)
        assert shine.flatten().tolist() == pytest.approx([0.6] * 3)
    tilted = at_one_pixel(unit(0.5, 1.0))
    phong = shading.phong(tilted, black, light, 0 * ONE, ONE, 64 * ONE, view)
    assert phong.max().item() == pytest.approx(math.cos(0.2) ** 64)
    blinn = shading.blinn_phong(tilted, black, light, 0 * ONE, ONE, 64 * ONE, view)
    assert blinn.max().item() == pytest.approx(math.cos(0.1) ** 64)


def test_phong_has_no_highlight_on_the_unlit_side() -> None:
    view, light = at_one_pixel(unit(0.0, 0.0)), unit(1.5, 0.0).view(1, 1, 3)
    normal = at_one_pixel(unit(0.3, math.pi))
    reflected = shading.phong(normal, torch.ones(1, 3, 1, 1).double(), light, ONE, ONE, ONE, view)
    assert reflected.max() == 0


def ggx_by_hand(n: Tensor, light: Tensor, v: Tensor, albedo: float, roughness: float, metal: float) -> float:
    """The docstring's equations for one pixel and one channel, in floats."""
    alpha = roughness**2
    h = (light + v) / float((light + v).norm())
    nl, nv, nh, vh = (float(a @ b) for a, b in ((n, light), (n, v), (n, h), (v, h)))
    d = alpha**2 / (math.pi * (nh**2 * (alpha**2 - 1) + 1) ** 2)
    root = [math.sqrt(c**2 * (1 - alpha**2) + alpha**2) for c in (nv, nl)]
    visibility = 0.5 / (nl * root[0] + nv * root[1])
    f0 = 0.04 * (1 - metal) + metal * albedo
    f = f0 + (1 - f0) * (1 - vh) ** 5
    return ((1 - f) * (1 - metal) * albedo + math.pi * d * visibility * f) * nl


@pytest.mark.parametrize(("roughness", "metal"), [(0.2, 0.0), (0.5, 0.3), (1.0, 1.0)])
def test_ggx_follows_its_equations(roughness: float, metal: float) -> None:
    n, light, v = unit(0.4, 0.3), unit(0.7, -1.0), unit(0.3, 2.0)
    albedo = torch.full((1, 3, 1, 1), 0.6, dtype=torch.float64)
    found = shading.ggx(
        at_one_pixel(n), albedo, light.view(1, 1, 3), roughness * ONE, metal * ONE, at_one_pixel(v)
    )
    assert found.flatten().tolist() == pytest.approx([ggx_by_hand(n, light, v, 0.6, roughness, metal)] * 3)


def hemisphere(count: int = 200) -> tuple[Tensor, Tensor]:
    """Directions (1, M, 3) over the hemisphere and their solid angles, midpoint rule."""
    polar = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / 2 / count)
    azimuth = (torch.arange(2 * count, dtype=torch.float64) + 0.5) * (math.pi / count)
    p, a = (x.flatten() for x in torch.meshgrid(polar, azimuth, indexing="ij"))
    directions = torch.stack([p.sin() * a.cos(), p.sin() * a.sin(), p.cos()], dim=-1)
    return directions[None], p.sin() * (math.pi / 2 / count) * (math.pi / count)


def ggx_albedo(roughness: float, view: Tensor) -> float:
    """The share of the light from all sides that a white metal reflects to the view."""
    directions, solid_angle = hemisphere()
    white = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    normal, many = at_one_pixel(unit(0, 0)), torch.ones(1, directions.shape[1], dtype=torch.float64)
    reflected = shading.ggx(normal, white, directions, roughness * many, many, at_one_pixel(view))
    return float((reflected[0, :, 0, 0, 0] * solid_angle).sum()) / math.pi


def test_a_white_ggx_metal_reflects_what_theory_says() -> None:
    # Smooth: nearly all. Fully rough, seen from above: the integral of x / (1 + x), 1 - ln 2.
    assert ggx_albedo(0.3, unit(0.0, 0.0)) == pytest.approx(0.99, abs=0.01)
    assert ggx_albedo(1.0, unit(0.0, 0.0)) == pytest.approx(1 - math.log(2), rel=1e-3)
    for roughness in (0.3, 0.6, 1.0):
        assert ggx_albedo(roughness, unit(1.2, 0.0)) < 1


def oren_nayar_by_hand(n: Tensor, light: Tensor, v: Tensor, sigma: float) -> float:
    """Equation 30 of the paper with its angles, in floats."""
    theta_i, theta_r = math.acos(float(n @ light)), math.acos(float(n @ v))
    flat_i, flat_r = light - float(n @ light) * n, v - float(n @ v) * n
    azimuth = float(flat_i @ flat_r) / float(flat_i.norm() * flat_r.norm())
    a = 1 - 0.5 * sigma**2 / (sigma**2 + 0.33)
    b = 0.45 * sigma**2 / (sigma**2 + 0.09)
    alpha, beta = max(theta_i, theta_r), min(theta_i, theta_r)
    return math.cos(theta_i) * (a + b * max(0.0, azimuth) * math.sin(alpha) * math.tan(beta))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("angles", [(0.7, 0.1, 0.2), (0.3, 0.1, 1.0), (0.9, 2.5, 0.4)])
def test_oren_nayar_follows_its_equation(sigma: float, angles: tuple[float, float, float]) -> None:
    n, light, v = unit(0.2, 0.5), unit(angles[0], angles[1]), unit(angles[2], 0.3)
    white = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    found = shading.oren_nayar(at_one_pixel(n), white, light.view(1, 1, 3), sigma * ONE, at_one_pixel(v))
    assert found[0, 0, 0].item() == pytest.approx(oren_nayar_by_hand(n, light, v, sigma))


def test_an_oren_nayar_surface_without_roughness_is_lambertian() -> None:
    normals = geometry.normals_from_depth(torch.rand(1, 1, 6, 7, generator=seeded(), dtype=torch.float64))
    view = ORTHOGRAPHIC.view(6, 7, like=normals)
    arguments = normals, photo(6, 7).double(), two_lights()
    smooth = shading.oren_nayar(*arguments, per_light(0, 0), view)
    assert torch.allclose(smooth, shading.lambert(*arguments))


def test_spherical_harmonics_are_the_lights_convolved_with_the_cosine_up_to_order_2() -> None:
    rng = np.random.default_rng(0)
    lights = torch.from_numpy(rng.normal(size=(1, 1, 4, 3)))
    lights = shading.normalize(lights)
    radiance = torch.from_numpy(rng.uniform(0.2, 1, (1, 1, 4, 3)))
    normals = shading.normalize(torch.from_numpy(rng.normal(size=(1, 3, 5, 5))), dim=1)
    cosine = torch.einsum("bchw,blmc->bmhw", normals, lights)
    kernel = 1 / 4 + cosine / 2 + 5 / 16 * (3 * cosine**2 - 1) / 2
    expected = torch.einsum("bmhw,blmc->blchw", kernel, radiance).clamp(min=0)
    coefficients = shading.project_lights(lights, radiance)
    found = shading.spherical_harmonics(normals, torch.ones(1, 3, 5, 5).double(), coefficients)
    # The published constants have six digits.
    assert torch.allclose(found, expected, atol=1e-5)


def test_spherical_harmonics_of_light_from_everywhere_are_even() -> None:
    directions, solid_angle = hemisphere(60)
    sphere = torch.cat([directions, -directions], dim=1)[None]
    radiance = torch.cat([solid_angle, solid_angle])[None, None, :, None].expand(1, 1, -1, 3) / math.pi
    normals = shading.normalize(torch.randn(1, 3, 4, 4, generator=seeded(), dtype=torch.float64), dim=1)
    lit = shading.spherical_harmonics(
        normals, torch.ones(1, 3, 4, 4).double(), shading.project_lights(sphere, radiance)
    )
    assert torch.allclose(lit, torch.ones_like(lit), atol=1e-3)


def test_a_flat_surface_under_a_frontal_light_is_the_photo_times_kd_plus_ks() -> None:
    linear = color.srgb_to_linear(photo(6, 8) * 0.5)
    one, direction = torch.ones(1, 1), torch.tensor([[[0.0, 0.0, 1.0]]])
    normals = geometry.normals_from_depth(torch.ones(1, 1, 6, 8))
    relit = shading.blinn_phong(normals, linear, direction, 0.7 * one, 0.3 * one, 8 * one)[:, 0]
    assert torch.allclose(relit, 0.7 * linear + 0.3, atol=1e-5)


def test_one_call_from_depth_to_picture_is_its_parts() -> None:
    depth = torch.rand(2, 1, 6, 7, generator=seeded()) + 1
    linear, light = color.srgb_to_linear(photo(6, 7)), two_lights().float().expand(2, 2, 3)
    weights = torch.rand(2, 2, 3, generator=seeded(1)), torch.rand(2, 2, 3, generator=seeded(2))
    shininess = torch.full((2, 2), 8.0)
    whole = shading.relight_blinn_phong(depth, linear, light, *weights, shininess, ambient=0.2)
    normals = geometry.normals_from_depth(depth)
    reflected = shading.blinn_phong(normals, linear, light, *weights, shininess)
    assert torch.equal(whole, shading.develop(reflected + 0.2 * linear[:, None]))


def test_colours_go_there_and_back() -> None:
    image = photo() * 0.9 + 0.05
    assert torch.allclose(color.linear_to_srgb(color.srgb_to_linear(image)), image, atol=1e-6)
