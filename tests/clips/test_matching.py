"""Whether frames match along a motion."""

from __future__ import annotations

import pytest
import torch

from redepth.clips.flow import Track
from redepth.clips.matching import ENOUGH, matching
from redepth.data.scenes.glide import glide
from redepth.ops.warp import within
from tests.support.helpers import seeded


@pytest.mark.parametrize("split", ["relief", "shapes"])
def test_the_exact_motion_matches_and_no_motion_does_not(split: str) -> None:
    clip = glide(2, split, seeded(6), size=64, speed=1.3)

    def share(factor: float) -> float:
        track = Track(factor * clip.back[:1], within(factor * clip.back[:1]))
        matched = matching(track, clip.image[:1], clip.image[1:])
        assert not matched[~track.valid].any()
        return float(matched.sum() / track.valid.sum())

    assert share(1.0) > 0.95 > ENOUGH
    assert share(0.0) < ENOUGH
    assert share(-1.0) < share(0.0)


def test_what_changes_its_light_does_not_match_and_a_plain_wall_does() -> None:
    wall = torch.full((1, 3, 40, 40), 0.5)
    brighter = wall.clone()
    brighter[..., 20:] += 0.3
    track = Track(torch.zeros(1, 2, 40, 40), torch.ones(1, 1, 40, 40, dtype=torch.bool))
    assert bool(matching(track, wall, wall).all())
    matched = matching(track, wall, brighter)
    assert bool(matched[..., :10].all())
    assert not matched[..., 25:].any()
