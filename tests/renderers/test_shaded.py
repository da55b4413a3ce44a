"""What every shading renderer must do, and the options that they share."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import redepth
from redepth import renderers
from redepth.contracts import Illumination
from redepth.errors import ConfigError
from redepth.ops import color, geometry, shading
from redepth.ops.camera import SPHERICAL, Camera
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.matte import Lambert
from tests.support.helpers import photo, relative_error, seeded

NAMES = ("blinn-phong", "phong", "lambert", "oren-nayar", "ggx", "spherical-harmonics")


def make(name: str, **options: Any) -> Any:
    return renderers.REGISTRY.build(name, options)


def surface(height: int = 10, width: int = 12, batch: int = 2) -> Tensor:
    coarse = torch.rand(batch, 1, 4, 4, generator=seeded())
    return 1.5 + 0.3 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


def relit(name: str, depth: Tensor | None = None, seed: int = 0, **options: Any) -> Tensor:
    renderer = make(name, lights=3, **options)
    depth = surface() if depth is None else depth
    light = renderer.draw(len(depth), seeded(seed))
    return renderer(depth, color.srgb_to_linear(photo(*depth.shape[-2:])), light)


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "pinhole": {"camera": "pinhole", "field_of_view": 60.0},
    "intrinsics": {"camera": "pinhole", "intrinsics": [0.9, 1.1, 0.5, 0.5]},
    "coloured": {"light_saturation": 0.6, "ambient": 0.1, "exposure": 0.5},
    "grey": {"albedo": "grey"},
    "cosine": {"light_distribution": "cosine"},
    "uniform": {"light_distribution": "uniform", "min_elevation": 20.0},
    "shadows": {"shadows": "soft", "shadow_samples": 6},
    "pinhole shadows": {"camera": "pinhole", "shadows": "soft", "shadow_samples": 6},
}
CASES = [
    (name, option)
    for name in NAMES
    for option in OPTIONS
    if not (name == "spherical-harmonics" and "shadows" in option)
]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_the_contract_holds_under_every_option(name: str, option: str, device: torch.device) -> None:
    depth = surface().to(device)
    depth[0, 0, 3, 3], depth[1, 0, 5, 5], depth[1, 0, 0, 0] = float("nan"), -1.0, float("inf")
    depth.requires_grad_()
    image = photo(10, 12).to(device)
    image[..., 0, :], image[..., 1, :] = 0.0, 1.0
    image.requires_grad_()
    renderer = make(name, lights=3, **OPTIONS[option])
    light = renderer.draw(2, seeded())
    assert renderer.lights == 3
    assert all(t.shape[:2] == (2, 3) for t in light.tensors.values())
    assert torch.allclose(light.direction.norm(dim=-1), torch.ones(2, 3), atol=1e-5)
    picture = renderer(depth, color.srgb_to_linear(image), light.to(device))
    assert picture.shape == (2, 3, 3, 10, 12)
    assert picture.min() >= 1e-3
    assert picture.max() <= 1
    picture.sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert depth.grad.abs().sum() > 0
    if option == "grey":
        assert image.grad is None
    else:
        assert torch.isfinite(image.grad).all()
        assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_picture_and_members_do_not_mix(name: str, device: torch.device) -> None:
    assert torch.equal(relit(name), relit(name))
    assert not torch.allclose(relit(name), relit(name, seed=1))
    renderer = make(name, lights=2)
    light, linear = renderer.draw(2, seeded()).to(device), color.srgb_to_linear(photo(10, 12)).to(device)
    depth = surface().to(device)
    together = renderer(depth, linear, light)
    for i in range(2):
        alone = renderer(depth[i : i + 1], linear, light.rows(slice(i, i + 1)))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_gpu_gives_the_cpus_picture_and_gradient(name: str, option: str, device: torch.device) -> None:
    found = []
    for where in (torch.device("cpu"), device):
        renderer = make(name, lights=2, **OPTIONS[option])
        depth = surface().to(where).requires_grad_()
        linear = color.srgb_to_linear(photo(10, 12)).to(where)
        picture = renderer(depth, linear, renderer.draw(2, seeded()).to(where))
        (picture * torch.rand(picture.shape, generator=seeded(3)).to(where)).sum().backward()
        found.append((picture.detach().cpu(), depth.grad.cpu()))
    for here, there in zip(*found, strict=True):
        assert relative_error(there, here) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_several_lights_are_the_single_lights_side_by_side(name: str) -> None:
    renderer, linear = make(name, lights=3), color.srgb_to_linear(photo(10, 12))
    light = renderer.draw(2, seeded())
    together = renderer(surface(), linear, light)
    for j in range(3):
        alone = renderer(surface(), linear, light.map(lambda values, j=j: values[:, j : j + 1]))
        assert torch.allclose(together[:, j : j + 1], alone, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "blinn-phong"])
def test_every_model_is_another_than_the_papers(name: str) -> None:
    light = {**make(name).draw(2, seeded()).tensors, **make("blinn-phong").draw(2, seeded()).tensors}
    linear = color.srgb_to_linear(photo(10, 12))
    pictures = [make(n)(surface(), linear, Illumination(light)) for n in ("blinn-phong", name)]
    assert (pictures[0] - pictures[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_every_renderer_has_a_material_in_the_terms_of_blinn_phong(name: str) -> None:
    light = make(name, lights=2).draw(3, seeded())
    material = light.material
    for values in (material.diffuse, material.specular, material.shininess):
        assert values.shape == (3, 2)
    assert material.shininess.min() >= 1
    flat = light.flatten().material
    assert torch.equal(flat.diffuse, material.diffuse.flatten())


@pytest.mark.parametrize("name", ["lambert", "spherical-harmonics"])
def test_a_renderer_without_material_draws_none_and_is_matte(name: str) -> None:
    light = make(name, lights=2).draw(3, seeded())
    assert not {"diffuse", "specular", "shininess"} & set(light.tensors)
    assert torch.equal(light.material.diffuse, torch.ones(3, 2))
    assert not light.material.specular.any()


@pytest.mark.parametrize("name", ["ggx", "oren-nayar"])
def test_draws_of_another_renderer_are_refused(name: str) -> None:
    light = make("blinn-phong").draw(2, seeded())
    with pytest.raises(ValueError, match=r"have no roughness.*of another renderer"):
        make(name)(surface(), color.srgb_to_linear(photo(10, 12)), light)


@pytest.mark.parametrize("name", NAMES)
def test_a_bump_is_bright_on_the_side_of_the_light(name: str) -> None:
    """x right, y up, z towards the viewer: a light on the right brightens the right side of a bump."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    depth = (3.0 - 0.5 * torch.exp(-4 * (u**2 + v**2)))[None, None]
    grey = torch.full((1, 3, 32, 32), 0.2)
    for x, y in ((0.7, 0.0), (-0.7, 0.0), (0.0, 0.7), (0.0, -0.7)):
        direction = shading.normalize(torch.tensor([[[x, y, 0.7]]]))
        tensors = {**make(name).draw(1, seeded()).tensors, "direction": direction}
        if "coefficients" in tensors:
            tensors["coefficients"] = shading.project_lights(direction[:, :, None], torch.ones(1, 1, 1, 3))
        picture = make(name)(depth, grey, Illumination(tensors))[0, 0].mean(dim=0)
        # Rows run downwards.
        assert (picture * (x * u - y * v)).sum() > 0


