from __future__ import annotations

import torch

from redepth.data.datasets.synthetic import Synthetic
from redepth.data.scenes.captions import RELIEF_WORDS, ROOM_CAPTIONS, upcoming_relief, upcoming_room
from redepth.data.scenes.relief import BROAD
from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import room_scenes
from redepth.data.scenes.rooms.unseen import UNSEEN
from redepth.data.scenes.synthetic import scenes
from tests.support.helpers import seeded


def test_every_family_has_a_caption() -> None:
    assert set(RELIEF_WORDS) == set(BROAD)
    assert set(ROOM_CAPTIONS) == set(TRAINING) | set(UNSEEN)


def test_the_upcoming_relief_is_named_and_no_draw_changes() -> None:
    generator = seeded(3)
    captions = upcoming_relief(6, generator)
    assert torch.equal(
        scenes(6, "broad", generator, height=16, width=16).image,
        scenes(6, "broad", seeded(3), height=16, width=16).image,
    )
    assert all(caption.startswith("relief, ") for caption in captions)
    assert len(set(captions)) > 1


def test_captions_of_relief_tell_families_apart() -> None:
    """Rough relief bends about twice as much as smooth relief: the caption goes with the picture."""
    drawn, captions, generator = [], [], seeded(1)
    for _ in range(12):
        captions += upcoming_relief(8, generator)
        drawn.append(scenes(8, "broad", generator, height=48, width=48).depth)
    depth = torch.cat(drawn)
    bend = depth[..., 2:] - 2 * depth[..., 1:-1] + depth[..., :-2]
    sharp = bend.abs().mean(dim=(1, 2, 3))
    rough, smooth = ([said == f"relief, {name}" for said in captions] for name in ("rough", "smooth"))
    assert sharp[rough].mean() > 1.8 * sharp[smooth].mean()


def test_the_upcoming_room_is_named() -> None:
    found = set()
    for seed in range(6):
        generator = seeded(seed)
        caption = upcoming_room(TRAINING, generator)
        drawn = room_scenes(1, generator, height=12, width=12)
        names = [name for name, words in ROOM_CAPTIONS.items() if words == caption and name in TRAINING]
        expected = [
            room_scenes(1, seeded(seed), height=12, width=12, families={name: TRAINING[name]}).depth
            for name in names
        ]
        assert any(torch.equal(depth, drawn.depth) for depth in expected)
        found.add(caption)
    assert len(found) > 2


def test_scenes_of_the_benchmark_have_captions() -> None:
    known = {
        "relief": "relief",
        "shapes": "relief",
        "in-domain": "relief, smooth",
        "texture": "relief, smooth",
    }
    for split, caption in known.items():
        dataset = Synthetic(split=split, count=1, size=16)
        assert dataset.load(dataset.names()[0]).caption == caption
    rooms = Synthetic(split="unseen-rooms", count=6, size=16)
    assert {rooms.load(name).caption for name in rooms.names()} <= {ROOM_CAPTIONS[name] for name in UNSEEN}
