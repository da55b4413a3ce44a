"""Clips from frames to results: chains and cuts, one scale, errors; and that it is worth it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import redepth
from benchmarks.accuracy.clips import apart, errors, flickers, frames_of, pipeline_of, together
from redepth.clips.flow import CameraMotion, GivenFlow, StandStill
from redepth.clips.state import ClipSummary, FrameResult
from redepth.data.scenes.glide import Glide, glide
from redepth.errors import ConfigError, InputError, MissingDependencyError
from redepth.ops.camera import Camera
from tests.support.helpers import seeded

DECODER = ["optim.parameterization=decoder", "optim.steps=4"]


def clip_of(frames: int = 3, split: str = "relief", seed: int = 5) -> Glide:
    return glide(frames, split, seeded(seed), size=64, speed=1.0)


def refined(frames: Any, *overrides: str, **options: Any) -> list[FrameResult]:
    return list(redepth.refine_clip(frames, "smoke", overrides=[*DECODER, *overrides], **options))


def test_each_frame_is_tied_to_the_last_one() -> None:
    clip = clip_of()
    run = redepth.refine_clip(frames_of(clip), "smoke", overrides=DECODER, seed=3)
    results = list(run)
    assert [result.index for result in results] == [0, 1, 2]
    assert [result.link.tied for result in results] == [False, True, True]
    assert [result.link.steps for result in results] == [4, 2, 2]
    assert results[0].link.reason == "first frame"
    assert all(result.link.valid > 0.5 for result in results[1:])
    single = redepth.refine(frames_of(clip)[0], "smoke", overrides=DECODER, seed=3)
    assert np.array_equal(results[0].refinement.refined, single.refined), "the first frame is a photo"
    measured = [result.flicker for result in results[1:]]
    assert all(one is not None and min(one.refined, one.initial) > 0 for one in measured)
    assert run.summary.frames == 3
    assert run.summary.starts == (0,)
    assert run.summary.steps == (4, 2, 2)
    assert run.summary.flicker_refined == pytest.approx(np.mean([one.refined for one in measured if one]))
    assert run.summary.record()["flicker"]["initial"] == run.summary.flicker_initial


def test_the_decoder_goes_on_where_it_was() -> None:
    clip = clip_of(2)
    begun: list[Any] = []
    run = redepth.refine_clip(
        frames_of(clip),
        "smoke",
        overrides=["optim.parameterization=decoder", "optim.steps=6", "optim.learning_rates.decoder=3e-2"],
        on_step=lambda report: begun.append(report.raw.clone()) if report.step == 1 else None,
    )
    first, second = (result.refinement.outcome for result in run)
    assert first.tie is None
    assert second.tie is not None
    learned = (first.members - first.initial).abs().mean()
    at_start = (begun[1] - second.initial).abs().mean()
    assert float(at_start) > 0.5 * float(learned), "the second frame starts from what the first one learned"


def test_after_a_cut_a_chain_starts_anew() -> None:
    first, second = clip_of(2), clip_of(2, "shapes", seed=9)
    results = refined([*frames_of(first), *frames_of(second)])
    assert [result.link.tied for result in results] == [False, True, False, True]
    assert results[2].link.reason.startswith("cut: ")
    assert results[2].flicker is None
    assert results[2].link.steps == 4
    again = refined(frames_of(second))
    assert results[2].refinement.outcome.tie is None
    assert again[0].refinement.outcome.initial.equal(results[2].refinement.outcome.initial)


def test_frames_are_read_one_at_a_time() -> None:
    clip, read = clip_of(), []

    def frames() -> Iterator[Any]:
        for index, frame in enumerate(frames_of(clip)):
            read.append(index)
            yield frame

    run = redepth.refine_clip(frames(), "smoke", overrides=DECODER)
    assert read == []
    next(run)
    assert read == [0]
    next(run)
    assert read == [0, 1]
    assert run.summary.frames == 2


def test_the_same_seed_gives_the_same_clip_and_another_one_another() -> None:
    frames = frames_of(clip_of(2))
    maps = [refined(frames, seed=seed)[1].refinement.refined for seed in (0, 0, 1)]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_all_frames_have_the_unit_of_the_first_one() -> None:
    results = refined(frames_of(clip_of()), "depth_model.scale=auto")
    units = [result.refinement.outcome.unit for result in results]
    assert units[0] != 1
    assert units[1:] == units[:1] * 2


def test_a_tie_keeps_the_prediction_as_it_is() -> None:
    clip = clip_of()
    plain = refined(frames_of(clip), motion="still")
    tie = plain[1].refinement.outcome.tie
    assert tie is not None
    link = plain[1].link
    assert (link.scale, link.shift) == (tie.scale, tie.shift)
    outcome = plain[1].refinement.outcome
    torch.testing.assert_close(outcome.initial, (tie.scale * tie.prediction + tie.shift).clamp(min=0))
    again = redepth.refine(frames_of(clip)[1], "smoke", overrides=DECODER).outcome.initial
    torch.testing.assert_close(tie.prediction, again)


def test_a_motion_that_is_wrong_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    clip = clip_of(seed=6)
    run = redepth.refine_clip(frames_of(clip), "smoke", overrides=DECODER, motion="still")
    with caplog.at_level("WARNING"):
        still = list(run)
    assert [record.message.split(":")[0] for record in caplog.records] == ["frame 1"]
    assert "use motion flow" in caplog.text
    share = run.summary.measured_share
    assert share is not None
    assert share < 0.6
    assert run.summary.measured == 2
    assert run.summary.flicker_aligned == pytest.approx(
        np.mean([result.flicker.aligned for result in still if result.flicker])
    )
    caplog.clear()
    with caplog.at_level("WARNING"):
        (_, tied) = refined(frames_of(clip)[:2])
    assert not caplog.records
    assert tied.flicker is not None
    assert tied.flicker.share > 0.8


def test_a_path_is_opened_as_a_clip(tmp_path: Any) -> None:
    frames = frames_of(clip_of(2))
    for index, frame in enumerate(frames):
        redepth.io.save_png(tmp_path / f"frame_{index}.png", frame)
    results = refined(str(tmp_path), motion="still")
    assert [result.link.tied for result in results] == [False, True]
    assert np.array_equal(
        results[1].refinement.refined, refined(frames, motion="still")[1].refinement.refined
    )
    with pytest.raises(InputError, match="none"):
        redepth.refine_clip(tmp_path / "none.mp4", "smoke")


def test_the_camera_of_the_first_frame_holds_for_all() -> None:
    run = redepth.refine_clip(
        frames_of(clip_of(2)), "smoke", overrides=DECODER, motion="still", camera="model"
    )
    run._freeze_camera(Camera(field_of_view=41.0))
    results = list(run)
    assert {result.refinement.camera for result in results} == {Camera(field_of_view=41.0).of_picture(64, 64)}
    assert {result.refinement.camera_origin for result in results} == {"depth model"}
    assert run.state is not None
    assert run.state.camera == Camera(field_of_view=41.0)


def test_frames_after_memory_ran_out_take_fewer_members_together() -> None:
    run = redepth.refine_clip(frames_of(clip_of(2)), "smoke", overrides=DECODER, motion="still")
    next(run)
    assert run.state is not None
    chain = run.state.chain
    outcome = next(run).refinement.outcome
    image = chain.image
    track = StandStill().track(1, image, image, chain.answer)
    plan = chain.next(image, replace(outcome, members_per_batch=1), track).start.plan
    assert plan is not None
    assert plan.members_per_batch == 1


def test_known_motion() -> None:
    clip = clip_of(2)
    back = clip.back.permute(0, 2, 3, 1).numpy()
    by_flow = refined(frames_of(clip), motion=GivenFlow(list(back)))
    by_poses = refined(frames_of(clip), motion=CameraMotion(list(clip.poses), scale=1.0))
    for results in (by_flow, by_poses):
        assert results[1].link.tied
        assert results[1].link.valid > 0.9
    first, second = (results[1].refinement.refined for results in (by_flow, by_poses))
    assert float(np.abs(first - second).mean()) < 0.02 * float(first.std())


def test_what_cannot_be_refined() -> None:
    frames = frames_of(clip_of(2))
    with pytest.raises(InputError, match="frame 1 has 64 x 60 pixels"):
        refined([frames[0], frames[1][:60]])
    with pytest.raises(ConfigError, match="unknown motion 'fast'"):
        refined(frames, motion="fast")
    assert refined([]) == []


def test_a_missing_package_is_found_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"redepth\[video\]"):
        redepth.refine_clip([], "smoke")


def test_a_summary_of_nothing() -> None:
    flicker = ClipSummary().record()["flicker"]
    unknown = dict.fromkeys(("initial", "aligned", "refined", "share"))
    assert flicker == {**unknown, "frames": 0}


@pytest.mark.slow
def test_a_clip_flickers_half_as_much_at_half_the_steps_and_is_no_less_accurate() -> None:
    """The embedded preset at 96 x 96; the settings were chosen on other seeds."""
    pipeline = pipeline_of()
    flicker: dict[str, list[float]] = {"apart": [], "clip": []}
    error: dict[str, list[float]] = {"apart": [], "clip": []}
    for split, seed in (("relief", 200), ("shapes", 200)):
        clip = glide(6, split, torch.Generator().manual_seed(seed))
        _, single, _ = apart(pipeline, clip)
        tied, cost = together(pipeline, clip)
        assert cost["starts"] == [0]
        for name, maps in (("apart", single), ("clip", tied)):
            flicker[name] += flickers(maps, clip)
            error[name] += errors(maps, clip)
    assert np.mean(flicker["clip"]) < 0.5 * np.mean(flicker["apart"])
    assert np.mean(error["clip"]) < 1.01 * np.mean(error["apart"])
