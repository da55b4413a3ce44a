"""Photos beyond `refinement.KEPT_PIXELS`: the same files in less memory, and no growth over many photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import redepth
from benchmarks.speed import memory
from redepth import ground_truth, io, refinement, viz
from redepth.io import write
from redepth.metrics import evaluate
from tests.support.helpers import photo

SETTINGS = ["output.write=all", "optim.steps=1", "optim.members=2", "depth_model.longer_side=56"]


@pytest.fixture(scope="module")
def result() -> redepth.Refinement:
    pixels = photo(150, 211)[0].permute(1, 2, 0).numpy()
    return redepth.Pipeline("smoke", overrides=SETTINGS, device="cpu").refine(pixels, prompt="")


@pytest.fixture
def in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "KEPT_PIXELS", 1000)
    monkeypatch.setattr(write, "BLOCK_PIXELS", 3 * 211)


@pytest.mark.usefixtures("in_strips")
def test_a_large_photo_gives_the_same_files(result: redepth.Refinement, tmp_path: Path) -> None:
    large = replace(result).save(tmp_path / "large")
    with pytest.MonkeyPatch.context() as usual:
        usual.setattr(refinement, "KEPT_PIXELS", 10**9)
        usual.setattr(write, "BLOCK_PIXELS", 10**9)
        whole = replace(result).save(tmp_path / "whole")
    files = {path.name for path in whole.iterdir()}
    assert files == {path.name for path in large.iterdir()}
    for name in files - {"run.json", "normals.png", "normals.exr"}:
        assert (large / name).read_bytes() == (whole / name).read_bytes(), name
    normals = [np.asarray(Image.open(folder / "normals.png"), np.int16) for folder in (large, whole)]
    assert abs(normals[0] - normals[1]).max() <= 1
    assert (normals[0] != normals[1]).mean() < 1e-3


@pytest.mark.usefixtures("in_strips")
def test_the_maps_of_a_large_photo_are_kept_only_for_who_asks(result: redepth.Refinement) -> None:
    large = replace(result)
    assert large.change == pytest.approx(replace(result).change)
    first, second = large.map_of("depth"), large.map_of("depth")
    assert first is not second
    assert np.array_equal(first, second)
    assert large.depth is large.map_of("depth")


def test_a_sheet_is_drawn_of_a_reduced_photo(
    result: redepth.Refinement, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert viz.reduction(2000, 1500) == 1
    assert viz.reduction(2001, 1500) == viz.reduction(10, 4000) == 2
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    expected = np.asarray(Image.fromarray(pixels).reduce(2))
    monkeypatch.setattr(write, "BLOCK_PIXELS", 14)
    assert np.array_equal(viz.reduced_photo(pixels, 2), expected)
    assert np.array_equal(viz.reduced_photo(pixels / np.float32(255), 1), pixels)
    assert viz.reduced_map(pixels, 2).shape == (3, 4, 3)
    sizes = []
    monkeypatch.setattr(viz, "comparison", lambda photo, *rest, **named: sizes.append((photo.shape, named)))
    monkeypatch.setattr(viz, "reduction", lambda height, width: 3)
    replace(result).comparison()
    ((shape, named),) = sizes
    assert shape == (50, 71, 3)
    assert named["photo_size"] == (150, 211)
    assert named["uncertainty"].shape == (50, 71)


@pytest.mark.slow
def test_a_photo_of_27_megapixels_needs_few_bytes_a_pixel(tmp_path: Path) -> None:
    """100 megapixels within 4 GB allow 34 bytes a pixel beyond a small photo."""
    peaks = []
    for width, height in ((300, 200), (6400, 4200)):
        memory.write_photo(path := tmp_path / f"{width}.jpg", width, height)
        given = ("refine", path, "--preset", "smoke", "--device", "cpu", "--out", tmp_path / "out")
        peaks.append(memory.run_command(*given)[1] * 2**20)
    assert (peaks[1] - peaks[0]) / (6400 * 4200) < 30


@pytest.mark.slow
def test_many_photos_in_one_process_do_not_grow_it() -> None:
    (row,) = memory.growth(30)
    seen = row.extra["resident_mib"]
    assert len(seen) == 5
    assert seen[-1] - seen[1] < 10


def test_a_large_photo_is_measured_at_every_kth_pixel(
    result: redepth.Refinement, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).uniform(1, 2, (150, 211)).astype(np.float32)
    mask = np.arange(211)[None] < np.full((150, 1), 150)
    whole = replace(result, ground_truth=ground_truth.GroundTruth(values, mask=mask))
    assert whole.record()["ground_truth"]["every"] == 1
    raw = {name: getattr(whole, name) for name in ("initial", "refined")}
    monkeypatch.setattr(ground_truth, "WHOLE_PIXELS", 10_000)
    monkeypatch.setattr(ground_truth, "MEASURED_PIXELS", 5_000)
    truth = ground_truth.GroundTruth(values, mask=mask)
    truth.check(150, 211)
    large = replace(result, ground_truth=truth)
    assert large.record()["ground_truth"]["every"] == truth.every == 3
    for name, found in large.evaluations.items():
        depth = torch.from_numpy(values[::3, ::3].astype(np.float64))
        part = torch.from_numpy(raw[name][::3, ::3].copy())
        expected = evaluate(part, depth, torch.from_numpy(mask[::3, ::3].copy()))
        assert found.metrics == expected.metrics
    assert large.comparison().size == whole.comparison().size


def test_blocks_of_rows_cover_a_picture() -> None:
    rows = [row for block in io.row_blocks((2500, 1000, 3)) for row in range(2500)[block]]
    assert rows == list(range(2500))
    assert len(list(io.row_blocks((10, 10)))) == 1
