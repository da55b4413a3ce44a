"""Point clouds: where the points lie, and which pixels are left out."""

from __future__ import annotations

import numpy as np
import pytest

from redepth.errors import InputError
from redepth.exports.points import points_of
from redepth.exports.surface import Surface
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera


def surface(depth: np.ndarray, camera: Camera = ORTHOGRAPHIC, reach: int = 1) -> Surface:
    return Surface(depth.astype(np.float32), camera, reach=reach)


def test_points_lie_where_the_camera_puts_them() -> None:
    cloud = points_of(surface(np.full((21, 41), 2.0)), np.zeros((21, 41, 3)))
    assert len(cloud.vertices) == 21 * 41
    aspect = 41 / 21
    np.testing.assert_allclose(cloud.vertices[0], [-aspect, 1, -2], rtol=1e-6)
    np.testing.assert_allclose(cloud.vertices[-1], [aspect, -1, -2], rtol=1e-6)


def test_a_pinhole_puts_points_on_the_rays_of_the_photos_pixels_at_any_stride() -> None:
    camera = Camera.from_pixels(80.0, 60.0, 30.0, 12.0, height=30, width=50)
    depth = np.random.default_rng(0).uniform(2, 2.05, (30, 50))
    for most, step in ((10_000, 1), (200, 3)):
        cloud = points_of(surface(depth, camera), np.zeros((30, 50, 3)), max_points=most)
        i, j = np.mgrid[:30:step, :50:step].reshape(2, -1)
        z = depth[i, j]
        expected = [z * (j + 0.5 - 30) / 80, -z * (i + 0.5 - 12) / 60, -z]
        np.testing.assert_allclose(cloud.vertices, np.stack(expected, axis=-1), rtol=1e-5, atol=1e-6)


def test_a_panorama_is_a_sphere_whose_centre_is_ahead() -> None:
    cloud = points_of(surface(np.full((32, 64), 3.0), SPHERICAL), np.zeros((32, 64, 3)), max_points=600)
    np.testing.assert_allclose(np.linalg.norm(cloud.vertices, axis=-1), 3.0, rtol=1e-6)
    # Column W / 2 of row H / 2 looks along -z, and row 0 up.
    centre = cloud.vertices.reshape(16, 32, 3)[8, 16]
    assert centre[2] == pytest.approx(-3.0, abs=0.03)
    assert cloud.vertices[0, 1] > 2.9


def test_points_are_cut_at_edges_and_keep_slopes_and_colours() -> None:
    depth = np.tile(np.linspace(1, 2, 40), (20, 1))
    depth[:, 20:] += 1
    depth[0, 0], depth[5, 5] = np.nan, -1
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    cloud = points_of(surface(depth), image)
    assert len(cloud.vertices) == 20 * 38 - 2
    columns = set(np.asarray(cloud.colors)[:, 0].tolist())
    assert columns == set(range(40)) - {19, 20}
    # The threshold is a ratio, so an unknown scale changes nothing.
    assert len(points_of(surface(depth * 1e3), image).vertices) == len(cloud.vertices)
    assert len(points_of(surface(depth), image, limit=np.inf).vertices) == 798


def test_an_edge_that_is_smeared_over_a_pixel_of_the_network_is_cut() -> None:
    # One to two over eight pixels of the photo: no step between neighbours is above 5 % but near the start.
    row = np.concatenate([np.full(20, 1.0), np.geomspace(1, 1.3, 9), np.full(20, 1.3)])
    depth, image = np.tile(row, (10, 1)), np.zeros((10, 49, 3))
    assert len(points_of(surface(depth), image).vertices) == depth.size
    kept = points_of(surface(depth, reach=8), image).vertices
    assert set(np.round(-kept[:, 2], 4)) == {1.0, 1.3}


def test_points_are_thinned_to_the_limit() -> None:
    # At full resolution the slope is smooth; at the stride it would exceed the jump.
    depth = np.tile(1.03 ** np.arange(100), (80, 1))
    assert len(points_of(surface(depth), np.zeros((80, 100, 3)), max_points=900).vertices) == 20 * 25


def test_points_refuse_bad_input() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        points_of(surface(np.ones((4, 5))), np.ones((5, 4, 3)))
    with pytest.raises(InputError, match="positive"):
        points_of(surface(-np.ones((4, 5))), np.ones((4, 5, 3)))
