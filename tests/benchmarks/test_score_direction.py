from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy import score_direction
from benchmarks.accuracy.score_direction import (
    MEASURES,
    PRIORS,
    Measured,
    Remembering,
    Scene,
    cosines,
    denoising_errors,
    measured,
    plot,
    ranking_summary,
    scenes_of,
    stored,
    summary,
)
from redepth.priors.scores import RULES
from tests.support.helpers import CPU

LEVEL = 700


@pytest.fixture(scope="module")
def scene() -> Scene:
    (found,) = scenes_of("relief", 1, 2)
    return found


def test_the_oracle_agrees_with_itself_and_not_with_its_opposite(scene: Scene) -> None:
    oracle = scene.pulled_back(-scene.direction)
    against = scene.pulled_back(scene.direction)
    assert cosines(oracle, oracle) == pytest.approx(dict.fromkeys(MEASURES, 1.0), abs=1e-4)
    assert cosines(against, oracle) == pytest.approx(dict.fromkeys(MEASURES, -1.0), abs=1e-4)


def test_a_step_against_the_oracle_gradient_lowers_the_distance_to_the_true_composites(scene: Scene) -> None:
    target = (scene.relit + scene.direction).detach()
    gradient = scene.pulled_back(-scene.direction)["depth"]
    rate = 1e-3 / gradient.abs().max()
    moved = scene.log_depth.detach() - rate * gradient
    renderer = score_direction.pipeline_of("relief").refiner.renderer
    lights = scene.lights.map(lambda values: values[:, None])
    relit = renderer(moved.exp(), scene.problem.linear, lights)[:, 0]
    assert (relit - target).square().sum() < (scene.relit - target).square().sum()


def test_the_score_of_a_prior_is_that_of_its_loss_and_is_remembered(scene: Scene) -> None:
    what = Measured({}, [("sds", 1.0), ("sds", 3.0)])
    prior = Remembering(guidance_base="uncond").load(CPU)
    calls: list[tuple[str, ...]] = []
    network = prior._run
    prior._run = lambda *inputs: (calls.append(tuple(inputs[0].shape)), network(*inputs))[1]  # type: ignore[method-assign]
    found = {scale: values for _, scale, values in measured(prior, what, scene, LEVEL, seed=1)}
    # Guidance 1 needs the conditional prediction, and 3 only the other one besides.
    assert [shape[0] for shape in calls] == [2, 2]
    assert found[3.0]["mean depth"] > 0.2
    assert found[3.0] != found[1.0]


def test_what_a_prior_is_told_makes_the_true_picture_less_surprising(scene: Scene) -> None:
    swapped = replace(scene, relit=scene.relit + scene.direction, direction=-scene.direction)
    ratios = []
    for options in ({}, {"condition_on": "nothing"}):
        prior, what = Remembering(**options).load(CPU), Measured(options, [])
        predicted, true = denoising_errors(prior, what, scene, LEVEL, seed=1)
        again = denoising_errors(prior, what, swapped, LEVEL, seed=1)
        assert again == pytest.approx((true, predicted), rel=1e-3)
        ratios.append(true / predicted)
    told, untold = ratios
    assert told < 0.8 * untold


def test_every_prior_names_known_rules() -> None:
    for what in PRIORS.values():
        assert {score for score, _ in what.rules} <= set(RULES)


def test_rows_are_kept_and_shown(tmp_path: Path) -> None:
    rows = [
        {
            "prior": prior,
            "split": "relief",
            "level": level,
            "score": "sds",
            "guidance": 3.0 if prior == "re-lighting" else 50.0,
            "cosines": {measure: [level / 1000, 0.1] for measure in MEASURES},
        }
        for prior in ("re-lighting", "captioned")
        for level in (100, 900)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert stored(file) == rows
    assert stored(tmp_path / "none.jsonl") == []
    assert "| re-lighting, sds, 3 | relief | +0.10 | +0.50 |" in summary(rows, "depth")
    ranks = [{"prior": "a", "split": "relief", "level": 100, "predicted": [2.0, 2.0], "true": [1.0, 2.0]}]
    assert ranking_summary(ranks)[-1] == "| a | relief | -25 % (1 of 2) |"
    plot(rows, tmp_path / "plot.svg", "depth")
    assert "</svg>" in (tmp_path / "plot.svg").read_text()
