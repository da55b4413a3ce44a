"""Clips on the command line: what is written, what is refused, what goes on after an early end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redepth import io
from redepth.clips import outputs
from redepth.errors import OutputError
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support.command import ENVIRONMENT, SMOKE, Finished, call, one_line, record
from tests.support.small_photos import write_photo
from tests.support.videos import pictures, write_sound, write_video

QUICK = (*SMOKE, "-s", "optim.steps=2", "-s", "optim.members=1", "-s", "depth_model.longer_side=56")
STILL = (*QUICK, "--motion", "still")


def clip_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "clip.json").read_text())


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


OF_FRAME = {"disparity.npy", "disparity.png", "run.json"}
OF_CLIP = {"clip.json", "depth.mp4", "side-by-side.mp4"}


def expected(frames: int, of_frame: set[str] = OF_FRAME) -> set[str]:
    numbers = (f"{index + 1:06d}" for index in range(frames))
    return OF_CLIP | {f"frames/{number}/{name}" for number in numbers for name in of_frame}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4", pictures(4))


@pytest.fixture(scope="module")
def refined(video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A clip of four frames of which three are taken."""
    out = tmp_path_factory.mktemp("refined")
    return call("refine", video, *STILL, "--frames", "1:", "--seed", "3", "--out", out), out / "walk"


def test_a_clip_gets_its_folder(refined: tuple[Finished, Path]) -> None:
    done, folder = refined
    assert done.code == 0, done.err
    assert tree(folder) == expected(3)
    # The first frames of so short a run may be flagged.
    assert all("walk.mp4" in line and ": flagged in " in line for line in done.complaints), done.err
    assert [line.partition(":")[0] for line in done.progress] == ["1/3", "2/3", "3/3"]
    assert str(folder / "side-by-side.mp4") in done.out
    assert "64 x 48" in done.out


def test_the_record_of_a_clip(refined: tuple[Finished, Path], video: Path) -> None:
    stored = clip_record(refined[1])
    assert stored["finished"] is True
    assert stored["clip"] == {"source": str(video)}
    assert stored["settings"]["seed"] == 3
    assert stored["settings"]["frames"] == "1::1"
    assert [row["source"] for row in stored["frames"]] == ["frame 1", "frame 2", "frame 3"]
    assert [row["seconds"] for row in stored["frames"]] == pytest.approx([0.04, 0.08, 0.12])
    assert stored["starts"] == [0]
    assert [row["tied"] for row in stored["frames"]] == [False, True, True]
    for name in ("flicker_initial", "flicker_refined"):
        values = [row[name] for row in stored["frames"]]
        assert values[0] is None
        assert stored["flicker"][name.removeprefix("flicker_")] == pytest.approx(np.mean(values[1:]))
    assert set(stored["flicker"]) == {"initial", "aligned", "refined", "frames", "share"}
    assert stored["flicker"]["frames"] == 2
    assert 0 < stored["flicker"]["share"] <= 1
    before, after = stored["flicker"]["initial"], stored["flicker"]["refined"]
    assert f"{before:.3g} -> {after:.3g}" in refined[0].out
    assert stored["colours"]["low"] < stored["colours"]["high"]


def test_view_names_the_video_of_a_clip(refined: tuple[Finished, Path]) -> None:
    one_line(call("view", refined[1]), "is a clip's folder: open", "side-by-side.mp4")


def test_the_maps_of_a_frame_have_its_size(refined: tuple[Finished, Path]) -> None:
    for number, seed in (("000001", 3), ("000003", 5)):
        values = np.load(refined[1] / "frames" / number / "disparity.npy")
        assert values.shape == (48, 64)
        assert np.isfinite(values).all()
        assert record(refined[1] / "frames" / number)["seed"] == seed


def test_the_videos_show_all_frames_at_their_times(refined: tuple[Finished, Path]) -> None:
    for name in ("depth.mp4", "side-by-side.mp4"):
        frames = list(io.read_video(refined[1] / name))
        assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08], abs=2e-3)
    assert frames[0].pixels.shape[1] > 3 * 320
    assert io.check_video(refined[1] / "depth.mp4").size == (48, 64)


