"""Alignment, metrics and statistics: closed forms, recorded arrays, properties, every refusal."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import (
    Method,
    align,
    bootstrap_interval,
    boundary_metrics,
    depth_means,
    depth_metrics,
    evaluate,
    has_edges,
    metrics_of,
    normal_metrics,
    paired_difference,
    pooled,
    win_rate,
)
from tests.support.helpers import golden, seeded

METHODS: tuple[Method, ...] = get_args(Method)
NAMES = {"a1", "a2", "a3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log_10", "silog"}
SCALE_FREE = NAMES - {"sq_rel", "rmse"}


def depths(seed: int = 0, *shape: int) -> Tensor:
    """Random depths in (1, 3), float64."""
    size = shape or (12, 14)
    return 1 + 2 * torch.rand(size, generator=seeded(seed), dtype=torch.float64)


def close(
    found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=name)


# --- alignment ------------------------------------------------------------------------------------


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
    found = align(raw, truth, None, method, predicts=predicts)
    torch.testing.assert_close(found.depth, truth)
    assert found.depth.dtype == torch.float64
    # Least squares may end an ulp outside the truth's own range, which is no error to speak of.
    torch.testing.assert_close(found.unclipped, truth)


def test_the_parameters_are_those_of_the_fit() -> None:
    truth = depths()
    disparity = (1 / truth - 0.25) / 2
    found = align(disparity, truth, None, "affine-disparity").parameters
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
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
        found = align(raw, truth, mask, method)
        torch.testing.assert_close(found.depth[mask], truth[mask])
        torch.testing.assert_close(align(raw, outside, None, method).depth, found.depth)


def test_what_falls_outside_the_range_is_clipped_and_counted() -> None:
    truth = torch.linspace(1, 4, 100, dtype=torch.float64).view(10, 10)
    raw = truth.clone()
    raw[0, :3], raw[9, 9], raw[5, 5] = -1.0, 9.0, 0.0
    found = align(raw, truth, None, "none", predicts="depth", near=0.5, far=5.0)
    assert float(found.clipped) == pytest.approx(0.05)
    assert float(found.depth.min()) == 0.5
    assert float(found.depth.max()) == 5.0
    assert float(found.unclipped[0, 0]) == -1.0
    # Without limits only what has no logarithm is mended, by the truth's own least and greatest depth.
    own = align(raw, truth, None, "none", predicts="depth")
    assert float(own.clipped) == pytest.approx(0.04)
    assert (float(own.depth[0, 0]), float(own.depth[5, 5]), float(own.depth[9, 9])) == (1.0, 1.0, 9.0)
    both = align(raw, truth, None, "none", predicts="depth", far=3.0)
    assert float(both.depth.max()) == 3.0
    assert float(both.depth[0, 0]) == 1.0


def test_a_disparity_that_is_not_positive_lies_at_the_far_end() -> None:
    truth = depths()
    raw = 1 / truth
    raw[3, 4] = -0.2
    for method in ("none", "median", "scale", "affine-depth"):
        found = align(raw, truth, None, method, far=50.0)
        assert float(found.depth[3, 4]) == 50.0, method
        assert torch.isinf(found.unclipped[3, 4])
        assert float(found.clipped) == pytest.approx(1 / truth.numel())
        assert float(align(raw, truth, None, method).depth[3, 4]) == float(truth.max())
    affine = align(raw, truth, None, "affine-disparity", trim=0.05)
    assert torch.isinf(affine.unclipped[3, 4])
    assert float(affine.depth[3, 4]) == float(truth.max())


def test_a_depth_that_has_no_disparity_lies_at_the_near_end() -> None:
    truth = depths()
    raw = truth.clone()
    raw[3, 4] = -1.0
    found = align(raw, truth, None, "affine-disparity", predicts="depth", near=0.25)
    assert float(found.depth[3, 4]) == 0.25


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
    found = align(raw, truth, None, "affine-disparity")
    metrics = depth_metrics(found.depth, truth)
    assert found.depth.shape == (2, 4, 8, 9)
    assert metrics["silog"].shape == (2, 4)
    alone = align(raw[1, 2], truth, None, "affine-disparity")
    torch.testing.assert_close(found.depth[1, 2], alone.depth)


# --- properties -----------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**31)
few = settings(max_examples=25, deadline=None)


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
    found = depth_metrics(other.depth, shuffled(truth), shuffled(mask))
    close(found, depth_metrics(one.depth, truth, mask), rtol=1e-7, atol=1e-9)


@few
@given(SEEDS, st.floats(1e-3, 1e3), st.sampled_from(METHODS[1:]))
def test_the_unit_of_the_truth_matters_only_where_the_metric_says_so(
    seed: int, unit: float, method: Method
) -> None:
    raw, truth = depths(seed), depths(seed + 1)
    one = depth_metrics(align(raw, truth, None, method).depth, truth)
    other = depth_metrics(align(raw, unit * truth, None, method).depth, unit * truth)
    for name in SCALE_FREE:
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-6, abs=1e-9), name
    for name in ("rmse", "sq_rel"):
        assert float(other[name]) == pytest.approx(unit * float(one[name]), rel=1e-6)


@few
@given(SEEDS, st.floats(1e-3, 1e3))
def test_silog_ignores_the_scale_of_the_prediction_at_lambda_1_alone(seed: int, scale: float) -> None:
    p, t = depths(seed), depths(seed + 1)
    one, other = depth_metrics(p, t)["silog"], depth_metrics(scale * p, t)["silog"]
    assert float(other) == pytest.approx(float(one), rel=1e-9)
    half = [depth_metrics(scale * q, t, silog_lambda=0.0) for q in (p, 2 * p)]
    assert float(half[0]["silog"]) == pytest.approx(100 * float(half[0]["rmse_log"]), rel=1e-9)


@few
@given(SEEDS, st.integers(2, 6))
def test_pooling_images_is_measuring_all_their_pixels(seed: int, count: int) -> None:
    p, t = depths(seed, count, 6, 7), depths(seed + 1, count, 6, 7)
    mask = depths(seed + 2, count, 6, 7) > 1.2
    together = metrics_of(pooled(depth_means(p, t, mask)), silog_lambda=0.85)
    side_by_side = [torch.cat(list(values), dim=1) for values in (p, t, mask)]
    close(together, depth_metrics(*side_by_side, silog_lambda=0.85))


# --- depth ----------------------------------------------------------------------------------------


def test_closed_forms() -> None:
    truth = torch.tensor([[1.0, 2.0, 4.0]])
    found = {name: float(value) for name, value in depth_metrics(2 * truth, truth).items()}
    assert set(found) == NAMES
    assert found == pytest.approx(
        {
            "a1": 0.0,
            "a2": 0.0,
            "a3": 0.0,
            "abs_rel": 1.0,
            "sq_rel": 7 / 3,
            "rmse": math.sqrt(7),
            "rmse_log": math.log(2),
            "log_10": math.log10(2),
            "silog": 0.0,
        },
        abs=1e-12,
    )
    p, t = torch.tensor([[math.e, 1.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    assert float(depth_metrics(p, t)["silog"]) == pytest.approx(100 * 0.5)
    assert float(depth_metrics(p, t, silog_lambda=0.5)["silog"]) == pytest.approx(100 * math.sqrt(0.375))
    assert float(depth_metrics(p, t, silog_lambda=0.0)["silog"]) == pytest.approx(100 * math.sqrt(0.5))


def test_the_thresholds_are_strict() -> None:
    truth = torch.tensor([[1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    found = depth_metrics(torch.tensor([[1.25, 1.2, 1.5, 1.9]], dtype=torch.float64), truth)
    assert [float(found[f"a{k}"]) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]


def test_a_small_spread_around_a_large_offset_is_not_lost() -> None:
    e = 20 + 1e-7 * torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    found = depth_metrics(e.exp(), torch.ones(1, 2, dtype=torch.float64))
    assert float(found["silog"]) == pytest.approx(1e-5, rel=1e-6)


def test_sums_are_taken_in_float64() -> None:
    truth = torch.full((400, 400), 3.0)
    truth[0, 0] = 2.0
    p = torch.full((400, 400), 3.0) * (1 + 1e-3)
    exact = np.abs(p.numpy().astype(np.float64) - truth.numpy()) / truth.numpy()
    assert float(depth_metrics(p, truth)["abs_rel"]) == pytest.approx(exact.mean(), rel=1e-12)


# --- the paper's protocol -------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_align_and_metrics_are_what_was_recorded(case: str) -> None:
    recorded = golden("evaluation", case)
    raw, truth, mask = recorded("raw_disparity"), recorded("gt_depth"), recorded("mask")
    found = align(raw, truth, mask, "affine-disparity-then-depth")
    torch.testing.assert_close(found.unclipped.float(), recorded("aligned_depth"), rtol=1e-5, atol=1e-6)
    for name, value in depth_metrics(found.depth, truth, mask).items():
        assert float(value) == pytest.approx(float(recorded(f"metric_{name}")), rel=1e-5), name
    assert evaluate(raw, truth, mask).metrics == {
        name: float(value) for name, value in depth_metrics(found.depth, truth, mask).items()
    }


def test_the_score_ignores_scale_and_shift_of_the_disparity() -> None:
    truth = torch.rand(16, 16, generator=seeded()) + 1
    raw = 1 / truth + 0.05 * torch.randn(16, 16, generator=seeded(1))
    one, other = evaluate(raw, truth), evaluate(5 * raw + 3, truth)
    assert other.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert evaluate(1 / truth, truth).metrics["silog"] < 1e-4


def test_depth_that_comes_out_negative_is_clipped_and_reported() -> None:
    truth = torch.linspace(0.01, 1.0, 100).view(10, 10)
    raw = truth.clone()
    raw[5, 5] = -0.5
    found = evaluate(raw, truth, predicts="depth")
    assert found.aligned[5, 5] < 0
    assert found.clipped >= 0.01
    assert all(math.isfinite(value) for value in found.metrics.values())


def test_the_paper_leaves_out_what_is_not_finite() -> None:
    truth, raw = depths(), depths(1)
    raw[2, 3] = torch.nan
    mask = torch.ones_like(raw, dtype=torch.bool)
    mask[2, 3] = False
    assert evaluate(raw, truth).metrics == evaluate(raw, truth, mask).metrics


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (torch.zeros(4, 4), "no known depth"),
        (torch.ones(4, 4), "constant"),
        (torch.full((4, 4), float("nan")), "no known depth"),
        (torch.ones(4, 5), "sizes differ"),
    ],
)
def test_ground_truth_that_cannot_be_used_is_refused(truth: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(torch.rand(4, 4, generator=seeded()), truth)


# --- refusals -------------------------------------------------------------------------------------

GOOD = depths(0, 4, 5)
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


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("metrics", [depth_metrics, boundary_metrics])
def test_depth_that_was_not_aligned_is_refused(metrics: Any, value: float) -> None:
    p = GOOD.clone()
    p[1, 2] = value
    with pytest.raises(InputError, match=r"moon: .* not positive and finite; align them first"):
        metrics(p, GOOD, names=["moon"])


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"silog_lambda must be in \[0, 1\], got 1.5"):
        depth_metrics(GOOD, GOOD, silog_lambda=1.5)
    with pytest.raises(ValueError, match="ratios must be > 1"):
        boundary_metrics(GOOD, GOOD, ratios=(1.0,))
    with pytest.raises(ValueError, match="tolerance"):
        boundary_metrics(GOOD, GOOD, tolerance=-1)


# --- normals --------------------------------------------------------------------------------------


def turned(degrees: list[float]) -> Tensor:
    """Normals (3, 1, N) turned from the z axis about y."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()])[:, None]