def test_the_papers_light_has_the_papers_distribution() -> None:
    light = BlinnPhong().draw(4000, seeded())
    direction = light.direction[:, 0]
    plane = direction[:, :2] / direction[:, 2:]
    assert plane.abs().max() <= 1
    assert plane.mean(dim=0).abs().max() < 0.05
    assert plane.std(dim=0) == pytest.approx([3**-0.5] * 2, rel=0.05)
    material = light.material
    assert set(material.shininess.flatten().tolist()) == {4.0, 8.0, 16.0, 32.0, 64.0, 128.0}
    assert torch.allclose(material.diffuse + material.specular, torch.ones(4000, 1))


def test_cosine_light_has_the_moments_of_the_cosine() -> None:
    height = Lambert(light_distribution="cosine").draw(20000, seeded()).direction[..., 2]
    # Density 2 z on [0, 1]: mean 2/3, mean of the square 1/2.
    assert height.mean().item() == pytest.approx(2 / 3, abs=0.01)
    assert (height**2).mean().item() == pytest.approx(1 / 2, abs=0.01)


def test_uniform_light_is_uniform_above_its_least_elevation() -> None:
    direction = Lambert(light_distribution="uniform", min_elevation=30.0).draw(20000, seeded()).direction
    assert direction[..., 2].min() >= 0.5
    assert direction[..., 2].mean().item() == pytest.approx(0.75, abs=0.01)
    assert direction[..., :2].mean(dim=(0, 1)).abs().max() < 0.02


