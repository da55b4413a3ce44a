"""Published numbers: the file that ships, which of them apply to a run, and what is said of the distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redepth import bench
from redepth.bench import against
from redepth.bench.anchors import FILE, Anchors, load_anchors, published
from redepth.cli import bench as command
from redepth.cli.options import resolved_model, resolved_preset
from redepth.config import Preset
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.errors import ConfigError
from redepth.protocols import EvaluationProtocol, ImageMetrics, load_protocol, read_names
from redepth.protocols.loading import PROTOCOLS
from tests.support.command import call, one_line

AUTHORS = ("depth_model.resize_rule=lower_bound",)
NAMES = read_names(PROTOCOLS / "splits" / "kitti-eigen.txt")
SMALL = "depth-anything-v2-small"


def make_run(
    preset: Preset | None = None, images: list[str] = NAMES, protocols: tuple[str, ...] = ("kitti-garg",)
) -> bench.Run:
    preset = preset or resolved_model(SMALL, AUTHORS)
    pinned = [load_protocol(name).pinned(images) for name in protocols]
    return bench.Run(
        dataset="kitti",
        options={},
        images=images,
        protocols=pinned,
        presets={"mine": preset},
        initial_only=True,
    )


def results(run: bench.Run, abs_rel: float, images: list[str] = NAMES) -> list[bench.Result]:
    return [
        bench.Result(image=image, preset="mine", initial=side(protocol, image, abs_rel))
        for protocol in run.protocols
        for image in images
    ]


def side(protocol: EvaluationProtocol, image: str, abs_rel: float) -> dict[str, Any]:
    return ImageMetrics(
        image=image,
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        metrics={"silog": 9.0, "abs_rel": abs_rel},
        means={},
        pixels=1,
        clipped=0.0,
        alignment={},
        height=1,
        width=1,
        unit="m",
    ).record()


def test_the_file_that_ships_is_about_models_and_protocols_that_ship() -> None:
    anchors = published()
    models = DEPTH_MODELS.entries()
    for anchor in anchors.anchors:
        assert anchor.model in models
        protocol = load_protocol(anchor.protocol)
        assert protocol.sha256 == anchors.protocols[anchor.protocol], (
            f"{anchor.protocol} changed: check its anchors, then enter the new hash"
        )
        assert protocol.dataset is not None
        assert protocol.split.count is not None, "without a number of images a part cannot be told from all"
        assert against.model_of(resolved_model(anchor.model, ()), anchors) == anchor.model
    for run in anchors.runs:
        for model in run.models:
            assert {*run.options, *run.free} <= set(resolved_model(model, ()).depth_model.options)


@pytest.mark.parametrize(
    ("model", "protocol", "kind", "value"),
    [
        (SMALL, "kitti-garg", "published", 0.078),
        (SMALL, "kitti-garg", "reproduced", 0.0770),
        ("depth-anything-v2-base", "kitti-garg", "published", 0.078),
        ("depth-anything-v2-base", "kitti-garg", "reproduced", 0.0756),
        ("depth-anything-v2-large", "kitti-garg", "published", 0.074),
        ("depth-anything-v2-large", "kitti-garg", "reproduced", 0.0710),
        (SMALL, "nyuv2-eigen", "published", 0.053),
        (SMALL, "nyuv2-eigen", "reproduced", 0.0510),
        ("depth-anything-v2-base", "nyuv2-eigen", "published", 0.049),
        ("depth-anything-v2-base", "nyuv2-eigen", "reproduced", 0.0456),
        ("depth-anything-v2-large", "nyuv2-eigen", "published", 0.045),
        ("depth-anything-v2-large", "nyuv2-eigen", "reproduced", 0.0428),
    ],
)
def test_the_safe_anchors(model: str, protocol: str, kind: str, value: float) -> None:
    anchors = published()
    (found,) = (
        anchor
        for anchor in anchors.anchors
        if (anchor.model, anchor.protocol, anchors.source(anchor).kind) == (model, protocol, kind)
    )
    assert (found.metric, found.value) == ("abs_rel", value)
    assert found.tolerance is not None


def test_a_measurement_that_agrees_with_the_reproduction_agrees_with_the_paper() -> None:
    """The tolerances fit together: nobody can be told to have failed by repeating the reproduction."""
    anchors = published()
    judged = [anchor for anchor in anchors.anchors if anchor.tolerance is not None]
    for reproduced in (a for a in judged if anchors.source(a).kind == "reproduced"):
        for paper in judged:
            if (paper.model, paper.protocol) == (reproduced.model, reproduced.protocol):
                assert abs(reproduced.value / paper.value - 1) <= (paper.tolerance or 0)


def test_a_whole_run_is_held_against_its_anchors() -> None:
    run = make_run()
    applied, reasons = against.applicable(run, published())
    assert reasons == []
    assert [one.anchor.value for one in applied] == [0.078, 0.0770]
    held, reasons = against.hold(run, results(run, 0.0808), applied)
    assert reasons == []
    assert [one.distance for one in held] == pytest.approx([0.0808 / 0.078 - 1, 0.0808 / 0.0770 - 1])
    assert [one.agrees for one in held] == [True, True]
    held, _ = against.hold(run, results(run, 0.0812), applied)
    assert [one.agrees for one in held] == [True, False], "beyond 5 % of the reproduction"
    assert [one.reproduced for one in held] == [True, True], "one verdict for one measurement"
    held, _ = against.hold(run, results(run, 0.0700), applied)
    assert [one.reproduced for one in held] == [False, False], "a better number is no reproduction either"
    missing, reasons = against.hold(run, results(run, 0.077, NAMES[1:]), applied)
    assert missing == []
    assert reasons == ["mine, kitti-garg: 651 of 652 images are measured, which is a part of the split"]


@pytest.mark.parametrize("protocol", ["kitti-garg", "nyuv2-eigen"])
def test_a_run_with_the_number_of_any_source_is_reproduced(protocol: str) -> None:
    """Neither the paper's number nor that of who reproduced it is told to be wrong; far ones are."""
    anchors = published()
    images = read_names(PROTOCOLS / "splits" / str(load_protocol(protocol).split.file))
    judged = [a for a in anchors.anchors if a.protocol == protocol and a.tolerance is not None]
    assert len(judged) == 9
    for anchor in judged:
        run = make_run(resolved_model(anchor.model, AUTHORS), images, (protocol,))
        run = run.model_copy(update={"dataset": load_protocol(protocol).dataset})
        applied, reasons = against.applicable(run, anchors)
        assert reasons == []
        for factor, expected in ((1, True), (0.8, False), (1.2, False)):
            held, _ = against.hold(run, results(run, anchor.value * factor, images), applied)
            assert {one.reproduced for one in held} == {expected}, (anchor, factor)
            assert list(against.verdicts(held).values()) == [expected]


