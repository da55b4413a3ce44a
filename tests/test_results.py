"""What docs/results.md states is what is stored, and what is stored is what the commands say."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from redepth.experiments.run import IDENTITY
from redepth.experiments.study import EVALUATION_SEED, Study
from tools import results
from tools.results import PAGE, STORED, STUDIES


def test_the_tables_of_the_page_are_those_of_the_stored_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert results.with_tables(text) == text
    assert all(f"<!-- study: {name} -->" in text for name in STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_stored_whole_and_as_its_command_says(name: str) -> None:
    study = Study.model_validate_json((STORED / name / IDENTITY).read_text(encoding="utf-8"))
    asked = results.arguments(name)
    assert study.experiment == asked[0]
    assert not study.tuning
    assert {len(s.images) for s in study.sets} == {int(asked[asked.index("--images") + 1])}
    assert {s.options["seed"] for s in study.sets} == {EVALUATION_SEED}
    summary = json.loads((STORED / name / "summary.json").read_text(encoding="utf-8"))
    assert not summary["failed"]
    wanted = [value for option, value in pairwise(asked) if option == "--arm"]
    assert set(wanted) <= set(study.arms)
