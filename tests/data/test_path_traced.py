"""The stored scenes of the path tracer, and the tool that renders them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.cli.checks import sha256
from redepth.data.datasets.synthetic import Synthetic
from redepth.data.scenes.path_traced import (
    ASSET,
    LARGE_ASSET,
    LARGE_SEED,
    LARGE_SIZE,
    RECORD,
    large_depth,
    large_name,
    large_names,
    path_traced,
    path_traced_large,
)
from redepth.data.scenes.synthetic import Scenes, benchmark_scenes
from redepth.errors import InputError, MissingDependencyError
from redepth.io import save_jpeg
from redepth.io.assets import VARIABLE, find_asset
from redepth.ops.color import srgb_to_linear
from redepth.ops.geometry import relative_depth
from tests.support.helpers import seeded
from training import path_trace, path_trace_large

LARGE_SHA256 = "ba63ff722a2cdc0dcea56d4dd347bec3c640985537a9ac4490b7fd699fc4931e"
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


# --- at the size of photos ------------------------------------------------------------------------


def large_record() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((find_asset(LARGE_ASSET) / RECORD).read_text())
    return rows


def test_the_large_photos_are_those_that_were_checked() -> None:
    """After rendering more, look at the picture, and take the hash from path-traced-large.json."""
    assert sha256(find_asset(LARGE_ASSET) / RECORD) == LARGE_SHA256
    record = json.loads((path_trace.DOCS / "results" / "path-traced-large.json").read_text())
    rows = large_record()
    assert (record["sha256"], record["scenes"]) == (LARGE_SHA256, len(rows))
    assert len(rows) >= 24
    for index, row in enumerate(rows):
        assert row["name"] == large_name(index)
        file = find_asset(LARGE_ASSET) / f"{row['name']}.jpg"
        assert sha256(file) == row["sha256"]
        assert file.stat().st_size < 1_000_000
        assert row["mean_depth_error"] < path_trace.MAX_MEAN_DEPTH_ERROR / 4
        assert row["look"] == asdict(path_trace.draw_look(int(row["name"].split("-")[1])))
    assert np.mean([row["lit_from_above"] for row in rows]) >= 0.9


def test_large_scenes_are_half_relief_and_half_shapes_in_both_lights() -> None:
    names = [large_name(index) for index in range(8)]
    assert names[:4] == ["relief-64000", "relief-64001", "shapes-64002", "shapes-64003"]
    suns = [path_trace.draw_look(int(name.split("-")[1])).sun for name in names]
    assert suns == [True, False] * 4


@pytest.mark.parametrize("index", [1, 2])
def test_a_large_photo_belongs_to_its_depth(index: int) -> None:
    """Steep slopes are where the picture changes, and a shifted depth fits worse."""
    scene = path_traced_large(index)
    assert scene.image.shape == (1, 3, LARGE_SIZE, LARGE_SIZE)
    assert torch.equal(scene.depth[0], large_depth(index))
    split = "relief" if index < 2 else "shapes"
    drawn = benchmark_scenes(1, split, seeded(64_000 + index), height=LARGE_SIZE, width=LARGE_SIZE)
    assert torch.equal(scene.depth, drawn.depth)
    assert path_trace.lit_from_above(scene).all()
    assert 0.2 < scene.image.mean() < 0.95

    def fit(shift: int) -> float:
        """Share of the brightness that a linear function of the normals explains."""
        normals = Scenes(scene.image, scene.depth.roll((shift, shift), (-2, -1))).normals[0]
        inside = slice(16, -16)
        basis = torch.cat([normals, torch.ones_like(normals[:1])])[:, inside, inside].flatten(1).T
        grey = srgb_to_linear(scene.image)[0].mean(dim=0)[inside, inside].reshape(-1, 1)
        rest = grey - basis @ torch.linalg.lstsq(basis, grey).solution
        return float(1 - rest.var() / grey.var())

    assert fit(0) > max(fit(6), fit(-6))


def test_at_192_photo_and_depth_are_means_over_four_pixels() -> None:
    large, small = path_traced_large(0), path_traced_large(0, 192)
    assert small.image.shape == (1, 3, 192, 192)
    assert torch.allclose(small.depth[0, 0, 5, 9], large.depth[0, 0, 10:12, 18:20].mean())
    corner = srgb_to_linear(large.image[0, :, 10:12, 18:20]).mean(dim=(1, 2))
    assert torch.allclose(srgb_to_linear(small.image[0, :, 5, 9]), corner, atol=1e-5)


def test_the_surface_at_192_is_the_one_at_384_and_not_the_one_drawn_at_192() -> None:
    """The slope of drawn relief depends on the pixels, so that depth is shrunk and not drawn again."""
    at_192 = path_traced_large(0, 192).depth
    enlarged = F.interpolate(at_192, size=(384, 384), mode="bilinear")
    assert (enlarged - path_traced_large(0).depth)[..., 2:-2, 2:-2].abs().mean() < 1e-3
    drawn = benchmark_scenes(1, "relief", seeded(64_000), height=192, width=192).depth
    assert (drawn - at_192).abs().mean() > 1e-4


def test_the_data_set_has_large_scenes_by_size() -> None:
    for size in (192, 384):
        reader = Synthetic(split="path-traced", size=size)
        assert reader.names() == [f"path-traced-{size}-{name}" for name in large_names()]
        name = f"path-traced-{size}-relief-64001"
        assert reader.load(name).pixels().shape == (size, size, 3)
        assert np.array_equal(reader.load(name).truth, path_traced_large(1, size).depth[0, 0])
    assert Synthetic(split="path-traced", size=96).names()[0] == "path-traced-00"


def test_rendering_goes_on_after_the_scenes_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def render(index: int, samples: int, variant: str, folder: Path) -> dict[str, Any]:
        done.append(index)
        save_jpeg(folder / f"{large_name(index)}.jpg", np.full((384, 384, 3), 128, np.uint8))
        errors = {"max_depth_error": 0.01 * index, "mean_depth_error": 1e-5, "cpu_seconds": 1.0}
        return {"name": large_name(index), "lit_from_above": True, **errors}

    monkeypatch.setattr(path_trace_large, "render", render)
    for folder in ("pictures", "results"):
        (tmp_path / folder).mkdir()
    for count in (1, 3, 3):
        path_trace_large.main(count=count, folder=tmp_path, docs=tmp_path)
    assert done == [0, 1, 2]
    assert large_names(tmp_path) == [large_name(index) for index in range(3)]
    record = json.loads((tmp_path / "results" / "path-traced-large.json").read_text())
    assert record["scenes"] == 3
    assert record["max_depth_error"] == 0.02
    assert record["sha256"] == sha256(tmp_path / RECORD)


@pytest.mark.slow
def test_a_large_scene_rendered_again_is_the_stored_one_within_noise() -> None:
    pytest.importorskip("mitsuba", reason='needs the extra: pip install "redepth[mitsuba]"')
    stored, look = path_traced_large(1), path_trace.draw_look(LARGE_SEED + 1)
    photo, seen = path_trace.photograph(stored.depth[0, 0], look, samples=4)
    rendered = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    coarse = [F.avg_pool2d(picture, 8) for picture in (rendered, stored.image)]
    assert (coarse[0] - coarse[1]).abs().mean() < 0.02
    errors = path_trace.depth_errors(torch.from_numpy(seen)[None, None], stored.depth)
    assert errors.mean() < path_trace.MAX_MEAN_DEPTH_ERROR / 4
