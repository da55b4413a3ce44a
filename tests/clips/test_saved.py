"""The state of a clip as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from redepth.clips.chain import Chain
from redepth.clips.flow import KnownMotion
from redepth.clips.lengths import Lengths
from redepth.clips.saved import ClipState, load_state, save_state
from redepth.errors import InputError
from redepth.ops.camera import Camera
from redepth.optim.plan import Plan
from redepth.optim.warm import WarmStart

CPU = torch.device("cpu")


def state() -> ClipState:
    """A state whose maps share memory, as those of a first frame do."""
    prediction = torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    learned = {"decoder.a": torch.arange(6.0).view(2, 3), "offset": torch.tensor([0.5, -0.25])}
    chain = Chain(
        image=torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(1)),
        prediction=prediction,
        adjustment=torch.tensor([1.5, -0.1], dtype=torch.float64),
        reference=prediction,
        answer=prediction + 1,
        count=torch.ones(1, 1, 4, 5),
        unit=0.1 + 0.2,
        start=WarmStart(learned, Plan(2, 3, 1, early_stop=False), 1 / 3),
        prompt="a 'coin'\nñ",
    )
    lengths = Lengths("disparity", False, 0.7, 0.1, unit=3.0, length=1 / 3)
    camera = Camera(intrinsics=(1.1, 1.2, 0.5, 0.4))
    return ClipState(7, chain, KnownMotion(camera, lengths, True), Camera(field_of_view=50.0))


def test_a_state_is_read_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for stored in (state(), replace(state(), motion=None, camera=None)):
        save_state(path, stored)
        read = load_state(path, CPU)
        assert (read.frames, read.chain.unit, read.chain.prompt) == (7, 0.1 + 0.2, "a 'coin'\nñ")
        for name in ("image", "prediction", "adjustment", "reference", "answer", "count"):
            assert torch.equal(getattr(read.chain, name), getattr(stored.chain, name))
        assert read.chain.start.plan == stored.chain.start.plan
        assert read.chain.start.rates == 1 / 3
        assert stored.chain.start.learned is not None
        assert read.chain.start.learned is not None
        assert list(read.chain.start.learned) == list(stored.chain.start.learned)
        for name, values in stored.chain.start.learned.items():
            assert torch.equal(read.chain.start.learned[name], values)
        assert read.camera == stored.camera
        if stored.motion is None:
            assert read.motion is None
        else:
            assert read.motion is not None
            assert vars(read.motion) == vars(stored.motion)


def test_nothing_learned_is_not_the_same_as_learned_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for learned in (None, {}):
        stored = replace(state(), chain=replace(state().chain, start=WarmStart(learned, None)))
        save_state(path, stored)
        assert load_state(path, CPU).chain.start.learned == learned


def test_a_damaged_state_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(InputError, match=r"the clip cannot go on from it .*--fresh"):
        load_state(path, CPU)
    save_state(path, state())
    content = path.read_bytes()
    for broken in (b"", content[:100], content[:-10], content.replace(b'"frames', b'"fromes')):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="the clip cannot go on from it"):
            load_state(path, CPU)
