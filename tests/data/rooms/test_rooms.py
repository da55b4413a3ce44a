"""Pictures of rooms: exact depth and normals, seeds, families."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.lighting import Light, shade
from redepth.data.scenes.rooms.scene import RoomScenes, picture_of, room_scenes, seen
from redepth.data.scenes.rooms.stage import Stage
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.rooms.world import World
from redepth.ops.camera import Camera
from redepth.ops.color import srgb_to_linear
from redepth.ops.geometry import normals_from_depth, relative_depth
from tests.support.helpers import seeded

EXACT = torch.float64
FAMILIES = TRAINING | UNSEEN
SIZE = 48


def bare(count: int = 1) -> Stage:
    """A stage with a camera 1 above the floor that looks straight ahead and sees 60 degrees."""
    stage = Stage(count, seeded(), EXACT)
    stage.field_of_view = stage.number(60.0)
    stage.eye = stage.vector(0.0, 1.0, 0.0)
    stage.target = stage.vector(0.0, 0.0, 3.0)
    return stage


def axes() -> tuple[Tensor, Tensor]:
    u, v = Camera(field_of_view=60.0).axes(SIZE, SIZE, dtype=EXACT, device=torch.device("cpu"))
    return u.expand(SIZE, SIZE), v[:, None].expand(SIZE, SIZE)


def test_the_ground_has_the_depth_and_the_normal_of_a_plane() -> None:
    stage = bare()
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    view = seen(stage, World(stage), SIZE, SIZE)
    _, v = axes()
    expected = torch.where(v < 0, -1 / v, torch.inf)
    depth = view.depth.view(SIZE, SIZE)
    # Beyond 25 times the harmonic mean there is sky.
    near = torch.isfinite(depth)
    assert near.double().mean() > 0.45
    assert torch.allclose(depth[near], expected[near])
    assert torch.equal(
        view.normals[0].T[near.flatten()], torch.tensor([0.0, 1, 0], dtype=EXACT).expand(int(near.sum()), 3)
    )


def test_a_ball_has_the_depth_and_the_normals_of_a_ball() -> None:
    stage = bare()
    centre, radius = torch.tensor([0.3, 1.2, 3.0], dtype=EXACT), 0.9
    stage.add("ball", tuple(centre.tolist()), (radius, radius, radius))
    view = seen(stage, World(stage), SIZE, SIZE)
    u, v = axes()
    d = torch.stack([u, v, torch.ones_like(u)], dim=-1)
    c = centre - torch.tensor([0.0, 1, 0], dtype=EXACT)
    b, square = d @ c, (d * d).sum(-1)
    root = b**2 - square * (c @ c - radius**2)
    expected = torch.where(root > 0, (b - root.clamp(min=0).sqrt()) / square, torch.inf)
    assert torch.allclose(view.depth.view(SIZE, SIZE), expected)
    hit = torch.isfinite(expected)
    normal = (expected[..., None] * d - c)[hit] / radius
    assert torch.allclose(view.normals[0].T[hit.flatten()], normal, atol=1e-9)


def test_a_room_is_seen_from_inside() -> None:
    stage = bare()
    stage.add("shell", (0.0, 1.5, 1.0), (2.0, 1.5, 4.0), skin=stage.new_skin(3))
    view = seen(stage, World(stage), SIZE, SIZE)
    u, v = axes()
    walls = torch.stack([torch.full_like(u, 5.0), 2 / u.abs(), torch.where(v > 0, 2 / v, -1 / v)])
    depth, which = walls.min(dim=0)
    assert torch.allclose(view.depth.view(SIZE, SIZE), depth)
    facing = torch.stack([torch.zeros_like(u), torch.zeros_like(u), -torch.ones_like(u)])
    facing = torch.where(which == 1, torch.stack([-u.sign(), 0 * u, 0 * u]), facing)
    facing = torch.where(which == 2, torch.stack([0 * u, -v.sign(), 0 * u]), facing)
    # On the edges of the room two walls are equally far.
    first, second = walls.sort(dim=0).values[:2]
    within = second > first + 1e-9
    assert torch.allclose(view.normals.view(3, SIZE, SIZE)[:, within], facing[:, within])
    assert within.double().mean() > 0.95


def test_normals_of_pictures_are_in_the_frame_of_the_package() -> None:
    stage = bare()
    stage.look(1.5, 2.0, 0.2, tilt=0.0)
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    picture = picture_of(stage, SIZE, SIZE)
    known = ~picture.sky[0, 0]
    normal = picture.normals[0, :, known].mean(dim=1)
    # The ground faces up and, seen by a camera that looks down, to the viewer.
    assert normal[1] > 0.5
    assert normal[2] > 0.4
    camera = Camera(field_of_view=60.0)
    differences = normals_from_depth(picture.depth.masked_fill(picture.sky, torch.nan), camera)
    cosine = (differences * picture.normals).sum(dim=1)[0]
    assert cosine[4:, 4:-4][known[4:, 4:-4]].min() > 0.999


def test_the_albedo_is_that_of_the_surfaces() -> None:
    stage = bare()
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    bright = picture_of(stage, SIZE, SIZE)
    sky = bright.sky.expand_as(bright.image)
    assert bool(sky.any())
    assert torch.equal(bright.albedo[sky], srgb_to_linear(bright.image)[sky])
    drawn = room_scenes(8, seeded(3), height=SIZE, width=SIZE)
    known = ~drawn.sky.expand_as(drawn.image)
    assert 0.02 <= float(drawn.albedo[known].min()) <= float(drawn.albedo[known].max()) <= 0.98
    # One light has nearly one colour: the hue of the picture is that of the albedo, but for haze and shine.
    alike = []
    for image, albedo, sky in zip(drawn.image, drawn.albedo, drawn.sky[:, 0], strict=True):
        hues = [(c[0] / c[2].clamp(min=1e-3)).log()[~sky] for c in (srgb_to_linear(image), albedo)]
        alike.append(float(torch.corrcoef(torch.stack(hues))[0, 1]))
    assert sum(alike) / len(alike) > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_normals_agree_with_depth_away_from_edges(family: str) -> None:
    drawn = room_scenes(2, seeded(3), height=96, width=96, families={family: FAMILIES[family]}, dtype=EXACT)
    for row in range(2):
        camera = Camera(field_of_view=float(drawn.field_of_view[row]))
        depth = drawn.depth[row : row + 1]
        found = normals_from_depth(torch.where(torch.isinf(depth), torch.nan, depth), camera)
        cosine = (found * drawn.normals[row : row + 1]).sum(dim=1)[~drawn.sky[row]]
        assert cosine.median() > 0.9995
        assert (cosine > 0.99).double().mean() > 0.7


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_valid_pictures(family: str) -> None:
    drawn = room_scenes(4, seeded(1), height=40, width=56, families={family: FAMILIES[family]})
    assert drawn.image.shape == drawn.normals.shape == (4, 3, 40, 56)
    assert drawn.depth.shape == drawn.sky.shape == (4, 1, 40, 56)
    assert drawn.field_of_view.shape == (4,)
    assert {t.dtype for t in (drawn.image, drawn.depth, drawn.normals)} == {torch.float32}
    assert 0 <= drawn.image.min() < drawn.image.max() <= 1
    assert drawn.image.flatten(1).std(dim=1).min() > 0.01
    assert drawn.depth.min() > 0.05
    length = drawn.normals.norm(dim=1, keepdim=True)
    assert torch.allclose(length, (~drawn.sky).float(), atol=1e-5)
    assert (drawn.sky.flatten(1).float().mean(dim=1) < 0.8).all()


def test_depth_has_harmonic_mean_one_and_disparity_gives_it_back() -> None:
    drawn = room_scenes(8, seeded(2), height=SIZE, width=SIZE)
    for depth, sky, disparity in zip(drawn.depth, drawn.sky, drawn.disparity, strict=True):
        assert (1 / depth[~sky]).mean().item() == pytest.approx(1, abs=1e-3)
        assert (disparity[sky] == 0).all()
        assert torch.allclose(relative_depth(disparity)[~sky], depth[~sky], rtol=1e-3)


def test_a_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = (room_scenes(4, seeded(s), height=32, width=32) for s in (5, 5, 6))
    for name in ("image", "depth", "normals", "field_of_view"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    room_scenes(2, seeded(), height=32, width=32)
    assert torch.equal(torch.get_rng_state(), before)


def test_single_and_double_precision_show_the_same_scene() -> None:
    stages = []
    for dtype in (torch.float32, EXACT):
        stage = bare()
        stage.dtype = dtype
        stage.eye, stage.view = stage.eye.to(dtype), stage.view.to(dtype)
        stage.field_of_view, stage.frame = stage.field_of_view.to(dtype), stage.frame.to(dtype)
        stage.add("cone", (0.2, 1.0, 2.5), (0.5, 0.8, 0.5))
        stage.add(
            "superquadric", (-0.6, 0.7, 3.0), (0.5, 0.6, 0.4), form=torch.tensor([[3.0, 1.7]], dtype=dtype)
        )
        stage.add("ground", (0, 0, 0), (1, 1, 1))
        stages.append(seen(stage, World(stage), SIZE, SIZE).depth.double())
    both = torch.isfinite(stages[0]) & torch.isfinite(stages[1])
    assert both.double().mean() > 0.45
    assert ((stages[0] / stages[1])[both] - 1).abs().quantile(0.99) < 1e-3


def test_no_family_is_both_trained_on_and_held_out() -> None:
    assert not set(TRAINING) & set(UNSEEN)
    assert not set(TRAINING.values()) & set(UNSEEN.values())


def lit_ground(radius: float, *, ball: bool = True) -> Tensor:
    """Return the light (SIZE, SIZE) on white ground under a lamp, with a ball in between."""
    stage = bare()
    stage.look(3.0, 3.0, 0.0, tilt=0.0)
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    if ball:
        stage.add("ball", (0, 0.8, 3.0), (0.4, 0.4, 0.4))
    world = World(stage)
    view = seen(stage, world, SIZE, SIZE)
    one = torch.ones(1, 1, dtype=EXACT)
    light = Light(
        position=stage.vector(0, 4.0, 3.0),
        middle=stage.target,
        radius=radius * one,
        colour=torch.ones(1, 3, 1, dtype=EXACT),
        above=torch.zeros(1, 3, 1, dtype=EXACT),
        below=torch.zeros(1, 3, 1, dtype=EXACT),
        reach=one,
        fill=stage.vector(0, 1, 0),
        fill_strength=0 * one,
        haze=1e4 * one,
    )
    white, none = torch.ones_like(view.points), torch.zeros_like(view.depth)
    light_of_things = shade(world, view, light, white, none, none + 1)[0, 0]
    # Only the ground counts.
    return torch.where(view.which[0] == 0, light_of_things, torch.nan).view(SIZE, SIZE)


def test_a_ball_casts_the_shadow_that_similar_triangles_give() -> None:
    with_ball, without = lit_ground(0.0), lit_ground(0.0, ball=False)
    shaded = (with_ball == 0) & (without > 0)
    # Below the lamp at a height of 4, a ball of 0.4 at 0.8 shades a disc of 4 tan(asin(0.4 / 3.2)) around it.
    radius = 4 * math.tan(math.asin(0.4 / 3.2))
    stage = bare()
    stage.look(3.0, 3.0, 0.0, tilt=0.0)
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    points = seen(stage, World(stage), SIZE, SIZE).points.view(3, SIZE, SIZE)
    away = torch.hypot(points[0], points[2] - 3.0)
    on_ground = ~with_ball.isnan() & (without > 0)
    assert shaded[on_ground & (away < 0.97 * radius)].all()
    assert not shaded[on_ground & (away > 1.03 * radius)].any()
    assert shaded.sum() > 10


def test_a_large_lamp_has_a_soft_shadow() -> None:
    def partly(values: Tensor, full: Tensor) -> float:
        share = (values / full)[~values.isnan()]
        return float(((share > 0.1) & (share < 0.9)).double().mean())

    full = lit_ground(0.0, ball=False)
    assert partly(lit_ground(0.0), full) == 0
    assert partly(lit_ground(0.8), full) > 0.01


def test_a_thing_around_the_camera_is_left_out() -> None:
    stage = bare()
    stage.add("box", (0, 1, 0.2), (0.5, 0.5, 0.5))
    stage.add("ground", (0, 0, 0), (1, 1, 1))
    view = seen(stage, World(stage), SIZE, SIZE)
    assert set(view.which.unique().tolist()) == {-1, 1}


def test_scenes_move_to_a_device_as_a_whole() -> None:
    drawn = room_scenes(1, seeded(), height=16, width=16)
    moved = drawn.to(torch.device("meta"))
    assert isinstance(moved, RoomScenes)
    assert {t.device.type for t in (moved.image, moved.depth, moved.normals, moved.field_of_view)} == {"meta"}
