"""The mesh renderer on CUDA, both rasterizers against each other: run with `pytest -m gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.contracts import Illumination
from redepth.ops import color, geometry, mesh
from redepth.ops.camera import Camera
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.mesh import RASTERIZERS, Fragments, Mesh
from tests.support.helpers import photo, seeded

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")

CAMERAS: dict[str, dict[str, Any]] = {
    "orthographic": {},
    "pinhole": {"camera": "pinhole", "field_of_view": 60.0},
}
EVERY_CAMERA = pytest.mark.parametrize("options", CAMERAS.values(), ids=CAMERAS.keys())
EVERY_RASTERIZER = pytest.mark.parametrize("rasterizer", RASTERIZERS)
TURN = torch.deg2rad(torch.tensor([[4.0, -6.0, 0.0]]))


def needs(*rasterizers: str) -> None:
    for rasterizer in rasterizers:
        pytest.importorskip({"nvdiffrast": "nvdiffrast.torch"}.get(rasterizer, rasterizer))


def smooth(height: int = 96, width: int = 128) -> Tensor:
    """A wavy surface, (1, 1, H, W), without depth edges."""
    u, v = torch.linspace(0, 3, width), torch.linspace(0, 4, height)[:, None]
    return (2 + 0.2 * torch.sin(u + v) + 0.15 * torch.cos(2 * u - 1.3 * v))[None, None]


def stepped() -> Tensor:
    """A square in front of the wavy surface."""
    depth = smooth()
    depth[..., 30:60, 40:80] *= 0.7
    return depth


def rasterized(
    rasterizer: str, depth: Tensor, camera: Camera, turn: Tensor | None = None
) -> tuple[mesh.GridMesh, Fragments]:
    surface = mesh.grid_mesh(depth.to(CUDA), camera)
    if turn is not None:
        rotation = mesh.rotation_matrix(turn.to(CUDA).expand(len(depth), -1))
        surface = mesh.turn(surface, rotation, mesh.median_depth(depth.to(CUDA)), camera)
    size = depth.shape[-2:]
    clip = mesh.clip_space(surface.points, camera, *size)
    return surface, RASTERIZERS[rasterizer].rasterize(clip, surface.faces, *size)


def relit(
    depth: Tensor, renderer: BlinnPhong | Mesh, light: Illumination, device: torch.device = CUDA
) -> Tensor:
    image = color.srgb_to_linear(photo(*depth.shape[-2:])).to(device)
    return renderer(depth.to(device), image, light.to(device))


@EVERY_RASTERIZER
@EVERY_CAMERA
def test_a_smooth_surface_covers_every_pixel(options: dict[str, Any], rasterizer: str) -> None:
    needs(rasterizer)
    depth, camera = smooth(), Mesh(**options)._camera
    surface, fragments = rasterized(rasterizer, depth, camera)
    assert fragments.covered.all()
    points = fragments.interpolate(surface.points).cpu()
    # Where a pixel's centre falls on a vertex, its triangle is free to be any of six.
    assert torch.allclose(points, geometry.point_map(depth, camera), atol=1e-3)


@EVERY_RASTERIZER
@EVERY_CAMERA
def test_the_picture_is_the_flat_renderers(options: dict[str, Any], rasterizer: Any) -> None:
    needs(rasterizer)
    renderer = Mesh(rasterizer=rasterizer, lights=3, **options)
    light = renderer.draw(1, seeded())
    difference = (relit(smooth(), renderer, light) - relit(smooth(), BlinnPhong(**options), light)).abs()
    assert difference.mean() < 1e-3
    assert difference[..., 1:-1, 1:-1].max() < 0.05


@EVERY_RASTERIZER
@EVERY_CAMERA
def test_the_gradient_points_where_the_flat_renderers_does(options: dict[str, Any], rasterizer: Any) -> None:
    needs(rasterizer)
    depth = smooth().to(CUDA).requires_grad_()
    renderer = Mesh(rasterizer=rasterizer, min_log2_shininess=2, max_log2_shininess=3, **options)
    light = renderer.draw(1, seeded())
    coarse = torch.randn(1, 3, 5, 5, generator=seeded(1))
    weights = F.interpolate(coarse, (96, 128), mode="bicubic")[None].to(CUDA)
    gradients = []
    for each in (renderer, BlinnPhong(**options)):
        picture = relit(depth, each, light)
        gradients.append(torch.autograd.grad((picture * weights).sum(), depth)[0].flatten())
    assert torch.isfinite(gradients[0]).all()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@EVERY_CAMERA
def test_both_rasterizers_see_the_same(options: dict[str, Any]) -> None:
    needs(*RASTERIZERS)
    camera = Mesh(**options)._camera
    depth = torch.cat([stepped(), smooth()])
    seen = {}
    for rasterizer in RASTERIZERS:
        surface, fragments = rasterized(rasterizer, depth, camera, TURN)
        seen[rasterizer] = fragments.covered[:, 0], fragments.interpolate(surface.points)
    (ours, points), (theirs, others) = seen.values()
    # nvdiffrast snaps corners to a sixteenth of a pixel: centres that near to an edge may differ.
    assert (ours != theirs).float().mean() < 0.02
    both = (ours & theirs)[:, None].expand_as(points)
    difference = (points - others).abs()[both]
    assert difference.mean() < 1e-3
    assert (difference > 0.02).float().mean() < 0.01


@EVERY_RASTERIZER
@EVERY_CAMERA
def test_members_lights_and_viewpoints_do_not_mix(options: dict[str, Any], rasterizer: Any) -> None:
    needs(rasterizer)
    renderer = Mesh(rasterizer=rasterizer, lights=2, max_rotation=8.0, **options)
    light = renderer.draw(3, seeded())
    depth = torch.cat([stepped(), torch.full_like(smooth(), float("nan")), smooth()])
    together = relit(depth, renderer, light)
    assert together.shape == (3, 2, 3, 96, 128)
    unlit = color.linear_to_srgb(color.srgb_to_linear(photo(96, 128)))
    assert torch.allclose(together[1].cpu(), unlit.expand(2, -1, -1, -1), atol=1e-6)
    for i in range(3):
        for j in range(2):
            single = light.map(lambda values, i=i, j=j: values[i : i + 1, j : j + 1])
            assert torch.allclose(together[i, j], relit(depth[i : i + 1], renderer, single)[0, 0], atol=1e-5)


@EVERY_CAMERA
def test_silhouettes_are_smooth_and_have_a_gradient_in_nvdiffrast(options: dict[str, Any]) -> None:
    needs("nvdiffrast")
    depth = torch.full((1, 1, 64, 64), 3.0)
    depth[..., 20:44, 20:44] = 2.0
    depth = depth.to(CUDA).requires_grad_()
    surface = mesh.grid_mesh(depth, Mesh(**options)._camera)
    rotation = mesh.rotation_matrix(TURN.to(CUDA))
    surface = mesh.turn(surface, rotation, mesh.median_depth(depth), Mesh(**options)._camera)
    clip = mesh.clip_space(surface.points, Mesh(**options)._camera, 64, 64)
    fragments = RASTERIZERS["nvdiffrast"].rasterize(clip, surface.faces, 64, 64)
    mask = fragments.covered.float()
    blended = fragments.antialias(mask)
    assert ((blended > 0.02) & (blended < 0.98)).float().mean() > 0.005
    assert (blended - mask).abs().mean() < 0.05
    blended.sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert depth.grad.abs().sum() > 0


@EVERY_CAMERA
def test_pytorch3d_gives_on_cuda_what_it_gives_on_the_cpu(options: dict[str, Any]) -> None:
    needs("pytorch3d")
    renderer = Mesh(lights=2, max_rotation=6.0, shadows="soft", shadow_samples=4, **options)
    light = renderer.draw(1, seeded())
    here, there = (relit(stepped(), renderer, light, torch.device(d)).cpu() for d in ("cpu", "cuda"))
    assert (here - there).abs().mean() < 2e-4
    assert ((here - there).abs() > 0.01).float().mean() < 2e-3