@pytest.mark.parametrize("option", ["revision=abc", "antialias=true", "longer_side=700"])
def test_a_number_applies_only_with_the_options_that_it_was_measured_with(option: str) -> None:
    model = resolved_model(SMALL, (*AUTHORS, f"depth_model.{option}"))
    assert f"depth_model.{option.partition('=')[0]} is" in only_reason(make_run(model))


@pytest.mark.parametrize("option", ["scale=2", "margin=0.2"])
def test_options_that_change_no_aligned_number_are_free(option: str) -> None:
    model = resolved_model(SMALL, (*AUTHORS, f"depth_model.{option}"))
    assert against.applicable(make_run(model), published())[1] == []


def test_a_number_without_tolerance_is_shown_without_a_verdict() -> None:
    run = make_run(resolved_model("depth-anything-v2-large", AUTHORS), protocols=("kitti-eigen-garg-clamp",))
    applied, _ = against.applicable(run, published())
    held, _ = against.hold(run, results(run, 0.5), applied)
    assert [one.reproduced for one in held] == [None, None]


def only_reason(run: bench.Run) -> str:
    applied, (reason,) = against.applicable(run, published())
    assert applied == []
    return reason


def test_why_no_anchor_applies() -> None:
    assert "no published number is about its depth model (depth-anything with embedded:relief-depth)" in (
        only_reason(make_run(resolved_preset("embedded-relief", [])))
    )
    # The paper's preset has the paper's smaller input.
    reason = only_reason(make_run(resolved_preset("re-depth-anything", [])))
    assert f"numbers of {SMALL} are of other options" in reason
    assert "depth_model.resize_rule is upper_bound here and minimal or lower_bound there" in reason
    reason = only_reason(make_run(images=NAMES[:50]))
    assert "50 of the split's 652 images: a part cannot be held against the number of all" in reason
    reason = only_reason(make_run(protocols=("redepth-paper",)))
    assert (
        "redepth-paper: no published number of depth-anything-v2-small; there is under kitti-garg" in reason
    )
    other = [*NAMES[1:], "2011_09_26_drive_0002_sync/0000000070"]
    assert "not" in only_reason(make_run(images=other))
    changed = make_run()
    changed.protocols[0] = changed.protocols[0].model_copy(update={"silog_lambda": 0.5})
    assert "the protocol is not the one that ships under this name" in only_reason(changed)


