"""What protocols measure besides depth, and with which camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from redepth.data.datasets import Sample
from redepth.metrics import curvature_metrics, relative_normal_metrics
from redepth.ops.camera import Camera
from redepth.ops.geometry import ORTHOGRAPHIC
from redepth.protocols import EvaluationProtocol, load_protocol, measure, prepare

ROWS, COLUMNS = np.mgrid[0:40, 0:60]
TRUTH = (4 + np.sin(0.2 * ROWS) + 0.05 * COLUMNS).astype(np.float32)
RAW = 1 / (TRUTH + 0.2 * np.cos(0.4 * COLUMNS))
PHOTO = np.zeros((40, 60, 3), np.float32)


def protocol(*measures: str, **changes: Any) -> EvaluationProtocol:
    alignment = {"disparity": "affine-disparity", "depth": "affine-depth"}
    return load_protocol({"name": "x", "alignment": alignment, "measures": measures, **changes})


def sample(**changes: Any) -> Sample:
    return replace(Sample("a", PHOTO, TRUTH, camera=Camera(field_of_view=70)), **changes)


def test_surfaces_are_those_of_the_aligned_depth_under_the_camera_of_the_sample() -> None:
    found = measure(protocol("rel-normal", "curvature"), RAW, sample())
    maps = (found.depth, found.truth, found.mask)
    for camera, same in ((Camera(field_of_view=70), True), (Camera(field_of_view=69), False)):
        relative = float(relative_normal_metrics(*maps, camera=camera)["rel_normal"])
        bent = float(curvature_metrics(*maps, camera=camera)["curvature_error"])
        assert (found.row.metrics["rel_normal"] == pytest.approx(relative, rel=1e-9)) == same
        assert (found.row.metrics["curvature_error"] == pytest.approx(bent, rel=1e-9)) == same
    assert found.row.warnings == []
    assert {"rel_normal", "curvature_error"}.isdisjoint(measure(protocol(), RAW, sample()).row.metrics)


def test_an_orthographic_camera_is_a_known_one() -> None:
    found = measure(protocol("curvature"), RAW, sample(camera=ORTHOGRAPHIC))
    bent = curvature_metrics(found.depth, found.truth, found.mask, camera=ORTHOGRAPHIC)["curvature_error"]
    assert found.row.metrics["curvature_error"] == pytest.approx(float(bent), rel=1e-9)


def test_without_a_camera_one_is_assumed_and_said() -> None:
    unknown = measure(protocol("rel-normal", "curvature"), RAW, sample(camera=None)).row
    assumed = measure(protocol("rel-normal", "curvature"), RAW, sample(camera=Camera(field_of_view=55))).row
    assert unknown.metrics == assumed.metrics
    (line,) = unknown.warnings
    assert line == (
        "the photo's camera is unknown: rel_normal and curvature_error assume a pinhole with a field of view "
        "of 55 degrees"
    )
    assert measure(protocol("boundaries"), RAW, sample(camera=None)).row.warnings == []


def test_true_normals_are_not_needed_and_a_sparse_truth_has_no_surface() -> None:
    sparse = np.zeros_like(TRUTH)
    sparse[5, 7], sparse[30, 50], sparse[12, 31] = 3, 4, 5
    row = measure(protocol("rel-normal", "curvature", "boundaries", "normals"), RAW, sample(truth=sparse)).row
    assert row.pixels == 3
    assert {"rel_normal", "curvature_error", "boundary_f1", "normals_mean"}.isdisjoint(row.metrics)


def test_a_field_of_view_holds_for_the_photo_at_the_size_of_the_prediction() -> None:
    """The pixels of a resized picture are not square; those of the photo are."""
    one = protocol("curvature", resolution={"height": 40, "width": 30})
    found = measure(one, RAW, sample())
    camera = Camera(field_of_view=70).of_picture(40, 60)
    bent = curvature_metrics(found.depth, found.truth, found.mask, camera=camera)["curvature_error"]
    assert found.row.metrics["curvature_error"] == pytest.approx(float(bent), rel=1e-9)


@pytest.mark.parametrize("name", ["folder-clamp", "motorcycle-clamp", "synthetic-clamp", "middlebury-2021"])
def test_protocols_with_surfaces_measure_them(name: str) -> None:
    one = load_protocol(name)
    row = measure(one, RAW, prepare(one, sample(unit="relative"))).row
    assert {"rel_normal", "curvature_error"} <= set(row.metrics)
    perfect = measure(one, 1 / TRUTH.astype(np.float64), prepare(one, sample(unit="relative"))).row
    assert perfect.metrics["rel_normal"] == pytest.approx(0, abs=1e-5)
    assert perfect.metrics["curvature_error"] == pytest.approx(0, abs=1e-5)
