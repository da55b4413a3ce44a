"""Batches of photos: what is skipped, what is kept in memory, and the same results by any executor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import batch, io
from redepth.batch import Photo
from redepth.components import resolve
from redepth.config import load_preset
from redepth.runtime.executors import Resources
from tests.support.command import Finished, call, spawn

SMALL = ["--preset", "smoke", "--set", "optim.steps=1", "--set", "optim.members=1"]


def refine(folder: Path, photos: Mapping[str, Path], *more: str) -> tuple[int, str, str]:
    done = call("refine", photos["coins"], photos["moon"], *SMALL, "--out", folder, *more)
    return done.code, done.out, done.err


def written(folder: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in sorted(folder.glob("*/run.json"))}


@pytest.mark.slow
def test_a_second_call_does_only_what_is_left(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    assert refine(tmp_path, real_photos)[0] == 0
    first = written(tmp_path)
    assert set(first) == {"coins", "moon"}
    code, out, _ = refine(tmp_path, real_photos)
    assert (code, written(tmp_path)) == (0, first)
    assert "2 of 2 photos are done already" in out
    (tmp_path / "moon" / "run.json").write_text("{")
    refine(tmp_path, real_photos)
    assert {name for name, time in written(tmp_path).items() if time != first[name]} == {"moon"}
    for change in (["--seed", "3"], ["--set", "optim.steps=2"], ["--prompt", "x"], ["--fresh"]):
        before = written(tmp_path)
        assert refine(tmp_path, real_photos, *change)[0] == 0
        assert all(time != before[name] for name, time in written(tmp_path).items())


@pytest.mark.slow
def test_one_photo_is_refined_whenever_it_is_asked_for(
    tmp_path: Path, real_photos: Mapping[str, Path]
) -> None:
    for _ in range(2):
        before = written(tmp_path)
        assert call("refine", real_photos["coins"], *SMALL, "--out", tmp_path).code == 0
        assert written(tmp_path) != before


def test_a_photo_that_is_gone_is_not_done(tmp_path: Path, real_photos: Mapping[str, Path]) -> None:
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo in photos:
        shutil.copy(real_photos["coins"], photo)
    assert call("refine", *photos, *SMALL, "--out", tmp_path / "out").code == 0
    photos[0].unlink()
    done = call("refine", *photos, *SMALL, "--out", tmp_path / "out")
    assert done.code == 2
    assert "a.png: no such file" in done.err


def photo_of(path: Path, folder: Path) -> Photo:
    return Photo(path, folder / path.stem)


def test_photos_are_kept_up_to_a_size_and_lose_nothing(
    tmp_path: Path, real_photos: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    paths = [real_photos["moon"], real_photos["coins"], tmp_path / "deep.png", real_photos["brick"]]
    photos = [photo_of(path, tmp_path) for path in paths]
    kept = [done.result for done in batch.check_photos(photos, io.MAX_PIXELS)]
    for photo in kept:
        assert photo is not None
        assert photo.decoded is not None
        assert photo.decoded.photo.source == photo.path
        assert np.array_equal(photo.decoded.photo.values, io.load_photo(photo.path))
    dtypes = [photo.decoded.photo.pixels.dtype for photo in kept if photo and photo.decoded]
    assert dtypes == [np.uint8, np.uint8, np.float32, np.uint8]
    # The first is always kept; of the others those that fit.
    monkeypatch.setattr(batch, "KEPT_BYTES", 512 * 512 * 3 + 30_000)
    results = [done.result for done in batch.check_photos(photos, io.MAX_PIXELS)]
    assert [photo.decoded is not None for photo in results if photo] == [True, False, True, False]


@pytest.mark.slow
def test_a_photo_that_is_not_kept_gives_the_same_result(
    tmp_path: Path, real_photos: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = batch.Settings(resolve(load_preset("smoke", ["optim.steps=1"])), device="cpu", prompt="x")
    for name, size in (("kept", batch.KEPT_BYTES), ("dropped", 0)):
        monkeypatch.setattr(batch, "KEPT_BYTES", size)
        photos = [photo_of(real_photos[stem], tmp_path / name) for stem in ("coins", "moon")]
        checked = [done.result for done in batch.check_photos(photos, io.MAX_PIXELS) if done.result]
        outcomes = list(batch.refine_photos(checked, settings, Resources()))
        assert [done.error for done in outcomes] == ["", ""]
    for name in ("disparity.npy", "points.ply"):
        one, other = ((tmp_path / folder / "moon" / name).read_bytes() for folder in ("kept", "dropped"))
        assert one == other


def table(done: Finished) -> list[list[str]]:
    """The summary without the seconds and the folders."""
    lines = [line.split("│")[1:-3] for line in done.out.splitlines() if "│" in line]
    return [[cell.strip() for cell in cells] for cells in lines]


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--workers", "2"), ("--workers", "2", "--ray", "local")])
def test_other_processes_write_the_same_and_a_bad_photo_stops_nothing(
    tmp_path: Path, real_photos: Mapping[str, Path], more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--ray" in more:
        pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    broken = tmp_path / "broken.png"
    broken.write_bytes(real_photos["coins"].read_bytes()[:2000])
    photos = [real_photos["coins"], broken, real_photos["moon"]]
    # A file where the folder of a result should be: this photo fails in its worker.
    photos.append(real_photos["brick"])
    calls = {}
    for name, options in (("here", ()), ("there", more)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "brick").touch()
        calls[name] = spawn("refine", *photos, *SMALL, "--out", tmp_path / name, *options)
    here, there = calls["here"], calls["there"]
    assert here.code == there.code == 2
    complaints = [
        sorted(line.replace(str(tmp_path / name), "") for line in done.complaints if "error: " in line)
        for name, done in calls.items()
    ]
    assert complaints[0] == complaints[1]
    assert len(complaints[0]) == 3, complaints
    assert table(here) == table(there)
    assert len(table(here)) == 2
    for name in ("coins", "moon"):
        folders = [tmp_path / where / name for where in ("here", "there")]
        files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
        records = [json.loads(found.pop("run.json")) for found in files]
        assert files[0] == files[1]
        for record in records:
            del record["timings"]
        assert records[0] == records[1]
