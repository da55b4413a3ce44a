from __future__ import annotations

import builtins
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.errors import ConfigError, InputError, MissingDependencyError
from redepth.io import video, video_colour
from tests.support.videos import TICKS, pictures, turned, write_sound, write_video


def frames_of(path: Path, chosen: str = ":") -> list[io.VideoFrame]:
    return list(io.read_video(path, io.parse_frame_range(chosen)))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "libx264"),
        (".mkv", "libx264"),
        (".webm", "libvpx-vp9"),
        (".avi", "mpeg4"),
        (".ts", "libx264"),
    ],
)
def test_the_pixels_and_times_of_usual_videos(suffix: str, codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"clip{suffix}", codec=codec, options={"b": "2M"})
    facts = io.check_video(path)
    frames = frames_of(path)
    assert facts.size == (48, 64)
    assert facts.rate == pytest.approx(25, rel=0.01)
    assert facts.indices == tuple(range(6)) == tuple(frame.index for frame in frames)
    assert facts.seconds == pytest.approx([index / 25 for index in range(6)], abs=0.002)
    for frame, picture in zip(frames, pictures(), strict=True):
        assert frame.pixels.dtype == np.uint8
        # The colours between are smeared, because they are stored at half the size.
        for column in (4, 60):
            np.testing.assert_allclose(frame.pixels[20, column].astype(int), picture[20, column], atol=9)


def test_the_matrix_and_the_range_of_the_stream_are_followed(tmp_path: Path) -> None:
    for name, code in (("bt709", 1), ("smpte170m", 5)):
        for full in (False, True):
            path = tmp_path / f"{name}{full}.mp4"
            with io.video_writer(path, 25) as writer:
                writer._stream.codec_context.colorspace = 1 if name == "bt709" else 6
                writer._stream.codec_context.color_range = 2 if full else 1
                _add(writer, code, full)
            np.testing.assert_allclose(frames_of(path)[0].pixels[20, 20].astype(int), (200, 30, 90), atol=3)


def _add(writer: io.VideoWriter, code: int, full: bool) -> None:
    """Encode a picture by another matrix and range than the writer's own."""
    import av

    stream = writer._stream
    stream.height, stream.width = 48, 64
    picture = np.full((48, 64, 3), (200, 30, 90), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
        format="yuv420p", dst_colorspace=code, src_color_range=2, dst_color_range=2 if full else 1
    )
    frame.pts, frame.time_base = 0, Fraction(1, 90_000)
    writer._container.mux(stream.encode(frame))
    writer._container.mux(stream.encode(None))


def test_without_a_named_matrix_the_height_decides(tmp_path: Path) -> None:
    import av

    for height, code in ((48, 5), (720, 1)):
        picture = av.VideoFrame.from_ndarray(np.full((height, 64, 3), (200, 30, 90), np.uint8), "rgb24")
        frame = picture.reformat(format="yuv444p", dst_colorspace=code, src_color_range=2, dst_color_range=1)
        frame.colorspace, frame.color_range = 2, 0
        found = video_colour.to_srgb(frame, 64, height)
        np.testing.assert_allclose(found[20, 20].astype(int), (200, 30, 90), atol=3)


def test_ten_bits_are_kept(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(64)[None, :, None] * 4, (48, 64, 3)).astype(np.uint8)
    path = write_video(tmp_path / "ten.mkv", [ramp], codec="ffv1", layout="yuv420p10le")
    (frame,) = frames_of(path)
    assert frame.pixels.dtype == np.float32
    np.testing.assert_allclose(frame.pixels[20], ramp[20] / 255, atol=0.02)


@pytest.mark.parametrize(("curve", "white"), [(18, 0.75), (16, 0.5807)])
def test_hdr_white_becomes_white_and_grey_stays_grey(curve: int, white: float) -> None:
    """White of BT.2408: 75 % of HLG, 58 % of PQ, which is 203 cd/m²."""
    linear = video_colour._linear_hdr(np.full((1, 1, 3), white, np.float32), curve)
    np.testing.assert_allclose(linear, 1, rtol=0.01)
    np.testing.assert_allclose(video_colour._in_bt709(linear), 1, atol=0.01)
    grey = video_colour._in_bt709(np.full((1, 1, 3), 0.2, np.float32))
    np.testing.assert_allclose(video_colour._encoded(grey), 0.4845, atol=0.002)
    np.testing.assert_allclose(video_colour._decoded(video_colour._encoded(grey)), grey, atol=1e-5)


