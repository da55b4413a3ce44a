"""The guided filter: edges of the photo, strips, holes, and what stays bilinear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from redepth.exports import enlarge, enlarge_guided
from redepth.exports.resolution import guide
from redepth.io import write
from redepth.ops.geometry import resize
from tests.exports.test_writing import result

pytest.importorskip("kornia")


def step(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A photo of two halves with an edge between them, and the disparity that has the same edge."""
    photo = np.zeros((size, size, 3), np.float32)
    photo[:, size // 2 :] = (0.8, 0.6, 0.2)
    return photo, np.where(photo[..., 0] > 0, 2.0, 1.0).astype(np.float32)


def test_an_edge_that_the_network_blurred_is_sharp_again() -> None:
    photo, truth = step()
    coarse = resize(torch.from_numpy(truth)[None, None], 16, 16, antialias=True)
    found = np.empty_like(truth)
    enlarge(found, coarse)
    assert np.abs(np.diff(found, axis=1)).max() < 0.2
    enlarge_guided(found, coarse, photo, radius=2.0, eps=1e-4)
    # In one step of a pixel, where the photo has it.
    steps = np.diff(found, axis=1)
    assert (steps[:, 31] > 0.6).all()
    assert np.delete(steps, 31, axis=1).max() < 0.1
    # Seen at the network's size again, it is closer to the given map than the filter alone leaves it.
    filtered = np.empty_like(truth)
    enlarge(filtered, coarse)
    guide(filtered, photo, radius=8, eps=1e-4)

    def error(fine: np.ndarray) -> float:
        values = torch.from_numpy(fine)[None, None]
        return float((resize(values, 16, 16, align_corners=True, antialias=True) - coarse).abs().mean())

    assert error(found) < 0.5 * error(filtered)


def test_a_plane_and_a_constant_stay_as_they_are() -> None:
    photo = np.random.default_rng(0).random((40, 48, 3)).astype(np.float32)
    plane = np.full((40, 48), 3.0, np.float32)
    guide(plane, photo, radius=8, eps=1e-3)
    assert (plane == 3.0).all()
    tiny = np.array([[1.0, 2.0]], np.float32)
    guide(tiny, photo[:1, :2], radius=8, eps=1e-3)
    assert tiny.tolist() == [[1.0, 2.0]]


def test_strips_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    photo, values = draw.random((90, 30, 3)).astype(np.float32), draw.random((90, 30)).astype(np.float32)
    whole, strips = values.copy(), values.copy()
    guide(whole, photo, radius=4, eps=1e-3)
    monkeypatch.setattr(write, "BLOCK_PIXELS", 30)
    guide(strips, photo, radius=4, eps=1e-3)
    np.testing.assert_allclose(strips, whole, atol=1e-5)


def test_both_sides_of_a_comparison_are_guided_and_holes_stay() -> None:
    photo, truth = step()
    coarse = resize(torch.from_numpy(truth)[None, None], 16, 16, antialias=True)[0, 0].numpy()
    holes = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    holes[..., :8, :8] = True
    made = [replace(result(coarse, f"output.upsample={how}"), photo=photo) for how in ("bilinear", "guided")]
    plain, guided = (replace(one, holes=holes) for one in made)
    for name in ("initial", "refined", "depth"):
        one, other = getattr(plain, name), getattr(guided, name)
        assert np.isnan(other[:8, :8]).all()
        assert np.array_equal(np.isnan(one), np.isnan(other))
        assert np.nanmax(np.abs(one - other)) > 0.05
    assert np.array_equal(guided.initial, guided.refined, equal_nan=True)
    assert np.array_equal(plain.uncertainty, guided.uncertainty, equal_nan=True)