def test_angles_between_normals() -> None:
    degrees = [0.0, 1e-5, 6.0, 10.0, 20.0, 25.0, 60.0, 180.0]
    upright = turned([0.0] * 8)
    found = {name: float(v) for name, v in normal_metrics(3 * turned(degrees), upright).items()}
    assert found == pytest.approx(
        {
            "normals_mean": sum(degrees) / 8,
            "normals_median": 15.0,
            "normals_5": 25.0,
            "normals_7.5": 37.5,
            "normals_11.25": 50.0,
            "normals_22.5": 62.5,
            "normals_30": 75.0,
        }
    )
    small = normal_metrics(turned([1e-5]), upright[..., :1])["normals_mean"]
    assert float(small) == pytest.approx(1e-5, rel=1e-6)


@few
@given(SEEDS)
def test_turning_both_changes_no_angle(seed: int) -> None:
    n, m = (torch.randn(3, 5, 6, generator=seeded(seed + i), dtype=torch.float64) for i in (0, 1))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(seed + 2), dtype=torch.float64)).Q
    rotated = [torch.einsum("ij,jhw->ihw", turn, values) for values in (n, m)]
    close(normal_metrics(*rotated), normal_metrics(n, m), rtol=1e-6, atol=1e-6)


def test_normals_are_measured_where_the_truth_has_one() -> None:
    truth, p = turned([0.0, 0.0, 0.0]), turned([10.0, 20.0, 90.0])
    truth[:, 0, 2] = 0.0
    assert float(normal_metrics(p, truth)["normals_mean"]) == pytest.approx(15.0)
    mask = torch.tensor([[True, False, True]])
    assert float(normal_metrics(p, truth, mask)["normals_mean"]) == pytest.approx(10.0)
    batch = normal_metrics(torch.stack([p, truth.clone()[:, :, [0, 0, 0]]]), truth)
    assert batch["normals_mean"].tolist() == pytest.approx([15.0, 0.0])
    p[:, 0, 1] = 0.0
    with pytest.raises(InputError, match="moon: 1 of 2 predicted normals are zero or not finite"):
        normal_metrics(p, truth, names=["moon"])
    with pytest.raises(InputError, match="moon: the mask holds no pixel"):
        normal_metrics(p, torch.zeros_like(truth), names=["moon"])
    with pytest.raises(InputError, match="moon: sizes differ"):
        normal_metrics(p, truth[:, :, :2], names=["moon"])


