"""Several protocols in one run: the numbers of separate runs, shared predictions, what cannot go together."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redepth import bench
from redepth.bench.pictures import PICTURES, beside
from redepth.bench.records import RUN_FILE, RUN_KIND, Run
from redepth.cli import bench as command
from redepth.errors import ConfigError
from redepth.optim.refiner import Refiner
from redepth.pipeline import Pipeline
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.protocols import load_protocol
from redepth.runtime.resume import ROW_NAME, load_identity, row_path
from tests.support.browser import headless, opened
from tests.support.command import SMOKE, Finished, call, one_line

DRIVE = "2011_09_26_drive_0002_sync"
STEPS = ("-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=56")
CROP = {"height": 32, "width": 48, "vertical": "bottom"}
FRAMES = ("0000000005", "0000000006")


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames in the layout of KITTI, 40 x 60 pixels."""
    root = tmp_path_factory.mktemp("kitti")
    rows = np.linspace(0, 1, 40)[:, None]
    for seed, frame in enumerate(FRAMES):
        rng = np.random.default_rng(seed)
        photo = root / DRIVE[:10] / DRIVE / "image_02" / "data" / f"{frame}.png"
        truth = root / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02" / f"{frame}.png"
        for path in (photo, truth):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(photo)
        depth = 4 + 60 * (1 - rows) ** 2 + rng.random((40, 60))
        Image.fromarray((256 * depth).astype(np.uint16)).save(truth)
    return root


