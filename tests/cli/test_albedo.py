"""The albedo on the command line: batches, what is done already, comparisons, clips, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from tests.support.command import SMOKE, Finished, call, one_line, record
from tests.support.small_photos import write_photo
from tests.support.tiny_intrinsics import save_intrinsics
from tests.support.videos import pictures, write_video

QUICK = (*SMOKE, "-s", "optim.steps=1", "-s", "optim.members=1", "-s", "depth_model.longer_side=56")


def write_albedo(path: Path, level: float = 0.4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(level / 2, level, 50, dtype=np.float32)
    io.save_npy(path, np.tile(ramp[None, :, None], (40, 1, 3)))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(("cat", "dog")):
        write_photo(tmp_path / "photos" / f"{name}.png", index)
        write_albedo(tmp_path / "albedos" / f"{name}.npy", 0.3 + 0.3 * index)
    return tmp_path


def refine(folder: Path, *more: Any) -> Finished:
    return call("refine", folder / "photos", "--out", folder / "out", *QUICK, *more)


def test_a_folder_has_the_albedo_of_each_photo_and_another_content_is_another_run(photos: Path) -> None:
    folder = photos / "albedos"
    assert refine(photos, "--albedo", folder, "--write", "map,albedo").code == 0
    for index, name in enumerate(("cat", "dog")):
        written = record(photos / "out" / name)
        assert written["renderer"]["sha256"] == io.sha256_of(folder / f"{name}.npy")
        assert written["identity"]["inputs"]["renderer.albedo"] == io.sha256_of_files(
            [folder / f"{name}.npy"]
        )
        lit = io.load_photo(photos / "out" / name / "albedo.png")
        assert lit.max() == pytest.approx((0.3 + 0.3 * index) ** (1 / 2.2), abs=0.02)
    again = refine(photos, "--albedo", folder, "--write", "map,albedo")
    assert "2 of 2 photos are done already" in again.out
    write_albedo(folder / "dog.npy", 0.9)
    changed = refine(photos, "--albedo", folder, "--write", "map,albedo")
    assert "1 of 2 photos are done already" in changed.out
    assert "renderer.albedo" in changed.out + changed.err
    assert record(photos / "out" / "dog")["renderer"]["sha256"] == io.sha256_of(folder / "dog.npy")


def test_a_name_is_no_file_even_where_there_is_one(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_albedo(photos / "grey" / "cat.npy")
    monkeypatch.chdir(photos)
    assert call("refine", photos / "photos" / "cat.png", "--out", "out", *QUICK, "--albedo", "grey").code == 0
    written = record(photos / "out" / "cat")
    assert written["renderer"] == {"albedo": "grey"}
    assert "renderer.albedo" not in written["identity"]["inputs"]


def test_a_missing_albedo_is_found_before_any_work(photos: Path) -> None:
    (photos / "albedos" / "dog.npy").unlink()
    missing = refine(photos, "--albedo", photos / "albedos")
    assert missing.code == 2
    assert "must hold one albedo of its name, dog" in missing.err
    assert record(photos / "out" / "cat")["renderer"]["albedo"] == str(photos / "albedos")
    (photos / "albedos" / "cat.npy").unlink()
    nothing = refine(photos, "--albedo", photos / "albedos", "--fresh", "-s", "prior.checkpoint=/nowhere")
    assert nothing.code == 2
    assert "/nowhere" not in nothing.err  # no weights were looked for


def test_what_is_wrong_is_one_line(photos: Path) -> None:
    one = photos / "albedos" / "cat.npy"
    several = refine(photos, "--albedo", one)
    assert several.code == 2
    assert "an albedo belongs to one photo, 2 were given" in several.err
    single = ("refine", photos / "photos" / "cat.png", "--out", photos / "out", *QUICK)
    one_line(call(*single, "--albedo", "gray"), "none of photo, grey, marigold-intrinsics")
    io.save_npy(one, np.ones((20, 60, 3), np.float32))
    other_shape = "the albedo is 60 x 20, the photo has the shape of 50 x 40"
    one_line(call(*single, "--albedo", one), other_shape)
    assert not (photos / "out").exists()


def test_two_photos_of_one_name_do_not_share_an_albedo(photos: Path) -> None:
    twin = write_photo(photos / "more" / "cat.png", 7)
    command = ("refine", photos / "photos", twin, "--out", photos / "out", *QUICK)
    refused = call(*command, "--albedo", photos / "albedos")
    assert refused.code == 2
    assert "has one albedo for both, by their name cat" in refused.err
    assert not list((photos / "out").rglob("run.json"))


def test_an_estimate_is_made_of_each_photo_by_one_pipeline(photos: Path) -> None:
    checkpoint = save_intrinsics(photos / "intrinsics")
    options = ("--albedo", "marigold-intrinsics", "-s", f"renderer.albedo_checkpoint={checkpoint}")
    assert refine(photos, *options, "--write", "map,albedo", "--seed", "3").code == 0
    lit = {name: io.load_photo(photos / "out" / name / "albedo.png") for name in ("cat", "dog")}
    assert not np.array_equal(lit["cat"], lit["dog"])
    written = record(photos / "out" / "cat")
    assert written["renderer"]["checkpoint"] == str(checkpoint)
    assert "renderer.albedo_checkpoint" in written["identity"]["inputs"]
    alone = call(
        *("refine", photos / "photos" / "dog.png", "--out", photos / "alone"),
        *(*QUICK, *options, "--write", "map,albedo", "--seed", "3"),
    )
    assert alone.code == 0
    assert np.array_equal(io.load_photo(photos / "alone" / "dog" / "albedo.png"), lit["dog"])


def test_albedos_are_compared_by_one_option(photos: Path) -> None:
    values = f"photo,grey,{photos / 'albedos'}"
    compared = call(
        *("compare", photos / "photos", *QUICK, "--vary", f"renderer.albedo={values}"),
        *("--out", photos / "compare"),
    )
    assert compared.code == 0, compared.err
    maps = [np.load(path) for path in sorted((photos / "compare").rglob("cat/disparity.npy"))]
    assert len(maps) == 3
    assert not any(np.array_equal(a, b) for i, a in enumerate(maps) for b in maps[:i])


def test_a_clip_takes_a_name_and_no_files(photos: Path) -> None:
    clip = write_video(photos / "walk.mp4", pictures(2))
    command = ("refine", clip, "--out", photos / "clip", *QUICK, "--motion", "still")
    refused = call(*command, "--albedo", photos / "albedos")
    assert refused.code == 2
    assert "the frames of a clip have no albedo of their own" in refused.err
    assert call(*command, "--albedo", "grey", "--write", "map,albedo").code == 0
    assert len(list((photos / "clip").rglob("albedo.png"))) == 2
