"""Alignment: every method finds its own fit, clips and counts, and names what it cannot align."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import Method, align, depth_metrics
from tests.support.helpers import seeded
from tests.support.metrics import GOOD, METHODS, SEEDS, close, depths, few


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("predicts", ["disparity", "depth"])
def test_every_method_finds_what_it_allows_for(method: Method, predicts: Any) -> None:
    truth = depths()
    depth = {
        "none": truth,
        "median": truth / 7,
        "scale": truth / 7,
        "affine-depth": (truth - 0.5) / 3,
        "affine-disparity": 1 / ((1 / truth + 0.1) / 3),
        "affine-disparity-then-depth": truth if predicts == "disparity" else (truth - 0.5) / 3,
    }[method]
    raw = depth if predicts == "depth" else 1 / depth
    aligned = align(raw, truth, None, method, predicts=predicts)
    torch.testing.assert_close(aligned.depth, truth)
    assert aligned.depth.dtype == torch.float64
    # Least squares may end an ulp outside the truth's own range, which is no error to speak of.
    torch.testing.assert_close(aligned.unclipped, truth)


def test_the_parameters_are_those_of_the_fit() -> None:
    truth = depths()
    disparity = (1 / truth - 0.25) / 2
    aligned = align(disparity, truth, None, "affine-disparity").parameters
    assert {name: float(value) for name, value in aligned.items()} == pytest.approx(
        {"disparity_scale": 2.0, "disparity_shift": 0.25}
    )
    assert set(align(truth, truth, None, "median", predicts="depth").parameters) == {"depth_scale"}
    assert set(align(truth, truth, None, "scale", predicts="depth").parameters) == {"depth_scale"}
    assert set(align(disparity, truth, None, "affine-disparity-then-depth").parameters) == {
        "disparity_scale",
        "disparity_shift",
        "depth_scale",
        "depth_shift",
    }
    assert align(truth, truth, None, "none", predicts="depth").parameters == {}


def test_only_the_mask_counts() -> None:
    truth, mask = depths(), depths(1) > 1.5
    raw = torch.where(mask, 1 / truth, 1e6)
    outside = torch.where(mask, truth, 0.0)
    for method in METHODS:
        aligned = align(raw, truth, mask, method)
        torch.testing.assert_close(aligned.depth[mask], truth[mask])
        torch.testing.assert_close(align(raw, outside, None, method).depth, aligned.depth)


def test_what_falls_outside_the_range_is_clipped_and_counted() -> None:
    truth = torch.linspace(1, 4, 100, dtype=torch.float64).view(10, 10)
    raw = truth.clone()
    raw[0, :3], raw[9, 9], raw[5, 5] = -1.0, 9.0, 0.0
    aligned = align(raw, truth, None, "none", predicts="depth", near=0.5, far=5.0)
    assert float(aligned.clipped) == pytest.approx(0.05)
    assert float(aligned.depth.min()) == 0.5
    assert float(aligned.depth.max()) == 5.0
    assert float(aligned.unclipped[0, 0]) == -1.0
    # Without limits only what has no logarithm is mended, by the truth's own least and greatest depth.
    unlimited = align(raw, truth, None, "none", predicts="depth")
    assert float(unlimited.clipped) == pytest.approx(0.04)
    assert [float(unlimited.depth[i, i]) for i in (0, 5, 9)] == [1.0, 1.0, 9.0]
    both = align(raw, truth, None, "none", predicts="depth", far=3.0)
    assert float(both.depth.max()) == 3.0
    assert float(both.depth[0, 0]) == 1.0


def test_a_disparity_that_is_not_positive_lies_at_the_far_end() -> None:
    truth = depths()
    raw = 1 / truth
    raw[3, 4] = -0.2
    for method in ("none", "median", "scale", "affine-depth"):
        aligned = align(raw, truth, None, method, far=50.0)
        assert float(aligned.depth[3, 4]) == 50.0, method
        assert torch.isinf(aligned.unclipped[3, 4])
        assert float(aligned.clipped) == pytest.approx(1 / truth.numel())
        assert float(align(raw, truth, None, method).depth[3, 4]) == float(truth.max())
    affine = align(raw, truth, None, "affine-disparity", trim=0.05)
    assert torch.isinf(affine.unclipped[3, 4])
    assert float(affine.depth[3, 4]) == float(truth.max())


def test_a_depth_that_has_no_disparity_lies_at_the_near_end() -> None:
    truth = depths()
    raw = truth.clone()
    raw[3, 4] = -1.0
    aligned = align(raw, truth, None, "affine-disparity", predicts="depth", near=0.25)
    assert float(aligned.depth[3, 4]) == 0.25


def test_trimming_resists_ground_truth_that_is_wrong_in_places() -> None:
    truth = depths(0, 30, 30)
    wrong = depths(1, 30, 30) > 2.7
    dirty = torch.where(wrong, 0.4, truth)
    clean = align(1 / truth, dirty, None, "affine-disparity", trim=0.2, near=0.1)
    torch.testing.assert_close(clean.depth, truth)
    plain = align(1 / truth, dirty, None, "affine-disparity", near=0.1)
    assert float((plain.depth - truth)[~wrong].abs().mean()) > 0.05


def test_a_batch_is_its_images_one_by_one() -> None:
    truth, raw = depths(0, 3, 8, 9), depths(1, 3, 8, 9)
    mask = depths(2, 3, 8, 9) > 1.4
    for method in METHODS:
        together = align(raw, truth, mask, method)
        measured = depth_metrics(together.depth, truth, mask)
        for i in range(3):
            alone = align(raw[i], truth[i], mask[i], method)
            torch.testing.assert_close(together.depth[i], alone.depth)
            assert together.clipped.shape == (3,)
            assert float(together.clipped[i]) == float(alone.clipped)
            one = depth_metrics(alone.depth, truth[i], mask[i])
            close({name: value[i] for name, value in measured.items()}, one)


def test_one_truth_serves_a_batch() -> None:
    raw, truth = depths(1, 2, 4, 8, 9), depths(0, 8, 9)
    aligned = align(raw, truth, None, "affine-disparity")
    metrics = depth_metrics(aligned.depth, truth)
    assert aligned.depth.shape == (2, 4, 8, 9)
    assert metrics["silog"].shape == (2, 4)
    alone = align(raw[1, 2], truth, None, "affine-disparity")
    torch.testing.assert_close(aligned.depth[1, 2], alone.depth)


@few
@given(SEEDS, st.floats(0.01, 100), st.floats(-10, 10), st.sampled_from((0.0, 0.2)))
def test_scale_and_shift_of_the_disparity_change_nothing(
    seed: int, scale: float, shift: float, trim: float
) -> None:
    raw, truth = depths(seed), depths(seed + 1)
    for method in ("affine-disparity", "affine-disparity-then-depth"):
        one = align(raw, truth, None, method, trim=trim)
        other = align(scale * raw + shift, truth, None, method, trim=trim)
        torch.testing.assert_close(one.depth, other.depth, rtol=1e-6, atol=1e-6)


@few
@given(SEEDS, st.floats(0.01, 100), st.floats(-10, 10))
def test_scale_and_shift_of_the_depth_change_nothing(seed: int, scale: float, shift: float) -> None:
    raw, truth = depths(seed), depths(seed + 1)
    for method, b in (("affine-depth", shift), ("scale", 0.0), ("median", 0.0)):
        one = align(raw, truth, None, method, predicts="depth")
        other = align(scale * raw + b, truth, None, method, predicts="depth")
        torch.testing.assert_close(one.depth, other.depth, rtol=1e-6, atol=1e-6)


@few
@given(SEEDS, st.sampled_from(METHODS), st.sampled_from(("disparity", "depth")))
def test_the_order_of_pixels_changes_nothing(seed: int, method: Method, predicts: Any) -> None:
    raw, truth, mask = depths(seed), depths(seed + 1), depths(seed + 2) > 1.3
    order = torch.randperm(raw.numel(), generator=seeded(seed))

    def shuffled(values: Tensor) -> Tensor:
        return values.flatten()[order].view(values.shape)

    one = align(raw, truth, mask, method, predicts=predicts)
    other = align(*map(shuffled, (raw, truth, mask)), method, predicts=predicts)
    torch.testing.assert_close(shuffled(one.depth), other.depth)
    aligned = depth_metrics(other.depth, shuffled(truth), shuffled(mask))
    close(aligned, depth_metrics(one.depth, truth, mask), rtol=1e-7, atol=1e-9)


NOWHERE = torch.zeros(4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": depths(0, 4, 4)}, r"moon: sizes differ: prediction \(4, 5\), ground truth \(4, 4\)"),
        ({"mask": torch.ones(5, 4, dtype=torch.bool)}, r"moon: sizes differ: .* mask \(5, 4\)"),
        ({"mask": NOWHERE}, "moon: the mask holds no pixel with known ground truth"),
        ({"truth": torch.zeros(4, 5)}, "moon: the mask holds no pixel with known ground truth"),
        ({"truth": torch.ones(4, 5)}, "moon: the ground truth is constant inside the mask"),
        ({"prediction": torch.full((4, 5), torch.nan)}, "moon: the prediction is not finite at 20 of 20"),
        ({"prediction": torch.zeros(4, 5), "method": "median"}, "moon: the prediction's median is inf"),
        ({"prediction": torch.zeros(4, 5), "method": "scale"}, "moon: 0 valid pixels are too few"),
        (
            {"prediction": torch.zeros(4, 5), "method": "scale", "predicts": "depth"},
            "moon: the prediction is 0 at every valid pixel",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "prediction": depths(1, 4, 5),
        "truth": GOOD,
        "mask": None,
        "method": "affine-disparity",
    }
    with pytest.raises(InputError, match=message):
        align(**{**arguments, **change}, names=["moon"])


def test_the_image_of_a_batch_is_named() -> None:
    raw = depths(1, 3, 4, 5)
    raw[1, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"^b: the prediction is not finite at 1 of 20"):
        align(raw, GOOD, None, "affine-disparity", names=["a", "b", "c"])
    with pytest.raises(InputError, match=r"^image 2 of 3: "):
        align(raw, GOOD, None, "affine-disparity")
    with pytest.raises(InputError, match=r"sizes differ: prediction \(3, 4, 5\), ground truth \(2, 4, 5\)"):
        align(raw, depths(0, 2, 4, 5), None, "affine-disparity")
    with pytest.raises(ValueError, match="2 names for 3 images"):
        align(raw, GOOD, None, "affine-disparity", names=["a", "b"])


def test_the_clamp_is_that_of_moge() -> None:
    generator = seeded(3)
    truth = depths(5, 20, 30) ** 3
    raw = 0.3 / truth + 0.02 * torch.randn(20, 30, generator=generator, dtype=torch.float64)
    mask = torch.rand(20, 30, generator=generator) > 0.3
    found = align(raw, truth, mask, "affine-disparity", far="truth")
    # Computed once more, by numpy: least squares on the mask, then a floor under the disparity.
    system = np.stack([raw[mask].numpy(), np.ones(int(mask.sum()))], axis=1)
    a, b = np.linalg.lstsq(system, 1 / truth[mask].numpy(), rcond=None)[0]
    floor = 1 / float(truth[mask].max())
    disparity = a * raw.numpy() + b
    np.testing.assert_allclose(found.depth.numpy(), 1 / np.maximum(disparity, floor), rtol=1e-9)
    below = disparity[mask.numpy()] < floor
    assert 0 < below.sum() < below.size
    assert float(found.clipped) == pytest.approx(below.mean())
    plain = align(raw, truth, mask, "affine-disparity")
    assert float(plain.depth.max()) > 2 * float(found.depth.max())


def test_the_clamp_of_a_depth_is_the_same_limit() -> None:
    truth = depths(5)
    raw = torch.where(truth > 2.8, truth + 1, truth)
    plain = align(raw, truth, None, "affine-depth", predicts="depth").unclipped
    found = align(raw, truth, None, "affine-depth", predicts="depth", far="truth")
    torch.testing.assert_close(found.depth, plain.clamp_max(float(truth.max())))
    beyond = float((plain > truth.max()).double().mean())
    assert 0 < beyond < 0.2
    assert float(found.clipped) == pytest.approx(beyond)
