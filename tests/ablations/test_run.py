"""An ablation of small photos: its files, its tables, what it does again and what it keeps."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redepth import ablations, batch
from redepth.ablations import Ablation, averages, draw_sheets, headings, line, run_ablation, write_tables
from redepth.ablations import run as running
from redepth.ablations.records import Row, average
from redepth.errors import ConfigError, InputError
from redepth.ground_truth import GroundTruth
from redepth.metrics.diagnostics import THRESHOLDS
from redepth.pipeline import Pipeline
from redepth.runtime.executors import Resources

SMALL = ("optim.steps=1", "optim.members=1", "depth_model.longer_side=64")
VARY = ("renderer.name=lambert,ggx",)


def variants(*vary: str) -> list[ablations.Variant]:
    return ablations.variants_of("smoke", SMALL, ablations.parse_axes(vary or VARY))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photos of one name in two folders, of other shapes."""
    generator = np.random.default_rng(0)
    paths = []
    for folder, size in (("a", (64, 96)), ("b", (96, 64))):
        paths.append(tmp_path_factory.mktemp(folder) / "photo.png")
        noise = generator.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
        Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> tuple[Ablation, dict[Any, Row]]:
    """A finished ablation; the first photo has ground truth."""
    truth = GroundTruth(
        np.linspace(1, 2, 64 * 96, dtype=np.float32).reshape(64, 96), hashes={"the ground truth": "0"}
    )
    out = tmp_path_factory.mktemp("out")
    ablation = Ablation(variants(), photos, out, device="cpu", truths={photos[0]: truth})
    rows, failures = run_ablation(ablation, Resources())
    assert failures == {}
    return ablation, rows


@pytest.fixture
def copy(made: tuple[Ablation, Any], tmp_path: Path) -> Ablation:
    """The finished ablation in a folder that a test may change."""
    shutil.copytree(made[0].out, tmp_path / "out")
    return replace(made[0], out=tmp_path / "out")


