"""Batches of photos: what is skipped, what is kept in memory, and the same results by any executor."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redepth import __version__, batch, components, io
from redepth.batch import Photo, checking
from redepth.captions import captions_or_errors
from redepth.components import resolve
from redepth.config import load_preset
from redepth.errors import one_line
from redepth.ground_truth import GroundTruth
from redepth.photo_inputs import PhotoInputs
from redepth.priors.prompts import Prompt
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS
from redepth.renderers.blinn_phong import BlinnPhong
from redepth.runtime.executors import Resources
from redepth.runtime.resume import Identity
from tests.support.command import Finished, call, spawn
from tests.support.helpers import GOLDEN
from tests.support.small_photos import write_depth, write_photo

SMALL = ["--preset", "smoke", "--set", "optim.steps=1", "--set", "optim.members=1"]
WRITE = "output.write=[map, initial, comparison, points]"


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
    monkeypatch.setattr(checking, "KEPT_BYTES", 512 * 512 * 3 + 30_000)
    results = [done.result for done in batch.check_photos(photos, io.MAX_PIXELS)]
    assert [photo.decoded is not None for photo in results if photo] == [True, False, True, False]


@pytest.mark.slow
def test_a_photo_that_is_not_kept_gives_the_same_result(
    tmp_path: Path, real_photos: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = batch.Settings(
        resolve(load_preset("smoke", ["optim.steps=1", WRITE])), device="cpu", prompt="x"
    )
    for name, size in (("kept", checking.KEPT_BYTES), ("dropped", 0)):
        monkeypatch.setattr(checking, "KEPT_BYTES", size)
        photos = [photo_of(real_photos[stem], tmp_path / name) for stem in ("coins", "moon")]
        checked = [done.result for done in batch.check_photos(photos, io.MAX_PIXELS) if done.result]
        outcomes = list(batch.refine_photos(checked, settings, Resources()))
        assert [done.error for done in outcomes] == ["", ""]
    for name in ("disparity.npy", "points.ply"):
        one, other = ((tmp_path / folder / "moon" / name).read_bytes() for folder in ("kept", "dropped"))
        assert one == other


def table(done: Finished) -> list[list[str]]:
    """The summary without the seconds and the folders."""
    lines = [re.split(r" {2,}", line) for line in done.out.splitlines()]
    (first,) = (i for i, cells in enumerate(lines) if cells[0] == "photo")
    return [cells[:-2] for cells in lines[first + 1 :]]


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


# --- what is done already -------------------------------------------------------------------------


@dataclass
class Batch:
    """A photo with its depth map, sky mask and ground truth, refined once."""

    base: Path

    @property
    def photo(self) -> Photo:
        depth = np.load(self.base / "truth.npy")
        hashes = {"the ground truth": io.sha256_of(self.base / "truth.npy")}
        truth = GroundTruth(depth, "depth", None, hashes)
        return Photo(
            self.base / "a.png", self.base / "out" / "a", PhotoInputs(sky_mask=self.base / "sky.png"), truth
        )

    def settings(self, *overrides: str, **changes: Any) -> batch.Settings:
        depth = ["depth_model.name=precomputed", f"depth_model.path={self.base / 'maps'}"]
        depth += ["depth_model.predicts=depth", "optim.parameterization=low-rank"]
        preset = resolve(
            load_preset("smoke", ["optim.steps=1", "optim.members=1", WRITE, *depth, *overrides])
        )
        return batch.Settings(preset, **({"device": "cpu", "prompt": "x"} | changes))

    def refine(self, *overrides: str, **changes: Any) -> None:
        settings = self.settings(*overrides, **changes)
        checked = [done.result for done in batch.check_photos([self.photo], io.MAX_PIXELS)]
        (outcome,) = batch.refine_photos([p for p in checked if p], settings, Resources())
        assert outcome.error == ""

    def why(self, *overrides: str, **changes: Any) -> str | None:
        return batch.why_refine(self.photo, self.settings(*overrides, **changes))


@pytest.fixture(scope="module")
def refined_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("done")
    write_photo(base / "a.png")
    sky = np.zeros((40, 50), np.uint8)
    sky[:10] = 255
    Image.fromarray(sky).save(base / "sky.png")
    write_depth(base / "truth.npy", seed=1)
    write_depth(base / "maps" / "a.npy")
    write_depth(base / "maps" / "b.npy")
    Batch(base).refine()
    return base


@pytest.fixture
def done(refined_once: Path, tmp_path: Path) -> Iterator[Batch]:
    """A copy of the batch at the same paths."""
    kept = shutil.copytree(refined_once, tmp_path / "kept")
    yield Batch(refined_once)
    shutil.rmtree(refined_once)
    shutil.copytree(kept, refined_once)


def test_nothing_changed_is_done(done: Batch) -> None:
    assert done.why() is None
    write_depth(done.base / "maps" / "b.npy", seed=9)
    (done.base / "out" / "a" / "notes.txt").write_text("mine")
    assert done.why() is None, "neither another photo's map nor the user's file matters"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.png", "the photo changed"),
        ("sky.png", "the sky mask changed"),
        ("truth.npy", "the ground truth changed"),
        ("maps/a.npy", "the depth map changed"),
        ("out/a/depth.npy", "depth.npy was changed"),
        ("out/a/points.ply", "points.ply was changed"),
        ("out/a/run.json", "run.json is damaged"),
    ],
)
def test_a_file_that_changed_is_named(name: str, reason: str, done: Batch) -> None:
    path = done.base / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the same size
    path.write_bytes(content)
    assert done.why() == reason


@pytest.mark.parametrize("name", ["initial.npy", "comparison.png"])
def test_a_file_that_is_gone_or_empty_is_named(name: str, done: Batch) -> None:
    path = done.base / "out" / "a" / name
    path.write_bytes(b"")
    assert done.why() == f"{name} was changed"
    path.unlink()
    assert done.why() == f"{name} is missing"


def test_a_record_without_files_does_not_count(done: Batch) -> None:
    path = done.base / "out" / "a" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))
    assert done.why() == "run.json names no files"


def test_a_setting_that_changed_is_named(done: Batch) -> None:
    assert done.why("optim.steps=2") == "another preset (optim.steps 1 was used, it is 2 now)"
    # How a result is judged, and what its preset says of itself, changes no map.
    assert done.why("diagnostics.thresholds.collapse_range=0.1", "description=words") is None
    assert done.why(seed=3) == "seed 0 was used, it is 3 now"
    assert done.why(prompt="y") == "another prompt"
    assert done.why(prompt=None) == "the prompt is not given any more"
    without = replace(done.photo, inputs=PhotoInputs())
    assert batch.why_refine(without, done.settings()) == "the sky mask is not used any more"
    (done.base / "mask.png").write_bytes((done.base / "sky.png").read_bytes())
    truth = replace(done.photo.ground_truth, hashes={**done.photo.ground_truth.hashes, "the mask": "1"})
    masked = replace(done.photo, ground_truth=truth)
    assert batch.why_refine(masked, done.settings()) == "the mask is new"
    inverse = replace(done.photo, ground_truth=replace(done.photo.ground_truth, kind="disparity"))
    assert batch.why_refine(inverse, done.settings()) == "the kind of the ground truth changed"


def test_a_result_of_an_earlier_version_with_former_names_is_done(tmp_path: Path) -> None:
    photo = Photo(write_photo(tmp_path / "a.png"), tmp_path / "out" / "a")
    changes = ["optim.steps=1", "optim.members=1", "depth_model.longer_side=56"]

    def settings(*more: str) -> batch.Settings:
        return batch.Settings(resolve(load_preset("smoke", [*changes, *more])), device="cpu", prompt="")

    (outcome,) = batch.refine_photos([photo], settings(), Resources())
    assert outcome.error == ""
    path = tmp_path / "out" / "a" / "run.json"
    former = json.loads((GOLDEN / "preset_of_0_1_0.json").read_text())
    assert former["renderer"]["relight"] == "composite"
    path.write_text(json.dumps({**json.loads(path.read_text()), "preset": former}))
    assert batch.why_refine(photo, settings()) is None
    grey = "another preset (renderer.albedo photo was used, it is grey now)"
    assert batch.why_refine(photo, settings("renderer.albedo=grey")) == grey
    former["renderer"]["relight"] = "shading-only"
    path.write_text(json.dumps({**json.loads(path.read_text()), "preset": former}))
    assert batch.why_refine(photo, settings("renderer.albedo=grey")) is None


def test_another_version_is_named(done: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "__version__", "9.9")
    assert done.why() == f"redepth {__version__} was used, it is 9.9 now"


def test_records_that_are_old_or_nonsense_do_not_count(done: Batch) -> None:
    path = done.base / "out" / "a" / "run.json"
    record = json.loads(path.read_text())
    for nonsense in ("[]", "{}", "null", "[" * 5000, '{"partial": false, "preset": []}', ""):
        path.write_text(nonsense)
        assert done.why() == "run.json is damaged"
    io.save_json(path, record | {"partial": True})
    assert done.why() == "it was ended early"
    del record["identity"]
    io.save_json(path, record)
    assert done.why() == "its record does not say what it was made from"
    path.unlink()
    assert done.why() == ""


def test_a_photo_that_is_replaced_after_its_check_is_not_done(done: Batch) -> None:
    (checked,) = [outcome.result for outcome in batch.check_photos([done.photo], io.MAX_PIXELS)]
    write_photo(done.base / "a.png", seed=7)
    assert checked is not None
    (outcome,) = batch.refine_photos([checked], done.settings(), Resources())
    assert outcome.error == ""
    assert done.why() == "the photo changed"


def test_an_option_of_a_third_party_component_names_a_file(
    done: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(kw_only=True, eq=False)
    class Lit(BlinnPhong):
        lamp: Path | None = None
        folder: Path | None = None
        note: str = ""

    monkeypatch.setitem(RENDERERS._entries, "lit", Entry("lit", Lit))
    base = done.base
    write_depth(base / "lamps" / "one.npy")
    (base / "lamp.txt").write_text("1")
    preset: dict[str, Any] = {"extends": "smoke", "renderer": {"name": "lit", "lamp": str(base / "lamp.txt")}}
    preset["renderer"] |= {"folder": str(base / "lamps"), "note": "n" * 5000}
    found = components.named_files(resolve(load_preset(preset)))
    assert found["renderer.lamp"] == [base / "lamp.txt"]
    assert found["renderer.folder"] == [base / "lamps" / "one.npy"]
    assert found["the code of tests.test_batch"] == [Path(__file__)]
    assert "renderer.note" not in found


def test_the_weights_in_a_folder_count(tmp_path: Path, golden: Path) -> None:
    checkpoint = shutil.copytree(golden / "tiny-random-depth-anything", tmp_path / "checkpoint")
    preset = resolve(load_preset("smoke", [f"depth_model.checkpoint={checkpoint}"]))
    found = components.named_files(preset)
    assert set(found) == {"depth_model.checkpoint"}
    before = Identity.of(found, {})
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01" if file.read() != b"\x01" else b"\x02")
    assert list(before.changes(Identity.of(found, {}))) == ["the file of depth_model.checkpoint changed"]


def test_the_command_line_says_why_and_does_only_what_is_left(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "in" / f"{name}.png", seed) for seed, name in enumerate("ab")]
    settings = (*SMALL, "--set", WRITE, "--device", "cpu", "--out", tmp_path / "out")
    assert call("refine", *photos, *settings).code == 0
    (tmp_path / "out" / "a" / "initial.npy").unlink()
    write_photo(photos[1], seed=5)
    again = call("refine", *photos, *settings)
    assert again.code == 0, again
    assert f"{photos[0]}: refined again: initial.npy is missing" in again.out
    assert f"{photos[1]}: refined again: the photo changed" in again.out
    last = call("refine", *photos, *settings)
    assert "2 of 2 photos are done already" in last.out
    assert "again:" not in last.out


# --- whatever happens to one photo, the next one runs ---------------------------------------------


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("two\nlines"), RecursionError("deep")])
def test_an_unexpected_error_of_one_photo_is_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [write_photo(tmp_path / f"{name}.png") for name in "ab"]
    decode = checking.decode

    def sometimes(path: Any, *args: Any) -> Any:
        if path == photos[0]:
            raise error
        return decode(path, *args)

    monkeypatch.setattr(checking, "decode", sometimes)
    done = call("refine", *photos, *SMALL, "--out", tmp_path / "out")
    assert done.code == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    (line,) = [line for line in done.complaints if str(photos[0]) in line]
    assert one_line(error) in line
    assert "Traceback" not in done.err


def test_a_photo_that_cannot_be_captioned_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [
        photo_of(write_photo(tmp_path / f"{name}.png", seed), tmp_path) for seed, name in enumerate("abc")
    ]

    class Captions:
        def captions(self, pixels: Any) -> list[Prompt]:
            return [self.caption(photo) for photo in pixels]

        def caption(self, photo: Any) -> Prompt:
            if np.array_equal(photo, io.load_photo(photos[1].path)):
                raise MemoryError
            return Prompt("relief", {"from": "blip"})

    found = captions_or_errors(Captions(), [photo.path for photo in photos])  # type: ignore[arg-type]
    assert found[1] == "not enough memory for it; free some, or give a smaller photo"
    assert [prompt.text for prompt in (found[0], found[2]) if isinstance(prompt, Prompt)] == ["relief"] * 2
    photos[2].path.unlink()
    found = captions_or_errors(Captions(), [photo.path for photo in photos])  # type: ignore[arg-type]
    assert "no such file" in str(found[2])


def test_what_lies_in_the_way_is_found_before_the_weights_load(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    write_photo(tmp_path / "a.png")
    (done,) = batch.check_photos([photo_of(tmp_path / "a.png", tmp_path)], io.MAX_PIXELS)
    assert done.result is None
    assert done.error.startswith(f"{tmp_path / 'a'}: is not a folder that can be written to")


@pytest.mark.slow
def test_names_that_the_locale_cannot_spell_and_a_notebooks_backend(tmp_path: Path) -> None:
    names = [b"plain.png", "caf\u00e9.png".encode(), "\u6f22\u5b57.png".encode(), b"bad\xff.png"]
    for name in names:
        write_photo(tmp_path / "in" / os.fsdecode(name))
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    strict = {"PYTHONIOENCODING": "ascii:strict"}
    arguments = ("refine", tmp_path / "in", *SMALL, "--out", tmp_path / "out")
    done = spawn(*arguments, extra=ascii_locale | notebook | strict)
    assert done.code == 0, done
    folders = sorted(os.fsencode(path.name) for path in (tmp_path / "out").iterdir())
    assert folders == sorted(name.removesuffix(b".png") for name in names)
    # The same photos, however the locale spells them.
    done = call(*arguments)
    assert "4 of 4 photos are done already" in done.out


def test_a_result_does_not_replace_what_it_is_made_from(tmp_path: Path) -> None:
    out = tmp_path / "out"
    photo = write_photo(out / "comparison" / "comparison.png")
    content = photo.read_bytes()
    done = call("refine", photo, *SMALL, "--device", "cpu", "--out", out)
    assert done.code == 2
    assert "comparison.png: the result would replace this file; choose another --out" in done.err
    assert photo.read_bytes() == content
    depth = write_depth(out / "a" / "disparity.npy")
    content = depth.read_bytes()
    picture = write_photo(tmp_path / "a.png")
    maps = ("--depth", depth, "--predicts", "depth")
    done = call("refine", picture, *SMALL, *maps, "--device", "cpu", "--out", out)
    assert done.code == 2
    assert "disparity.npy: the result would replace this file" in done.err
    assert depth.read_bytes() == content