def test_coloured_light_tints_and_never_brightens() -> None:
    light = Lambert(light_saturation=0.8, lights=2).draw(500, seeded())["color"]
    assert light.amax(dim=-1).allclose(torch.ones(500, 2))
    assert light.min() < 0.4
    assert light.min() > 0.19
    tinted, white = relit("lambert", light_saturation=0.8), relit("lambert")
    assert (tinted <= white + 1e-6).all()
    assert (tinted < white - 1e-3).any()


def test_ambient_and_exposure_are_what_they_say() -> None:
    linear, light = color.srgb_to_linear(photo(10, 12)), Lambert().draw(1, seeded())
    dark = color.srgb_to_linear(Lambert()(surface(), linear, light))
    lifted = color.srgb_to_linear(Lambert(ambient=0.25)(surface(), linear, light))
    assert torch.allclose(lifted, (dark + 0.25 * linear[:, None]).clamp(max=1), atol=2e-3)
    stopped = color.srgb_to_linear(Lambert(exposure=-1.0)(surface(), linear, light))
    assert torch.allclose(stopped, (dark / 2).clamp(min=1e-3), atol=2e-3)


def test_a_grey_albedo_does_not_know_the_photo() -> None:
    renderer, light = make("ggx", albedo="grey"), make("ggx").draw(1, seeded())
    pictures = [renderer(surface(), color.srgb_to_linear(photo(10, 12, seed=s)), light) for s in (0, 1)]
    assert torch.equal(*pictures)
    bright = make("lambert", albedo="grey", grey=1.0)(surface(), pictures[0][:1, 0], light)
    expected = shading.develop(
        shading.lambert(geometry.normals_from_depth(surface()), torch.ones(1, 3, 10, 12), light.direction)
    )
    assert torch.allclose(bright, expected)


def test_soft_shadows_darken_and_reach_the_depth() -> None:
    depth = torch.full((1, 1, 40, 40), 2.0)
    depth[..., 18:21] = 1.6
    light = Illumination.of(shading.normalize(torch.tensor([[[-1.0, 0.0, 0.8]]])))
    linear = torch.full((1, 3, 40, 40), 0.6)
    lit, shadowed = (Lambert(shadows=s)(depth, linear, light) for s in ("none", "soft"))
    assert (shadowed <= lit + 1e-6).all()
    assert shadowed[..., 20, 23].max() < 0.5 * lit[..., 20, 23].min()
    depth.requires_grad_()
    Lambert(shadows="soft")(depth, linear, light)[..., 27:34].sum().backward()
    assert depth.grad[..., 18:21].abs().sum() > 0, "the shadow's edge tells of the wall that casts it"


