"""docs/generic_prior.md states what the stored rows say."""

from __future__ import annotations

import re

import pytest

from benchmarks.accuracy import score_direction
from benchmarks.accuracy.generic_prior import (
    GENERIC,
    PAGE,
    STUDIES,
    TUNED,
    study_arguments,
    tuning_arguments,
    with_tables,
)
from benchmarks.accuracy.studies import stored_rows, stored_study, values_of
from redepth.components import resolve
from redepth.config import load_preset
from redepth.experiments.study import EVALUATION_SEED, TUNING_SEED, Study

ALL = {name: study_arguments(name) for name in STUDIES}
ALL |= {f"tuning-{name}": tuning_arguments(name) for name in TUNED}


def test_the_tables_of_the_page_are_those_of_the_stored_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text) == text
    assert set(re.findall(r"<!-- study: (\S+) -->", text)) == set(ALL)
    assert {path.name for path in GENERIC.iterdir()} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_study_is_stored_whole_and_as_its_command_says(name: str) -> None:
    study, options = stored_study(GENERIC / name), ALL[name]
    assert study.experiment == options[0]
    assert study.tuning == name.startswith("tuning-")
    assert {s.options["seed"] for s in study.sets} == {TUNING_SEED if study.tuning else EVALUATION_SEED}
    assert set(values_of("--arm", options)) == set(study.arms)
    (images,) = values_of("--images", options)
    assert len(stored_rows(GENERIC / name)) == int(images) * len(study.arms)
    assert_has_settings(study, values_of("--set", options))


def assert_has_settings(study: Study, overrides: list[str]) -> None:
    """The overrides of a command change nothing in the preset that was measured with it."""
    assert resolve(load_preset(study.base.model_dump(), overrides)) == resolve(study.base)


def test_each_prior_is_measured_on_all_scenes_and_levels() -> None:
    rows = score_direction.stored(score_direction.RESULT)
    for name, what in score_direction.PRIORS.items():
        own = {
            (row["split"], row["level"], row["score"], row["guidance"])
            for row in rows
            if row["prior"] == name
        }
        expected = {
            (split, level, *rule)
            for split in score_direction.SPLITS
            for level in score_direction.LEVELS
            for rule in what.rules
        }
        assert own == expected, name