# --- boundaries -----------------------------------------------------------------------------------


def step_at(column: int, width: int = 20, height: int = 6, ratio: float = 1.5) -> Tensor:
    depth = torch.ones(height, width, dtype=torch.float64)
    depth[:, column:] = ratio
    return depth


def scores(p: Tensor, t: Tensor, **options: Any) -> tuple[float, float, float]:
    found = boundary_metrics(p, t, **options)
    return tuple(float(found[f"boundary_{name}"]) for name in ("precision", "recall", "f1"))


def test_an_edge_counts_within_the_tolerance_only() -> None:
    truth = step_at(10)
    assert scores(truth, truth) == (1.0, 1.0, 1.0)
    assert scores(step_at(11), truth) == (1.0, 1.0, 1.0)
    assert scores(step_at(9), truth, tolerance=0) == (0.0, 0.0, 0.0)
    assert scores(step_at(12), truth) == (0.0, 0.0, 0.0)
    assert scores(step_at(12), truth, tolerance=2) == (1.0, 1.0, 1.0)
    assert scores(step_at(10).T, truth.T) == (1.0, 1.0, 1.0)


def test_an_edge_in_the_wrong_direction_is_none() -> None:
    assert scores(1 / step_at(10), step_at(10)) == (0.0, 0.0, 0.0)
    assert scores(step_at(5, 10, 10).T, step_at(5, 10, 10)) == (0.0, 0.0, 0.0)