def test_a_pinhole_shows_a_sloped_ground_otherwise() -> None:
    depth = 2 + torch.linspace(0, 1, 12).expand(1, 1, 10, 12).contiguous()
    flat, wide = (relit("lambert", depth, camera=c) for c in ("orthographic", "pinhole"))
    assert (flat - wide).abs().mean() > 1e-3
    narrow = relit("lambert", depth, camera="pinhole", field_of_view=20.0)
    assert not torch.allclose(narrow, wide)
    # Without a field of view: 55 degrees.
    assert torch.equal(wide, relit("lambert", depth, camera="pinhole", field_of_view=55.0))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lambert", {"lights": 0}, ("lights", "got 0", "allowed: >= 1, <= 64")),
        ("ggx", {"min_roughness": -0.1}, ("min_roughness", "got -0.1", "allowed: >= 0.05, <= 1")),
        ("oren-nayar", {"max_roughness": -1}, ("max_roughness", "allowed: >= 0, <= 1.5")),
        (
            "lambert",
            {"camera": "pinhole", "field_of_view": 180},
            ("field_of_view", "allowed: >= 0.001, <= 179"),
        ),
        ("lambert", {"camera": "fisheye"}, ("camera", "'orthographic' or 'pinhole'", "got 'fisheye'")),
        ("lambert", {"field_of_view": 60}, ("field_of_view", "need camera: pinhole")),
        (
            "lambert",
            {"camera": "pinhole", "intrinsics": [0, 1, 0, 0]},
            ("intrinsics", "fx and fy of 0.001 or more"),
        ),
        (
            "lambert",
            {"light_distribution": "papre"},
            ("light_distribution", "'paper', 'cosine' or 'uniform'"),
        ),
        ("lambert", {"min_elevation": 90}, ("min_elevation", "allowed: >= 0, < 90")),
        ("lambert", {"shadow_samples": 0}, ("shadow_samples", "allowed: >= 1, <= 256")),
        ("spherical-harmonics", {"shadows": "soft"}, ("shadows", "use none")),
        (
            "blinn-phong",
            {"min_log2_shininess": 5, "max_log2_shininess": 3},
            ("min_log2_shininess 5 is above",),
        ),
        ("ggx", {"min_metalness": 0.9}, ("min_metalness 0.9 is above max_metalness 0.5",)),
        ("blinn-phong", {"backend": "cuda"}, ("backend", "'auto', 'torch' or 'triton'")),
        ("blinn-phong", {"backend": "triton", "shadows": "soft"}, ("backend: triton", "use auto or torch")),
    ],
)
def test_a_bad_option_is_refused_with_its_key_and_range(
    name: str, options: Mapping[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        renderers.REGISTRY.check(name, options)
    for word in words:
        assert word in str(refusal.value)


def test_backend_auto_says_once_what_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    renderer, linear = BlinnPhong(), color.srgb_to_linear(photo(10, 12))
    light = renderer.draw(2, seeded())
    with caplog.at_level(logging.INFO, logger="redepth"):
        for _ in range(3):
            renderer(surface(), linear, light)
    assert [r.message for r in caplog.records] == ["blinn-phong: backend auto takes torch for cpu"]


# The interpreter's numpy warns of log2(0), whose result is not used.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered in log2:RuntimeWarning")
@pytest.mark.parametrize("options", [{}, OPTIONS["coloured"], OPTIONS["grey"]])
def test_the_triton_backend_gives_the_same_picture_and_gradient(
    options: Mapping[str, Any], device: torch.device
) -> None:
    pytest.importorskip("triton")
    found = {}
    for backend in ("torch", "triton"):
        renderer = make("blinn-phong", lights=2, backend=backend, **options)
        depth = surface().to(device).requires_grad_()
        linear = color.srgb_to_linear(photo(10, 12)).to(device)
        picture = renderer(depth, linear, renderer.draw(2, seeded()).to(device))
        (picture * torch.rand(picture.shape, generator=seeded(3)).to(device)).sum().backward()
        found[backend] = picture.detach(), depth.grad
    for ours, theirs in zip(*found.values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_photo_is_refined_with_it(name: str, real_photos: Mapping[str, Path]) -> None:
    result = redepth.refine(real_photos["coins"], "smoke", overrides=[f"renderer.name={name}"])
    assert not result.partial
    assert math.isfinite(result.outcome.history["total"][0][-1])
    assert (result.refined != result.initial).any()


def test_a_panorama_is_lit_as_if_each_pixel_were_seen_head_on() -> None:
    """The light from the viewer onto a sphere around the camera: the same brightness everywhere."""
    renderer = make("lambert", albedo="grey", ambient=0.0)
    renderer.look_through(SPHERICAL)
    light = renderer.draw(1, seeded())
    head_on = torch.tensor([[[0.0, 0.0, 1.0]]])
    light = replace(light, tensors={**light.tensors, "direction": head_on})
    picture = renderer(torch.full((1, 1, 6, 12), 2.0), torch.ones(1, 3, 6, 12), light)
    assert torch.allclose(picture, picture[..., :1, :1].expand_as(picture), atol=1e-6)
    assert picture.min() > 0.2


def test_the_kernel_is_for_the_camera_of_the_photo_not_of_the_options() -> None:
    renderer = make("blinn-phong")
    assert renderer._fusable
    renderer.look_through(Camera(field_of_view=60.0))
    assert not renderer._fusable


@pytest.mark.parametrize(
    ("name", "options", "camera", "message"),
    [
        ("lambert", {"shadows": "soft"}, SPHERICAL, "set renderer.shadows=none"),
        ("mesh", {}, SPHERICAL, "renderer mesh cannot see a panorama: choose another"),
        ("blinn-phong", {"backend": "triton"}, SPHERICAL, "backend=triton has no spherical camera"),
        ("blinn-phong", {"backend": "triton"}, Camera(field_of_view=50), "has no pinhole camera"),
    ],
)
def test_a_camera_that_a_renderer_does_not_have_is_refused(
    name: str, options: dict[str, Any], camera: Camera, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **options).look_through(camera)
