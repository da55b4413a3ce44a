"""The stored scenes of the path tracer, and the tool that renders them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.cli.checks import sha256
from redepth.data.datasets.synthetic import Synthetic
from redepth.data.scenes.path_traced import ASSET, path_traced
from redepth.data.scenes.synthetic import Scenes
from redepth.errors import InputError, MissingDependencyError
from redepth.io.assets import VARIABLE, find_asset
from redepth.ops.geometry import relative_depth
from training import path_trace

SHA256 = "2afd7cf2e4a07bf644f3a950f6d3701025388e47adf8c38ded0c91f56e9b21c8"


@pytest.fixture(scope="module")
def stored() -> Scenes:
    return path_traced()


def mean_over_pixels(depth: Tensor) -> Tensor:
    """What `depth_errors` expects rays to meet; outermost pixels, which it leaves out, as they are."""
    seen = depth.clone()
    for dim in (-2, -1):
        seen = (seen.roll(1, dim) + 6 * seen + seen.roll(-1, dim)) / 8
    return seen


def test_the_file_is_the_one_that_was_checked() -> None:
    """After rendering anew look at the picture, and take the hash from docs/results/path-traced.json."""
    assert sha256(find_asset(ASSET)) == SHA256
    record = json.loads((path_trace.DOCS / "results" / "path-traced.json").read_text())
    assert record["sha256"] == SHA256
    assert find_asset(ASSET).stat().st_size < 1_000_000


def test_scenes_are_valid_photos_of_valid_surfaces(stored: Scenes) -> None:
    assert stored.image.shape == (24, 3, 96, 96)
    assert stored.depth.shape == (24, 1, 96, 96)
    assert stored.image.dtype == stored.depth.dtype == torch.float32
    assert stored.image.min() >= 0
    assert stored.image.max() <= 1
    assert stored.depth.min() >= 0.399
    assert stored.depth.max() <= 1.601
    assert torch.allclose(relative_depth(stored.disparity), stored.depth, rtol=1e-5)


def test_photos_are_neither_black_nor_blown_out(stored: Scenes) -> None:
    grey = stored.image.mean(dim=1).flatten(1)
    assert grey.mean(dim=1).min() > 0.2
    assert grey.std(dim=1).min() > 0.02
    assert (stored.image.flatten(1) == 1).float().mean(dim=1).max() < 0.1


def test_slopes_that_face_up_are_brighter(stored: Scenes) -> None:
    assert path_trace.lit_from_above(stored).float().mean() >= 0.9
    upside_down = Scenes(stored.image.flip(-2), stored.depth)
    assert path_trace.lit_from_above(upside_down).float().mean() < 0.8


def test_the_file_says_what_was_rendered() -> None:
    with np.load(find_asset(ASSET)) as arrays:
        looks = json.loads(str(arrays["looks"]))
    assert looks == [asdict(path_trace.draw_look(path_trace.SEED + index)) for index in range(24)]
    assert all(look["azimuth"] > 0 and look["azimuth"] < 180 for look in looks)
    assert sum(look["sun"] for look in looks) == 12


def test_the_check_refuses_what_is_shifted_or_lit_from_below(stored: Scenes) -> None:
    seen = mean_over_pixels(stored.depth)
    assert path_trace.check_depth(stored, seen)["max_depth_error"] < 1e-6
    for dim in (-2, -1):
        half_a_pixel = (seen + seen.roll(1, dim)) / 2
        with pytest.raises(ValueError, match="not aligned"):
            path_trace.check_depth(stored, half_a_pixel)
    with pytest.raises(ValueError, match="not lit from above"):
        path_trace.check_light(path_trace.lit_from_above(Scenes(1 - stored.image, stored.depth)))


def test_relief_goes_on_smoothly_past_the_borders() -> None:
    size = path_trace.SIZE
    margin = size - 1
    ramp = torch.linspace(0, 1, size).expand(size, size)
    wide = path_trace.continued(ramp)
    assert wide.shape == (size + 2 * margin,) * 2
    assert torch.equal(F.pad(wide, (-margin,) * 4), ramp)
    steps = wide[margin].diff()[margin - 2 : margin + size + 1]
    assert torch.allclose(steps, steps[len(steps) // 2].expand_as(steps), atol=1e-6)
    assert wide.min() > -0.1
    assert wide.max() < 1.1


def test_without_mitsuba_the_tool_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[mitsuba\]"'):
        path_trace.renderer()


@pytest.mark.parametrize("index", [0, 1], ids=["outdoors", "indoors"])
def test_a_scene_rendered_again_is_the_stored_one_within_noise(stored: Scenes, index: int) -> None:
    pytest.importorskip("mitsuba", reason='needs the extra: pip install "redepth[mitsuba]"')
    look = path_trace.draw_look(path_trace.SEED + index)
    photo, seen = path_trace.photograph(stored.depth[index, 0], look, samples=16)
    rendered = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    difference = rendered - stored.image[index]
    assert difference.mean().abs() < 0.005
    assert difference.abs().mean() < 0.02
    errors = path_trace.depth_errors(torch.from_numpy(seen)[None, None], stored.depth[index : index + 1])
    assert errors.mean() < path_trace.MAX_MEAN_DEPTH_ERROR


def test_without_the_repository_a_study_says_where_the_scenes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=f"not of the wheel: .* set {VARIABLE}"):
        path_traced()
    (missing,) = Synthetic(split="path-traced").check()
    assert str(missing).startswith(ASSET)
    assert VARIABLE in str(missing)
    assert not Synthetic(split="relief").check()