def test_the_same_checkpoint_under_another_name_is_the_same_model() -> None:
    paper = resolved_preset("re-depth-anything", list(AUTHORS))
    applied, reasons = against.applicable(make_run(paper), published())
    assert (len(applied), reasons) == (2, [])


def changed(**changes: Any) -> dict[str, Any]:
    return published().model_dump() | changes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(anchors=[]), "anchors: list should have at least 1 item"),
        (changed(sources={}), "no source is named 'dav2'"),
        (changed(protocols={}), "protocol 'kitti-garg' has no hash"),
        (changed(extra=1), "unknown key 'extra'"),
        (changed(anchors=[published().anchors[0].model_dump()] * 2), "stands there twice"),
        (
            changed(anchors=[published().anchors[0].model_dump() | {"tolerance": None}]),
            "without a tolerance it must say under differs",
        ),
        (changed(anchors=[published().anchors[0].model_dump() | {"value": True}]), "must be a number"),
        (changed(anchors=[published().anchors[0].model_dump() | {"tolerance": 0}]), "tolerance"),
    ],
)
def test_wrong_anchors_are_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_anchors(data)
    assert words in str(error.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"cannot read .*anchors\.yaml"):
        load_anchors(path)
    assert load_anchors(FILE) == published()


# --- the command ----------------------------------------------------------------------------------


def tiny_anchors(value: float, tolerance: float | None, images: int) -> Anchors:
    """Anchors about the embedded model on the first images of a protocol that only the test has."""
    data = published().model_dump()
    data["anchors"] = [
        {
            "model": "depth-anything-v2-small",
            "protocol": "motorcycle",
            "metric": "abs_rel",
            "value": value,
            "source": "dav2",
            "tolerance": tolerance,
            "differs": "another lens",
        }
    ]
    data["protocols"] = {"motorcycle": load_protocol("motorcycle").sha256}
    free = list(resolved_model(SMALL, ()).depth_model.options)
    data["runs"] = [{"models": [SMALL], "options": {}, "free": free}]
    return load_anchors(data)


SETTINGS = ("--preset", "smoke", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def abs_rel(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The number that the embedded model has on the motorcycle."""
    pytest.importorskip("skimage")
    out = tmp_path_factory.mktemp("motorcycle")
    assert call("bench", "motorcycle", *SETTINGS, "--initial-only", "--out", out).code == 0
    (row,) = map(json.loads, (out / "rows.jsonl").read_text().splitlines())
    return float(row["initial"]["metrics"]["abs_rel"])


@pytest.mark.parametrize(
    ("factor", "tolerance", "code", "words"),
    [
        (1.04, 0.05, 0, "this installation has the published or reproduced numbers of all 1 measurements"),
        (
            1.2,
            0.05,
            command.EXIT_NOT_REPRODUCED,
            "this installation misses the published and the reproduced numbers of 1 of 1",
        ),
        (1.2, None, 0, "no number was checked"),
    ],
)
@pytest.mark.parametrize("refine", [False, True])
def test_the_verdict(
    factor: float,
    tolerance: float | None,
    code: int,
    words: str,
    refine: bool,
    abs_rel: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "redepth.bench.anchors.published", lambda: tiny_anchors(abs_rel * factor, tolerance, 1)
    )
    monkeypatch.setattr(against, "model_of", lambda *_: "depth-anything-v2-small")
    kind = ("-s", "optim.steps=1") if refine else ("--initial-only",)
    done = call("bench", "motorcycle", *SETTINGS, *kind, "--against", "published", "--out", tmp_path)
    assert done.code == code, done
    assert words in done.out + done.err
    (record,) = json.loads((tmp_path / command.AGAINST_FILE).read_text())
    assert record["measured"] == pytest.approx(abs_rel)
    assert record["distance"] == pytest.approx(1 / factor - 1)
    assert record["reproduced"] is (None if tolerance is None else code == 0)
    assert f"{100 * (1 / factor - 1):+.1f} %" in done.out
    if tolerance is None:
        assert "none: another lens" in done.out
    # A later call that holds nothing against anything leaves no verdict of an earlier one.
    assert call("bench", "motorcycle", *SETTINGS, *kind, "--out", tmp_path).code == 0
    assert not (tmp_path / command.AGAINST_FILE).exists()


def test_a_data_set_without_published_numbers_is_refused(tmp_path: Path) -> None:
    done = call("bench", "synthetic", *SETTINGS, "--against", "published", "--out", tmp_path / "out")
    one_line(done, "there are no published numbers for synthetic", "diode, eth3d, kitti, nyuv2, sintel")
    assert not (tmp_path / "out").exists()
