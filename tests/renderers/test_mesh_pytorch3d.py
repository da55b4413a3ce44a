"""The mesh renderer on pytorch3d: run with `make test-pytorch3d`; the default suite leaves it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import redepth
from redepth.contracts import Illumination, Material
from redepth.ops import color, geometry, mesh, shading
from redepth.ops.camera import Camera
from redepth.renderers import rasterize_pytorch3d
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.renderers.mesh import Fragments, Mesh
from tests.support.helpers import photo, relative_error, seeded

pytestmark = pytest.mark.pytorch3d

CAMERAS: dict[str, dict[str, Any]] = {
    "orthographic": {},
    "pinhole": {"camera": "pinhole", "field_of_view": 60.0},
    "shifted": {"camera": "pinhole", "intrinsics": (0.9, 1.1, 0.4, 0.55)},
}
EVERY_CAMERA = pytest.mark.parametrize("options", CAMERAS.values(), ids=CAMERAS.keys())
# Smaller and larger than the rasterizer's tiles, multiples of them and not, wide and high.
EVERY_SIZE = pytest.mark.parametrize("size", [(32, 48), (40, 24), (7, 11), (17, 33)])


def smooth(height: int = 32, width: int = 48, phase: float = 0.0) -> Tensor:
    """A wavy surface, (1, 1, H, W), without depth edges."""
    u, v = torch.linspace(0, 3, width) + phase, torch.linspace(0, 4, height)[:, None]
    return (2 + 0.2 * torch.sin(u + v) + 0.15 * torch.cos(2 * u - 1.3 * v))[None, None]


def stepped(height: int = 24, width: int = 32) -> Tensor:
    """A square in front of a wavy wall."""
    depth = smooth(height, width)
    depth[..., 8:16, 10:20] *= 0.7
    return depth


def lit(*turns: tuple[float, float], batch: int = 1, direction: Any = (-0.3, -0.2, 0.93)) -> Illumination:
    """One light, the same for each viewpoint; turns are in degrees about the x and the y axis."""
    size = (batch, max(len(turns), 1))
    unit = shading.normalize(torch.tensor(direction)).expand(*size, 3)
    material = Material(torch.full(size, 0.7), torch.full(size, 0.3), shininess=torch.full(size, 8.0))
    if not turns:
        return Illumination.of(unit, material)
    angles = torch.deg2rad(torch.tensor([(*turn, 0.0) for turn in turns]))
    return Illumination.of(unit, material, rotation=angles.expand(batch, -1, -1))


def rasterized(
    depth: Tensor, camera: Camera, *turn: float, cut: float = 0.1
) -> tuple[mesh.GridMesh, Fragments]:
    surface = mesh.grid_mesh(depth, camera, cut=cut)
    if turn:
        rotation = mesh.rotation_matrix(torch.deg2rad(torch.tensor([[*turn, 0.0]])))
        surface = mesh.turn(surface, rotation, mesh.median_depth(depth), camera)
    size = depth.shape[-2:]
    clip = mesh.clip_space(surface.points, camera, *size)
    return surface, rasterize_pytorch3d.rasterize(clip, surface.faces, *size)


def linear(height: int, width: int) -> Tensor:
    return color.srgb_to_linear(photo(height, width))


# --- the rasterizer -------------------------------------------------------------------------------


def test_it_is_there() -> None:
    Mesh().ensure_available()
    assert Mesh.backends()["pytorch3d"] == ""


@EVERY_CAMERA
@EVERY_SIZE
def test_an_unturned_smooth_surface_covers_every_pixel_with_its_own_vertex(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    depth = smooth(*size)
    camera = Mesh(**options)._camera
    surface, fragments = rasterized(depth, camera, cut=1.0)
    assert fragments.covered.all()
    points, uv = fragments.interpolate(torch.cat([surface.points, surface.uv], -1)).split([3, 2], 1)
    assert torch.allclose(points, geometry.point_map(depth, camera), atol=1e-5)
    carried = F.grid_sample(photo(*size), uv.movedim(1, -1), align_corners=False)
    assert torch.allclose(carried, photo(*size), atol=1e-4)


def test_interpolation_is_correct_in_perspective() -> None:
    """Two triangles from near to far: in the middle of the picture 1 / z, not z, is halfway."""
    corner = torch.tensor([[-1.2, 1.2, 1], [1.2, 1.2, 4], [-1.2, -1.2, 1], [1.2, -1.2, 4]])
    w = corner[:, 2:]
    clip = torch.cat([corner[:, :2] * w, w - 1, w], dim=1)[None]
    faces = torch.tensor([[0, 2, 1], [3, 1, 2]])
    fragments = rasterize_pytorch3d.rasterize(clip, [faces], 6, 20)
    assert fragments.covered.all()
    z = fragments.interpolate(clip[..., 3:])[0, 0]
    x = (torch.arange(20) + 0.5) / 10 - 1
    expected = 1 / (1 + (1 / 4 - 1) * (x + 1.2) / 2.4)
    assert torch.allclose(z, expected.expand(6, 20), rtol=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearest_triangle_is_seen(order: tuple[int, int]) -> None:
    depth, clip = torch.tensor([-0.5, 0.5]), torch.tensor([[-9.0, -9], [9, -9], [0, 9]])
    clip = torch.cat([clip.repeat(2, 1), depth.repeat_interleave(3)[:, None], torch.ones(6, 1)], dim=1)[None]
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])[list(order)]
    fragments = rasterize_pytorch3d.rasterize(clip, [faces], 5, 9)
    assert torch.equal(fragments.interpolate(clip[..., 2:3]), torch.full((1, 1, 5, 9), -0.5))


def test_a_centre_just_beside_a_sliver_does_not_extrapolate_it() -> None:
    # Pixels: 1e-4 high, and half the tolerance below the centre of row 4.
    place = torch.tensor([[1.0, 4.5005], [9.0, 4.5005], [5.0, 4.5006]])
    clip = torch.tensor([-1.0, 1.0]) + place * torch.tensor([1.0, -1.0]) / 8
    clip = torch.cat([clip, torch.tensor([[0.0, 1.0]]).expand(3, 2)], dim=1)[None]
    fragments = rasterize_pytorch3d.rasterize(clip, [torch.tensor([[0, 1, 2]])], 16, 16)
    found = fragments.interpolate(torch.tensor([[[0.0], [0.0], [1.0]]]))[0, 0]
    assert fragments.covered[0, 0, 4, 1:9].all()
    assert not found.any(), "the centres lie beyond the edge from 0 to 0"


def test_tiles_give_what_one_tile_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = torch.cat([stepped(), smooth(24, 32)])
    camera = Camera(field_of_view=60.0)
    seen = []
    for tile in (8, 64):
        monkeypatch.setattr(rasterize_pytorch3d, "TILE", tile)
        surface, fragments = rasterized(depth, camera, 4.0, -7.0)
        seen.append((fragments.covered, fragments.interpolate(surface.points)))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.allclose(seen[0][1], seen[1][1], atol=1e-5)
    assert 0.8 < seen[0][0].float().mean() < 1


# --- from the photo's viewpoint ---------------------------------------------------------------------


@EVERY_CAMERA
@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_normals_and_picture_are_the_flat_renderers(options: dict[str, Any], size: tuple[int, int]) -> None:
    """Both are second order in the pixel: the normals of six faces and central differences."""
    depth, camera = smooth(*size), Mesh(**options)._camera
    surface, fragments = rasterized(depth, camera)
    meshed = shading.normalize(fragments.interpolate(surface.normals), dim=1)
    flat = shading.normalize(geometry.normals_from_depth(depth, camera), dim=1)
    angle = torch.rad2deg(2 * torch.asin((meshed - flat).norm(dim=1) / 2))
    assert angle[..., 1:-1, 1:-1].max() < 0.7
    assert angle.mean() < 0.4
    pictures = [r(**options)(depth, linear(*size), lit()) for r in (Mesh, BlinnPhong)]
    difference = (pictures[0] - pictures[1]).abs()
    assert difference[..., 1:-1, 1:-1].max() < 0.006
    assert difference.mean() < 1.5e-3
    mirrored = Mesh(**options)(depth, linear(*size), lit(direction=(-0.3, 0.2, 0.93)))
    assert (mirrored - pictures[1]).abs().mean() > 0.03


@EVERY_CAMERA
def test_away_from_a_cut_the_picture_is_the_flat_renderers(options: dict[str, Any]) -> None:
    pictures = [r(**options)(stepped(), linear(24, 32), lit()) for r in (Mesh, BlinnPhong)]
    difference = (pictures[0] - pictures[1]).abs().amax(dim=2)[0, 0]
    beside = torch.zeros(24, 32, dtype=torch.bool)
    beside[7:17, 9:21] = True
    beside[9:15, 11:19] = False
    # What is left of it: six faces and central differences see the same slopes second order apart.
    assert difference[~beside][1:-1].mean() < 4e-3
    assert difference[beside].mean() > 0.1, "the flat renderer takes the step for a slope"


@EVERY_CAMERA
def test_the_gradient_points_where_the_flat_renderers_does(options: dict[str, Any]) -> None:
    depth = smooth().requires_grad_()
    coarse = torch.randn(1, 3, 5, 5, generator=seeded(1))
    weights = F.interpolate(coarse, (32, 48), mode="bicubic")[None]
    gradients = []
    for renderer in (Mesh, BlinnPhong):
        picture = renderer(**options)(depth, linear(32, 48), lit())
        gradients.append(torch.autograd.grad((picture * weights).sum(), depth)[0].flatten())
    meshed, flat = gradients
    assert torch.isfinite(meshed).all()
    assert torch.cosine_similarity(meshed, flat, dim=0) > 0.99
    assert 0.95 < meshed.norm() / flat.norm() < 1.05


def test_without_rotation_one_mesh_per_member_is_rasterized(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, rasterize = [], rasterize_pytorch3d.rasterize

    def counting(clip: Tensor, *args: Any) -> Fragments:
        counts.append(len(clip))
        return rasterize(clip, *args)

    monkeypatch.setattr(rasterize_pytorch3d, "rasterize", counting)
    depth = smooth(8, 8).repeat(2, 1, 1, 1)
    for max_rotation in (0.0, 5.0):
        renderer = Mesh(lights=3, max_rotation=max_rotation)
        renderer(depth, linear(8, 8), renderer.draw(2, seeded()))
    assert counts == [2, 6]


# --- from other viewpoints --------------------------------------------------------------------------


@EVERY_CAMERA
def test_no_turn_is_the_photos_viewpoint(options: dict[str, Any]) -> None:
    renderer = Mesh(**options)
    still, unturned = (renderer(stepped(), linear(24, 32), light) for light in (lit(), lit((0.0, 0.0))))
    assert torch.allclose(still, unturned, atol=1e-4)


@EVERY_CAMERA
def test_a_turn_reveals_what_the_photo_does_not_show_and_leaves_the_photo_there(
    options: dict[str, Any],
) -> None:
    renderer, depth = Mesh(**options), stepped()
    still = renderer(depth, linear(24, 32), lit())
    _, fragments = rasterized(depth, renderer._camera, 0.0, 8.0)
    turned = renderer(depth, linear(24, 32), lit((0.0, 8.0)))
    assert (turned - still).abs().mean() > 0.01
    bare = ~fragments.covered[0, 0]
    assert 0.01 < bare.float().mean() < 0.3
    unlit = color.linear_to_srgb(linear(24, 32))
    assert torch.equal(turned[0, 0][:, bare], unlit[0][:, bare])
    assert (turned[0, 0][:, ~bare] - unlit[0][:, ~bare]).abs().mean() > 0.05


def test_near_things_move_against_far_ones_when_the_view_turns() -> None:
    depth = torch.full((1, 1, 24, 32), 2.0)
    depth[..., 8:16, 12:20] = 1.0
    picture = torch.full((1, 3, 24, 32), 0.2)
    picture[..., 8:16, 12:20] = 0.9
    camera = Camera(field_of_view=60.0)

    def centre(*turn: float) -> float:
        surface, fragments = rasterized(depth, camera, *turn)
        shown = fragments.interpolate(surface.points)[0]
        columns = torch.arange(32.0).expand(24, 32)
        return float(columns[(shown[2] < 1.4) & fragments.covered[0, 0]].mean())

    # The square is 1 in front of the centre and turns with it: by sin(5 degrees) / depth * focal length.
    shift = (
        math.sin(math.radians(5)) / (2 - math.cos(math.radians(5))) * 32 * 0.5 / math.tan(math.radians(30))
    )
    assert centre(0.0, 5.0) - centre() == pytest.approx(-shift, abs=0.5)
    assert centre(0.0, -5.0) - centre() == pytest.approx(shift, abs=0.5)


@EVERY_CAMERA
def test_a_turned_plane_is_lit_as_a_plane_of_that_slope(options: dict[str, Any]) -> None:
    """The light stays with the camera: a wall turned by 10 degrees is shaded as one that stood so."""
    camera = Mesh(**options)._camera
    angle = math.radians(10)
    normal = torch.tensor([-math.sin(angle), 0.0, math.cos(angle)])
    wall = torch.full((1, 1, 16, 24), 2.0)
    turned = Mesh(**options)(wall, torch.full((1, 3, 16, 24), 0.4), lit((0.0, 10.0)))
    surface, fragments = rasterized(wall, camera, 0.0, 10.0)
    position = fragments.interpolate(surface.points)
    light, view = lit(), torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    if camera.pinhole:
        view = geometry.half_turn(position, dim=1)
    expected = shading.blinn_phong(
        normal.view(1, 3, 1, 1).expand(1, 3, 16, 24),
        torch.full((1, 3, 16, 24), 0.4),
        light.direction,
        light.material.diffuse,
        light.material.specular,
        light.material.shininess,
        shading.normalize(view, dim=1),
    )
    seen = fragments.covered[0, 0]
    assert 0.5 < seen.float().mean() <= 1
    assert torch.allclose(turned[0, 0][:, seen], shading.develop(expected)[0, 0][:, seen], atol=1e-4)


@EVERY_CAMERA
def test_the_gradient_of_a_turned_view_is_that_of_finite_differences(options: dict[str, Any]) -> None:
    renderer, depth = Mesh(**options), smooth(16, 24)
    coarse = torch.randn(1, 3, 4, 4, generator=seeded(2))
    weights = F.interpolate(coarse, (16, 24), mode="bicubic")[0]
    direction = 0.2 * smooth(16, 24, phase=1.0) - 0.4
    picture = F.interpolate(torch.rand(1, 3, 3, 4, generator=seeded()), (16, 24), mode="bicubic")

    def value(z: Tensor) -> Tensor:
        shown = renderer(z, picture.clamp(0, 1), lit((3.0, -4.0)))[0, 0]
        # At its border the surface wins or loses whole pixels, which has no derivative.
        return (shown * weights)[:, 4:-4, 4:-4].sum()

    depth.requires_grad_()
    (gradient,) = torch.autograd.grad(value(depth), depth)
    slope = (gradient * direction).sum()
    step = 1e-2
    with torch.no_grad():
        measured = (value(depth + step * direction) - value(depth - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx(measured.item(), rel=0.05)


# --- the contract -----------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    **CAMERAS,
    "coloured": {"light_saturation": 0.6, "ambient": 0.1, "exposure": 0.5},
    "grey": {"albedo": "grey"},
    "shadows": {"shadows": "soft", "shadow_samples": 6},
    "pinhole shadows": {"camera": "pinhole", "shadows": "soft", "shadow_samples": 6},
}


@pytest.mark.parametrize("max_rotation", [0.0, 10.0])
@pytest.mark.parametrize("option", OPTIONS)
def test_the_contract_holds_under_every_option(option: str, max_rotation: float) -> None:
    depth = torch.cat([smooth(12, 15), stepped(24, 32)[..., 5:17, 5:20]])
    depth[0, 0, 3, 3], depth[1, 0, 5, 5], depth[1, 0, 0, 0] = float("nan"), -1.0, float("inf")
    depth.requires_grad_()
    image = photo(12, 15)
    image[..., 0, :], image[..., 1, :] = 0.0, 1.0
    image.requires_grad_()
    renderer = Mesh(lights=3, max_rotation=max_rotation, **OPTIONS[option])
    light = renderer.draw(2, seeded())
    picture = renderer(depth, color.srgb_to_linear(image), light)
    assert picture.shape == (2, 3, 3, 12, 15)
    assert picture.min() >= 1e-3
    assert picture.max() <= 1
    assert torch.equal(picture, renderer(depth, color.srgb_to_linear(image), light))
    picture.sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    if option == "grey":
        assert image.grad is None
    else:
        assert torch.isfinite(image.grad).all()
        assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("max_rotation", [0.0, 10.0])
def test_members_and_lights_do_not_mix(max_rotation: float) -> None:
    options = {"shadows": "soft", "shadow_samples": 4, "light_saturation": 0.5, "camera": "pinhole"}
    renderer = Mesh(lights=3, max_rotation=max_rotation, **options)
    light, image = renderer.draw(2, seeded()), linear(24, 32).repeat(2, 1, 1, 1)
    image[1] = image[1].flip(-1)
    depth = torch.cat([stepped(), smooth(24, 32, phase=0.5)])
    together = renderer(depth, image, light)
    assert not torch.allclose(together[:, 0], together[:, 1], atol=0.1)
    for i in range(2):
        for j in range(3):
            single = light.map(lambda values, i=i, j=j: values[i : i + 1, j : j + 1])
            alone = renderer(depth[i : i + 1], image[i : i + 1], single)
            assert torch.allclose(together[i, j], alone[0, 0], atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("turns", [(), ((0.0, 5.0),)])
def test_where_the_depth_is_unusable_the_photo_stays(value: float, turns: tuple[Any, ...]) -> None:
    depth, unlit = smooth(24, 32), color.linear_to_srgb(linear(24, 32))
    depth[..., 10:14, 10:14] = value
    picture = Mesh()(depth, linear(24, 32), lit(*turns))[0, 0]
    hole = (slice(None), slice(11, 13), slice(11, 13))
    assert torch.equal(picture[hole], unlit[0][hole])
    assert (picture[:, 2:8] - unlit[0][:, 2:8]).abs().mean() > 0.02
    depth = torch.full((2, 1, 24, 32), value, requires_grad=True)
    picture = Mesh()(depth, linear(24, 32), lit(*turns, batch=2))
    assert torch.equal(picture, unlit[:, None].expand(2, -1, -1, -1, -1))
    picture.sum().backward()
    assert not depth.grad.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_a_picture_without_a_cell_stays_the_photo(size: tuple[int, int]) -> None:
    picture = Mesh(camera="pinhole")(torch.ones(1, 1, *size), linear(*size), lit((2.0, 2.0)))
    assert torch.equal(picture[0], color.linear_to_srgb(linear(*size)))


@EVERY_CAMERA
def test_shadows_are_the_flat_renderers_and_turn_with_the_scene(options: dict[str, Any]) -> None:
    options = {**options, "shadows": "soft", "shadow_reach": 1.0}
    depth, low = stepped(), lit(direction=(0.8, 0.1, 0.4))
    meshed, flat = (r(**options)(depth, linear(24, 32), low) for r in (Mesh, BlinnPhong))
    unshadowed = Mesh(**{**options, "shadows": "none"})(depth, linear(24, 32), low)
    shade = (unshadowed - meshed)[0, 0].mean(dim=0)
    assert shade.max() > 0.2
    away = torch.ones(24, 32, dtype=torch.bool)
    away[6:18, 8:22] = False
    assert (meshed - flat)[0, 0][:, away].abs().mean() < 0.01
    # A light turned with the scene casts the same shadow, which is carried along.
    rotation = mesh.viewer_rotation(mesh.rotation_matrix(torch.deg2rad(torch.tensor([0.0, 3.0, 0.0]))))
    turned = lit((0.0, 3.0), direction=(rotation @ low.direction[0, 0]).tolist())
    camera = Mesh(**options)._camera
    surface, fragments = rasterized(depth, camera, 0.0, 3.0)
    uv = fragments.interpolate(surface.uv).movedim(1, -1)
    both = [Mesh(**{**options, "shadows": s})(depth, linear(24, 32), turned) for s in ("none", "soft")]
    carried = F.grid_sample(shade[None, None], uv, align_corners=False)[0, 0]
    seen = fragments.covered[0, 0]
    difference = (both[0] - both[1])[0, 0].mean(dim=0) - carried
    assert difference[seen].abs().mean() < 0.1 * carried[seen].mean()


def test_a_grey_albedo_leaves_grey_where_nothing_is_seen() -> None:
    depth = smooth(16, 16)
    depth[..., 6:10, 6:10] = float("nan")
    picture = Mesh(albedo="grey", grey=0.25)(depth, linear(16, 16), lit())
    assert torch.allclose(picture[..., 7:9, 7:9], torch.tensor(0.25 ** (1 / 2.2)))


def test_double_precision_is_taken() -> None:
    depth, image = smooth(12, 16), linear(12, 16)
    light = lit((1.0, 2.0))
    found = Mesh(camera="pinhole")(depth.double(), image.double(), light.map(Tensor.double))
    assert relative_error(found.float(), Mesh(camera="pinhole")(depth, image, light)) < 1e-4


@pytest.mark.parametrize("max_rotation", [0, 5])
def test_a_real_photo_is_refined_with_it(max_rotation: int, real_photos: Mapping[str, Path]) -> None:
    changes = ["renderer.name=mesh", f"renderer.max_rotation={max_rotation}", "optim.steps=2"]
    runs = [redepth.refine(real_photos["coins"], "smoke", overrides=changes) for _ in range(2)]
    for result in runs:
        assert not result.partial
        assert math.isfinite(result.outcome.history["total"][0][-1])
        assert (result.refined != result.initial).any()
    assert (runs[0].refined == runs[1].refined).all()