@pytest.fixture
def refined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The renderers of the refinements, as they happen."""
    refine: Callable[..., Any] = Pipeline.refine
    names: list[str] = []

    def noting(self: Pipeline, *args: Any, **options: Any) -> Any:
        names.append(self.preset.renderer.name)
        return refine(self, *args, **options)

    monkeypatch.setattr(Pipeline, "refine", noting)
    return names


def test_there_is_a_result_of_refine_for_each_variant_and_photo(
    made: tuple[Ablation, dict[Any, Row]],
) -> None:
    ablation, rows = made
    labels = [str(path) for path in ablation.photos]
    assert list(rows) == [(variant.name, label) for variant in ablation.variants for label in labels]
    for (variant, _), row in rows.items():
        assert row.folder.parent == ablation.out / variant
        record = json.loads((row.folder / "run.json").read_text())
        assert record["preset"]["renderer"]["name"] == variant.removeprefix("renderer.name=")
        assert {"disparity.npy", "initial.npy", "normals.png", "comparison.png"} <= set(record["files"])
        initial, after = (np.load(row.folder / name) for name in ("initial.npy", "disparity.npy"))
        assert row.change == pytest.approx(np.abs(after - initial).mean() / np.ptp(initial), rel=1e-5)
        assert row.turn is not None
        assert 0 < row.turn < 90
        assert (row.members, row.steps) == (1, 1)
    assert [row.silog is not None for row in rows.values()] == [True, False, True, False]
    assert [row.folder.name for row in rows.values()] == ["photo", "photo-2"] * 2


def test_the_same_call_refines_nothing_again(copy: Ablation, refined: list[str]) -> None:
    rows, failures = run_ablation(copy, Resources())
    assert (len(rows), failures, refined) == (4, {}, [])


def test_only_what_changed_is_refined_again(copy: Ablation, refined: list[str]) -> None:
    changed = replace(copy, variants=variants("renderer.name=lambert,ggx,phong"))
    rows, _ = run_ablation(changed, Resources())
    assert len(rows) == 6
    assert refined == ["phong"] * 2
    refined.clear()
    (copy.out / "renderer.name=ggx" / "photo-2" / "normals.png").unlink()
    run_ablation(copy, Resources())
    assert refined == ["ggx"]
    refined.clear()
    run_ablation(replace(copy, seed=1), Resources())
    assert refined == ["lambert", "lambert", "ggx", "ggx"]


def test_what_is_done_is_judged_by_the_thresholds_of_now(copy: Ablation, refined: list[str]) -> None:
    for threshold, flagged in ((0, 4), (1, 0)):
        judged = tuple(f"diagnostics.thresholds.collapse_{part}={threshold}" for part in ("order", "range"))
        axes = ablations.parse_axes(VARY)
        chosen = ablations.variants_of("smoke", [*SMALL, *judged], axes)
        rows, _ = run_ablation(replace(copy, variants=chosen), Resources())
        assert sum("geometry_collapse" in row.flagged for row in rows.values()) == flagged
    assert refined == []


def test_a_result_whose_record_lacks_a_value_is_refined_again(copy: Ablation, refined: list[str]) -> None:
    path = copy.out / "renderer.name=ggx" / "photo" / "run.json"
    record = json.loads(path.read_text())
    del record["diagnostics"]["over_smoothing"]["value"]
    path.write_text(json.dumps(record))
    again: list[tuple[Any, str]] = []
    rows, failures = run_ablation(copy, Resources(), on_again=lambda *why: again.append(why))
    assert (len(rows), failures, refined) == (4, {}, ["ggx"])
    ((task, reason),) = again
    assert task == ("renderer.name=ggx", str(copy.photos[0]))
    assert "run.json does not hold what a table needs" in reason


def test_fresh_refines_all_again_and_decodes_and_captions_each_photo_once(
    copy: Ablation, monkeypatch: pytest.MonkeyPatch, refined: list[str]
) -> None:
    from redepth.batch import checking

    decoded: list[Path] = []
    captioned: list[int] = []
    decode, with_prompts = checking.decode, running.with_prompts

    def decode_once(path: Path, *rest: Any) -> Any:
        decoded.append(path)
        return decode(path, *rest)

    def with_prompts_once(photos: Any, settings: Any) -> Any:
        captioned.append(len(photos))
        return with_prompts(photos, settings)

    monkeypatch.setattr(checking, "decode", decode_once)
    monkeypatch.setattr(running, "with_prompts", with_prompts_once)
    run_ablation(copy, Resources(), fresh=True)
    assert len(refined) == 4
    assert decoded == copy.photos
    assert captioned == [2]


def test_a_bad_photo_fails_under_each_variant_and_the_others_run(copy: Ablation, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no photo")
    changed = replace(copy, photos=[*copy.photos, bad])
    rows, failures = run_ablation(changed, Resources())
    assert len(rows) == 4
    assert list(failures) == [(variant.name, "bad.png") for variant in copy.variants]
    assert all("bad.png" in error for error in failures.values())


def test_a_folder_in_the_way_fails_before_the_work(copy: Ablation, refined: list[str]) -> None:
    shutil.rmtree(copy.out / "renderer.name=ggx" / "photo")
    (copy.out / "renderer.name=ggx" / "photo").touch()
    _, failures = run_ablation(copy, Resources())
    assert list(failures) == [("renderer.name=ggx", str(copy.photos[0]))]
    assert refined == []


def test_an_interruption_keeps_what_is_finished(copy: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(copy.out)
    copy.out.mkdir()
    refine: Callable[..., Any] = Pipeline.refine
    asked: list[str] = []

    def interrupted(self: Pipeline, *args: Any, **options: Any) -> Any:
        asked.append(self.preset.renderer.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return refine(self, *args, **options)

    monkeypatch.setattr(Pipeline, "refine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_ablation(copy, Resources())
    assert asked == ["lambert", "lambert", "ggx"]
    rows, _ = run_ablation(copy, Resources())
    assert asked[3:] == ["ggx", "ggx"]
    assert len(rows) == 4


def test_a_result_that_ended_early_is_a_failure(copy: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = batch.Refined((1, 1), 1, 1, 0.0, None, 0.0, reason="the loss is not finite")
    monkeypatch.setattr(running, "make_worker", lambda *_: lambda _: ended)
    _, failures = run_ablation(copy, Resources(), fresh=True)
    assert len(failures) == 4
    assert all(error.startswith("the loss is not finite; the finished steps") for error in failures.values())


def test_a_file_that_cannot_be_written_is_a_failure_and_the_row_stays(
    copy: Ablation, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch.Refined((1, 1), 1, 1, 0.0, None, 0.0, warnings=("too dark",), unwritten=("a", "b"))
    monkeypatch.setattr(running, "make_worker", lambda *_: lambda _: whole)
    rows, failures = run_ablation(copy, Resources(), fresh=True)
    assert list(rows) == list(failures)
    assert set(failures.values()) == {"a; b"}
    assert {row.warnings for row in rows.values()} == {("too dark",)}
    write_tables(copy, "smoke", rows, failures, copy.out)
    record = json.loads((copy.out / "table.json").read_text())
    assert set(record["failed"].values()) == {"a; b"}
    assert not {"warnings", "unwritten"} & set(record["photos"][0])


def test_what_cannot_run_here_is_named_before_any_work(copy: Ablation, refined: list[str]) -> None:
    # The folder of a checkpoint that is not there.
    chosen = variants("prior.checkpoint=embedded:relief-relighting-prior,no/such")
    with pytest.raises(ConfigError, match=r"1 of 2 combinations cannot be used: .*no/such"):
        run_ablation(replace(copy, variants=chosen), Resources())
    assert refined == []


@pytest.mark.slow
def test_workers_give_the_same_rows(made: tuple[Ablation, dict[Any, Row]], tmp_path: Path) -> None:
    ablation, rows = made
    again, failures = run_ablation(replace(ablation, out=tmp_path), Resources(workers=2, threads=1))
    assert failures == {}
    same = {"folder": Path(), "seconds": 0.0}
    assert {k: v.model_copy(update=same) for k, v in again.items()} == {
        k: v.model_copy(update=same) for k, v in rows.items()
    }


# --- tables ---------------------------------------------------------------------------------------


def row(variant: str = "v", photo: str = "p", **values: Any) -> Row:
    known: dict[str, Any] = {
        "members": 1,
        "steps": 1,
        "change": 0.1,
        "turn": 2.0,
        "seconds": 3.0,
        "flagged": [],
    }
    return Row(variant=variant, photo=photo, folder=Path("x"), **{**known, **values})


def test_an_average_leaves_out_what_is_not_known() -> None:
    mean = average(
        [
            row(turn=None, flagged=["bas_relief"], silog=(4.0, 2.0)),
            row(turn=6.0, change=0.3, flagged=["bas_relief", "texture"], seconds=1.0),
        ]
    )
    assert (mean.photos, mean.turn, mean.seconds) == (2, 6.0, 2.0)
    assert mean.change == pytest.approx(0.2)
    assert mean.flagged == {"bas_relief": 2, "texture": 1}
    assert mean.silog == (4.0, 2.0)
    assert math.isnan(average([row(turn=None)]).turn)


def test_a_line_fits_its_headings(made: tuple[Ablation, dict[Any, Row]]) -> None:
    ablation, rows = made
    columns = headings(ablation, rows)
    assert columns == ["renderer.name", "photos", "change", "turn", "SI-log", "flagged", "seconds"]
    variant = ablation.variants[1]
    mean = average([row(flagged=["bas_relief"], silog=(4.0, 2.125)), row()])
    assert line(variant, mean, columns) == [
        "ggx",
        "2",
        "10.00 %",
        "2.0°",
        "4.00 -> 2.12",
        "bas relief (1)",
        "3.0",
    ]
    assert line(variant, None, columns) == ["ggx", "0", "-", "-", "-", "-", "-"]
    assert line(variant, average([row(turn=None)]), columns)[3:6] == ["-", "-", "none"]


def test_the_tables_hold_every_row(made: tuple[Ablation, dict[Any, Row]], tmp_path: Path) -> None:
    ablation, rows = made
    ablation = replace(ablation, out=ablation.out)
    write_tables(ablation, "smoke", rows, {("renderer.name=ggx", "a|b.png"): "no photo"}, ablation.out)
    with open(ablation.out / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["renderer.name"] for line in lines] == ["lambert", "lambert", "ggx", "ggx"]
    for written, made_row in zip(lines, rows.values(), strict=True):
        assert float(written["change_percent"]) == pytest.approx(100 * made_row.change)
        assert (ablation.out / written["folder"]).samefile(made_row.folder)
        assert (written["silog_refined"] == "") == (made_row.silog is None)
    record = json.loads((ablation.out / "table.json").read_text())
    assert [variant["values"] for variant in record["variants"]] == [
        {"renderer.name": "lambert"},
        {"renderer.name": "ggx"},
    ]
    assert record["variants"][0]["mean"]["photos"] == 2
    assert len(record["photos"]) == 4
    assert record["failed"] == {"renderer.name=ggx: a|b.png": "no photo"}
    page = (ablation.out / "table.md").read_text()
    grids = [text.splitlines() for text in page.split("\n\n") if text.startswith("|")]
    assert [len(grid) for grid in grids] == [2 + 2, 2 + 4]
    assert len({line.count("|") for grid in grids for line in grid}) == 1
    assert "- a|b.png (renderer.name=ggx): no photo" in page


def test_a_record_without_the_numbers_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"members_done": 1, "steps_done": []}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json does not hold"):
            Row.read(tmp_path, "v", "p", THRESHOLDS)


# --- the sheet ------------------------------------------------------------------------------------


def test_the_sheet_has_a_column_for_each_variant(
    made: tuple[Ablation, dict[Any, Row]], tmp_path: Path
) -> None:
    ablation, rows = made
    (tmp_path / "sheet-2.png").touch()
    (tmp_path / "mine.png").touch()
    assert draw_sheets(ablation, "smoke", rows, tmp_path) == [tmp_path / "sheet.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.png", "sheet.png"]
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    # The photo and two variants, 320 pixels each.
    assert 3 * 320 < pixels.shape[1] < 3 * 320 + 200
    # The normals are bluish: the surface faces the viewer. The photo's column has none of them.
    bluish = (pixels[..., 2] > 200) & (pixels[..., 0] < 180)
    columns = [slice(i * pixels.shape[1] // 3, (i + 1) * pixels.shape[1] // 3) for i in range(3)]
    shares = [bluish[:, column].mean() for column in columns]
    assert shares[1] > 0.15
    assert shares[2] > 0.15
    assert shares[0] < 0.05


def test_many_variants_and_photos_are_on_several_sheets(
    made: tuple[Ablation, dict[Any, Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redepth.ablations import sheet

    ablation, rows = made
    monkeypatch.setattr(sheet, "MOST_VARIANTS_SHOWN", 1)
    monkeypatch.setattr(sheet, "MOST_PHOTOS_SHOWN", 1)
    written = draw_sheets(ablation, "smoke", rows, tmp_path)
    assert [path.name for path in written] == [f"sheet-{n}.png" for n in range(1, 5)]
    assert all(path.is_file() for path in written)


def test_what_failed_is_grey(copy: Ablation, made: tuple[Ablation, dict[Any, Row]], tmp_path: Path) -> None:
    rows = {task: row for task, row in made[1].items() if task[0].endswith("lambert")}
    assert [mean.photos for mean in averages(copy, rows).values()] == [2]
    (path,) = draw_sheets(copy, "smoke", rows, tmp_path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    grey = (pixels == 160).all(axis=-1)
    assert grey[:, -400:].mean() > 0.4
    assert grey[:, :400].mean() < 0.01


@pytest.mark.parametrize(
    ("count", "most", "sizes"), [(6, 6, [6]), (7, 6, [4, 3]), (13, 6, [4, 5, 4]), (1, 6, [1])]
)
def test_sheets_have_nearly_one_size(count: int, most: int, sizes: list[int]) -> None:
    from redepth.ablations.sheet import _parts

    parts = _parts(list(range(count)), most)
    assert sorted(map(len, parts)) == sorted(sizes)
    assert [item for part in parts for item in part] == list(range(count))
