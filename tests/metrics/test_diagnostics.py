"""The failure signatures: every constructed failure shows, every absence of one does not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.accuracy import calibration, calibration_runs, failures
from benchmarks.accuracy.failures import FAILURES, Failure, outdoors, relief
from redepth.components import resolve
from redepth.config import load_preset
from redepth.config.schema import Thresholds
from redepth.metrics.diagnostics import (
    ADVICE,
    MEANINGS,
    REMEDIES,
    THRESHOLDS,
    Measured,
    Signature,
    diagnose,
)
from redepth.ops.filters import gaussian_blur
from tests.support.helpers import seeded

HEALTHY = {
    **{f"relief {seed}": relief(seed) for seed in range(3)},
    "relief, one member": relief(0, members=1),
    **{f"outdoors {seed}": outdoors(seed, blue=seed == 0) for seed in range(2)},
    "outdoors, one member": outdoors(2, members=1),
}


def values(signatures: dict[str, Signature]) -> dict[str, float | None]:
    return {name: signature.value for name, signature in signatures.items()}


def flagged(signatures: dict[str, Signature]) -> set[str]:
    return {name for name, signature in signatures.items() if signature.flagged}


def constant(level: float = 2.0) -> torch.Tensor:
    return torch.full((1, 1, 30, 40), level)


def textured(height: int = 30, width: int = 40) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=seeded())


# --- absence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_refinement_shows_none(name: str) -> None:
    signatures = HEALTHY[name].diagnose()
    assert list(signatures) == list(MEANINGS) == list(ADVICE) == list(REMEDIES)
    assert flagged(signatures) == set()


@pytest.mark.parametrize("name", HEALTHY)
def test_no_change_is_zero(name: str) -> None:
    case = HEALTHY[name]
    measured = values(case._replace(members=case.initial.expand_as(case.members)).diagnose())
    for name in ("hallucinated_edges", "over_smoothing", "geometry_collapse"):
        assert measured[name] == pytest.approx(0, abs=1e-3)


def test_detail_that_explains_the_shading_is_no_hallucination() -> None:
    """Relief of the photo's own shading comes back; as much from elsewhere, each member's own, does not."""
    case = relief(1)
    detail = case.members.mean(dim=0, keepdim=True) - case.initial
    by_each = torch.linspace(-12, 24, 5).view(-1, 1, 1, 1)
    ours = case._replace(members=case.initial + 3 * detail.expand_as(case.members)).diagnose()
    other = case._replace(members=case.initial + by_each * detail.flip(-1).roll(40, -2)).diagnose()
    assert ours["hallucinated_edges"].value < 0.3 * THRESHOLDS["hallucinated_edges"]
    assert other["hallucinated_edges"].flagged
    copies = failures.stamped(case, 0.1).diagnose()
    assert ours["hallucinated_edges"].parts["copied"] < 0.1
    assert copies["hallucinated_edges"].parts["copied"] > 0.5


# --- each signature -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        pytest.param(name, failure, id=f"{name}, {failure.name}")
        for name, case in HEALTHY.items()
        for failure in FAILURES
        # A healthy run of the preset brings its sky as near as the smaller bump does here.
        if failure.shows != "sky_geometry" or (case.sky is not None and failure.amount > 0.2)
    ],
)
def test_each_constructed_failure_shows(name: str, failure: Failure) -> None:
    signature = failure.of(HEALTHY[name]).diagnose()[failure.shows]
    assert signature.flagged
    assert failure.key in (failure.shows, f"collapse_{signature.part}")


@pytest.mark.parametrize(("shows", "spoil", "amounts"), [
    ("hallucinated_edges", failures.stamped, (0.0, 0.05, 0.1, 0.2)),
    ("over_smoothing", failures.blurred, (0.005, 0.02, 0.04, 0.08)),
    ("geometry_collapse", failures.flattened, (0.7, 0.4, 0.2, 0.02)),
    ("sky_geometry", failures.bumps_in_the_sky, (0.0, 0.2, 0.4, 0.8)),
])  # fmt: skip
def test_the_value_grows_with_the_failure(shows: str, spoil: Any, amounts: tuple[float, ...]) -> None:
    series = [spoil(outdoors(), amount).diagnose()[shows].value for amount in amounts]
    assert series == sorted(series)
    assert series[-1] > 3 * series[0]


def test_edges_that_one_member_alone_has_show_and_those_of_all_do_not() -> None:
    case = relief(2)
    noise = gaussian_blur(torch.randn(case.initial.shape, generator=seeded()), 1.5)
    noise = 0.4 * case.relief * noise / noise.std()
    one = torch.cat([case.members[:1] + noise, case.members[1:]])
    by_one = case._replace(members=one).diagnose()["hallucinated_edges"]
    by_all = case._replace(members=case.members + noise / 5).diagnose()["hallucinated_edges"]
    assert by_one.flagged
    assert by_one.parts["new_on_texture"] == pytest.approx(by_all.parts["new_on_texture"], rel=1e-3)
    assert by_one.parts["agreement"] < 0.3 < 0.9 < by_all.parts["agreement"]
    assert by_all.value < 0.3 * by_one.value


def test_edges_without_texture_under_them_do_not_count() -> None:
    case = relief(0)
    plain = case._replace(photo=torch.full_like(case.photo, 0.5))
    bumpy = plain.members + 0.1 * case.relief * failures.stamped(case, 1.0).members
    assert plain._replace(members=bumpy).diagnose()["hallucinated_edges"].value < 1e-3


def test_one_member_has_no_agreement_and_says_so() -> None:
    signature = relief(0, members=1).diagnose()["hallucinated_edges"]
    assert signature.value is not None
    assert signature.parts["agreement"] is None
    assert "single member" in signature.note


def test_loss_in_the_dark_alone_shows() -> None:
    case = relief(1)
    dark = torch.arange(case.photo.shape[-1]) < 30
    case = case._replace(photo=torch.where(dark, 0.15 * case.photo, case.photo))
    signature = failures.blurred_in_the_dark(case, 0.05).diagnose()["over_smoothing"]
    assert signature.flagged
    assert signature.value == signature.parts["dark"] > 2 * signature.parts["edges"]
    assert not case.diagnose()["over_smoothing"].flagged
    assert relief(2).diagnose()["over_smoothing"].parts["dark"] is None


def test_each_part_of_the_collapse_is_what_it_says() -> None:
    case = relief(2)
    spoiled = {f.spoil.__name__: f.spoil(case, f.amount) for f in FAILURES if f.shows == "geometry_collapse"}
    parts = {name: case.diagnose()["geometry_collapse"].parts for name, case in spoiled.items()}
    assert parts["flattened"]["range"] == pytest.approx(0.2, rel=0.05)
    assert parts["flattened"]["rank_correlation"] > 0.8
    assert parts["two_planes"]["entropy"] < 0.5
    assert parts["two_planes"]["range"] > 1
    assert parts["mirrored"]["rank_correlation"] < 0.5
    assert parts["mirrored"]["range"] > 0.8


def test_the_sky_may_be_given_found_or_absent() -> None:
    case = failures.bumps_in_the_sky(outdoors(), 0.4)
    with_mask = case.diagnose()["sky_geometry"]
    detected = case._replace(sky=None).diagnose()["sky_geometry"]
    absent = case._replace(sky=torch.zeros_like(case.initial, dtype=torch.bool)).diagnose()["sky_geometry"]
    assert with_mask.flagged
    assert with_mask.value == pytest.approx(detected.value, rel=0.1)
    assert with_mask.parts["before"] < 0.1 < with_mask.value
    assert with_mask.parts["share"] == pytest.approx(float(case.sky.float().mean()))
    assert absent.value is None
    assert not absent.flagged
    assert "no sky" in absent.note


# --- what changes nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "shift"), [(30.0, 0.0), (0.1, 1.0)])
def test_the_scale_and_shift_of_all_raw_outputs_change_nothing(scale: float, shift: float) -> None:
    case = failures.stamped(outdoors(), 0.03)
    other = case._replace(initial=scale * case.initial + shift, members=scale * case.members + shift)
    assert values(other.diagnose()) == pytest.approx(values(case.diagnose()), rel=0.02, abs=1e-3)


def test_the_scale_and_shift_of_the_refined_output_matter_to_its_range_alone() -> None:
    case = failures.stamped(outdoors(), 0.03)
    before, after = case.diagnose(), case._replace(members=0.5 * case.members + 3).diagnose()
    for name in ("hallucinated_edges", "over_smoothing", "sky_geometry"):
        assert after[name].value == pytest.approx(before[name].value, rel=0.01, abs=1e-4)
    assert after["geometry_collapse"].parts["range"] == pytest.approx(
        before["geometry_collapse"].parts["range"] / 2, rel=1e-3
    )


@pytest.mark.parametrize("spoil", [lambda case, _: case, *(f.spoil for f in FAILURES)])
def test_depth_is_measured_as_disparity_is(spoil: Any) -> None:
    case = spoil(outdoors(), 0.1)
    turned = case._replace(initial=9 - case.initial, members=9 - case.members, predicts="depth")
    assert values(turned.diagnose()) == pytest.approx(values(case.diagnose()), rel=1e-3, abs=1e-4)


def test_the_network_size_hardly_matters() -> None:
    for failure in FAILURES:
        case = failure.spoil(outdoors(), failure.amount)
        size = (280, 392)
        up = [torch.nn.functional.interpolate(x, size, mode="bicubic") for x in (case.initial, case.members)]
        sky = torch.nn.functional.interpolate(case.sky.float(), size) > 0.5
        large = case._replace(initial=up[0], members=up[1], sky=sky).diagnose()[failure.shows]
        small = case.diagnose()[failure.shows]
        assert large.flagged == small.flagged
        assert large.value == pytest.approx(small.value, rel=0.35)


def test_it_is_deterministic_and_leaves_its_input_alone() -> None:
    case = relief(0)
    copies = [x.clone() for x in (case.photo, case.initial, case.members)]
    state = torch.get_rng_state()
    assert values(case.diagnose()) == values(case.diagnose())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, copies, (case.photo, case.initial, case.members)))


def test_the_photo_may_have_another_size() -> None:
    case = relief(0)
    photo = torch.nn.functional.interpolate(case.photo, (400, 400), mode="bilinear")
    assert values(case._replace(photo=photo).diagnose()) == pytest.approx(values(case.diagnose()), abs=0.01)


# --- maps that have nothing to measure ------------------------------------------------------------


def test_constant_maps_are_defined() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 30, 40) + 0.05 * torch.rand(1, 1, 30, 40, generator=seeded())
    both = diagnose(textured(), constant(), constant())
    assert values(both) == {
        "hallucinated_edges": 0.0,
        "over_smoothing": None,
        "geometry_collapse": None,
        "sky_geometry": None,
    }
    assert all(both[name].note for name in ("over_smoothing", "geometry_collapse", "sky_geometry"))
    lost = diagnose(textured(), ramp, constant())
    assert lost["geometry_collapse"].value == 1.0
    assert lost["over_smoothing"].value == pytest.approx(1.0)
    assert lost["hallucinated_edges"].value == 0.0
    gained = diagnose(textured(), constant(), ramp)
    assert gained["geometry_collapse"].value is None
    assert gained["hallucinated_edges"].value >= 0


def test_a_plain_photo_and_the_smallest_maps_are_defined() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 30, 40)
    plain = diagnose(torch.full((1, 3, 30, 40), 0.5), ramp, ramp)
    assert plain["hallucinated_edges"].value == 0.0
    assert plain["over_smoothing"].value is None
    tiny = torch.rand(2, 1, 2, 2, generator=seeded())
    signatures = diagnose(textured(2, 2), tiny[:1], tiny)
    assert signatures["geometry_collapse"].value is not None
    json.dumps({name: signature.record() for name, signature in signatures.items()}, allow_nan=False)


def test_what_is_not_finite_has_collapsed() -> None:
    broken = constant().clone()
    broken[..., 0] = float("nan")
    signatures = diagnose(textured(), constant(), broken)
    assert flagged(signatures) == {"geometry_collapse"}
    assert all("not finite" in signature.note for signature in signatures.values())


@pytest.mark.parametrize(("change", "message"), [
    ({"photo": torch.rand(3, 30, 40)}, r"photo must be \(1, 3"),
    ({"initial": torch.rand(2, 1, 30, 40)}, r"initial must be \(1, 1"),
    ({"members": torch.rand(2, 1, 30, 41)}, "members must be of size"),
    ({"refined": torch.rand(1, 1, 15, 20)}, "refined must be of size"),
    ({"sky": torch.ones(30, 40, dtype=torch.bool)}, "sky must be of size"),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    arguments = {"photo": textured(), "initial": constant(), "members": constant()}
    with pytest.raises(ValueError, match=message):
        diagnose(**{**arguments, **change})


# --- what is said about them ----------------------------------------------------------------------


def test_a_warning_is_one_short_line_with_value_threshold_and_remedy() -> None:
    case = failures.flattened(relief(0), 0.1)
    signature = case.diagnose()["geometry_collapse"]
    start = f"geometry collapse (range) {signature.value:.2g}, above {signature.threshold:.2g}: "
    assert signature.warning == f"{start}lower optim.learning_rates (not calibrated for this preset)"
    for name in MEANINGS:
        flagged = Signature(
            name, 0.8765, 0.4321, "entropy" * (name == "geometry_collapse"), calibrated_for="a"
        )
        assert len(f"warning: photo.png: {flagged.warning}") <= 100
        assert "not calibrated" not in flagged.warning


def test_the_record_is_plain_data() -> None:
    signature = failures.blurred(relief(0), 0.04).diagnose()["over_smoothing"]
    record = json.loads(json.dumps(signature.record(), allow_nan=False))
    assert record == {
        "value": signature.value,
        "threshold": THRESHOLDS["over_smoothing"],
        "part": "",
        "parts": {"edges": signature.parts["edges"], "dark": None},
        "note": "",
        "calibrated_for": "",
        "flagged": True,
        "meaning": MEANINGS["over_smoothing"],
        "advice": ADVICE["over_smoothing"],
    }


def test_the_thresholds_are_the_callers() -> None:
    case = relief(0)
    values = {key: value for measured in case.measure() for key, value in measured.values.items()}
    low = diagnose(case.photo, case.initial, case.members, thresholds=dict.fromkeys(THRESHOLDS, 0.0))
    assert flagged(low) == {name for name, found in low.items() if found.value}
    high = diagnose(case.photo, case.initial, case.members, thresholds=dict.fromkeys(THRESHOLDS, 10.0))
    assert flagged(high) == set()
    # The collapse shows the part that is largest relative to its own threshold.
    part = dict.fromkeys(THRESHOLDS, 10.0) | {"collapse_order": values["collapse_order"] / 2}
    shown = diagnose(case.photo, case.initial, case.members, thresholds=part, calibrated_for="mine")
    collapse = shown["geometry_collapse"]
    assert (collapse.part, collapse.value, collapse.calibrated_for) == (
        "order",
        values["collapse_order"],
        "mine",
    )
    assert collapse.flagged


def test_a_record_can_be_judged_by_other_thresholds() -> None:
    broken = constant().clone()
    broken[..., 0] = float("nan")
    others = dict.fromkeys(THRESHOLDS, 1e-6) | {"collapse_order": 1e-9, "sky_geometry": 10.0}
    cases = [(case.photo, case.initial, case.members) for case in (relief(0), outdoors(1), outdoors(2))]
    for maps in (*cases, (textured(), constant(), broken), (textured(), constant(), constant())):
        records = {name: json.loads(json.dumps(s.record())) for name, s in diagnose(*maps).items()}
        again = {name: Measured.of_record(name, r).signature(others) for name, r in records.items()}
        assert again == diagnose(*maps, thresholds=others)


def test_a_record_of_ten_members_at_full_size_takes_little_time() -> None:
    """Some 0.06 s on one core; the bound leaves room for a busy machine."""
    photo, maps = (
        torch.rand(1, 3, 518, 518, generator=seeded()),
        torch.rand(11, 1, 518, 518, generator=seeded()),
    )
    sky = maps[:1] > 0.5
    spent = []
    for _ in range(3):
        began = time.process_time()
        diagnose(photo, maps[:1], maps[1:], sky=sky)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.3


# --- the calibration ------------------------------------------------------------------------------


def recorded() -> dict[str, Any]:
    return json.loads(calibration.RESULT.read_text())


def test_the_page_shows_the_recorded_calibration() -> None:
    assert calibration.tables(recorded()) in calibration.PAGE.read_text()


def test_the_preset_has_the_thresholds_that_its_runs_give() -> None:
    record = recorded()
    assert record["preset"] == calibration_runs.PRESET == "embedded-relief"
    assert calibration.choose(record["runs"]) == record["thresholds"]
    settings = load_preset("embedded-relief").diagnostics
    assert settings.thresholds.model_dump() == record["thresholds"]
    assert settings.calibrated_for == "embedded-relief"


def test_other_presets_have_the_same_values_and_say_that_they_are_not_calibrated() -> None:
    assert Thresholds().model_dump() == THRESHOLDS
    for name in ("re-depth-anything", "re-depth-fast", "da3-mono-large"):
        assert load_preset(name).diagnostics.calibrated_for == ""
    embedded = resolve(load_preset("embedded-relief")).diagnostics
    smoke = resolve(load_preset("smoke")).diagnostics
    assert (smoke.thresholds, smoke.calibrated_for) == (embedded.thresholds, "")


@pytest.mark.parametrize(
    ("changes", "calibrated"),
    [
        ((), True),
        # Settings as they are already, ways of computing, limits, and what is written.
        (("optim.steps=40", "prior.reduction=mean"), True),
        (("optim.performance.tf32=false", "optim.members_per_batch=1"), True),
        (("optim.budget=60s", "optim.vram=8GB"), True),
        (("name=mine", "description=words", "output.write=map"), True),
        (("optim.learning_rates.decoder=1e-3",), False),
        (("optim.steps=3",), False),
        (("optim.objectives.sky.weight=1",), False),
        (("prior.guidance_scale=9",), False),
        (("renderer.name=ggx",), False),
        (("depth_model.longer_side=96",), False),
        (("depth_model.checkpoint=owner/other",), False),
        (("diagnostics.calibrated_for=no-such-preset",), False),
        (("diagnostics.calibrated_for=re-depth-anything",), False),
        (("diagnostics.calibrated_for=smoke",), False),
    ],
)
def test_thresholds_are_calibrated_for_the_settings_of_their_preset(
    changes: tuple[str, ...], calibrated: bool
) -> None:
    """Derived presets and overrides alike; the thresholds are inherited."""
    preset = resolve(load_preset("embedded-relief", changes))
    assert preset.diagnostics.calibrated_for == ("embedded-relief" if calibrated else "")
    assert resolve(load_preset(preset.model_dump())) == preset
    assert preset.diagnostics.thresholds == load_preset("embedded-relief").diagnostics.thresholds


def test_a_preset_of_ones_own_is_calibrated_by_the_path_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: smoke\ndiagnostics: {{calibrated_for: '{file}'}}\n")
    assert resolve(load_preset(file)).diagnostics.calibrated_for == str(file)
    assert resolve(load_preset(file, ["optim.steps=9"])).diagnostics.calibrated_for == ""
    derived = {"extends": str(file), "optim": {"members": 1}}
    assert resolve(load_preset(derived)).diagnostics.calibrated_for == ""


def test_few_healthy_runs_are_flagged_and_most_failures() -> None:
    """On the half that did not choose the thresholds."""
    record = recorded()
    alarms, healthy = calibration.false_alarms(record, "reporting")
    caught, failed = calibration.detections(record, "reporting")
    assert healthy > 30
    assert alarms <= 0.05 * healthy
    assert caught >= 0.9 * failed


def test_the_halves_share_no_image() -> None:
    halves = [
        {run.image for run in calibration_runs.planned() if run.half == half}
        for half in ("choosing", "reporting")
    ]
    assert not halves[0] & halves[1]
    assert len(halves[0]) > 50 < len(halves[1])


@pytest.mark.slow
def test_the_calibration_holds_here(tmp_path: Path) -> None:
    """Some of the recorded runs again, to the tolerance of another machine's arithmetic."""
    images = ("coins.png", "relief-70000")
    runs = [run for run in calibration_runs.planned() if run.image in images and not run.settings]
    for row in recorded()["runs"]:
        if row["image"] in images and not row["settings"]:
            (run,) = (run for run in runs if run.image == row["image"])
            found = calibration.row(run, calibration_runs.kept(tmp_path, run))
            assert found["values"] == pytest.approx(row["values"], rel=0.3, abs=0.03)
