from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from redepth.config.hashing import preset_sha256
from redepth.experiments.planning import base_preset, plan
from redepth.experiments.plot import draw
from redepth.experiments.run import ArmResult
from redepth.experiments.study import SceneSet, Study
from redepth.experiments.summary import Cell, summarize, table

IMAGES = [f"image-{k}" for k in range(6)]


def study(name: str = "prior", **changes: Any) -> Study:
    return plan(name, "smoke", ["optim.steps=2"], images=1).model_copy(update=changes)


def row(arm: str, image: str, before: float, after: float, **changes: Any) -> ArmResult:
    values: dict[str, Any] = {
        "experiment": "prior",
        "arm": arm,
        "split": "relief",
        "strength": 1.0,
        "image": image,
        "seed": 0,
        "members": 1,
        "before": {"silog": before, "normals_mean": 20.0},
        "after": {"silog": after, "normals_mean": 18.0},
        "clipped": 0.0,
        "diagnostics": {"geometry_collapse": 0.2, "hallucinated_edges": None},
        "flagged": [],
        "seconds": 2.0,
        "memory_mib": None,
        "protocol": "synthetic",
        "protocol_sha256": "",
    }
    return ArmResult(**values | changes)


def rows() -> list[ArmResult]:
    """The trained arm takes 10 % of each image, the oracle 30 %; images differ by more than that."""
    found = []
    for arm, factor in (("trained", 0.9), ("oracle", 0.7)):
        found += [row(arm, image, 4.0 + k, factor * (4.0 + k)) for k, image in enumerate(IMAGES)]
    return found


def test_changes_and_paired_differences_have_their_intervals() -> None:
    trained, oracle = summarize(study(), rows())
    assert (trained.arm, trained.images, trained.wins) == ("trained", 6, 1.0)
    assert (trained.before, trained.after) == pytest.approx((6.5, 5.85))
    assert trained.change.change == pytest.approx(-10)
    assert (trained.change.low, trained.change.high) == pytest.approx((-10, -10))
    assert trained.against is None
    assert oracle.against is not None
    values = oracle.against.change, oracle.against.low, oracle.against.high
    assert values == pytest.approx((20, 20, 20)), "trained minus it: the oracle is lower by a fifth"
    assert (trained.normals_before, trained.normals_after) == (20, 18)
    assert trained.collapse == pytest.approx(0.2)
    assert trained.edges is None


def test_a_difference_is_over_the_images_that_both_have() -> None:
    partial = [r for r in rows() if r.arm == "trained" or r.image in IMAGES[:2]]
    _, oracle = summarize(study(), partial)
    assert oracle.images == 2
    assert oracle.against is not None
    assert oracle.against.change == pytest.approx(20)
    (alone,) = summarize(study(), [r for r in rows() if r.arm == "oracle"])
    assert alone.against is None


def test_draws_count_as_one_image_and_their_spread_is_that_of_the_mean() -> None:
    found = [
        row("N = 1", image, 10.0, 10.0 * factor, draw=draw)
        for image in IMAGES
        for draw, factor in enumerate((0.8, 0.9, 1.0))
    ]
    (cell,) = summarize(study("ensemble"), found)
    assert (cell.images, cell.draws) == (6, 3)
    assert cell.change.change == pytest.approx(-10)
    assert cell.spread == pytest.approx(10)


@pytest.mark.slow
def test_a_value_that_all_rows_share_is_in_the_title_and_others_are_in_a_column() -> None:
    title, head, lines = table(study(), summarize(study(), rows()))
    assert "on relief, images a set: 6" in title
    assert "scenes" not in head
    assert lines[1][head.index("trained minus it")] == "+20.0 % (+20.0 to +20.0)"
    assert lines[0][head.index("change, 95 %")] == "-10.0 % (-10.0 to -10.0)"
    both = [*rows(), *(r.model_copy(update={"split": "sky", "strength": None}) for r in rows())]
    title, head, lines = table(study(tuning=True), summarize(study(), both))
    assert [line[head.index("scenes")] for line in lines] == ["relief", "relief", "sky", "sky"]
    assert "tuning images" in title


def test_a_missing_measurement_is_a_dash() -> None:
    bare = row("trained", "a", 4.0, 3.0)
    bare = bare.model_copy(update={"before": {"silog": 4.0}, "after": {"silog": 3.0}})
    _, head, (line,) = table(study(), summarize(study(), [bare]))
    assert line[head.index("normals, deg")] == "-"
    assert line[head.index("change, 95 %")] == "-25.0 %", "one image has no interval"


def test_a_study_has_the_hash_of_its_preset() -> None:
    assert study().preset_sha256 == preset_sha256(base_preset("smoke", ["optim.steps=2"]))
    assert study().preset_sha256 != preset_sha256(base_preset("smoke", ["optim.steps=3"]))


