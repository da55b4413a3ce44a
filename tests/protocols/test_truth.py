"""A truth's unit changes no metric without a unit, shapes have to fit, and what is left out is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.protocols import (
    EvaluationProtocol,
    ImageMetrics,
    evaluate,
    load_protocol,
    measure,
    prepare,
    protocol_names,
)

LINES = np.linspace(0, 1, 24, dtype=np.float32)[:, None] + np.linspace(0, 1, 32, dtype=np.float32)
TRUTH = 2 + 20 * LINES**2
RAW = 1 / (TRUTH + 2 * np.sin(9 * LINES))
WITH_UNIT = {"rmse", "sq_rel"}


def unit_free(protocol: EvaluationProtocol) -> bool:
    """Whether no number of the protocol is in metres."""
    return protocol.range.near is None and protocol.range.far is None


UNIT_FREE = [name for name in protocol_names() if unit_free(load_protocol(name))]


def sample(truth: Any = TRUTH, **changes: Any) -> Sample:
    photo = np.zeros((24, 32, 3), np.float32)
    values = np.asarray(truth).astype(np.float32)
    return replace(Sample("a", photo, values, unit="relative"), **changes)


def unitless(row: ImageMetrics) -> dict[str, float]:
    return {name: value for name, value in row.metrics.items() if name not in WITH_UNIT}


@pytest.mark.parametrize("factor", [1000.0, 0.001, 1 / 0.3048, 1e-9, 1e9])
@pytest.mark.parametrize("name", UNIT_FREE)
def test_the_unit_of_the_truth_changes_no_unitless_metric(name: str, factor: float) -> None:
    protocol = load_protocol(name)
    expected = evaluate(protocol, RAW, prepare(protocol, sample()))
    found = evaluate(protocol, RAW, prepare(protocol, sample(TRUTH * factor)))
    assert unitless(found) == pytest.approx(unitless(expected), rel=1e-4)
    assert found.pixels == expected.pixels
    disparity = prepare(protocol, sample(256 / (TRUTH * factor), kind="disparity"))
    assert unitless(evaluate(protocol, RAW, disparity)) == pytest.approx(unitless(expected), rel=1e-4)


def test_these_protocols_have_no_unit() -> None:
    assert set(UNIT_FREE) == {
        "co3d",
        "folder",
        "folder-clamp",
        "middlebury-2014",
        "middlebury-2021",
        "motorcycle",
        "motorcycle-clamp",
        "photo",
        "synthetic",
        "synthetic-clamp",
    }


@pytest.mark.parametrize("value", [1e10, 65504, 65535, 3e38, np.inf, np.nan, 0, -1])
@pytest.mark.parametrize("factor", [1.0, 700.0])
def test_a_sky_of_no_hits_is_left_out_in_every_unit(value: float, factor: float) -> None:
    protocol = load_protocol("folder")
    truth = TRUTH * np.float32(factor)
    truth[:4] = 0
    expected = evaluate(protocol, RAW, sample(truth))
    truth[:4] = value
    found = measure(protocol, RAW, prepare(protocol, sample(truth)))
    assert unitless(found.row) == unitless(expected)
    assert sum(found.row.left_out.values()) == 24 * 32 + 4 * 32
    assert bool(found.row.warnings) == (value != 0)
    assert not found.mask[:4].any()


def test_a_range_in_metres_is_refused_where_the_unit_is_unknown() -> None:
    paper = load_protocol("redepth-paper")
    metres = evaluate(paper, RAW, prepare(paper, sample(unit="m")))
    assert unitless(evaluate(paper, RAW, prepare(paper, sample()))) == unitless(metres)
    with pytest.raises(InputError, match=r"leaves out \d+ of 768 known pixels outside its range, 0.001 to"):
        prepare(paper, sample(TRUTH * 1000))
    clipping = load_protocol("eth3d-72m")
    prepare(clipping, sample(unit="m"))
    with pytest.raises(InputError, match="clips depth to its range, 1e-05 to 72 m, and the unit"):
        prepare(clipping, sample())


def test_what_a_range_drops_is_counted_and_warned_about() -> None:
    far = prepare(load_protocol("redepth-paper"), sample(TRUTH * 1000, unit="m"))
    row = evaluate(load_protocol("redepth-paper"), RAW, far)
    assert row.left_out["out_of_range"] == int((far.truth >= 1e4).sum()) > 0
    assert row.pixels == 768 - row.left_out["out_of_range"]
    assert "the protocol's range leaves out" in row.warnings[0]
    # A far value beyond the range is the range's loss in metres: nothing is measured there either.
    sky = TRUTH.copy()
    sky[:2] = 1e9
    row = evaluate(load_protocol("redepth-paper"), RAW, sample(sky, unit="m"))
    assert (row.left_out["out_of_range"], row.left_out["no_hit"], row.warnings) == (64, 0, [])


def test_a_large_clip_is_warned_about() -> None:
    protocol = load_protocol({"name": "x", "alignment": {"disparity": "none", "depth": "none"}})
    raw = TRUTH.copy()
    raw[:12] = -1
    row = evaluate(protocol, raw, sample(), predicts="depth", invariance="metric")
    assert row.warnings == ["the aligned depth had to be clipped at 50.0 % of the measured pixels"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"truth": np.ones((32, 24), np.float32)}, "ground truth is 24 x 32 pixels and the photo.* 32 x 24"),
        ({"truth": np.ones((24, 30), np.float32)}, "ground truth is 30 x 24 pixels and the photo.* 32 x 24"),
        ({"mask": np.ones((32, 24), bool)}, "mask is 24 x 32 pixels and the ground truth 32 x 24"),
        ({"normals": np.ones((12, 16, 3), np.float32)}, "normals is 16 x 12 pixels and the ground truth"),
        ({"sky": np.ones((12, 16), bool)}, "sky is 16 x 12 pixels and the ground truth 32 x 24"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_both(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=rf"^a \(protocol folder\): the {words}"):
        prepare(load_protocol("folder"), sample(**changes))


@pytest.mark.parametrize("size", [(12, 16), (48, 64), (9, 12), (7, 9), (7, 10)])
def test_a_truth_of_another_size_and_the_photos_shape_is_measured(size: tuple[int, int]) -> None:
    ones = np.linspace(1, 2, size[0] * size[1], dtype=np.float32).reshape(size)
    assert prepare(load_protocol("folder"), sample(ones)).truth.shape == size


def test_a_row_without_the_new_fields_is_read_and_a_nan_is_no_metric() -> None:
    record = evaluate(load_protocol("folder"), RAW, sample()).record()
    assert ImageMetrics.from_record(record).record() == record
    old = {name: value for name, value in record.items() if name not in ("left_out", "warnings")}
    assert ImageMetrics.from_record(old).left_out == {}
    holed = record | {"metrics": record["metrics"] | {"a1": None, "a2": float("nan")}}
    assert set(record["metrics"]) - set(ImageMetrics.from_record(holed).metrics) == {"a1", "a2"}
    with pytest.raises(InputError, match="a mean is no finite number"):
        ImageMetrics.from_record(record | {"means": record["means"] | {"log": None}})
