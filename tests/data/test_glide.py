"""The clip with exact depth and motion."""

from __future__ import annotations

import pytest
import torch

from redepth.data.scenes.glide import Glide, glide, longest
from redepth.errors import ConfigError
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.ops.warp import reproject, warp, within
from tests.support.helpers import seeded


def clip(frames: int = 5, split: str = "relief", **options: float) -> Glide:
    return glide(frames, split, seeded(3), size=64, **options)


@pytest.mark.parametrize("split", ["in-domain", "relief", "shapes"])
def test_depth_and_picture_follow_the_flow(split: str) -> None:
    made = clip(split=split, noise=0.0)
    for t, back in enumerate(made.back):
        inner = within(back[None])
        inner[..., :3, :] = inner[..., -3:, :] = inner[..., :3] = inner[..., -3:] = False
        spread = float(made.depth.std())
        for maps, tolerance in ((made.depth, 0.05 * spread), (made.image, 0.01)):
            carried, now = warp(maps[t : t + 1], back[None]), maps[t + 1 : t + 2]
            still = float((maps[t : t + 1] - now).abs().mean())
            missed = float((carried - now).abs().mean(dim=1, keepdim=True)[inner].mean())
            assert missed < tolerance
            assert missed < 0.3 * still, "the flow has to explain what changes"


def test_the_motion_has_no_whole_pixels_and_turns() -> None:
    made = clip()
    lengths = torch.linalg.vector_norm(made.back, dim=1)
    assert 1.2 < float(lengths.mean()) < 1.5
    assert float(made.back[0, 0].max() - made.back[0, 0].min()) > 0.2


def test_the_poses_give_the_flow() -> None:
    made = clip()
    motion = torch.linalg.inv(made.poses[2]) @ made.poses[1]
    seen = reproject(made.depth[1:2], ORTHOGRAPHIC, motion)
    assert float(seen.valid.float().mean()) > 0.9
    assert float((seen.back - made.back[1:2])[:, :, seen.valid[0, 0]].abs().max()) < 0.02
    assert float(seen.change.abs().max()) < 1e-5


def test_each_frame_has_noise_of_its_own() -> None:
    noisy, clean = clip(noise=0.05), clip(noise=0.0)
    torch.testing.assert_close(noisy.depth, clean.depth)
    grain = noisy.image - clean.image
    assert 0.03 < float(grain.std()) < 0.06
    flat = grain.flatten(1)
    assert float(torch.corrcoef(flat)[0, 1].abs()) < 0.05


def test_a_seed_gives_the_same_clip_and_another_one_another() -> None:
    first, again = clip(), clip()
    torch.testing.assert_close(first.image, again.image, atol=0, rtol=0)
    other = glide(5, "relief", seeded(4), size=64)
    assert float((other.depth - first.depth).abs().max()) > 0.01


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ConfigError, match="in-domain, relief and shapes"):
        clip(split="sky")
    with pytest.raises(ConfigError, match=r"pixels: take [0-9]+, or a larger size"):
        clip(frames=100)


@pytest.mark.parametrize("size", [64, 80, 97])
def test_as_many_frames_fit_as_is_said(size: int) -> None:
    for seed in range(2):
        assert len(glide(longest(size), "relief", seeded(seed), size=size).image) == longest(size)
