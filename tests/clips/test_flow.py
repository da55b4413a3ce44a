"""Where a frame's pixels were in the frame before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.clips.flow import (
    MISMATCH,
    CameraMotion,
    GivenFlow,
    KnownCamera,
    KnownFlow,
    OpticalFlow,
    StandStill,
    Track,
    mismatch,
)
from redepth.clips.lengths import MIDDLE, REACH, Lengths, fit_length
from redepth.data.scenes.glide import Glide, glide
from redepth.errors import ConfigError, InputError
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from redepth.ops.geometry import point_map
from redepth.ops.warp import warp, within
from tests.support.helpers import seeded

LENGTHS = Lengths("disparity", False, 7.0, 0.1)


@pytest.fixture(scope="module")
def clip() -> Glide:
    return glide(3, "relief", seeded(5), size=96)


def raw(depth: Tensor) -> Tensor:
    return 7 / depth - 0.1


def track(tracker: Any, clip: Glide, index: int = 1) -> Track:
    last, image = clip.image[index - 1 : index], clip.image[index : index + 1]
    return tracker.track(index, last, image, raw(clip.depth[index - 1 : index]))


def test_optical_flow_finds_the_motion(clip: Glide) -> None:
    found = track(OpticalFlow(), clip)
    missed = torch.linalg.vector_norm(found.back - clip.back[:1], dim=1, keepdim=True)
    assert float(found.valid.float().mean()) > 0.85
    assert float(missed[found.valid].mean()) < 0.35, "of a motion of 1.3 pixels"


def test_the_flow_of_another_scene_is_a_cut(clip: Glide) -> None:
    other = glide(1, "shapes", seeded(6), size=96).image
    found = OpticalFlow().track(1, clip.image[:1], other, raw(clip.depth[:1]))
    cut = float(found.valid.float().mean()) < 0.3 or mismatch(found, clip.image[:1], other) > MISMATCH
    assert cut
    same = track(OpticalFlow(), clip)
    assert mismatch(same, clip.image[:1], clip.image[1:2]) < 0.5 * MISMATCH


def test_pictures_may_be_too_small_for_flow() -> None:
    small = torch.zeros(1, 3, 16, 40)
    with pytest.raises(InputError, match="needs 32 pixels"):
        OpticalFlow().track(1, small, small, small[:, :1])


def test_standing_still_carries_the_map_as_it_is(clip: Glide) -> None:
    found = track(StandStill(), clip)
    assert found.carry(clip.depth[:1]).equal(clip.depth[:1])
    assert bool(found.valid.all())


def test_a_given_flow_is_scaled_to_the_maps(clip: Glide) -> None:
    back = clip.back.permute(0, 2, 3, 1).numpy()
    same = track(KnownFlow(GivenFlow(list(back))), clip)
    torch.testing.assert_close(same.back, clip.back[:1], atol=1e-5, rtol=0)
    assert same.valid.equal(within(clip.back[:1]))
    double = [2 * np.kron(flow, np.ones((2, 2, 1))) for flow in back]
    torch.testing.assert_close(
        track(KnownFlow(GivenFlow(double)), clip).back, clip.back[:1], atol=0.02, rtol=0
    )


def test_unknown_flow_is_not_valid(clip: Glide) -> None:
    back = clip.back[0].permute(1, 2, 0).numpy().copy()
    back[:20] = np.nan
    found = track(KnownFlow(GivenFlow([back])), clip)
    assert not found.valid[..., :20, :].any()
    assert bool(torch.isfinite(found.back).all())
    assert bool(found.valid[..., 30:60, 30:60].all())


def test_a_flow_that_is_missing_or_has_another_shape_is_refused(clip: Glide) -> None:
    with pytest.raises(InputError, match="frame 2 has no flow: 1 were given"):
        track(KnownFlow(GivenFlow([np.zeros((96, 96, 2))])), clip, 2)
    with pytest.raises(InputError, match="must be \\(H, W, 2\\)"):
        track(KnownFlow(GivenFlow([np.zeros((2, 96, 96))])), clip)


def test_known_poses_give_the_flow(clip: Glide) -> None:
    tracker = KnownCamera(CameraMotion(list(clip.poses), scale=1.0), ORTHOGRAPHIC, LENGTHS)
    found = track(tracker, clip)
    assert float(found.valid.float().mean()) > 0.9
    assert float((found.back - clip.back[:1])[:, :, found.valid[0, 0]].abs().max()) < 0.05
    carried = found.carry(raw(clip.depth[:1]))
    still = (raw(clip.depth[:1]) - raw(clip.depth[1:2])).abs()[found.valid].mean()
    missed = (carried - raw(clip.depth[1:2])).abs()[found.valid].mean()
    assert float(missed) < 0.2 * float(still)


def test_a_camera_that_comes_nearer_changes_the_depth(clip: Glide) -> None:
    nearer = np.eye(4)
    nearer[2, 3] = 0.2
    camera = Camera(field_of_view=50.0)
    tracker = KnownCamera(CameraMotion([np.eye(4), nearer], scale=2.0), camera, LENGTHS)
    flat = torch.full((1, 1, 96, 96), raw(torch.tensor(1.0)).item())
    found = tracker.track(1, clip.image[:1], clip.image[1:2], flat)
    # Two units of length away, 0.2 nearer: relative depth 0.9.
    inner = found.carry(flat)[..., 10:-10, 10:-10]
    torch.testing.assert_close(inner, torch.full_like(inner, raw(torch.tensor(0.9)).item()))


SLOPE_CAMERA, SLOPE_LENGTH = Camera(field_of_view=60.0), 3.0
SLOPE = torch.linspace(1.0, 2.0, 64).view(1, 1, -1, 1).expand(1, 1, 64, 96).contiguous()


def slope(moved: float, plain: bool = False) -> Tensor:
    """Draw a textured slope from a camera that moved sideways."""
    texture = torch.zeros(200) if plain else torch.rand(200, generator=seeded(8))
    points = point_map(SLOPE_LENGTH * SLOPE, SLOPE_CAMERA)
    places = ((points[:, :1] + moved) * 12 + 100).clamp(0, 198)
    low = places.floor().long()
    share = places - low
    return ((1 - share) * texture[low] + share * texture[low + 1]).expand(1, 3, -1, -1).contiguous()


def sideways(moved: float) -> Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = moved
    return pose


def test_the_length_of_relative_depth_is_found_in_the_pictures() -> None:
    """Two pictures of a textured slope, from a camera that moved sideways: the parallax has a scale."""
    first, second = slope(0.0), slope(0.25)
    fit = fit_length(LENGTHS, first, second, raw(SLOPE), SLOPE_CAMERA, sideways(-0.25))
    assert fit.found
    assert fit.lengths.length == pytest.approx(SLOPE_LENGTH, rel=0.05)
    still = fit_length(LENGTHS, first, first, raw(SLOPE), SLOPE_CAMERA, torch.eye(4))
    assert not still.found
    assert still.lengths.length == 1


def test_plain_pictures_give_no_length() -> None:
    plain = slope(0, plain=True)
    assert not fit_length(LENGTHS, plain, plain, raw(SLOPE), SLOPE_CAMERA, sideways(-0.25)).found


def test_poses_that_do_not_fit_the_pictures_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The pictures show a way to the right, and the poses one to the left."""
    poses = [sideways(0.0).numpy(), sideways(-0.25).numpy()]
    tracker = KnownCamera(CameraMotion(poses), SLOPE_CAMERA, LENGTHS)
    tracker.track(1, slope(0.0), slope(0.25), raw(SLOPE))
    assert not tracker.known.fitted


