"""Evaluation protocols: their records, their measurements, their images and their differences."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from redepth import metrics
from redepth.data.datasets import REGISTRY, Missing, Sample
from redepth.data.datasets.middlebury import SCENES
from redepth.errors import ConfigError, InputError
from redepth.ops.camera import Camera
from redepth.protocols import (
    PROTOCOLS,
    EvaluationProtocol,
    ImageMetrics,
    average,
    difference,
    evaluate,
    load_protocol,
    measure,
    names_hash,
    open_dataset,
    prepare,
    protocol_for,
    protocol_names,
    read_names,
    require_same,
    select,
)
from tests.support.command import call
from tests.support.helpers import golden, seeded

# A change of a shipped protocol that can change a number needs a new version, and then a new line here.
SHIPPED = {
    "co3d": (1, "2824327f0390"),
    "diode": (1, "62b74e6f8f4b"),
    "diode-clamp": (1, "bba8e0a9ae59"),
    "eth3d": (1, "172ef32c4719"),
    "eth3d-72m": (1, "6f9d51a0cc70"),
    "eth3d-clamp": (1, "43384dfb72df"),
    "folder": (1, "0e4905f51669"),
    "folder-clamp": (1, "4e37e3f9c05b"),
    "kitti-eigen": (1, "df35a510c2c3"),
    "kitti-eigen-garg": (1, "75ab14466790"),
    "kitti-eigen-garg-clamp": (1, "b876cc6767a0"),
    "kitti-garg": (1, "981241956345"),
    "middlebury-2014": (1, "faeea26d7618"),
    "middlebury-2021": (1, "3b8c4f923634"),
    "motorcycle": (1, "ebf24700658f"),
    "motorcycle-clamp": (1, "4cc766e7ea98"),
    "nyuv2-eigen": (1, "694c949c2e13"),
    "nyuv2-eigen-clamp": (1, "0ebf604fa552"),
    "nyuv2-filled": (1, "3f2fc76d6580"),
    "photo": (1, "4e10539138f7"),
    "redepth-paper": (1, "16185f549e44"),
    "sintel": (1, "992969733cc8"),
    "sintel-clamp": (1, "31ab580af063"),
    "synthetic": (2, "0c15e2e74028"),
    "synthetic-clamp": (1, "763342929834"),
}
PLAIN: dict[str, Any] = {
    "name": "plain",
    "alignment": {"disparity": "affine-disparity", "depth": "affine-depth"},
}


def protocol(**changes: Any) -> EvaluationProtocol:
    return load_protocol({**PLAIN, **changes})


def metric(**changes: Any) -> EvaluationProtocol:
    """A protocol without alignment."""
    return protocol(alignment={"disparity": "none", "depth": "none"}, **changes)


def sample(height: int = 10, width: int = 12, seed: int = 0, **changes: Any) -> Sample:
    generator = np.random.default_rng(seed)
    truth = generator.uniform(1, 9, (height, width)).astype(np.float32)
    photo = generator.uniform(0, 1, (height, width, 3)).astype(np.float32)
    return replace(Sample("moon", photo, truth), **changes)


class Listed:
    """A data set that only lists names."""

    def __init__(self, names: list[str], missing: str = "") -> None:
        self.listed, self.missing = names, missing

    def check(self) -> list[Missing]:
        return [Missing(self.missing, "http://there")] if self.missing else []

    def names(self) -> list[str]:
        return self.listed

    def load(self, name: str) -> Sample:
        raise AssertionError("selecting decodes nothing")


# --- the shipped protocols -----------------------------------------------------------------------------


def test_a_shipped_protocol_changes_only_with_its_version() -> None:
    found = {name: load_protocol(name) for name in protocol_names()}
    assert {name: (one.version, one.sha256[:12]) for name, one in found.items()} == SHIPPED
    for name, one in found.items():
        assert one.name == name
        assert one.description


def test_the_protocols_belong_to_data_sets() -> None:
    for name in protocol_names():
        one = load_protocol(name)
        if one.dataset is None:
            continue
        needs = {} if one.dataset in ("motorcycle", "synthetic") else {"root": "/nowhere"}
        open_dataset(one, one.dataset, needs)
    assert {load_protocol(protocol_for(name)).dataset for name in REGISTRY.entries()} >= {*REGISTRY.entries()}
    assert protocol_for("something else") == "redepth-paper"


def test_kitti_is_measured_as_in_the_literature() -> None:
    one = load_protocol("kitti-eigen")
    truth = np.full((375, 1242), 5.0, np.float32)
    truth[23:, 13:-13] = np.linspace(1, 79, 352 * 1216, dtype=np.float32).reshape(352, 1216)
    whole = Sample("a", np.zeros((375, 1242, 3), np.float32), truth)
    cut = prepare(one, whole)
    assert cut.pixels().shape == (352, 1216, 3)
    np.testing.assert_array_equal(cut.truth, truth[23:, 13:-13])
    found = measure(one, 1 / cut.truth, cut)
    rows, columns = torch.nonzero(found.mask, as_tuple=True)
    assert (int(rows.min()), int(rows.max()) + 1) == (117, 321)
    assert (int(columns.min()), int(columns.max()) + 1) == (43, 1172)
    garg = measure(load_protocol("kitti-eigen-garg"), 1 / cut.truth, cut)
    rows, columns = torch.nonzero(garg.mask, as_tuple=True)
    assert (int(rows.min()), int(rows.max()) + 1) == (143, 349)
    assert (int(columns.min()), int(columns.max()) + 1) == (43, 1172)


def test_kitti_is_measured_as_published_numbers_are_reproduced() -> None:
    one = load_protocol("kitti-garg")
    truth = np.random.default_rng(0).uniform(1, 79, (375, 1242)).astype(np.float32)
    given = Sample("a", np.zeros((375, 1242, 3), np.float32), truth)
    assert prepare(one, given) is given
    rows, columns = torch.nonzero(measure(one, 1 / truth, given).mask, as_tuple=True)
    # The sides are at 153.04 and 371.96 of 375 rows, 44.65 and 1197.35 of 1242 columns.
    assert (int(rows.min()), int(rows.max()) + 1) == (153, 372)
    assert (int(columns.min()), int(columns.max()) + 1) == (45, 1197)


CLAMPED = {
    "kitti-eigen-garg-clamp": "kitti-eigen-garg",
    "nyuv2-eigen-clamp": "nyuv2-eigen",
    "eth3d-clamp": "eth3d",
    "diode-clamp": "diode",
    "sintel-clamp": "sintel",
}


@pytest.mark.parametrize(("name", "plain"), CLAMPED.items())
def test_a_clamped_protocol_measures_depth_as_its_plain_one_but_for_the_clamp(name: str, plain: str) -> None:
    one, other = load_protocol(name), load_protocol(plain)
    same_measures = one.model_copy(update={"measures": other.measures})
    found = difference(same_measures, other)
    assert len(found) == 2
    assert found[1] == f"which aligned depths are clipped is moge-clamp in {name} and range in {plain}"
    assert set(one.measures) - set(other.measures) <= {"boundaries", "rel-normal", "curvature"}


def test_eth3d_says_that_a_pixel_ran_away_and_its_clamp_holds_it() -> None:
    truth = np.linspace(2, 40, 30 * 40).reshape(30, 40).astype(np.float32)
    given = Sample("a", np.zeros((30, 40, 3), np.float32), truth)
    raw = 1 / truth.astype(np.float64)
    raw[7, 7] = 1e-6
    row = evaluate(load_protocol("eth3d"), raw, given)
    assert row.metrics["abs_rel"] > 0.5
    assert row.clipped == 0
    assert "1 of 1200 measured pixels are aligned to more than 10 times" in row.warnings[0]
    assert measure(load_protocol("eth3d"), raw, given).cautions == tuple(row.warnings)
    held = evaluate(load_protocol("eth3d-clamp"), raw, given)
    assert held.metrics["abs_rel"] < 0.01
    assert held.warnings == []
    assert held.clipped == pytest.approx(1 / 1200)


def test_nyu_is_measured_inside_the_window_of_eigen() -> None:
    one = load_protocol("nyuv2-eigen")
    given = sample(480, 640)
    assert prepare(one, given) is given
    found = measure(one, given.truth, given, predicts="depth")
    rows, columns = torch.nonzero(found.mask, as_tuple=True)
    assert (int(rows.min()), int(rows.max()) + 1) == (45, 471)
    assert (int(columns.min()), int(columns.max()) + 1) == (41, 601)
    assert found.row.pixels == 426 * 560


def test_the_ranges_of_the_others() -> None:
    limits = {name: load_protocol(name).range for name in ("eth3d", "eth3d-72m", "diode", "sintel")}
    assert {name: (found.near, found.far) for name, found in limits.items()} == {
        "eth3d": (1e-5, None),
        "eth3d-72m": (1e-5, 72.0),
        "diode": (0.6, 350.0),
        "sintel": (None, 72.0),
    }
    truth = np.array([[1.0, 50.0, 100.0, np.inf]], np.float32)
    given = Sample("a", np.zeros((1, 4, 3), np.float32), truth)
    raw = np.array([[1.0, 0.5, 0.1, 0.1]])
    assert evaluate(load_protocol("eth3d"), raw, given).pixels == 3
    assert evaluate(load_protocol("eth3d-72m"), raw, given).pixels == 2


def test_the_paper_is_double_least_squares() -> None:
    recorded = golden("evaluation", "c0")
    truth, mask = recorded("gt_depth"), recorded("mask").bool()
    given = Sample("a", np.zeros((*truth.shape, 3), np.float32), truth.numpy(), mask=mask.numpy())
    row = evaluate(load_protocol("redepth-paper"), recorded("raw_disparity"), given)
    for name, value in row.metrics.items():
        assert value == pytest.approx(float(recorded(f"metric_{name}")), rel=1e-5), name
    ours = metrics.evaluate(recorded("raw_disparity"), truth, mask)
    assert row.metrics == pytest.approx(ours.metrics, rel=1e-12)
    assert set(row.alignment) == {"disparity_scale", "disparity_shift", "depth_scale", "depth_shift"}


def test_the_paper_measures_at_the_size_of_the_prediction() -> None:
    given = sample(40, 60)
    row = evaluate(load_protocol("redepth-paper"), np.random.default_rng(1).uniform(1, 2, (14, 21)), given)
    assert (row.height, row.width, row.pixels) == (14, 21, 14 * 21)


def test_motorcycle_and_synthetic_run_from_end_to_end() -> None:
    one = load_protocol("motorcycle")
    dataset = open_dataset(one, "motorcycle", {})
    one, names = select(one, dataset)
    given = prepare(one, dataset.load(names[0]))
    perfect = evaluate(one, np.where(given.truth > 0, 1 / np.maximum(given.truth, 1e-3), 0), given)
    assert perfect.metrics["silog"] < 1e-4
    assert perfect.metrics["boundary_f1"] == pytest.approx(1.0)
    assert perfect.unit == "m"
    assert perfect.pixels == int((given.truth > 0).sum())
    one = load_protocol("synthetic")
    dataset = open_dataset(one, "synthetic", {})
    one, names = select(one, dataset)
    given = prepare(one, dataset.load(names[0]))
    assert len(names) == 64
    assert evaluate(one, 1 / given.truth, given).metrics["normals_mean"] < 0.05
    flat = np.ones_like(given.truth) + 1e-3 * np.random.default_rng(0).standard_normal(given.truth.shape)
    assert evaluate(one, flat, given).metrics["normals_mean"] > 5


# --- the lists that ship --------------------------------------------------------------------------


def test_the_list_of_eigen_for_kitti() -> None:
    names = read_names(PROTOCOLS / "splits" / "kitti-eigen.txt")
    split = load_protocol("kitti-eigen").split
    assert (len(names), names_hash(names)) == (652, split.sha256)
    frames: dict[str, list[int]] = {}
    for name in names:
        drive, _, frame = name.partition("/")
        assert len(frame) == 10
        frames.setdefault(drive, []).append(int(frame))
    assert len(frames) == 28
    # 25 frames of each drive are listed, but for a short one of 22; those near its ends have no depth map.
    assert max(map(len, frames.values())) == 25
    assert min(min(found) for found in frames.values()) >= 5
    assert len(frames["2011_09_26_drive_0048_sync"]) == 22 - 10


def test_the_list_of_nyu() -> None:
    names = read_names(PROTOCOLS / "splits" / "nyuv2-eigen.txt")
    split = load_protocol("nyuv2-eigen").split
    assert (len(names), names_hash(names)) == (654, split.sha256)
    assert names[:6] == ["0001", "0002", "0009", "0014", "0015", "0016"]
    assert 1 <= int(names[0]) < int(names[-1]) <= 1449


def test_the_other_hashes_are_of_names_that_the_readers_know() -> None:
    assert load_protocol("middlebury-2014").split.sha256 == names_hash(SCENES)
    one = load_protocol("synthetic")
    pinned = {
        split: select(one, open_dataset(one, "synthetic", {"split": split}))[0].sha256
        for split in ("relief", "texture")
    }
    assert len(set(pinned.values())) == 2
    # The names of these images are not known, so only their number is checked.
    for name, count in (("eth3d", 454), ("diode", 771), ("sintel", 1064), ("co3d", None)):
        split = load_protocol(name).split
        assert (split.count, split.sha256, split.file) == (count, None, None)
        assert "http" in split.source


# --- the record -----------------------------------------------------------------------------------


def test_yaml_round_trip(tmp_path: Path) -> None:
    for name in protocol_names():
        path = tmp_path / f"{name}.yaml"
        path.write_text(load_protocol(name).to_yaml())
        assert load_protocol(path) == load_protocol(name)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"alignment": PLAIN["alignment"]}))
    assert load_protocol(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "kitti-egen",
            r"unknown protocol 'kitti-egen'; did you mean 'kitti-eigen'\? \(valid: .*a YAML file\)",
        ),
        ("nowhere.yaml", "protocol file 'nowhere.yaml' does not exist"),
        ({"name": "x"}, "protocol: alignment: field required"),
        ({**PLAIN, "rnge": {}}, r"unknown key 'rnge'; did you mean 'range'\?"),
        (
            {**PLAIN, "range": {"fra": 3}},
            r"unknown key 'range.fra'; did you mean 'far'\? \(valid: far, near\)",
        ),
        (
            {**PLAIN, "crop": {"height": 3, "width": 3, "v": 1}},
            r"unknown key 'crop.v'.*valid: height, horizontal",
        ),
        ({**PLAIN, "range": {"near": 3, "far": 2}}, "near 3 must be less than far 2"),
        ({**PLAIN, "range": {"near": 0}}, "range.near: input should be greater than 0"),
        ({**PLAIN, "silog_lambda": 2}, "silog_lambda: input should be less than or equal to 1"),
        ({**PLAIN, "split": {"sha256": "abc"}}, "split.sha256: string should match"),
        (
            {"name": "x", "alignment": {"disparity": "affine", "depth": "none"}},
            "alignment.disparity: input should be 'none', 'median'",
        ),
    ],
)
def test_a_wrong_protocol_is_one_line(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_protocol(source)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_protocol_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"a.yaml' must hold a mapping"):
        load_protocol(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"cannot read protocol file '.*a.yaml'"):
        load_protocol(path)


def test_the_hash_is_of_what_can_change_a_number() -> None:
    one = protocol()
    assert one.sha256 == protocol(description="words", split={"source": "a friend"}).sha256
    for change in (
        {"name": "other"},
        {"version": 2},
        {"range": {"far": 80.0}},
        {"options": {"depth": "raw"}},
        {"split": {"count": 3}},
        {"averaging": "pixel"},
        {"measures": ["boundaries"]},
    ):
        assert protocol(**change).sha256 != one.sha256, change
    with pytest.raises(ValueError, match="frozen"):
        one.version = 2


def test_a_pinned_protocol_knows_its_images() -> None:
    one = protocol()
    assert one.pinned(["b", "a"]).sha256 == one.pinned(["a", "b"]).sha256 != one.sha256
    assert one.pinned(["a"]).split.count == 1
    assert one.pinned(["a"]).pinned(["a", "b"]).split.name == "part of all"
    shipped = load_protocol("kitti-eigen")
    names = read_names(PROTOCOLS / "splits" / "kitti-eigen.txt")
    assert shipped.pinned(names) == shipped
    part = shipped.pinned(names[:3])
    assert (part.split.file, part.split.count) == (None, 3)
    assert part.sha256 != shipped.sha256


def test_differences_are_spelled_out() -> None:
    assert difference(protocol(), protocol(description="words")) == []
    one, other = load_protocol("kitti-eigen"), load_protocol("kitti-eigen-garg")
    region = "the region that is measured"
    assert difference(one, other) == [
        "the name is kitti-eigen in kitti-eigen and kitti-eigen-garg in kitti-eigen-garg",
        f"{region} (top) is 0.3324324 in kitti-eigen and 0.40810811 in kitti-eigen-garg",
        f"{region} (bottom) is 0.91351351 in kitti-eigen and 0.99189189 in kitti-eigen-garg",
        f"{region} (left) is 0.0359477 in kitti-eigen and 0.03594771 in kitti-eigen-garg",
    ]
    changed = protocol(
        crop={"height": 4, "width": 5}, options={"depth": "raw"}, resolution={"height": 2, "width": 3}
    )
    text = "; ".join(difference(protocol(), changed))
    assert "the reader's option (depth) is none in the first and raw in the second" in text
    assert "the crop of photo and ground truth (height) is none in the first and 4 in the second" in text
    assert "the resolution of the evaluation is truth in the first and none in the second" in text
    assert "the resolution of the evaluation (width) is none in the first and 3 in the second" in text
    measured = difference(protocol(measures=["normals", "boundaries"]), protocol())
    assert measured == [
        "what is measured besides depth is normals, boundaries in the first and none in the second"
    ]


def test_results_of_two_protocols_are_not_compared() -> None:
    require_same(protocol(), protocol(description="words"))
    with pytest.raises(
        ConfigError,
        match="under eth3d and eth3d-72m cannot be compared: the name is .*; the greatest depth is none in "
        r"eth3d and 72.0 in eth3d-72m\. Measure both",
    ):
        require_same(load_protocol("eth3d"), load_protocol("eth3d-72m"))


# --- prepare --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vertical", "horizontal", "top", "left"),
    [("top", "left", 0, 0), ("bottom", "right", 5, 3), ("centre", "centre", 2, 1)],
)
def test_a_crop_cuts_everything_alike(vertical: str, horizontal: str, top: int, left: int) -> None:
    given = sample(
        mask=np.arange(120).reshape(10, 12) % 3 > 0,
        sky=np.arange(120).reshape(10, 12) % 5 > 0,
        normals=np.random.default_rng(3).standard_normal((10, 12, 3)).astype(np.float32),
    )
    crop = {"height": 5, "width": 9, "vertical": vertical, "horizontal": horizontal}
    found = prepare(protocol(crop=crop), given)
    window = (slice(top, top + 5), slice(left, left + 9))
    for name in ("photo", "truth", "mask", "sky", "normals"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name)[window], name)


def test_a_crop_keeps_the_rays_of_the_camera() -> None:
    camera = Camera(intrinsics=(1.2, 1.5, 0.45, 0.55))
    found = prepare(
        protocol(crop={"height": 4, "width": 6, "vertical": "bottom", "horizontal": "left"}),
        sample(camera=camera),
    )
    for mine, whole, part in zip(
        found.camera.axes(4, 6), camera.axes(10, 12), (slice(0, 6), slice(6, 10)), strict=True
    ):
        torch.testing.assert_close(mine, whole[part])
    flat = prepare(protocol(crop={"height": 4, "width": 6}), sample(camera=Camera()))
    assert flat.camera is None


def test_a_crop_that_does_not_fit_is_refused() -> None:
    one = protocol(crop={"height": 11, "width": 5})
    with pytest.raises(
        InputError, match=r"moon \(protocol plain\): 10 x 12 is smaller than the crop of 11 x 5"
    ):
        prepare(one, sample())
    other = np.zeros((5, 12, 3), np.float32)
    with pytest.raises(
        InputError, match=r"moon \(protocol plain\): the photo is 12 x 5 and its ground truth 12 x 10"
    ):
        prepare(one, sample(photo=other))
    with pytest.raises(InputError, match=r"give the sample that redepth.protocols.prepare returns"):
        evaluate(one, np.ones((10, 12)), sample())


# --- evaluate -------------------------------------------------------------------------------------


def test_the_row_of_an_image() -> None:
    given, one = sample(), protocol()
    row = evaluate(one, (1 / given.truth - 0.1) / 2, given)
    assert (row.image, row.protocol, row.protocol_sha256) == ("moon", "plain", one.sha256)
    assert (row.height, row.width, row.pixels, row.unit, row.clipped) == (10, 12, 120, "m", 0.0)
    assert row.alignment == pytest.approx({"disparity_scale": 2.0, "disparity_shift": 0.1}, rel=1e-5)
    assert row.metrics["abs_rel"] < 1e-6
    assert ImageMetrics.from_record(json.loads(json.dumps(row.record()))) == row
    assert measure(one, (1 / given.truth - 0.1) / 2, given).row == row
    with pytest.raises(InputError, match="not a result row: it has no means, pixels"):
        ImageMetrics.from_record({k: v for k, v in row.record().items() if k not in ("means", "pixels")})


def test_only_ground_truth_in_range_mask_and_region_counts() -> None:
    given = sample(mask=np.arange(120).reshape(10, 12) % 12 != 7)
    one = metric(
        range={"near": 2.0, "far": 8.0},
        region={"unit": "pixels", "top": 2, "bottom": 9, "left": 1, "right": 20},
    )
    found = measure(one, np.ones((10, 12)) * 5, given, predicts="depth", invariance="metric")
    expected = given.mask & (given.truth > 2) & (given.truth < 8)
    expected[:2] = expected[9:] = expected[:, :1] = False
    np.testing.assert_array_equal(found.mask.numpy(), expected)
    errors = np.abs(5 - given.truth.astype(np.float64)) / given.truth
    assert found.row.metrics["abs_rel"] == pytest.approx(errors[expected].mean(), rel=1e-6)
    fraction = metric(region={"unit": "fraction", "top": 0.25, "bottom": 0.999, "left": 0, "right": 0.5})
    mask = measure(fraction, np.ones((10, 12)), given, predicts="depth", invariance="metric").mask
    assert [int(v) for v in torch.nonzero(mask).amin(0)] == [2, 0]
    assert [int(v) for v in torch.nonzero(mask).amax(0)] == [8, 5]


def test_aligned_depth_is_clipped_to_the_range_and_counted() -> None:
    given = sample()
    raw = np.full((10, 12), 5.0)
    raw[0, :6], raw[1, :3] = -1.0, 100.0
    one = metric(range={"near": 0.5, "far": 20.0})
    found = measure(one, raw, given, predicts="depth", invariance="metric")
    assert (float(found.depth.min()), float(found.depth.max())) == (0.5, 20.0)
    assert found.row.clipped == pytest.approx(9 / 120)
    mended = load_protocol(
        one.model_dump() | {"alignment": {**one.alignment.model_dump(), "clip": "non-positive"}}
    )
    found = measure(mended, raw, given, predicts="depth", invariance="metric")
    assert (float(found.depth.min()), float(found.depth.max())) == (float(given.truth.min()), 100.0)
    assert found.row.clipped == pytest.approx(6 / 120)


def test_a_disparity_truth_is_measured_as_depth() -> None:
    given = sample()
    inverse = replace(given, truth=1 / given.truth, kind="disparity")
    raw = np.random.default_rng(1).uniform(1, 2, (10, 12))
    assert evaluate(protocol(), raw, inverse).metrics == pytest.approx(
        evaluate(protocol(), raw, given).metrics, rel=1e-5
    )


def test_the_resolution_is_the_truths_unless_the_protocol_says_otherwise() -> None:
    given, raw = sample(20, 30), torch.rand(10, 15, generator=seeded(), dtype=torch.float64) + 1
    at_truth = evaluate(protocol(), raw, given)
    assert (at_truth.height, at_truth.width, at_truth.pixels) == (20, 30, 600)
    by_hand = torch.nn.functional.interpolate(
        raw[None, None], size=(20, 30), mode="bilinear", align_corners=True
    )[0, 0]
    assert evaluate(protocol(), by_hand, given).metrics == at_truth.metrics
    plain = evaluate(protocol(interpolation="bilinear"), raw, given).metrics
    assert plain["silog"] != at_truth.metrics["silog"]
    at_prediction = measure(protocol(resolution="prediction"), raw, given)
    np.testing.assert_array_equal(at_prediction.truth, given.truth[::2, ::2])
    fixed = measure(protocol(resolution={"height": 5, "width": 6}), raw, given)
    np.testing.assert_array_equal(fixed.truth, given.truth[::4, ::5])
    assert fixed.row.pixels == 30


def test_the_kind_of_prediction_decides_the_alignment() -> None:
    given = sample()
    one = protocol(alignment={"disparity": "affine-disparity", "depth": "affine-depth", "trim": 0.1})
    assert set(evaluate(one, 1 / given.truth, given).alignment) == {"disparity_scale", "disparity_shift"}
    assert set(evaluate(one, given.truth, given, predicts="depth").alignment) == {
        "depth_scale",
        "depth_shift",
    }
    assert evaluate(one, given.truth, given, predicts="depth", invariance="metric").metrics["rmse"] < 1e-5


@pytest.mark.parametrize("method", ["none", "median", "scale", "affine-depth"])
def test_an_affine_disparity_has_no_depth_before_its_shift_is_known(method: str) -> None:
    one = protocol(alignment={"disparity": method, "depth": "affine-disparity"})
    with pytest.raises(
        InputError,
        match=rf"moon \(protocol plain\): the prediction is disparity up to scale and shift, .*'{method}'",
    ):
        evaluate(one, np.ones((10, 12)), sample())
    with pytest.raises(InputError, match="the prediction is depth up to scale and shift"):
        evaluate(one, np.ones((10, 12)), sample(), predicts="depth")
    evaluate(one, 1 / sample().truth, sample(), invariance="metric")


@pytest.mark.parametrize(
    ("raw", "changes", "message"),
    [
        (np.full((10, 12), np.nan), {}, "the prediction is not finite at 120 of 120"),
        (np.ones((1, 10, 12)), {}, r"a prediction must be \(H, W\), got \(1, 10, 12\)"),
        (np.ones((10, 12)), {"truth": np.ones((10, 12), np.float32)}, "the ground truth is constant"),
        (np.ones((10, 12)), {"mask": np.zeros((10, 12), bool)}, "the mask holds no pixel"),
        (
            np.ones((10, 12)),
            {"mask": np.ones((9, 12), bool)},
            r"the mask is \(9, 12\) and the ground truth \(10",
        ),
    ],
)
def test_an_error_names_image_and_protocol(raw: Any, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"moon \(protocol plain\): {message}"):
        evaluate(protocol(), raw, sample(**changes))


def test_boundaries_and_normals_are_measured_if_an_image_has_them() -> None:
    one = protocol(measures=["boundaries", "normals"])
    given = sample()
    found = evaluate(one, 1 / given.truth, given).metrics
    assert found["boundary_f1"] == pytest.approx(1.0)
    assert "normals_mean" not in found
    smooth = sample(truth=np.linspace(1, 1.3, 120, dtype=np.float32).reshape(10, 12))
    assert "boundary_f1" not in evaluate(one, 1 / smooth.truth, smooth).metrics
    normals = np.zeros((10, 12, 3), np.float32)
    with_normals = replace(smooth, normals=normals, camera=Camera())
    assert "normals_mean" not in evaluate(one, 1 / smooth.truth, with_normals).metrics
    normals[..., 2] = 1.0
    assert evaluate(one, 1 / smooth.truth, with_normals).metrics["normals_mean"] > 1
    # At another resolution the true normals are those of the nearest pixels.
    small = protocol(measures=["normals"], resolution="prediction")
    assert evaluate(small, 1 / smooth.truth[::2, ::2], with_normals).metrics["normals_mean"] > 1


# --- over a data set ------------------------------------------------------------------------------


def test_images_are_averaged_by_image_or_by_pixel() -> None:
    mask = np.zeros((10, 12), bool)
    mask[:3] = True
    samples = [sample(seed=1), sample(seed=2, mask=mask)]
    raws = [np.full((10, 12), 4.0), np.full((10, 12), 6.0)]
    results = {}
    for averaging in ("image", "pixel"):
        one = metric(averaging=averaging)
        rows = [
            evaluate(one, raw, given, predicts="depth", invariance="metric")
            for raw, given in zip(raws, samples, strict=True)
        ]
        results[averaging] = average(one, rows)
    known = [given.depth().numpy() > 0 for given in samples]
    pairs = [(raw[k], given.truth[k]) for raw, given, k in zip(raws, samples, known, strict=True)]
    squares = [(p - t) ** 2 for p, t in pairs]
    assert results["image"]["rmse"] == pytest.approx(np.mean([s.mean() ** 0.5 for s in squares]), rel=1e-6)
    assert results["pixel"]["rmse"] == pytest.approx(np.concatenate(squares).mean() ** 0.5, rel=1e-6)
    logs = np.concatenate([np.log(p / t) for p, t in pairs])
    assert results["pixel"]["silog"] == pytest.approx(100 * logs.std(), rel=1e-6)


def test_an_average_is_of_one_protocol() -> None:
    given, one = sample(), protocol(measures=["boundaries"])
    smooth = sample(truth=np.linspace(1, 1.3, 120, dtype=np.float32).reshape(10, 12))
    rows = [evaluate(one, 1 / s.truth, s) for s in (given, smooth)]
    # Only one of the two has boundaries.
    assert average(one, rows)["boundary_f1"] == pytest.approx(1.0)
    other = evaluate(protocol(name="other"), 1 / given.truth, given)
    with pytest.raises(
        ConfigError, match=r"rows of another protocol \(other\) cannot be averaged under plain"
    ):
        average(one, [*rows, other])
    with pytest.raises(InputError, match="no result under protocol plain"):
        average(one, [])


# --- the images ---------------------------------------------------------------------------------


def test_all_images_are_taken_and_pinned() -> None:
    one, names = select(protocol(), Listed(["b", "a"]))
    assert names == ["b", "a"]
    assert (one.split.count, one.split.sha256) == (2, names_hash(["a", "b"]))


def test_a_list_decides_order_and_extent() -> None:
    one, names = select(protocol(), Listed(["a", "b", "c"]), ["c", "a"])
    assert names == ["c", "a"]
    assert one == protocol().pinned(["a", "c"])
    with pytest.raises(InputError, match=r"protocol plain: 1 of 2 images are not there \(d\); complete"):
        select(protocol(), Listed(["a"]), ["a", "d"])
    with pytest.raises(InputError, match=r"4 of 5 images .*\(b, c, d, \.\.\.\); zip of b; http://there"):
        select(protocol(), Listed(["a"], "zip of b"), ["a", "b", "c", "d", "e"])


def test_a_split_is_checked_by_number_and_hash() -> None:
    counted = protocol(split={"name": "test", "count": 3})
    with pytest.raises(InputError, match=r"the split 'test' has 3 images, 2 are there: a.zip; http://there"):
        select(counted, Listed(["a", "b"], "a.zip"))
    with pytest.raises(InputError, match=r"the split 'test' has 3 images, 1 are listed$"):
        select(counted, Listed(["a", "b"], "a.zip"), ["a"])
    hashed = counted.pinned(["a", "b", "c"])
    assert select(hashed, Listed(["c", "b", "a"]))[0] == hashed
    with pytest.raises(InputError, match=r"these are not the images of the split 'test' .*use its own list"):
        select(hashed, Listed(["a", "b", "d"]))


def test_a_part_is_another_protocol() -> None:
    shipped = load_protocol("nyuv2-eigen")
    with pytest.raises(InputError, match=r"652 of 654 images are not there \(0002, 0014, 0015, \.\.\.\)"):
        select(shipped, Listed(["0001", "0009", "0010"]))
    one, names = select(shipped, Listed(["0001", "0009", "0010"]), partial=True)
    assert names == ["0001", "0009"]
    assert one.split.name == "part of test, 654 of 1449"
    assert one.sha256 != shipped.sha256
    assert select(one, Listed(["0001", "0009"]))[0] == one
    with pytest.raises(InputError, match="none of its 654 images is there"):
        select(shipped, Listed(["0003"]), partial=True)
    counted = protocol(split={"count": 3})
    part, _ = select(counted, Listed(["a"]), partial=True)
    assert part.split.name == "part of all"


def test_a_list_of_names_is_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("# mine\na/1\n\n b/2  # the second\n")
    assert read_names(path) == ["a/1", "b/2"]
    path.write_text("a\nb\na\n")
    with pytest.raises(InputError, match=r"names.txt: names an image twice: a"):
        read_names(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match=r"names.txt: holds no image name"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"not UTF-8|encoded as UTF-16"):
        read_names(path)
    with pytest.raises(InputError, match="no such file"):
        read_names(tmp_path / "nowhere.txt")
    path.write_bytes(b"\xef\xbb\xbfa/1\r\nb/2\r\n")
    assert read_names(path) == ["a/1", "b/2"]
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_names(endless)


def test_a_folder_with_an_impossible_name_is_one_line() -> None:
    for option in ({"root": "x" * 300}, {"root": "here", "photos": "y" * 300}):
        with pytest.raises(InputError, match="too long"):
            open_dataset(load_protocol("kitti-eigen"), "kitti", option)


def test_a_protocol_fixes_options_of_its_reader(tmp_path: Path) -> None:
    one = load_protocol("nyuv2-eigen")
    assert open_dataset(one, "nyuv2", {"root": tmp_path}).depth == "raw"
    assert open_dataset(one, "nyuv2", {"root": tmp_path, "depth": "raw"}).depth == "raw"
    with pytest.raises(ConfigError, match="protocol nyuv2-eigen fixes depth=raw, depth=filled is another"):
        open_dataset(one, "nyuv2", {"root": tmp_path, "depth": "filled"})
    with pytest.raises(ConfigError, match="protocol nyuv2-eigen belongs to the data set nyuv2, not to kitti"):
        open_dataset(one, "kitti", {"root": tmp_path})
    assert open_dataset(protocol(), "kitti", {"root": tmp_path}).camera == "image_02"
    with pytest.raises(ConfigError, match="did you mean 'kitti'"):
        open_dataset(protocol(), "kiti", {"root": tmp_path})


def test_data_sets_and_protocols_are_listed() -> None:
    listed = call("list", "datasets")
    assert listed.code == 0
    for name in REGISTRY.entries():
        assert name in listed.out
    listed = call("list", "protocols")
    for name in protocol_names():
        assert name in listed.out


def test_a_protocols_line_says_whether_it_clamps() -> None:
    found = "aligned by affine-disparity or affine-depth"
    assert load_protocol("eth3d").line == f"protocol eth3d: {found}, at the truth's size"
    assert load_protocol("eth3d-clamp").line == f"protocol eth3d-clamp: {found}, clamped, at the truth's size"
