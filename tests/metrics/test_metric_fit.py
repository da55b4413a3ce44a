from __future__ import annotations

import numpy as np
import pytest
import torch

from redepth.errors import InputError
from redepth.guidance import Anchors
from redepth.metrics.metric_fit import fit_metric
from tests.ops.test_known_points import raw_map
from tests.support.helpers import seeded


def anchors(count: int, a: float = 0.15, b: float = 0.05) -> Anchors:
    raw = raw_map()[0, 0]
    rows, columns = torch.randint(0, 48, (2, count), generator=seeded(2))
    depth = 1 / (a * raw[rows, columns] + b)
    return Anchors((columns + 0.5) / 48, (rows + 0.5) / 48, depth, source="tape")


def test_points_give_metres() -> None:
    raw = raw_map()[0, 0]
    fit = fit_metric(raw, anchors(20))
    assert fit.depth(raw.numpy(), "disparity") == pytest.approx((1 / (0.15 * raw + 0.05)).numpy(), rel=1e-5)
    assert fit.warning == ""
    assert fit.record()["from"] == "tape"
    assert (fit.record()["points"], fit.record()["inliers"]) == (20, 20)


def test_points_outside_of_the_picture_do_not_count() -> None:
    inside, extra = anchors(9), torch.tensor([1.5, -0.2], dtype=torch.float64)
    more = Anchors(
        torch.cat([inside.x, extra]), torch.cat([inside.y, extra]), torch.cat([inside.depth, extra.abs()])
    )
    fit = fit_metric(raw_map()[0, 0], more)
    assert fit.points == 9
    assert fit.warnings == ["2 of 11 known points are outside the photo: left out"]
    assert fit.record()["outside"] == 2
    assert fit.scale == pytest.approx(0.15)


def test_two_points_are_taken_with_a_warning() -> None:
    fit = fit_metric(raw_map()[0, 0], anchors(2))
    assert fit.confidence == 0.0
    assert "metres are uncertain" in fit.warning


def test_depth_behind_the_camera_is_unknown() -> None:
    fit = fit_metric(raw_map()[0, 0], anchors(5))
    assert np.isnan(fit.depth(np.array([[-10.0]]), "disparity")).all()


@pytest.mark.parametrize(
    ("x", "depth", "problem"),
    [
        ([0.1, 0.2], [1.0, -1.0], "depth must be above 0"),
        ([0.1, 0.2], [1.0, float("nan")], "not finite"),
        ([0.1], [1.0, 2.0], "as long as"),
    ],
)
def test_wrong_points_are_refused(x: list[float], depth: list[float], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Anchors(torch.tensor(x), torch.tensor(x), torch.tensor(depth))


def test_one_point_is_too_few_for_scale_and_shift() -> None:
    with pytest.raises(InputError, match="at least 2"):
        fit_metric(raw_map()[0, 0], anchors(1))
    with pytest.raises(InputError, match="finite"):
        fit_metric(torch.full((4, 4), torch.nan), anchors(3))
