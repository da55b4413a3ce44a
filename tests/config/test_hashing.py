"""The hash of a preset changes with the settings that decide numbers, and with nothing else."""

from __future__ import annotations

import pytest
import yaml

from redepth.components import resolve
from redepth.config import load_preset
from redepth.config.hashing import preset_sha256

BASE = resolve(load_preset("embedded-relief"))


@pytest.mark.parametrize(
    "override",
    [
        "optim.steps=3",
        "prior.guidance_scale=9",
        "optim.objectives.smoothness.weight=7",
        "prompt.captioner=blip",
    ],
)
def test_a_setting_that_decides_numbers_changes_the_hash(override: str) -> None:
    assert preset_sha256(resolve(load_preset("embedded-relief", [override]))) != preset_sha256(BASE)


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "description=words",
        "optim.performance.tf32=false",
        "optim.performance.compile=all",
        "diagnostics.thresholds.sky_geometry=9",
        "diagnostics.calibrated_for=another",
    ],
)
def test_names_and_ways_of_computing_do_not(override: str) -> None:
    changed = resolve(load_preset("embedded-relief", [override]))
    assert changed != BASE
    assert preset_sha256(changed) == preset_sha256(BASE)


def test_the_yaml_of_a_preset_keeps_its_hash() -> None:
    again = resolve(load_preset(yaml.safe_load(BASE.to_yaml())))
    assert preset_sha256(again) == preset_sha256(BASE)