def test_the_video_has_the_colours_of_the_range(refined: tuple[Finished, Path]) -> None:
    """The brightness of a frame's colours follows its map by the range in the record."""
    colours = clip_record(refined[1])["colours"]
    for index, frame in enumerate(io.read_video(refined[1] / "depth.mp4")):
        values = np.load(refined[1] / "frames" / f"{index + 1:06d}" / "disparity.npy")
        unit = np.clip((values - colours["low"]) / (colours["high"] - colours["low"]), 0, 1)
        grey = frame.pixels.astype(np.float64).mean(axis=2)
        assert np.corrcoef(unit.ravel(), grey.ravel())[0, 1] > 0.95


def test_a_finished_clip_is_done_until_something_changes(video: Path, tmp_path: Path) -> None:
    command = ("refine", video, *STILL, "--frames", ":2", "--out", tmp_path)
    assert call(*command).code == 0
    first = clip_record(tmp_path / "walk")
    again = call(*command)
    assert again.code == 0
    assert "done already" in again.out
    assert clip_record(tmp_path / "walk") == first
    # Another choice of frames: the second frame's results go.
    other = call(*command[:-4], "--frames", ":1", "--out", tmp_path)
    assert "refined again: frames 0:2:1 was used, it is 0:1:1 now" in other.out
    assert tree(tmp_path / "walk") == expected(1)
    (tmp_path / "walk" / "frames" / "000001" / "disparity.npy").unlink()
    mended = call(*command[:-4], "--frames", ":1", "--out", tmp_path)
    assert "refined again: frames/000001: disparity.npy is missing" in mended.out
    assert tree(tmp_path / "walk") == expected(1)
    assert "done already" not in call(*command[:-4], "--frames", ":1", "--fresh", "--out", tmp_path).out


def test_files_of_the_user_stay(video: Path, tmp_path: Path) -> None:
    command = ("refine", video, *STILL, "--frames", ":1", "--out", tmp_path)
    assert call(*command).code == 0
    (tmp_path / "walk" / "notes.txt").write_text("mine")
    (tmp_path / "walk" / "frames" / "000001" / "notes.txt").write_text("mine")
    assert call(*command, "--seed", "1").code == 0
    assert tree(tmp_path / "walk") == expected(1) | {"notes.txt", "frames/000001/notes.txt"}