def adapted_rows(planned: Study) -> list[ArmResult]:
    """Arms differ, and so do the scenes that they are measured on: by a tenth of the SI-log."""
    found = []
    for number, (name, run) in enumerate(planned.arms.items()):
        for scenes in planned.sets:
            on = "" if run.adapt is None else run.adapt.scenes
            factor = 1 - 0.01 * number if scenes.split != "in-domain" else 1 + 0.01 * number
            found += [
                row(run.label or name, image, 4.0 + k, factor * (4.0 + k), split=scenes.split)
                .model_copy(update={"strength": scenes.strength, "adapted_to": on})
                .model_copy(update={"adapt_seconds": 90.0 if on else None, "seconds": 0.012})
                for k, image in enumerate(IMAGES)
                if on in ("", scenes.label) or scenes.split == "in-domain"
            ]
    return found


def test_a_model_is_told_apart_by_what_it_is_adapted_to_and_has_its_change_in_domain_beside() -> None:
    planned = plan("adapt", "smoke", images=1, arms=["per photo", "distil"])
    cells = summarize(planned, adapted_rows(planned))
    assert [(c.arm, c.adapted_to, c.split) for c in cells] == [
        ("per photo", "", "relief"),
        ("per photo", "", "shapes"),
        ("per photo", "", "in-domain"),
        ("distil", "relief", "relief"),
        ("distil", "relief", "in-domain"),
        ("distil", "shapes", "shapes"),
        ("distil", "shapes", "in-domain"),
    ]
    shapes = next(c for c in cells if (c.arm, c.split) == ("distil", "shapes"))
    assert shapes.change.change == pytest.approx(-2)
    assert shapes.besides is not None
    assert shapes.besides.change == pytest.approx(2)
    assert shapes.against is not None
    assert shapes.against.change == pytest.approx(2), "per photo is at 0 %, this arm at -2 %"
    assert all((c.besides is None) == (c.split == "in-domain") for c in cells)
    _, head, lines = table(planned, cells)
    assert [line[head.index("scenes")] for line in lines] == ["relief", "shapes", "relief", "shapes"]
    assert lines[3][head.index("in-domain, 95 %")] == "+2.0 % (+2.0 to +2.0)"
    assert [line[head.index("adaptation, min")] for line in lines] == ["-", "-", "1.5", "1.5"]
    assert lines[0][head.index("s")] == "0.012"


def test_the_plot_of_adaptation_shows_each_arm_and_the_number_of_photos(tmp_path: Path) -> None:
    planned = plan("adapt", "smoke", images=1)
    cells = summarize(planned, adapted_rows(planned))
    own = [cell for cell in cells if cell.split != "in-domain"]
    over_photos = [c for c in own if planned.arms.get(f"{c.arm} on {c.scenes}", None)]
    over_photos = [c for c in over_photos if planned.arms[f"{c.arm} on {c.scenes}"].factor == "photos"]
    assert len(over_photos) == 2 * 3
    elsewhere = [cell for cell in own if cell.besides is not None]
    drawn = points(planned, cells, tmp_path / "plot.png")
    assert drawn == len(over_photos) + len(own) + len(elsewhere)


@pytest.mark.parametrize("name", ["prior", "shift", "ensemble", "cost"])
def test_every_kind_of_plot_shows_each_cell(name: str, tmp_path: Path) -> None:
    planned = study(name)
    arms = [f"N = {n}" for n in (1, 2, 5)] if name == "ensemble" else list(planned.arms)
    found = [
        row(arm, image, 4.0 + k, 3.9 + 0.9 * k, split=scenes.split, strength=scenes.strength, draw=draw)
        for scenes in planned.sets
        for arm in arms
        for k, image in enumerate(IMAGES)
        for draw in range(2 if arm != "N = 5" else 1)
    ]
    cells = summarize(planned, found)
    drawn = points(planned, cells, tmp_path / "plot.png")
    assert drawn >= len(cells)
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def points(planned: Study, cells: list[Cell], path: Path) -> int:
    """Draw, and count the markers that a figure has."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
        draw(planned, cells, path)
    lines = [line for axes in figures[0].axes for line in axes.lines if line.get_marker() in {"o", "D"}]
    return sum(len(line.get_xdata()) for line in lines)  # type: ignore[arg-type]


def test_an_undefined_change_is_not_drawn(tmp_path: Path) -> None:
    (cell,) = summarize(study(), [row("trained", image, 0.0, 1.0) for image in IMAGES])
    assert math.isnan(cell.change.change)
    draw(study(), [cell], tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
    assert SceneSet(split="sky", images=[]).label == "sky"
