"""Point clouds: where the points lie, and which pixels are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from redepth import io
from redepth.errors import InputError


def test_points_lie_where_the_camera_puts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    depth = np.full((21, 41), 2.0)
    assert io.save_points(path, depth, np.zeros((21, 41, 3))) == 21 * 41
    assert path.read_bytes().startswith(b"ply\nformat binary_little_endian")
    cloud = trimesh.load(path)
    aspect = 41 / 21
    np.testing.assert_allclose(cloud.vertices[0], [-aspect, 1, -2], rtol=1e-6)
    np.testing.assert_allclose(cloud.vertices[-1], [aspect, -1, -2], rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_points_are_cut_at_edges_and_keep_slopes_and_colours(tmp_path: Path) -> None:
    depth = np.tile(np.linspace(1, 2, 40), (20, 1))
    depth[:, 20:] += 1
    depth[0, 0], depth[5, 5] = np.nan, -1
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    count = io.save_points(tmp_path / "a.ply", depth, image)
    cloud = trimesh.load(tmp_path / "a.ply")
    assert count == len(cloud.vertices) == 20 * 38 - 2
    columns = set(np.asarray(cloud.colors)[:, 0].tolist())
    assert columns == set(range(40)) - {19, 20}
    # The threshold is a ratio, so an unknown scale changes nothing.
    assert io.save_points(tmp_path / "a.ply", depth * 1e3, image) == count
    assert io.save_points(tmp_path / "a.ply", depth, image, max_relative_jump=np.inf) == 798


def test_points_are_thinned_to_the_limit(tmp_path: Path) -> None:
    # At full resolution the slope is smooth; at the stride it would exceed the jump.
    depth = np.tile(1.03 ** np.arange(100), (80, 1))
    count = io.save_points(tmp_path / "a.ply", depth, np.zeros((80, 100, 3)), max_points=900)
    assert count == 20 * 25


def test_points_refuse_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        io.save_points(tmp_path / "a.ply", np.ones((4, 5)), np.ones((5, 4, 3)))
    with pytest.raises(InputError, match="positive"):
        io.save_points(tmp_path / "a.ply", -np.ones((4, 5)), np.ones((4, 5, 3)))
    assert list(tmp_path.iterdir()) == []
