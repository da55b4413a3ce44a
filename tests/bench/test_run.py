"""`redepth bench`: rows, resume after a kill, the same table from every executor, comparison, report."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from redepth import bench, io
from redepth.bench.records import RUN_FILE
from redepth.errors import ConfigError, InputError, RedepthError
from redepth.optim.loop import Interrupted
from redepth.optim.refiner import Refiner
from redepth.pipeline import Pipeline
from redepth.priors.prompts import Prompt
from redepth.protocols import load_protocol, open_dataset, select
from redepth.refinement import Refinement
from redepth.runtime.executors import Resources
from tests.support.browser import headless, opened
from tests.support.command import ENVIRONMENT, call

SMALL = ["optim.steps=2", "optim.members=1"]
FILES = ("rows.jsonl", "rows.csv", "summary.json")
ONE_THREAD = Resources(threads=1)


def make_run(images: int = 3, *overrides: str, **changes: Any) -> bench.Run:
    from redepth.components import resolve
    from redepth.config import load_preset

    protocol = load_protocol("synthetic")
    reader = open_dataset(protocol, "synthetic", {})
    pinned, names = select(protocol, reader, reader.names()[:images], partial=True)
    preset = resolve(load_preset("smoke", [*SMALL, *overrides]))
    settings: dict[str, Any] = {"dataset": "synthetic", "options": {}, "presets": {"smoke": preset}}
    return bench.Run(**(settings | {"images": names, "protocol": pinned} | changes))


def test_a_run_of_an_earlier_version_continues_under_current_names() -> None:
    run = make_run(1, "renderer.albedo=grey")
    record = run.model_dump(mode="json")
    renderer = record["presets"]["smoke"]["renderer"]
    former = {key: value for key, value in renderer.items() if not key.startswith("albedo")}
    record["presets"]["smoke"]["renderer"] = {**former, "relight": "shading-only"}
    stored = bench.Run.model_validate(record)
    assert stored == run
    assert stored != make_run(1, "renderer.albedo=photo")


def test_one_albedo_is_not_lit_on_every_image(tmp_path: Path) -> None:
    io.save_npy(tmp_path / "one.npy", np.full((96, 96, 3), 0.4, np.float32))
    for albedo, problem in ((tmp_path / "one.npy", "is one file"), (tmp_path, "must hold one albedo")):
        run = make_run(2, f"renderer.albedo={albedo}")
        with pytest.raises(RedepthError, match=problem):
            bench.run_benchmark(run, tmp_path / "out", ONE_THREAD)
    assert not (tmp_path / "out").exists()


def tables(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[bench.Run, Path]:
    folder = tmp_path_factory.mktemp("finished")
    run = make_run()
    results, failures = bench.run_benchmark(run, folder, ONE_THREAD)
    assert len(results) == 3
    assert failures == {}
    return run, folder


def test_rows_say_what_was_measured_and_how(finished: tuple[bench.Run, Path]) -> None:
    run, folder = finished
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == run.images
    for row in rows:
        for side in (row["initial"], row["refined"]):
            assert side["protocol"] == "synthetic"
            assert side["protocol_sha256"] == run.protocols[0].sha256
            assert side["metrics"]["silog"] > 0
        assert row["initial"]["metrics"] != row["refined"]["metrics"]
    with (folder / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert float(table[1]["silog_refined"]) == rows[1]["refined"]["metrics"]["silog"]
    summary = {s["metric"]: s for s in json.loads((folder / "summary.json").read_text())["smoke"]}
    mean = sum(r["initial"]["metrics"]["silog"] for r in rows) / 3
    assert summary["silog"]["initial"] == pytest.approx(mean)
    assert summary["silog"]["low"] <= summary["silog"]["change"] <= summary["silog"]["high"]
    wins = sum(r["refined"]["metrics"]["a1"] > r["initial"]["metrics"]["a1"] for r in rows) / 3
    assert summary["a1"]["wins"] == pytest.approx(wins), "a1 is better when higher"


def test_a_finished_run_does_nothing_again(finished: tuple[bench.Run, Path]) -> None:
    run, folder = finished
    before, times = tables(folder), [p.stat().st_mtime_ns for p in sorted(folder.glob("images/*/*.json"))]
    bench.run_benchmark(run, folder, ONE_THREAD)
    assert tables(folder) == before
    assert [p.stat().st_mtime_ns for p in sorted(folder.glob("images/*/*.json"))] == times


def test_a_damaged_or_missing_row_is_made_again(finished: tuple[bench.Run, Path], tmp_path: Path) -> None:
    run, folder = finished
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first, second, _ = sorted(copy.glob("images/*/*.json"))
    first.write_text('{"image": "bro')
    second.unlink()
    bench.run_benchmark(run, copy, ONE_THREAD)
    assert tables(copy) == tables(folder)


def test_another_run_in_the_same_folder_is_refused_with_the_difference(
    finished: tuple[bench.Run, Path], tmp_path: Path
) -> None:
    _, folder = finished
    for other, words in (
        (make_run(3, "optim.steps=3"), "preset smoke has other settings"),
        (make_run(3, seed=4), "seed 0 and 4"),
        (make_run(3, camera="dataset"), "camera 'preset' and 'dataset'"),
        (make_run(2), "number of images is 3 in the first and 2"),
    ):
        with pytest.raises(ConfigError, match=rf"holds another benchmark run.*{words}.*--fresh"):
            bench.run_benchmark(other, folder, ONE_THREAD)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    results, _ = bench.run_benchmark(make_run(2), copy, ONE_THREAD, fresh=True)
    assert len(results) == len(list(copy.glob("images/*/*.json"))) == 2


def test_the_camera_of_the_data_set_is_used_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = []
    refine = Pipeline.refine

    def watched(self: Pipeline, photo: Any, **options: Any) -> Refinement:
        result = refine(self, photo, **options)
        cameras.append((result.camera, result.camera_origin))
        return result

    monkeypatch.setattr(Pipeline, "refine", watched)
    settings = ["--preset", "smoke", "--device", "cpu", "--set", "optim.steps=1", "--out", tmp_path]
    assert call("bench", "motorcycle", *settings, "--camera", "dataset").code == 0
    ((camera, origin),) = cameras
    # The focal length of skimage's picture of 741 x 500 pixels.
    assert camera.intrinsics_in_pixels(500, 741)[:2] == pytest.approx((994.978, 994.978))
    assert origin == "data set"


COMMAND = ["bench", "synthetic", "--limit", "3", "--preset", "smoke", "--threads", "1"]
SETTINGS = [part for override in SMALL for part in ("--set", override)]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_table(
    finished: tuple[bench.Run, Path], tmp_path: Path
) -> None:
    _, folder = finished
    command = [sys.executable, "-m", "redepth", *COMMAND, *SETTINGS, "--out", str(tmp_path / "killed")]
    clock, kills = random.Random(0), 0
    for _ in range(4):
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Importing takes seconds, an image less than one: wait until the run has started, then a random time.
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 60:
            if (tmp_path / "killed" / "bench.json").exists() and clock.random() < 0.05:
                break
            time.sleep(0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert tables(tmp_path / "killed") == tables(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_every_executor_gives_the_same_table(
    kind: str, finished: tuple[bench.Run, Path], tmp_path: Path
) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
    run, folder = finished
    resources = Resources(workers=2, threads=1, ray="local" if kind == "ray" else None)
    _, failures = bench.run_benchmark(run, tmp_path, resources)
    assert failures == {}
    assert tables(tmp_path) == tables(folder)


def test_a_failed_image_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.data.datasets.synthetic import Synthetic

    run, load = make_run(), Synthetic.load

    def sometimes(self: Synthetic, name: str) -> Any:
        if name == run.images[1]:
            raise InputError(f"{name}: is damaged")
        return load(self, name)

    monkeypatch.setattr(Synthetic, "load", sometimes)
    results, failures = bench.run_benchmark(run, tmp_path, ONE_THREAD)
    assert [r.image for r in results] == [run.images[0], run.images[2]]
    assert failures == {("smoke", run.images[1]): f"{run.images[1]}: is damaged"}
    monkeypatch.undo()
    results, failures = bench.run_benchmark(run, tmp_path, ONE_THREAD)
    assert len(results) == 3


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), Interrupted("the loss is not finite")])
def test_a_partial_refinement_is_no_row(
    problem: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Refiner.step, iter(range(100))

    def sometimes(self: Refiner, *args: Any, **options: Any) -> Any:
        if next(calls) == 3:  # the last step of the second image
            raise problem
        return step(self, *args, **options)

    monkeypatch.setattr(Refiner, "step", sometimes)
    run = make_run(2)
    if isinstance(problem, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            bench.run_benchmark(run, tmp_path, ONE_THREAD)
    else:
        _, failures = bench.run_benchmark(run, tmp_path, ONE_THREAD)
        assert failures == {("smoke", run.images[1]): "the loss is not finite"}
    assert [path.stem for path in tmp_path.glob("images/*/*.json")] == run.images[:1]


@pytest.mark.slow
def test_captions_are_written_once_for_all_photos_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Captioner:
        def captions(self, photos: Any) -> list[Prompt]:
            found = [Prompt(f"relief {k}") for k, _ in enumerate(photos)]
            calls.append(len(found))
            return found

    monkeypatch.setattr("redepth.bench.run.captioner_of", lambda *_: Captioner())
    results, _ = bench.run_benchmark(make_run(), tmp_path, ONE_THREAD)
    assert calls == [3]
    assert [r.prompt for r in results] == ["relief 0", "relief 1", "relief 2"]
    bench.run_benchmark(make_run(prompt="mine"), tmp_path, ONE_THREAD, fresh=True)
    assert calls == [3], "a prompt that is given is not written"


def test_compare_pairs_images_and_refuses_another_protocol(
    finished: tuple[bench.Run, Path], tmp_path: Path
) -> None:
    _, folder = finished
    bench.run_benchmark(make_run(3, "optim.steps=4"), tmp_path / "b", ONE_THREAD)
    (found,) = bench.compare(folder, tmp_path / "b")
    ours, theirs = (json.loads((f / "summary.json").read_text())["smoke"] for f in (folder, tmp_path / "b"))
    silog = next(s for s in found.summaries if s.metric == "silog")
    values = [next(s["refined"] for s in side if s["metric"] == "silog") for side in (ours, theirs)]
    assert (silog.initial, silog.refined) == pytest.approx(values)
    bench.run_benchmark(make_run(2), tmp_path / "c", ONE_THREAD)
    with pytest.raises(ConfigError, match="different protocols: the number of images is 3"):
        list(bench.compare(folder, tmp_path / "c"))
    with pytest.raises(InputError, match=r"is not the folder of a benchmark run: bench\.json"):
        list(bench.compare(folder, tmp_path / "nothing"))
    assert call("bench", "compare", folder, tmp_path / "b").code == 0


def test_the_report_links_to_the_pages_of_its_images(
    finished: tuple[bench.Run, Path], tmp_path: Path
) -> None:
    assert "<a " not in (finished[1] / "report.html").read_text()
    bench.run_benchmark(make_run(1), tmp_path, ONE_THREAD, keep_views=True)
    (page,) = tmp_path.glob("images/smoke/*.view.html")
    report = (tmp_path / "report.html").read_text()
    (address,) = re.findall(r'<a href="([^"]*)"', report)
    assert (tmp_path / unquote(address)).samefile(page)
    (row,) = (json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines())
    assert f"<title>{row['image']} - redepth</title>" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_line_runs_on_the_default_photo(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    done = call("bench", "--out", tmp_path, "--preset", "smoke", "--arrays", *SETTINGS)
    assert done.code == 0, done.err
    assert "silog" in done.out
    assert "report.html" in done.out
    names = {p.suffix for p in (tmp_path / "images" / "smoke").iterdir()}
    assert names == {".json", ".jpg", ".npz"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "unknown dataset 'nosuch'"),
        (["kitti"], "root: field required"),
        (["kitti", "--root", "/nowhere"], "no image with ground truth there"),
        (["synthetic", "--protocol", "kitti-eigen"], "belongs to the data set kitti"),
        (["synthetic", "--option", "count"], "give KEY=VALUE"),
        (["synthetic", "--preset", "smok"], "unknown preset 'smok'"),
    ],
)
def test_bad_input_is_one_line_before_any_work(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = call("bench", *arguments, "--out", tmp_path / "out")
    assert done.code == 2
    assert words in done.err
    assert len(done.complaints) == 1
    assert not (tmp_path / "out").exists()


def test_the_report_is_one_page(finished: tuple[bench.Run, Path]) -> None:
    page = (finished[1] / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("https://arxiv", ""), "self-contained"
    assert page.count("data:image/jpeg") == 3 * 5


@pytest.mark.browser
def test_the_report_sorts_its_table_of_images(finished: tuple[bench.Run, Path]) -> None:
    with headless() as browser, opened(browser, finished[1] / "report.html") as page:
        table = page.locator("table.sortable").first
        expected = [f"relief-{50000 + k}" for k in range(3)]
        header = table.locator("th").first
        orders = []
        for _ in range(2):
            header.click()
            rows = table.locator("tbody tr").all_inner_texts()
            orders.append([next(name for name in expected if name in row) for row in rows])
        assert sorted(orders) == [expected, expected[::-1]]


def test_the_limit_of_pixels_reaches_the_data_set_and_is_no_part_of_the_run(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name, values in (
        ("photos/a.png", None),
        ("depth/a.npy", np.linspace(1, 2, 40 * 48, dtype=np.float32)),
    ):
        path = root / name
        path.parent.mkdir(parents=True)
        if values is None:
            io.save_png(path, np.linspace(0, 1, 40 * 48 * 3).reshape(40, 48, 3))
        else:
            io.save_npy(path, values.reshape(40, 48))
    options = {"root": str(root)}
    protocol = load_protocol("redepth-paper")
    pinned, names = select(protocol, open_dataset(protocol, "folder", options), partial=True)
    run = make_run(1, dataset="folder", options=options, protocol=pinned).model_copy(update={"images": names})
    _, failures = bench.run_benchmark(run, tmp_path / "out", ONE_THREAD, max_pixels=40 * 48 - 1)
    assert "--max-pixels 1920" in failures["smoke", "a"]
    # Without a limit in the way it would go on from there: the run is the same.
    assert "max_pixels" not in (tmp_path / "out" / RUN_FILE).read_text()
