"""What the method ``score`` needs before it trains: prompts, and a prior that does not learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from redepth.adaptation import photos as files
from redepth.adaptation.methods import Material, captioned, check_method
from redepth.adaptation.processes import Processes
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.errors import ConfigError
from tests.support.checkpoints import tiny
from tests.support.helpers import CPU
from tests.support.small_photos import write_photo


def preset(*overrides: str) -> Preset:
    return resolve(load_preset("smoke", ["depth_model.longer_side=56", "adapt.method=score", *overrides]))


def material(folder: Path, *overrides: str) -> Material:
    """Three photos, of which the second one cannot be read any more."""
    for number, name in enumerate("abc"):
        write_photo(folder / f"{name}.png", number)
    found = files.find([folder])
    found[1].path.write_bytes(b"no photo")
    captioner = ("prompt.captioner=blip", f"prompt.checkpoint={tiny('blip')}")
    return Material(preset(*captioner, *overrides), found, [], [], folder, {})


def test_each_process_captions_its_share_and_a_photo_that_fails_is_left_out(tmp_path: Path) -> None:
    given = material(tmp_path)
    found, left_out = captioned(given, Processes(CPU))
    assert [photo.name for photo in found.training] == ["a", "c"]
    assert list(found.prompts) == ["a", "c"]
    assert all(found.prompts.values())
    assert list(left_out) == ["b"]
    assert "b.png" in left_out["b"]
    second, failed = captioned(given, Processes(CPU, 1, 2))
    assert (second.prompts, list(failed)) == ({}, ["b"])
    assert captioned(replace(given, preset=preset("adapt.method=distil")), Processes(CPU))[1] == {}


def test_a_prior_that_learns_is_refused_without_its_weights() -> None:
    check_method(preset())
    with pytest.raises(ConfigError, match=r"cannot use prior\.score=vsd"):
        check_method(preset("prior.score=vsd"))
    check_method(preset("prior.score=vsd", "adapt.method=distil"))
    check_method(preset("renderer.albedo=grey"))
    with pytest.raises(ConfigError, match=r"renderer\.albedo=marigold-intrinsics: set renderer"):
        check_method(preset("renderer.albedo=marigold-intrinsics"))
    check_method(preset("renderer.albedo=marigold-intrinsics", "adapt.method=distil"))


def test_normals_that_would_not_be_estimated_are_refused() -> None:
    estimated = ("optim.objectives.normals.weight=1", "optim.objectives.normals.source=marigold")
    with pytest.raises(ConfigError, match="score estimates no normals"):
        check_method(preset(*estimated))
    check_method(preset(*estimated, "adapt.method=distil"))
    check_method(preset(*estimated[1:], "optim.objectives.normals.weight=0"))