def test_the_length_waits_for_a_way_that_shows_it() -> None:
    """A camera at rest, whose poses are noisy, and then walks in steps that are too small to see."""
    ways = [0.0, 0.0, 0.02, 0.06, 0.12, 0.18, 0.24]
    poses = [sideways(way + 1e-4 * (-1) ** index).numpy() for index, way in enumerate(ways)]
    tracker = KnownCamera(CameraMotion(poses), SLOPE_CAMERA, LENGTHS)
    found = []
    for index in range(1, len(ways)):
        tracker.track(index, slope(ways[index - 1]), slope(ways[index]), raw(SLOPE))
        found.append(tracker.known.fitted)
    assert found[0] is False
    assert found[-1] is True
    assert tracker.known.lengths.length == pytest.approx(SLOPE_LENGTH, rel=0.15)


def test_a_far_scene_of_a_slow_camera_is_within_the_grid() -> None:
    """The camera moves by a 400th of the distance: the former grid ended at 230."""
    way = SLOPE_LENGTH / 400
    assert MIDDLE * REACH > 2000
    fit = fit_length(LENGTHS, slope(0.0), slope(way), raw(SLOPE), SLOPE_CAMERA, sideways(-way))
    assert not fit.ended
    assert fit.lengths.length > 1


@pytest.mark.parametrize("predicts", ["disparity", "depth"])
@pytest.mark.parametrize("metric", [True, False])
def test_lengths_go_both_ways(predicts: Any, metric: bool) -> None:
    lengths = Lengths(predicts, metric, 7.0, 0.1, unit=3.0, length=1.0 if metric else 2.5)
    values = 0.5 + torch.rand(1, 1, 5, 5, generator=seeded())
    torch.testing.assert_close(lengths.raw(lengths.depth(values)), values)
    if metric:
        torch.testing.assert_close(lengths.depth(values), values if predicts == "depth" else 1 / values)


def test_poses_are_checked(clip: Glide) -> None:
    def made(poses: Any, camera: Camera = ORTHOGRAPHIC, scale: float | None = 1.0) -> KnownCamera:
        return KnownCamera(CameraMotion(poses, scale), camera, LENGTHS)

    with pytest.raises(InputError, match=r"pose 1 must be \(4, 4\)"):
        made([np.eye(4), np.eye(3)])
    with pytest.raises(InputError, match="no rotation"):
        made([2 * np.eye(4)])
    with pytest.raises(ConfigError, match="pinhole or an orthographic"):
        made([np.eye(4)], SPHERICAL)
    with pytest.raises(InputError, match="frame 1 has no pose: 1 were given"):
        track(made([np.eye(4)]), clip)
    with pytest.raises(InputError, match="no rotation"):
        CameraMotion([np.diag([1.0, 1, -1, 1])])
    for scale in (-1.0, 0.0, float("nan")):
        with pytest.raises(ConfigError, match="must be a number above 0"):
            CameraMotion([np.eye(4)], scale)
    metric = Lengths("depth", True, 7.0, 0.1)
    with pytest.raises(ConfigError, match="model's is metric"):
        KnownCamera(CameraMotion([np.eye(4)], 2.0), ORTHOGRAPHIC, metric)


def test_a_map_is_carried_along_the_flow(clip: Glide) -> None:
    found = Track(clip.back[:1], within(clip.back[:1]))
    torch.testing.assert_close(found.carry(clip.depth[:1]), warp(clip.depth[:1], clip.back[:1]))
