"""Fuzz target of the reader of videos: a damaged file gives frames or an InputError, nothing else."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redepth import io
from redepth.errors import InputError
from tests.support.fuzz import fuzzing, mutate
from tests.support.videos import pictures, write_video

LIMIT = 100_000


@cache
def seeds() -> tuple[bytes, ...]:
    """Small videos in several containers."""
    with tempfile.TemporaryDirectory() as folder:
        front = {"movflags": "+faststart"}
        kinds = [
            (".mp4", "libx264", front),
            (".mkv", "libx264", {}),
            (".avi", "mpeg4", {}),
            (".ts", "libx264", {}),
        ]
        return tuple(
            write_video(
                Path(folder) / f"clip{suffix}", pictures(3, 32, 32), codec=codec, container=container
            ).read_bytes()
            for suffix, codec, container in kinds
        )


@pytest.mark.slow
@fuzzing(300)
@given(data=st.data())
def test_damaged_videos(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.mp4"
    path.write_bytes(data.draw(mutate(list(seeds()))))
    try:
        facts = io.check_video(path, max_frames=50, max_pixels=LIMIT)
        assert len(facts.indices) == len(facts.seconds) <= 50
        for frame in io.read_video(path, io.parse_frame_range(":5"), max_pixels=LIMIT):
            assert frame.pixels.shape == (*facts.size, 3)
            assert frame.pixels.shape[0] * frame.pixels.shape[1] <= LIMIT
            assert np.isfinite(frame.seconds)
    except InputError as error:
        message = str(error)
    else:
        return
    assert message.startswith(str(path))
    assert "\n" not in message
