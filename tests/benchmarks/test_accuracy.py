"""docs/results.md states what the stored rows say, and the stored rows are of the commands it states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import compare_supervised, results, studies, tables
from benchmarks.accuracy.studies import EXPERIMENTS, STUDIES, TUNED, TUNING
from redepth.components import resolve
from redepth.config import load_preset
from redepth.config.hashing import preset_sha256
from redepth.experiments.planning import plan
from redepth.experiments.run import ArmResult, run_study
from redepth.experiments.study import EVALUATION_SEED, TUNING_SEED, Study
from redepth.experiments.summary import Cell
from redepth.metrics import Interval
from redepth.runtime.executors import Resources


def test_the_tables_of_the_page_are_those_of_the_stored_rows() -> None:
    text = results.PAGE.read_text(encoding="utf-8")
    assert tables.with_tables(text) == text
    assert all(f"<!-- study: {name} -->" in text for name in STUDIES)


def test_the_figures_of_the_page_are_stored() -> None:
    text = results.PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"\(pictures/experiments/(\S+)\)", text))
    assert shown == {path.name for path in results.PICTURES.iterdir()}
    assert {name.partition(".")[0] for name in shown} == set(results.FIGURES)


def test_every_stored_study_is_on_the_page() -> None:
    assert {path.name for path in EXPERIMENTS.iterdir()} == set(STUDIES)
    assert {path.name for path in TUNING.iterdir()} == set(TUNED)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_stored_whole_and_as_its_command_says(name: str) -> None:
    study = studies.stored_study(EXPERIMENTS / name)
    options = studies.arguments(name)
    assert study.experiment == options[0]
    assert not study.tuning
    assert [str(len(s.images)) for s in study.sets[:1]] == studies.values_of("--images", options)
    assert len({len(s.images) for s in study.sets}) == 1
    assert {s.options["seed"] for s in study.sets} == {EVALUATION_SEED}
    summary = json.loads((EXPERIMENTS / name / "summary.json").read_text(encoding="utf-8"))
    assert not summary["failed"]
    assert set(studies.values_of("--arm", options)) <= set(study.arms)
    assert_has_settings(study, options)


@pytest.mark.parametrize("name", TUNED)
def test_a_setting_was_tried_on_images_apart(name: str) -> None:
    study = studies.stored_study(TUNING / name)
    options = studies.tuning_arguments(name)
    assert study.tuning
    assert {s.options["seed"] for s in study.sets} == {TUNING_SEED}
    rows = [row for row in studies.stored_rows(TUNING / name) if row.split != study.grid.besides]
    assert [str(len(rows))] == studies.values_of("--images", options)
    assert_has_settings(study, options)


def assert_has_settings(study: Study, options: list[str]) -> None:
    """The overrides of a command change nothing in the preset that was measured with it."""
    overrides = studies.values_of("--set", options)
    assert resolve(load_preset(study.base.model_dump(), overrides)) == resolve(study.base)


# --- the preset that was measured -----------------------------------------------------------------


def changed(study: Study, **optim: object) -> Study:
    base = study.base.model_copy(update={"optim": study.base.optim.model_copy(update=optim)})
    return study.model_copy(update={"base": base})


def test_a_study_of_another_preset_is_marked_on_the_page() -> None:
    study, options = studies.stored_study(EXPERIMENTS / "relief"), studies.arguments("relief")
    today = preset_sha256(studies.preset_today(options))[: tables.HASH_DIGITS]
    former = changed(study, steps=study.base.optim.steps + 1)
    note = tables.preset_note(former, options)
    assert preset_sha256(former.base)[: tables.HASH_DIGITS] in note
    assert "measured with another preset" in note
    assert today in note
    current = study.model_copy(update={"base": studies.preset_today(options)})
    assert tables.preset_note(current, options) == f"Preset hash `{today}`."


def test_a_study_of_adapted_models_with_other_settings_of_their_adaptation_is_marked() -> None:
    study, options = plan("adapt", "embedded-relief", images=1), ["adapt"]
    today = preset_sha256(study.base)[: tables.HASH_DIGITS]
    assert tables.preset_note(study, options) == f"Preset hash `{today}`."
    adapt = study.base.adapt.model_copy(update={"steps": study.base.adapt.steps + 1})
    former = study.model_copy(update={"base": study.base.model_copy(update={"adapt": adapt})})
    note = f"Preset hash `{today}`: **measured with other settings of `adapt`** than today's."
    assert tables.preset_note(former, options) == note
    other = former.model_copy(update={"experiment": "prior"})
    assert tables.preset_note(other, ["prior"]) == f"Preset hash `{today}`."


def test_the_table_of_adapted_models_has_a_row_for_each_kind_of_photos() -> None:
    change = Interval(-7.0, -9.0, -5.0)
    cells = [
        adapted_cell("per photo", "", "relief", change=Interval(-14.0, -16.0, -12.0), seconds=6.4),
        adapted_cell("per photo", "", "in-domain"),
        adapted_cell("distil", "relief", "relief", change=change, besides=Interval(0.5, -1.0, 2.0)),
        adapted_cell("distil", "relief", "in-domain"),
        adapted_cell("score", "relief", "relief", change=Interval(-4.0, -6.0, -2.0)),
        adapted_cell("distil + per photo", "relief", "relief", change=Interval(-15.0, -17.0, -13.0)),
    ]
    *_, row = tables.adapted_table(cells).splitlines()
    assert [text.strip() for text in row.strip("|").split("|")] == [
        "relief",
        "-14.0 % (-16.0 to -12.0)",
        "-7.0 % (-9.0 to -5.0)",
        "50 %",
        "+0.5 % (-1.0 to +2.0)",
        "-4.0 % (-6.0 to -2.0)",
        "-15.0 % (-17.0 to -13.0)",
        "6.4, 0.012",
        "20 min",
    ]
    assert len(tables.adapted_table(cells).splitlines()) == 3


def adapted_cell(arm: str, adapted_to: str, split: str, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "strength": None,
        "images": 64,
        "before": 3.0,
        "after": 3.0,
        "change": Interval(0.0, 0.0, 0.0),
        "against": None,
        "wins": 0.5,
        "normals_before": None,
        "normals_after": None,
        "draws": 1,
        "spread": None,
        "collapse": None,
        "edges": None,
        "flagged": 0.0,
        "seconds": 0.012,
        "memory_mib": None,
        "adapt_seconds": 1200.0 if adapted_to else None,
    }
    return Cell(arm=arm, adapted_to=adapted_to, split=split, **values | changes)


def test_tuning_with_another_preset_is_marked_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "is_of_todays_preset", lambda study, options: "--size" in options)
    last = tables.tuning_table().splitlines()[-1]
    assert last.startswith("Measured with another preset: `embeddings`, ")
    assert "`192-whole`" not in last


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prior", "unshifted", "size-192-whole"])
def test_the_first_rows_of_a_study_come_out_again(name: str, tmp_path: Path) -> None:
    study = studies.stored_study(EXPERIMENTS / name)
    first = study.model_copy(
        update={"sets": [s.model_copy(update={"images": s.images[:1]}) for s in study.sets]}
    )
    rows, failures = run_study(first, tmp_path, Resources(threads=1), device="cpu")
    assert not failures
    assert len(rows) == len(study.arms) * len(study.sets)

    def key(row: ArmResult) -> tuple[str, str, str]:
        return row.arm, row.split, row.image

    stored = {key(row): row for row in studies.stored_rows(EXPERIMENTS / name)}
    for row in rows:
        expected = stored[key(row)]
        assert row.before["silog"] == pytest.approx(expected.before["silog"], rel=1e-4)
        # AdamW amplifies rounding where a gradient is near 0, so machines differ by more here.
        assert row.after["silog"] == pytest.approx(expected.after["silog"], rel=2e-2)


# --- the comparison with labels -------------------------------------------------------------------


def test_the_summary_of_the_labels_study_is_that_of_its_rows() -> None:
    record = json.loads(tables.LABELS.read_text(encoding="utf-8"))
    assert set(record["splits"]) == set(compare_supervised.SPLITS)
    for split in record["splits"].values():
        assert len({row["image"] for row in split["rows"]}) == record["images"]
        assert compare_supervised.summarise(split["rows"]) == split["summary"]


def test_labels_had_the_compute_of_the_prior() -> None:
    """As many minutes or, of the same network, as many pictures."""
    cells = [row.split("|")[2:4] for row in tables.compute_table().splitlines()[2:]]
    (pictures, minutes), *labelled = [(int(p.replace(" ", "")), int(m)) for p, m in cells]
    assert len(labelled) == 2
    assert all(m >= minutes or p >= pictures for p, m in labelled)


def test_the_clock_of_a_training_starts_anew_where_it_resumed() -> None:
    seconds = [60.0, 120.0, 30.0, 90.0, 30.0]
    log = [{"samples": 1600 * (5 + n), "seconds": s} for n, s in enumerate(seconds)]
    assert tables.training_effort(log) == (5 * 1600, 4.0)