def test_false_and_missed_edges() -> None:
    truth = step_at(5) * step_at(15)
    precision, recall, f1 = scores(step_at(5), truth)
    assert (precision, recall, f1) == pytest.approx((1.0, 0.5, 2 / 3))
    precision, recall, f1 = scores(truth, step_at(5))
    assert (precision, recall, f1) == pytest.approx((0.5, 1.0, 2 / 3))
    assert scores(torch.ones_like(truth), truth) == (0.0, 0.0, 0.0)


def test_only_ratios_at_which_the_truth_has_an_edge_count() -> None:
    truth = step_at(10, ratio=1.12)
    assert scores(truth, truth) == (1.0, 1.0, 1.0)
    # A step of 7 % passes the threshold of 5 % and not that of 10 %.
    assert scores(step_at(10, ratio=1.07), truth) == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"moon: the ground truth has no depth edge of ratio 1.05"):
        boundary_metrics(truth, torch.ones_like(truth), names=["moon"])
    assert has_edges(truth)
    assert not has_edges(step_at(10, ratio=1.04))


def test_edges_at_unknown_depth_do_not_count() -> None:
    truth = step_at(10)
    hole = truth.clone()
    hole[:, 9] = 0.0
    assert not has_edges(hole)
    assert not has_edges(truth, torch.arange(20).expand(6, 20) != 10)
    ragged = truth.clone()
    ragged[0, 10:12] = torch.nan
    assert scores(truth, ragged) == (1.0, 1.0, 1.0)


