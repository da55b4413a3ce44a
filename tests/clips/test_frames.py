"""The frames of a clip, from a video or from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from redepth import io
from redepth.clips.frames import open_clip
from redepth.errors import InputError
from tests.support.small_photos import write_photo
from tests.support.videos import pictures, write_video


def folder_of(path: Path, *numbers: int) -> Path:
    for number in numbers:
        write_photo(path / f"f{number}.png", seed=number)
    return path


def test_a_video_and_its_frames_as_a_folder_are_the_same(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4")
    for frame in io.read_video(video):
        io.save_png(tmp_path / "frames" / f"{frame.index + 8}.png", frame.pixels)
    chosen = io.parse_frame_range("1:6:2")
    of_video, of_folder = open_clip(video, chosen), open_clip(tmp_path / "frames", chosen, rate=25)
    assert len(of_video) == len(of_folder) == 3
    assert of_video.size == of_folder.size == (48, 64)
    assert of_video.indices == of_folder.indices == (1, 3, 5)
    assert of_video.seconds == pytest.approx(of_folder.seconds)
    assert of_video.labels == ("frame 1", "frame 3", "frame 5")
    assert of_folder.labels == ("9.png", "11.png", "13.png")
    for start in (0, 2):
        pairs = list(zip(of_video.read(start), of_folder.read(start), strict=True))
        assert len(pairs) == 3 - start
        for one, other in pairs:
            np.testing.assert_array_equal(one.values, other.values)
    assert of_video.hashes() != of_folder.hashes()


def test_the_hash_of_a_folder_is_that_of_the_chosen_photos(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shot", 1, 2, 3)
    first, both = (open_clip(folder, io.parse_frame_range(text)) for text in (":1", ":2"))
    before = first.hashes()
    assert before != both.hashes()
    of_both = both.hashes()
    write_photo(folder / "f2.png", seed=9)
    assert first.hashes() == before
    assert both.hashes() != of_both


def test_photos_of_several_sizes_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shot", 1, 2)
    write_photo(folder / "f3.png", size=(40, 48))
    with pytest.raises(InputError, match=r"f3\.png: has 48 x 40 pixels, and f1\.png has 50 x 40"):
        open_clip(folder)
    assert len(open_clip(folder, io.parse_frame_range(":2"))) == 2


def test_a_damaged_photo_is_found_before_any_work(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shot", 1, 2)
    content = (folder / "f2.png").read_bytes()
    (folder / "f2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"f2\.png: damaged or truncated"):
        open_clip(folder)


def test_limits_of_a_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shot", 1, 2, 4)
    lines: list[str] = []
    assert open_clip(folder, warn=lines.append).labels == ("f1.png", "f2.png", "f4.png")
    assert lines == [f"{folder}: frames are missing: 3; the clip goes on over the gap"]
    with pytest.raises(InputError, match=r"more than 2 frames; take some of them with --frames 0:2"):
        open_clip(folder, max_frames=2)
    with pytest.raises(InputError, match=r"take some of them with --frames 0:2:2, or"):
        open_clip(folder, io.parse_frame_range("::2"), max_frames=1)
    with pytest.raises(InputError, match="has 3 frames and no frame 3"):
        open_clip(folder, io.parse_frame_range("3:"))
    with pytest.raises(InputError, match="--max-pixels"):
        open_clip(folder, max_pixels=100)


def test_a_clip_that_changes_while_it_is_refined_is_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shot", 1, 2)
    frames = open_clip(folder)
    write_photo(folder / "f2.png", size=(40, 48))
    with pytest.raises(InputError, match=r"f2\.png was changed meanwhile"):
        list(frames.read())
    video = write_video(tmp_path / "clip.mp4")
    frames = open_clip(video)
    write_video(video, pictures(6, 48, 48))
    with pytest.raises(InputError, match="frame 0 was changed meanwhile"):
        list(frames.read())
