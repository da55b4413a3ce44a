"""The ground truth of one photo, and the protocols that measure against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from redepth.data.datasets import Sample
from redepth.errors import ConfigError, InputError
from redepth.ground_truth import GroundTruth, check_protocol, with_offset
from redepth.protocols import load_protocol, measure

GENERATOR = np.random.default_rng(0)
DEPTH = GENERATOR.uniform(1, 5, (12, 16)).astype(np.float32)
RAW = torch.from_numpy((1 / DEPTH + GENERATOR.normal(0, 0.05, DEPTH.shape)).astype(np.float32))


def test_the_default_is_the_protocol_photo() -> None:
    truth = GroundTruth(DEPTH)
    evaluation = truth.measure(RAW.numpy(), "disparity")
    assert evaluation.protocol == truth.protocol.name == "photo"
    sample = Sample("a", np.zeros((12, 16, 3), np.float32), DEPTH, unit="relative")
    row = measure(load_protocol("photo"), RAW, sample).row
    assert evaluation.metrics == pytest.approx({name: row.metrics[name] for name in evaluation.metrics})
    assert row.clipped == evaluation.clipped


@pytest.mark.parametrize("name", ["motorcycle", "folder", "redepth-paper"])
def test_another_protocol_measures_the_networks_output(name: str) -> None:
    chosen = load_protocol(name)
    truth = GroundTruth(DEPTH, protocol=chosen)
    truth.check(12, 16)
    small = torch.nn.functional.avg_pool2d(RAW[None], 2)[0]
    found = truth.measure_output(small, "disparity", "affine")
    photo = np.zeros((12, 16, 3), np.float32)
    expected = measure(chosen, small, Sample("a", photo, DEPTH, unit="m")).row
    assert found.protocol == name
    assert found.metrics == expected.metrics
    assert found.aligned.shape == ((12, 16) if chosen.resolution == "truth" else (6, 8))


def test_nothing_is_measured_where_the_output_is_unknown() -> None:
    hidden = np.zeros(DEPTH.shape, bool)
    hidden[:4] = True
    wrong = RAW.clone()
    wrong[:4] = 9.0
    truth = GroundTruth(DEPTH, protocol=load_protocol("motorcycle"))
    part = GroundTruth(DEPTH, mask=~hidden, protocol=load_protocol("motorcycle"))
    known = truth.measure_output(wrong, "disparity", "affine", hidden)
    assert known.metrics == part.measure_output(wrong, "disparity", "affine").metrics
    assert known.metrics["silog"] < truth.measure_output(wrong, "disparity", "affine").metrics["silog"]


def test_a_protocol_that_crops_or_finds_no_shift_is_refused() -> None:
    with pytest.raises(ConfigError, match="kitti-eigen crops a photo"):
        check_protocol(load_protocol("kitti-eigen"))
    scaled = load_protocol({"name": "mine", "alignment": {"disparity": "none", "depth": "none"}})
    with pytest.raises(ConfigError, match="mine aligns by 'none', which finds no shift"):
        GroundTruth(DEPTH, protocol=scaled).check(12, 16)


def test_truth_beyond_a_protocols_range_is_refused_before_the_run() -> None:
    truth = GroundTruth(1e6 * DEPTH, protocol=load_protocol("redepth-paper"))
    with pytest.raises(InputError, match="redepth-paper"):
        truth.check(12, 16)


def test_an_offset_is_added_to_what_is_known() -> None:
    disparity = np.array([[3.0, 0.0, -1.0, np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(with_offset(disparity, 2.0), [[5.0, 0.0, -1.0, np.inf, np.nan]])
    assert with_offset(disparity, 2.0).dtype == np.float32


def test_a_photo_is_told_of_depth_that_ran_away_and_of_an_assumed_camera() -> None:
    truth = np.linspace(2, 40, 30 * 40).reshape(30, 40).astype(np.float32)
    raw = torch.from_numpy(1 / truth.astype(np.float64))
    raw[7, 7] = 1e-6
    found, held = (
        GroundTruth(truth, protocol=load_protocol(name)).measure_output(raw, "disparity", "affine")
        for name in ("eth3d", "folder-clamp")
    )
    (line,) = found.cautions
    assert line.startswith("depth that ran away decides abs_rel: 1 of 1200 measured pixels")
    (line,) = held.cautions
    assert line.startswith("the photo's camera is unknown: rel_normal")
    assert GroundTruth(truth).measure(raw.numpy(), "disparity").cautions == ()