def test_an_hdr_stream_is_brought_to_srgb() -> None:
    import av

    frame = av.VideoFrame(32, 32, "yuv420p10le")
    # 75 % grey of HLG in the limited range.
    for plane, value in zip(frame.planes, (64 + 657, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = 18, 9, 9, 1
    assert video_colour.to_srgb(frame, 32, 32)[16, 16] == pytest.approx([1, 1, 1], abs=0.01)
    frame.color_trc = frame.color_primaries = frame.colorspace = 1
    assert video_colour.to_srgb(frame, 32, 32)[16, 16] == pytest.approx([0.75, 0.75, 0.75], abs=0.01)


def test_eight_bits_of_bt2020_are_brought_to_srgb() -> None:
    """The same as in more bits, up to the rounding of 8 bits."""
    import av

    frame = av.VideoFrame(32, 32, "yuv420p")
    for plane, value in zip(frame.planes, (120, 100, 90), strict=True):
        plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = 1, 9, 9, 1
    wide = video_colour.to_srgb(frame, 32, 32)[16, 16]
    frame.color_primaries = 1
    plain = video_colour.to_srgb(frame, 32, 32)[16, 16].astype(np.float32) / 255
    expected = video_colour._encoded(video_colour._in_bt709(video_colour._decoded(plain[None, None])))[0, 0]
    np.testing.assert_allclose(wide, expected, atol=0.02)
    assert abs(wide - plain).max() > 0.05


# Display matrices (a, b, c, d) of mp4, and how the stored picture is turned, in quarter turns anticlockwise.
@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_the_rotation_of_the_file_is_applied(
    matrix: tuple[int, int, int, int], turns: int, tmp_path: Path
) -> None:
    path = turned(write_video(tmp_path / "clip.mp4"), matrix)
    upright = np.rot90(pictures()[0], turns)
    assert io.check_video(path).size == upright.shape[:2]
    found = frames_of(path)[0].pixels
    assert found.shape == upright.shape
    for corner in ((3, 3), (3, -4), (-4, 3), (-4, -4)):
        np.testing.assert_allclose(found[corner].astype(int), upright[corner], atol=4)


def test_odd_sizes_and_pixels_that_are_not_square(tmp_path: Path) -> None:
    odd = write_video(tmp_path / "odd.mp4", pictures(2, 47, 63), layout="yuv444p")
    assert frames_of(odd)[0].pixels.shape == (47, 63, 3)
    wide = write_video(tmp_path / "wide.mp4", shape=Fraction(3, 2))
    assert io.check_video(wide).size == (48, 96)
    assert frames_of(wide)[0].pixels.shape == (48, 96, 3)


def test_a_variable_rate_keeps_the_times_of_the_frames(tmp_path: Path) -> None:
    times = [0, 100, 500, 600, 2000, 2100]
    path = write_video(tmp_path / "clip.mp4", times=times)
    facts = io.check_video(path)
    assert facts.seconds == pytest.approx([time / TICKS for time in times], abs=1e-3)
    assert [frame.seconds for frame in frames_of(path)] == pytest.approx(list(facts.seconds))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("2:", [2, 3, 4, 5]),
        (":3", [0, 1, 2]),
        ("::2", [0, 2, 4]),
        ("1:5:3", [1, 4]),
        ("1:9", [1, 2, 3, 4, 5]),
    ],
)
def test_chosen_frames(chosen: str, expected: list[int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    assert [frame.index for frame in frames_of(path, chosen)] == expected
    facts = io.check_video(path, io.parse_frame_range(chosen))
    assert list(facts.indices) == expected
    # The time of a frame does not depend on the choice.
    assert facts.seconds == pytest.approx([index / 25 for index in expected])


def test_frames_that_are_taken() -> None:
    chosen = io.parse_frame_range("2:9:3")
    assert [index for index in range(20) if index in chosen] == [2, 5, 8]


def test_the_advice_keeps_the_step(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match=r"take some of them with --frames 1:5:2, or"):
        io.check_video(path, io.parse_frame_range("1::2"), max_frames=2)


@pytest.mark.parametrize("text", ["", "3", "a:b", "-1:4", "4:4", "5:2", "::0", "1:2:3:4", "1.5:3"])
def test_what_is_no_range_of_frames(text: str) -> None:
    with pytest.raises(ConfigError, match="--frames"):
        io.parse_frame_range(text)


def test_limits_of_pixels_and_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    assert io.check_video(path, max_pixels=64 * 48).size == (48, 64)
    with pytest.raises(InputError, match=r"64 x 48 is .* --max-pixels 3072"):
        io.check_video(path, max_pixels=64 * 48 - 1)
    with pytest.raises(InputError, match=r"more than 5 frames; take some of them with --frames 0:5"):
        io.check_video(path, max_frames=5)
    assert len(io.check_video(path, io.parse_frame_range("0:5"), max_frames=5).indices) == 5
    with pytest.raises(InputError, match="has no frame 6"):
        io.check_video(path, io.parse_frame_range("6:"))
    small = write_video(tmp_path / "small.mp4", pictures(1, 8, 64))
    with pytest.raises(InputError, match="64 x 8 is too small"):
        io.check_video(small)


def test_the_limit_of_decoded_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_DECODED", 3)
    path = write_video(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="cut the video first"):
        io.check_video(path, io.parse_frame_range("::5"))
    assert len(io.check_video(path, io.parse_frame_range(":3")).indices) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_video_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    whole = write_video(
        tmp_path / f"whole{suffix}", pictures(12), codec=codec, container={"movflags": "+faststart"}
    )
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(InputError, match=r"truncated|no frame"):
        io.check_video(path)


def test_the_frames_before_the_damage_can_be_taken(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", pictures(12), container={"movflags": "+faststart"})
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(0.95 * whole.stat().st_size)])
    with pytest.raises(InputError, match=r"damaged or truncated at frame (\d+) .*--frames 0:\1$") as caught:
        io.check_video(path)
    advice = str(caught.value).split("--frames ")[1]
    facts = io.check_video(path, io.parse_frame_range(advice))
    assert facts.indices == tuple(range(int(advice.split(":")[1])))


def test_damaged_bytes_in_the_pictures_are_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", container={"movflags": "+faststart"})
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 700
    content[start : start + 200] = bytes(byte ^ 0x5A for byte in content[start : start + 200])
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        io.check_video(path)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    contents = {
        "text.mp4": b"no video\n" * 100,
        "empty.mp4": b"",
        "list.mp4": b"ffconcat version 1.0\nfile other.mp4\n",
        "play.mp4": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*(video|empty)"):
            io.check_video(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        io.check_video(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        io.check_video(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="holds sound alone"):
        io.check_video(write_sound(tmp_path / "sound.mp4"))


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    """A playlist of the formats that FFmpeg would follow, beside the video that it names."""
    write_video(tmp_path / "secret.ts", codec="libx264")
    lists = {
        "play.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "list.mp4": f"ffconcat version 1.0\nfile {tmp_path}/secret.ts\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="video"):
            io.check_video(tmp_path / name)


def test_an_unusual_codec_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mov", codec="qtrle", layout="rgb24")
    with pytest.raises(InputError, match=r"codec qtrle is not supported; convert it to H\.264"):
        io.check_video(path)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4")
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "av":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[video\]"'):
        io.check_video(path)
    with (
        pytest.raises(MissingDependencyError, match=r"redepth\[video\]"),
        io.video_writer(tmp_path / "out.mp4", 25),
    ):
        pass


@pytest.mark.parametrize("version", ["13.1.0", "17.0.1", "19.0.0"])
def test_another_version_of_pyav_is_named(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    path = write_video(tmp_path / "clip.mp4")
    monkeypatch.setattr(av, "__version__", version)
    with pytest.raises(
        MissingDependencyError, match=rf"17\.1 or later, below 19, and {version} is installed"
    ):
        io.check_video(path)


def test_the_extra_asks_for_the_versions_that_work() -> None:
    (first, minor), (end, _) = video.PYAV
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'"av([<>=].*?)"', project) == [f">={first}.{minor},<{end}"] * 2


# --- writing --------------------------------------------------------------------------------------


def test_a_written_video_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    times = [0.0, 0.04, 0.1, 0.1, 0.2, 0.24]
    with io.video_writer(path, 25) as writer:
        for picture, seconds in zip(pictures(6, 47, 63), times, strict=True):
            writer.add(picture, seconds)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    frames = frames_of(path)
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-3)
    for frame, picture in zip(frames, pictures(6, 47, 63), strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        for column in (4, 62):
            np.testing.assert_allclose(frame.pixels[20, column].astype(int), picture[20, column], atol=5)
        np.testing.assert_allclose(frame.pixels[47].astype(int), frame.pixels[46], atol=5)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"clip:\xff.mp4")
    with io.video_writer(path, 25) as writer:
        writer.add(pictures()[0], 0)
    assert len(frames_of(path)) == 1


def test_an_error_leaves_the_old_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def write(second: np.ndarray | None) -> None:
        with io.video_writer(path, 25) as writer:
            writer.add(pictures()[0], 0)
            if second is None:
                raise KeyboardInterrupt
            writer.add(second, 1)

    with pytest.raises(KeyboardInterrupt):
        write(None)
    with pytest.raises(ValueError, match="all frames must be"):
        write(pictures(1, 48, 32)[0])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
