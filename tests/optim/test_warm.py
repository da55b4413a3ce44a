"""A run that starts from the last frame of a clip: what it takes over, and how its answer is tied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.contracts import Surface
from redepth.guidance import Adjustment, Frame, Given, Guidance, Previous
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.ops.geometry import relative_depth
from redepth.optim.objectives import Temporal
from redepth.optim.plan import Plan
from redepth.optim.warm import WarmStart
from tests.support.helpers import make_refiner, photo, seeded

RAW = 2 + torch.rand(1, 1, 20, 30, generator=seeded())
EVERYWHERE = torch.ones_like(RAW, dtype=torch.bool)


def frame(raw: Tensor = RAW, *, metric: bool = False, unit: float = 1.0) -> Frame:
    return Frame(torch.zeros(1, 3, *raw.shape[-2:]), raw / unit, unit, "disparity", metric, ORTHOGRAPHIC)


def previous(answer: Tensor = RAW, **changes: Any) -> Previous:
    values: dict[str, Any] = {
        "answer": answer,
        "reference": answer,
        "count": torch.ones_like(answer),
        "valid": torch.ones_like(answer, dtype=torch.bool),
        "unit": 1.0,
        "least_share": 0.2,
    }
    return Previous(**(values | changes))


# --- the last frame's maps ------------------------------------------------------------------------


def test_scale_and_shift_are_those_of_the_clip() -> None:
    found = previous(2 * RAW + 1).prepared(frame()).adjustment
    assert found is not None
    assert found.scale == pytest.approx(2, rel=1e-4)
    assert found.shift == pytest.approx(1, rel=1e-3)


def test_the_fit_is_in_the_unit_of_the_clip() -> None:
    prepared = previous(2 * RAW + 1, unit=4.0).prepared(frame(unit=4.0))
    assert prepared.adjustment is not None
    assert prepared.adjustment.scale == pytest.approx(2, rel=1e-4)
    assert prepared.adjustment.shift == pytest.approx(0.25, rel=1e-3)
    torch.testing.assert_close(prepared.answer, (2 * RAW + 1) / 4)


def test_outliers_do_not_move_the_fit() -> None:
    answer = 2 * RAW + 1
    answer[..., :3] += 20
    found = previous(answer).prepared(frame()).adjustment
    assert found is not None
    assert found.scale == pytest.approx(2, rel=0.01)


def test_metric_outputs_are_left_as_they_are() -> None:
    assert previous(2 * RAW + 1).prepared(frame(metric=True)).adjustment is None


def test_too_few_common_pixels_fit_nothing() -> None:
    valid = torch.zeros_like(EVERYWHERE)
    valid[..., :3, :3] = True
    assert previous(2 * RAW, valid=valid).prepared(frame()).adjustment is None


def test_a_chain_of_fits_does_not_drift() -> None:
    """The scale of noisy predictions of one surface stays, where least squares would shrink it."""
    surface = 2 + torch.rand(1, 1, 40, 40, generator=seeded(1))
    noise = seeded(2)

    def prediction() -> Tensor:
        return surface + 0.15 * torch.randn(surface.shape, generator=noise)

    reference, count = prediction(), torch.ones_like(surface)
    for _ in range(60):
        new = prediction()
        prepared = previous(reference, count=count).prepared(frame(new))
        assert prepared.adjustment is not None
        assert prepared.share is not None
        fitted = prepared.adjustment.scale * new + prepared.adjustment.shift
        reference = reference + prepared.share * (fitted - reference)
        count = count + 1
    slope = ((reference - reference.mean()) * (surface - surface.mean())).mean() / surface.var(correction=0)
    assert 0.9 < float(slope) < 1.1


def test_the_own_share_falls_to_the_least_share() -> None:
    count = torch.zeros_like(RAW)
    count[..., 10:] = 3
    count[..., 20:] = 50
    valid = EVERYWHERE.clone()
    valid[..., :5, :] = False
    share = previous(count=count, valid=valid).prepared(frame()).share
    assert share is not None
    assert share[0, 0, 10].unique().tolist() == pytest.approx([0.2, 0.25, 1])
    assert bool((share[..., :5, :] == 1).all())


def test_an_adjusted_disparity_is_not_negative() -> None:
    assert Adjustment(1.0, -3.0)(RAW).min() == 0
    assert Adjustment(2.0, 1.0)(RAW).equal(2 * RAW + 1)


# --- the objective --------------------------------------------------------------------------------


def test_temporal_is_the_distance_in_standard_deviations() -> None:
    of = frame()
    guidance = Guidance.prepare([previous()], of)
    raw = torch.cat([RAW, RAW + 1])
    losses = Temporal()(Surface(raw, relative_depth(raw), of.image, "disparity", guidance))
    expected = 1 / float(RAW.std(correction=0))
    assert losses.tolist() == pytest.approx([0, expected], rel=1e-4)
    assert Temporal()(Surface(raw, raw, raw)).tolist() == [0.0, 0.0]


def test_temporal_pulls_only_where_the_last_frame_shows_the_same() -> None:
    valid = EVERYWHERE.clone()
    valid[..., :10] = False
    of = frame()
    guidance = Guidance.prepare([previous(valid=valid)], of)
    raw = (RAW + 0.5).requires_grad_()
    Temporal()(Surface(raw, relative_depth(raw), of.image, "disparity", guidance)).sum().backward()
    assert raw.grad is not None
    assert bool((raw.grad[..., :10] == 0).all())
    assert bool((raw.grad[..., 10:] > 0).all())


# --- the run --------------------------------------------------------------------------------------


def run(refiner: Any, data: tuple[Any, ...] = (), **options: Any) -> Any:
    return refiner.run(photo(), given=Given(data=data), **options)


def test_an_ordinary_run_forgets_and_is_unchanged_by_an_empty_start() -> None:
    refiner = make_refiner(steps=3, members=2)
    plain, kept = run(refiner), run(refiner, start=WarmStart())
    assert plain.learned is None
    assert plain.tie is None
    assert plain.members.equal(kept.members)
    assert kept.learned is not None
    assert all(len(rows) == 2 for rows in kept.learned.values())
    assert any(name.startswith("decoder.") for name in kept.learned)
    assert not any(name.startswith("embeddings") for name in kept.learned)


@pytest.mark.parametrize("batch", [2, 1])
def test_the_members_go_on_from_what_they_learned(batch: int) -> None:
    options: dict[str, Any] = {"members": 2, "members_per_batch": batch, "parameterization": "decoder"}
    refiner = make_refiner(steps=4, learning_rates={"decoder": 1e-2}, **options)
    first = run(refiner, start=WarmStart())
    reports = []
    again = run(
        refiner,
        start=WarmStart(first.learned),
        plan=Plan(2, 1, batch),
        on_step=lambda report: reports.append(report.raw.clone()),
    )
    begun = torch.cat(reports)
    torch.testing.assert_close(begun, first.members, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(begun[0], begun[1], atol=1e-4), "each member has its own"
    assert again.steps_done == [1, 1]


def test_the_rates_of_a_warm_start() -> None:
    refiner = make_refiner(steps=3, members=1)
    whole = run(refiner, start=WarmStart())
    none = run(refiner, start=WarmStart(rates=0.0))
    torch.testing.assert_close(none.members, none.initial.expand_as(none.members))
    assert float((whole.members - whole.initial).abs().max()) > 1e-3


def test_more_members_than_learned_start_as_on_a_photo() -> None:
    start = WarmStart({"offset": torch.ones(1, 1, 1, 1)})
    assert start.of(range(1)) is not None
    assert start.of(range(2)) is None


def test_the_answer_joins_the_last_one() -> None:
    refiner = make_refiner(steps=2, members=2, blend="detail")
    first = run(refiner, start=WarmStart())
    last = first.refined + 0.5
    valid = torch.ones_like(last, dtype=torch.bool)
    valid[..., :20] = False
    data = previous(
        last, reference=first.initial, count=torch.full_like(last, 3), valid=valid, unit=first.unit
    )
    tied = run(refiner, (data,), start=WarmStart(first.learned))
    assert tied.tie is not None
    own = tied._blended(tied.initial, tied.members.mean(dim=0, keepdim=True))
    torch.testing.assert_close(tied.refined[..., :20], own[..., :20])
    torch.testing.assert_close(tied.refined[..., 20:], (0.75 * last + 0.25 * own)[..., 20:])
    assert tied.tie.scale == pytest.approx(1, abs=1e-3)
    assert bool((tied.refined_depth > 0).all())


def test_all_maps_are_in_the_scale_of_the_clip() -> None:
    rates = {"embeddings": 1e-9, "decoder": 1e-9}
    refiner = make_refiner(steps=2, members=2, learning_rates=rates)
    first = run(refiner, start=WarmStart())
    data = previous(2 * first.refined + 1, reference=2 * first.initial + 1, unit=first.unit)
    tied = run(refiner, (data,))
    torch.testing.assert_close(tied.initial, 2 * first.initial + 1, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tied.members, 2 * first.members + 1, rtol=1e-3, atol=1e-3)
    assert tied.tie is not None
    assert tied.tie.scale == pytest.approx(2, rel=1e-3)
    assert tied.tie.shift == pytest.approx(1, rel=1e-2)