def test_a_numbered_folder_is_a_clip(tmp_path: Path) -> None:
    for number in (9, 10, 12):
        write_photo(tmp_path / "shot" / f"f{number}.png", seed=number)
    command = ("refine", tmp_path / "shot", *STILL, "--sequence", "--fps", "10")
    done = call(*command, "--write", "map,initial", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.complaints == [
        f"warning: {tmp_path / 'shot'}: frames are missing: 11; the clip goes on over the gap"
    ]
    assert tree(tmp_path / "out" / "shot") == expected(3, {"disparity.npy", "initial.npy", "run.json"})
    stored = clip_record(tmp_path / "out" / "shot")
    assert [row["source"] for row in stored["frames"]] == ["f9.png", "f10.png", "f12.png"]
    assert io.check_video(tmp_path / "out" / "shot" / "depth.mp4").rate == pytest.approx(10, rel=0.1)


def test_photos_and_clips_in_one_call(video: Path, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "walk.png")
    done = call("refine", photo, video, *STILL, "--frames", ":1", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    # Both are named walk.
    assert (tmp_path / "out" / "walk" / "comparison.png").is_file()
    assert (tmp_path / "out" / "walk-2" / "side-by-side.mp4").is_file()


def test_a_bad_clip_does_not_keep_the_others_from_being_refined(video: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.mp4")
    done = call("refine", sound, video, *STILL, "--frames", ":1", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.complaints == [
        f"error: {sound}: holds sound alone; give a file with a video stream",
        "error: 1 of 2 clips failed",
    ]
    assert tree(tmp_path / "out" / "walk") == expected(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gt", "gt.npy"), ("--gt: not with clips",)),
        (("--anchors", "a.csv", "--guide"), ("--anchors, --guide: not with clips",)),
        (("--normals", "n.npy"), ("--normals: not with clips",)),
        (("--planes", "p.png"), ("--planes: not with clips",)),
        (("--sky-mask", "s.png"), ("--sky-mask: not with clips",)),
        (("--depth", "d.npy", "--predicts", "depth"), ("--depth, --predicts: not with clips",)),
        (("--panorama",), ("--panorama: not with clips",)),
        (("--workers", "2"), ("--workers: not with clips",)),
        (("--ray", "local"), ("--ray: not with clips",)),
        (("--camera", "exif"), ("no EXIF",)),
        (("--fps", "10"), ("--fps is for folders",)),
        (("--sequence", "--frames", "x"), ("--frames 'x'",)),
        (("--frames", "9:"), ("has no frame 9",)),
        (("--max-frames", "2"), ("more than 2 frames",)),
        (("--max-pixels", "100"), ("--max-pixels 3072",)),
        (("--intrinsics", "40,40,32,24"), ("",)),
        (("--motion", "none.npy", "--fov", "60"), ("none.npy: no such file",)),
        (("--motion", "stil"), ("--motion stil: is neither flow nor still",)),
        (("--motion", "none.npy"), ("needs the camera", "--fov or --intrinsics, or --camera orthographic")),
    ],
)
def test_what_does_not_go_with_a_clip_is_refused(
    options: tuple[str, ...], words: tuple[str, ...], video: Path, tmp_path: Path
) -> None:
    if options[0] == "--intrinsics":
        options = ("--intrinsics", str(tmp_path / "none.json"))
        words = ("none.json", "no such file")
    one_line(call("refine", video, *QUICK, *options, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--frames=:2", "--max-frames=2", "--motion=still", "--fps=10"])
def test_options_of_clips_need_a_clip(option: str, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    one_line(call("refine", photo, *SMOKE, option), option.partition("=")[0], "goes with a clip")


def test_sequence_takes_folders(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "1.png")
    one_line(call("refine", photo, *SMOKE, "--sequence"), str(photo), "--sequence takes folders")
    one_line(call("refine", tmp_path / "no", *SMOKE, "--sequence"), "no", "--sequence takes folders")


def test_a_folder_with_videos_names_them(video: Path, tmp_path: Path) -> None:
    one_line(call("refine", video.parent, *SMOKE, "--out", tmp_path), "but videos: name them (walk.mp4)")


def test_results_replace_no_input(tmp_path: Path) -> None:
    path = (
        write_video(tmp_path / "depth" / "depth.mp4", pictures(1))
        if (tmp_path / "depth").mkdir() is None
        else None
    )
    assert path is not None
    one_line(call("refine", path, *STILL, "--out", tmp_path), "the results would replace this")
    for number in (1, 2):
        write_photo(tmp_path / "shot" / "frames" / f"{number}.png")
    done = call("refine", tmp_path / "shot" / "frames", *STILL, "--sequence", "--out", tmp_path / "shot")
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "shot" / "frames").iterdir()) == [
        *("1.png", "2.png", "clip.json", "depth.mp4", "frames", "side-by-side.mp4")
    ]


def test_poses_of_the_clip_or_of_the_chosen_frames(video: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.npy"
    np.save(poses, np.broadcast_to(np.eye(4), (2, 4, 4)))
    command = ("refine", video, *QUICK, "--fov", "60", "--frames", "0:3", "--motion", poses)
    done = call(*command, "--out", tmp_path / "out")
    one_line(done, "poses.npy: holds 2 poses", "3 chosen frames, the last one number 2")


@pytest.mark.parametrize("count", [3, 5])
def test_a_whole_clip_has_as_many_poses_as_frames(count: int, video: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.npy"
    np.save(poses, np.broadcast_to(np.eye(4), (count, 4, 4)))
    done = call("refine", video, *QUICK, "--fov", "60", "--motion", poses, "--out", tmp_path / "out")
    one_line(done, f"poses.npy: holds {count} poses, and the clip has 4 frames")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["cv2", "av", "kornia"])
def test_a_missing_package_is_found_before_results_go(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photo(tmp_path / "shot" / "1.png", size=(48, 64))
    command = ("refine", tmp_path / "shot", "--sequence", *STILL, "--out", tmp_path / "out")
    assert call(*command).code == 0
    before = tree(tmp_path / "out")
    again = (
        [word for word in command if word not in ("--motion", "still")] if package == "cv2" else [*command]
    )
    again += ["-s", "output.upsample=guided"] if package == "kornia" else []
    monkeypatch.setitem(sys.modules, package, None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    done = call(*again, "--seed", "1", "--fresh")
    assert done.code == 2
    assert "redepth[" in done.err
    assert "loading" not in done.err
    assert tree(tmp_path / "out") == before


def test_the_disk_needs_room_for_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member's weights are part of it; the results of an earlier run stay."""
    write_photo(tmp_path / "shot" / "1.png", size=(48, 64))
    command = ("refine", tmp_path / "shot", "--sequence", *STILL, "--out", tmp_path / "out")
    command = (*command, "-s", "optim.parameterization=decoder")
    assert call(*command).code == 0
    before = tree(tmp_path / "out")
    asked: list[int] = []
    monkeypatch.setattr(io, "require_room", lambda folder, size: asked.append(size))
    assert call(*command, "--seed", "1").code == 0
    assert call(*command, "-s", "optim.members=3").code == 0
    results, one, _, three = asked
    assert results < one < three
    assert (three - one) % 4 == 0

    def full(folder: Path, size: int) -> None:
        if size > one:
            raise OutputError("the disk is full")

    monkeypatch.setattr(io, "require_room", full)
    assert call(*command, "-s", "optim.members=4", "--fresh").code == 2
    assert tree(tmp_path / "out") == before


def test_a_frame_that_is_not_finite_is_an_error(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept, and the message names it; the frames before it stay."""
    calls = []

    class Breaking(BlinnPhong):
        def __call__(self, *args: Any) -> torch.Tensor:
            calls.append(1)
            return super().__call__(*args) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setitem(RENDERERS._entries, "breaking", Entry("breaking", Breaking))
    settings = ("-s", "renderer.name=breaking", "-s", "clip.steps=1", "--frames", ":3")
    done = call("refine", video, *STILL, *settings, "--out", tmp_path)
    assert done.code == 2, done.err
    assert "walk.mp4: frame 1: " in done.err
    assert "not finite at step 2" in done.err
    assert "interrupted" not in done.err
    assert "frames/000001/run.json" in tree(tmp_path / "walk")
    assert "frames/000002/run.json" not in tree(tmp_path / "walk")


# --- runs that end early --------------------------------------------------------------------------


class Stop(Exception):
    """Ends a run as a kill does: nothing after it is written."""


def interrupted_after(monkeypatch: pytest.MonkeyPatch, frames: int, error: type[BaseException]) -> None:
    """Raise an error once so many frames are written."""
    save = outputs.ClipFolder.save

    def counted(self: outputs.ClipFolder, result: Any, *args: Any) -> outputs.FrameRow:
        if result.index == frames:
            raise error
        return save(self, result, *args)

    monkeypatch.setattr(outputs.ClipFolder, "save", counted)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_the_same_command_goes_on(
    error: type[BaseException], video: Path, refined: tuple[Finished, Path], tmp_path: Path
) -> None:
    command = ("refine", video, *STILL, "--frames", "1:", "--seed", "3", "--out", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 2, error)
        if error is Stop:
            with pytest.raises(Stop):
                call(*command)
        else:
            done = call(*command)
            assert done.code == 130
            assert f"interrupted: 2 of 3 frames of {video} are finished" in done.err
    folder = tmp_path / "walk"
    assert clip_record(folder)["finished"] is False
    assert {"frames/000001/disparity.npy", "frames/000002/disparity.npy"} <= tree(folder)
    times = [(folder / "frames" / f"00000{k}" / "run.json").stat().st_mtime_ns for k in (1, 2)]
    again = call(*command)
    assert again.code == 0, again.err
    assert "2 of 3 frames are done already" in again.out
    assert [(folder / "frames" / f"00000{k}" / "run.json").stat().st_mtime_ns for k in (1, 2)] == times
    assert tree(folder) == expected(3)
    # As if it had never stopped.
    for index in (1, 2, 3):
        name = f"frames/{index:06d}/disparity.npy"
        np.testing.assert_array_equal(np.load(folder / name), np.load(refined[1] / name))
    assert clip_record(folder)["flicker"] == clip_record(refined[1])["flicker"]


def test_a_clip_of_known_motion_goes_on(video: Path, tmp_path: Path) -> None:
    """The length of the poses' unit is looked for as if the run had not stopped."""
    poses = np.broadcast_to(np.eye(4), (4, 4, 4)).copy()
    poses[:, 0, 3] = 0.05 * np.arange(4)
    np.save(tmp_path / "poses.npy", poses)
    command = ("refine", video, *QUICK, "--fov", "50", "--motion", tmp_path / "poses.npy", "--out")
    assert call(*command, tmp_path / "whole").code == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 2, KeyboardInterrupt)
        assert call(*command, tmp_path / "parts").code == 130
    assert call(*command, tmp_path / "parts").code == 0
    stored = [clip_record(tmp_path / name / "walk") for name in ("whole", "parts")]
    assert stored[0]["starts"] == stored[1]["starts"] == [0]
    for index in range(1, 5):
        maps = [
            tmp_path / n / "walk" / "frames" / f"{index:06d}" / "disparity.npy" for n in ("whole", "parts")
        ]
        np.testing.assert_array_equal(np.load(maps[0]), np.load(maps[1]))


def test_only_the_videos_are_left(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("refine", video, *STILL, "--frames", ":2", "--out", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "video_writer", lambda *args: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            call(*command)
    assert "unfinished/000002.npz" in tree(tmp_path / "walk")
    done = call(*command)
    assert done.code == 0, done.err
    assert not done.progress
    assert tree(tmp_path / "walk") == expected(2)


def test_a_damaged_frame_of_an_unfinished_clip_is_refined_again(video: Path, tmp_path: Path) -> None:
    command = ("refine", video, *STILL, "--frames", ":3", "--out", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 2, KeyboardInterrupt)
        assert call(*command).code == 130
    np.save(tmp_path / "walk" / "frames" / "000002" / "disparity.npy", np.zeros((48, 64), np.float32))
    done = call(*command)
    assert "1 of 3 frames are done already" in done.out
    assert np.load(tmp_path / "walk" / "frames" / "000002" / "disparity.npy").any()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_finished_frames(number: signal.Signals, code: int, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", pictures(12))
    command = [sys.executable, "-m", "redepth", "refine", video, *STILL, "-s", "optim.steps=40"]
    process = subprocess.Popen(
        list(map(str, [*command, "--out", tmp_path / "out"])),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    first = tmp_path / "out" / "walk" / "unfinished" / "000001.json"
    deadline = time.monotonic() + 200
    try:
        while not first.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "frames of" in err
    assert "are finished; the same command goes on" in err
    assert clip_record(tmp_path / "out" / "walk")["finished"] is False


def test_the_picture_beside_each_other(refined: tuple[Finished, Path], video: Path) -> None:
    """The first panel is the frame itself; the two maps differ, because one is refined."""
    frame = next(iter(io.read_video(refined[1] / "side-by-side.mp4"))).pixels
    height, width = frame.shape[:2]
    # The left third holds the photo's green, the others do not.
    green = (abs(frame.astype(int) - (10, 220, 130)) < 30).all(axis=2)
    assert green[:, : width // 3].mean() > 0.1
    assert not green[:, width // 3 :].any()
    assert Image.fromarray(frame).size == (width, height)