@pytest.fixture(scope="module")
def protocols(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Protocols of KITTI without the split, by what they are for."""
    folder = tmp_path_factory.mktemp("protocols")
    record = load_protocol("kitti-garg").model_dump(mode="json") | {"split": {}}
    variants: dict[str, dict[str, Any]] = {
        "whole": {},
        "capped": {"range": {"near": 1e-3, "far": 30.0}},
        "cropped": {"crop": CROP},
        "other-camera": {"options": {"camera": "image_03"}},
        "one-image": {"split": {"count": 1}},
    }
    for name, changes in variants.items():
        (folder / f"{name}.yaml").write_text(json.dumps(record | changes | {"name": name}))
    return {name: str(folder / f"{name}.yaml") for name in variants}


def measure(kitti: Path, out: Path, *arguments: Any) -> Finished:
    return call("bench", "kitti", "--root", kitti, *SMOKE, *STEPS, "--threads", "1", "--out", out, *arguments)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def together(
    kitti: Path, protocols: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Finished, Path, Counter[tuple[int, int]]]:
    """Three protocols in one run, with the sizes of the photos that were refined."""
    out, seen = tmp_path_factory.mktemp("together"), Counter[tuple[int, int]]()
    refine = Pipeline.refine

    def watched(self: Pipeline, photo: Any, **options: Any) -> Any:
        seen[photo.size] += 1
        return refine(self, photo, **options)

    names = ",".join(protocols[name] for name in ("whole", "cropped"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pipeline, "refine", watched)
        done = measure(kitti, out, "--protocol", names, "--protocol", protocols["capped"], "--arrays")
    assert done.code == 0, done.err
    return done, out, seen


def test_each_photo_is_refined_once_for_each_crop(
    together: tuple[Finished, Path, Counter[tuple[int, int]]],
) -> None:
    done, out, seen = together
    assert seen == {(40, 60): len(FRAMES), (32, 48): len(FRAMES)}
    assert "each photo is predicted 2 times" in done.out
    assert "whole for whole, capped; cropped to 48 x 32 (bottom, centre) for cropped" in done.out
    run = load_identity(out / RUN_FILE, Run, RUN_KIND)
    assert [protocol.name for protocol in run.protocols] == ["whole", "cropped", "capped"]
    assert len({tuple(run.images)}) == 1
    order = [(row["initial"]["protocol"], row["image"]) for row in lines(out)]
    assert order == [(name, image) for name in ("whole", "cropped", "capped") for image in run.images]


@pytest.mark.parametrize("name", ["whole", "cropped", "capped"])
def test_the_numbers_are_those_of_a_run_of_its_own(
    name: str,
    together: tuple[Finished, Path, Counter[tuple[int, int]]],
    kitti: Path,
    protocols: dict[str, str],
    tmp_path: Path,
) -> None:
    _, out, _ = together
    assert measure(kitti, tmp_path, "--protocol", protocols[name]).code == 0
    assert [row for row in lines(out) if row["initial"]["protocol"] == name] == lines(tmp_path)
    ours, alone = (json.loads((folder / "summary.json").read_text()) for folder in (out, tmp_path))
    assert [row for row in ours["smoke"] if row["protocol"] == name] == alone["smoke"]
    # Rows of one protocol stand beside those of several.
    done = call("bench", "compare", tmp_path, out, "--json")
    (comparison,) = json.loads(done.out)["comparisons"]
    assert comparison["protocol"] == name
    assert all(metric["a"] == metric["b"] for metric in comparison["metrics"])


def test_the_protocols_stand_side_by_side(together: tuple[Finished, Path, Counter[tuple[int, int]]]) -> None:
    done, out, _ = together
    summary = json.loads((out / "summary.json").read_text())["smoke"]
    found = {(row["protocol"], row["metric"]): row for row in summary}
    head, *rows = done.out.split("kitti, smoke, all protocols\n")[1].splitlines()[:4]
    assert head.split() == ["protocol", "abs_rel", "a1", "rmse", "silog"]
    assert [row.split()[0] for row in rows] == ["whole", "cropped", "capped"]
    for row in rows:
        expected = found[row.split()[0], "abs_rel"]
        assert f"{expected['initial']:.4g} -> {expected['refined']:.4g} " in row
    page = (out / "report.html").read_text()
    for name in ("whole", "cropped", "capped"):
        assert f"<h3>Protocol {name}</h3>" in page
    # Photo, both depths and both errors of each crop; the third protocol shares its depths with the first.
    assert page.count("data:image/jpeg") == len(FRAMES) * (5 + 5 + 2)


def test_maps_of_every_protocol_are_kept(together: tuple[Finished, Path, Counter[tuple[int, int]]]) -> None:
    _, out, _ = together
    row = row_path(out, ("smoke", f"{DRIVE}/{FRAMES[0]}"))
    assert [beside(row, number, "npz").name.split("%2F")[-1] for number in (1, 2)] == [
        f"{FRAMES[0]}.2.npz",
        f"{FRAMES[0]}.3.npz",
    ]
    sizes = [np.load(beside(row, number, "npz"))["truth"].shape for number in range(3)]
    assert sizes == [(40, 60), (32, 48), (40, 60)]


def test_a_finished_run_measures_nothing_again_and_another_order_is_the_same_run(
    together: tuple[Finished, Path, Counter[tuple[int, int]]],
    kitti: Path,
    protocols: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(together[1], tmp_path / "out"))
    monkeypatch.setattr(Pipeline, "refine", None)
    names = ",".join(protocols[name] for name in ("capped", "whole", "cropped"))
    done = measure(kitti, out, "--protocol", names)
    assert done.code == 0, done.err
    assert sorted(map(json.dumps, lines(out))) == sorted(map(json.dumps, lines(together[1])))
    (out / "images" / "smoke").rename(out / "images" / "gone")
    one_line(measure(kitti, out, "--protocol", protocols["whole"]), "protocol capped is left out", "--fresh")


def test_a_protocol_can_join_a_run_of_one(
    kitti: Path, protocols: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert measure(kitti, tmp_path, "--protocol", protocols["whole"]).code == 0
    before = lines(tmp_path)
    # The record of a run from before there could be several protocols.
    record = json.loads((tmp_path / RUN_FILE).read_text())
    (record["protocol"],) = record.pop("protocols")
    del record["initial_only"]
    (tmp_path / RUN_FILE).write_text(json.dumps(record))
    assert measure(kitti, tmp_path, "--protocol", protocols["whole"]).progress == []
    done = measure(kitti, tmp_path, "--protocol", f"{protocols['whole']},{protocols['capped']}")
    assert done.code == 0
    assert [line.partition(": ")[2] for line in caplog.messages] == [
        "measured again: not measured by capped yet"
    ] * len(FRAMES)
    assert lines(tmp_path)[: len(before)] == before
    assert len(lines(tmp_path)) == 2 * len(before)


def test_protocols_that_cannot_go_together_are_refused(
    kitti: Path, protocols: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused(*names: str) -> Finished:
        done = measure(kitti, out, "--protocol", ",".join(protocols.get(name, name) for name in names))
        assert not out.exists()
        return done

    one_line(
        refused("whole", "other-camera"),
        "cannot be measured in one run",
        "camera=image_02 and camera=image_03",
    )
    one_line(refused("whole", "whole"), "2 protocols are named whole")
    one_line(refused("whole", "kitti-gargg"), "unknown protocol 'kitti-gargg'", "did you mean 'kitti-garg'")
    one_line(refused("whole", "nyuv2-eigen"), "protocol nyuv2-eigen belongs to the data set nyuv2")
    one_line(refused("whole", ""), "a name is missing")
    one_line(refused("whole", "one-image"), "has 1 images, 2 are there")


def test_what_one_protocol_fixes_of_the_reader_is_in_the_hash_of_all() -> None:
    paper, raw, filled = map(load_protocol, ("redepth-paper", "nyuv2-eigen", "nyuv2-filled"))
    shared = bench.with_shared_options([paper, filled], "nyuv2")
    assert [protocol.options for protocol in shared] == [{"depth": "filled"}] * 2
    assert shared[0].sha256 != paper.sha256
    # What the reader does anyway changes nothing: a run of one protocol and of two have one hash.
    assert bench.with_shared_options([paper, raw], "nyuv2") == [paper, raw]


def test_a_long_protocol_is_one_line(kitti: Path, tmp_path: Path) -> None:
    done = measure(kitti, tmp_path / "out", "--protocol", "x" * 5000)
    one_line(done, "unknown protocol")


def test_a_file_with_a_comma_may_stand_in_a_list(
    tmp_path: Path, protocols: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine,2.yaml", "mine, 3.yaml"):
        shutil.copyfile(protocols["whole"], tmp_path / name)
    names = ["kitti-garg", "mine,2.yaml", "mine, 3.yaml", "redepth-paper"]
    assert command._names([", ".join(names)]) == names


def test_protocols_of_other_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        def check(self) -> list[Any]:
            return []

        def names(self) -> list[str]:
            return ["a", "b"]

    alignment = {"disparity": "affine-disparity", "depth": "affine-depth"}
    free, both = (load_protocol({"name": name, "alignment": alignment}) for name in ("free", "both"))
    both = both.pinned(["a", "b"])
    one = load_protocol({"name": "one", "alignment": alignment}).pinned(["a"])
    pinned, names = bench.select_together([free, both], Two())  # type: ignore[arg-type]
    assert names == ["a", "b"]
    assert [protocol.split.count for protocol in pinned] == [2, 2]
    pinned, names = bench.select_together([free, both], Two(), ["a"], partial=True)  # type: ignore[arg-type]
    assert names == ["a"]
    assert {protocol.split.sha256 for protocol in pinned} == {one.split.sha256}
    lists = [
        load_protocol({"name": name, "alignment": alignment, "split": {"file": file}})
        for name, file in (("first", "kitti-eigen.txt"), ("second", "nyuv2-eigen.txt"))
    ]
    present = Two()
    monkeypatch.setattr(Two, "names", lambda self: ["0001", "0002", "2011_09_26_drive_0002_sync/0000000069"])
    with pytest.raises(ConfigError, match=r"first and second measure other images \(1 and 2\)"):
        bench.select_together([free, *lists], present, partial=True)  # type: ignore[arg-type]


def test_the_files_of_further_protocols_fit_beside_the_longest_name() -> None:
    row = Path("x" * (ROW_NAME - len(".json")) + ".json")
    for number in (0, 1, 98):
        for name in PICTURES:
            assert len(beside(row, number, f"{name}.jpg").name) <= 255, (number, name)


# --- predictions alone ----------------------------------------------------------------------------


def test_initial_only_measures_what_a_refinement_starts_from(
    together: tuple[Finished, Path, Counter[tuple[int, int]]],
    kitti: Path,
    protocols: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a prior was loaded")

    monkeypatch.setattr(PixelDiffusion, "load", never)
    monkeypatch.setattr(Refiner, "__init__", never)
    names = ",".join(protocols[name] for name in ("whole", "cropped", "capped"))
    done = measure(kitti, tmp_path, "--protocol", names, "--initial-only", "--arrays")
    assert done.code == 0, done.err
    found, expected = lines(tmp_path), lines(together[1])
    assert [row["initial"] for row in found] == [row["initial"] for row in expected]
    assert all(row["refined"] is None for row in found)
    assert "refined" not in (tmp_path / "rows.csv").read_text()
    assert "refined" not in done.out
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg") == len(FRAMES) * (3 + 3 + 1)
    summary = json.loads((tmp_path / "summary.json").read_text())["smoke"]
    assert {row["refined"] for row in summary} == {None}
    # The answer of such a run is its prediction.
    compared = json.loads(call("bench", "compare", tmp_path, together[1], "--json").out)["comparisons"]
    assert [one["protocol"] for one in compared] == ["whole", "cropped", "capped"]
    (silog,) = (row for row in compared[0]["metrics"] if row["metric"] == "silog")
    (refined,) = (
        row
        for row in json.loads((together[1] / "summary.json").read_text())["smoke"]
        if (row["protocol"], row["metric"]) == ("whole", "silog")
    )
    assert (silog["a"], silog["b"]) == (refined["initial"], refined["refined"])
    # It is another run than a refinement.
    other = measure(kitti, tmp_path, "--protocol", names)
    one_line(other, "nothing is refined and photos are refined", "--fresh")


def test_what_a_run_of_predictions_does_not_have_is_refused(kitti: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one_line(measure(kitti, out, "--initial-only", "--limit", "1", "--views"), "--views shows refinements")
    one_line(measure(kitti, out, "--initial-only", "--limit", "1", "--prompt", "x"), "--prompt is for")
    one_line(measure(kitti, out, "--limit", "1", "--depth-model", "dpt"), "leave out --preset")
    assert not out.exists()


def test_a_depth_model_is_measured_without_a_preset(kitti: Path, tmp_path: Path) -> None:
    settings = ("--root", kitti, "--limit", "1", "--protocol", "redepth-paper", "--device", "cpu")
    model = ("--depth-model", "depth-anything")
    twice = call("bench", "kitti", *settings, *model, *model, "--out", tmp_path / "out")
    one_line(twice, "--depth-model depth-anything: given twice")
    missing = call("bench", "kitti", *settings, *model, "--out", tmp_path / "out")
    one_line(missing, "Depth-Anything-V2-Small-hf", "not in the cache")
    assert not (tmp_path / "out" / RUN_FILE).exists(), "a run that cannot start claims no folder"
    weights = ("-s", "depth_model.checkpoint=embedded:relief-depth", "-s", "depth_model.longer_side=56")
    done = call("bench", "kitti", *settings, *model, *weights, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (row,) = lines(tmp_path / "out")
    assert (row["preset"], row["refined"]) == ("depth-anything with embedded:relief-depth", None)
    other = call("bench", "kitti", *settings, *model, "-s", "depth_model.name=dpt", "--out", tmp_path / "two")
    one_line(other, "--depth-model depth-anything and depth_model.name=dpt are two models")


@pytest.mark.browser
def test_the_report_of_several_protocols_opens_its_tables(
    together: tuple[Finished, Path, Counter[tuple[int, int]]],
) -> None:
    with headless() as browser, opened(browser, together[1] / "report.html") as page:
        tables = page.locator("table.sortable")
        assert tables.count() == 3
        assert not tables.nth(1).is_visible()
        page.get_by_text("Protocol cropped: images").click()
        assert tables.nth(1).is_visible()
        assert page.locator("img:visible").count() == len(FRAMES) * (5 + 5 + 2)
        # All protocols and metrics side by side fit on a telephone.
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.locator(".beside .wide").evaluate("box => box.scrollWidth <= box.clientWidth")