@few
@given(SEEDS, st.floats(0.01, 100))
def test_boundaries_do_not_depend_on_the_unit(seed: int, unit: float) -> None:
    p, t = depths(seed), depths(seed + 1)
    close(boundary_metrics(unit * p, unit * t), boundary_metrics(p, t))
    swapped = boundary_metrics(t, p, ratios=(1.1,))
    same = boundary_metrics(p, t, ratios=(1.1,))
    torch.testing.assert_close(swapped["boundary_precision"], same["boundary_recall"])
    torch.testing.assert_close(swapped["boundary_f1"], same["boundary_f1"])


# --- over a data set ------------------------------------------------------------------------------


def test_wins_are_strict() -> None:
    assert win_rate([1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 4.0, 1.0]) == 0.5
    assert win_rate([1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 4.0, 1.0], lower_is_better=False) == 0.25


def test_the_interval_is_that_of_a_paired_comparison() -> None:
    before = (10 + 5 * torch.rand(200, generator=seeded())).tolist()
    after = [0.9 * value for value in before]
    found = bootstrap_interval(before, after, generator=seeded())
    # Each image improves by the same share, so no resample says anything else.
    assert (found.change, found.low, found.high) == pytest.approx((-10.0, -10.0, -10.0))


def test_a_paired_difference_is_that_of_two_changes_of_the_same_images() -> None:
    before = (10 + 5 * torch.rand(200, generator=seeded())).tolist()
    ours, theirs = ([factor * value for value in before] for factor in (0.7, 0.95))
    found = paired_difference(before, ours, theirs, generator=seeded())
    assert (found.change, found.low, found.high) == pytest.approx((-25, -25, -25)), "what both share cancels"
    # Of two that differ by chance alone, the interval holds 0, and is as wide as their noise says.
    noise = torch.randn(2, 200, generator=seeded(1), dtype=torch.float64)
    ours, theirs = (torch.tensor(before, dtype=torch.float64) + noise).tolist()
    chance = paired_difference(before, ours, theirs, generator=seeded())
    assert chance.low < 0 < chance.high
    spread = 100 * (noise[0] - noise[1]).std() / (sum(before) / 200) / 200**0.5
    assert chance.high - chance.low == pytest.approx(2 * 1.96 * float(spread), rel=0.1)
    assert paired_difference(before, theirs, ours, generator=seeded()).change == pytest.approx(-chance.change)


def test_the_interval_covers_as_often_as_it_says() -> None:
    hits, trials = 0, 120
    for trial in range(trials):
        generator = seeded(trial)
        change = 0.9 + 0.2 * torch.randn(60, generator=generator, dtype=torch.float64)
        found = bootstrap_interval([1.0] * 60, change.tolist(), generator=generator, resamples=400, level=0.8)
        hits += found.low <= -10.0 <= found.high
    assert 0.7 < hits / trials < 0.9


def test_the_generator_decides_the_interval() -> None:
    before = depths(0, 1, 40).flatten().tolist()
    after = depths(1, 1, 40).flatten().tolist()
    one, again, other = (bootstrap_interval(before, after, generator=seeded(s)) for s in (0, 0, 1))
    assert one == again
    assert one != other
    assert one.low < one.change < one.high
    assert one.change == pytest.approx(100 * (sum(after) / sum(before) - 1))
    wide = bootstrap_interval(before, after, generator=seeded(), level=0.99)
    assert wide.low < one.low
    assert wide.high > one.high


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1.0], [], "1 values before and 0 after"),
        ([], [], "0 values before"),
        ([1.0, math.nan], [1.0, 1.0], "not finite"),
    ],
)
def test_values_that_are_no_pairs_are_refused(before: Any, after: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        win_rate(before, after)
    with pytest.raises(InputError, match=message):
        bootstrap_interval(before, after, generator=seeded())
    with pytest.raises(InputError, match=message):
        paired_difference(before, after, after, generator=seeded())


def test_a_change_relative_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="mean before is 0"):
        bootstrap_interval([0.0, 1.0], [1.0, 1.0], generator=seeded())
    with pytest.raises(InputError, match="mean before is 0"):
        paired_difference([0.0, 1.0], [1.0, 1.0], [1.0, 2.0], generator=seeded())
