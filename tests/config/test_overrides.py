"""Overrides as texts and as mappings: both change the same settings, and a contradiction is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth.config import Preset, load_preset, merged_overrides
from redepth.errors import ConfigError

CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
TEXTS = ["optim.members=3", "prior.guidance_scale=5", "optim.learning_rates.decoder=1e-3"]


@pytest.mark.parametrize(
    "mapping",
    [
        {"optim.members": 3, "prior.guidance_scale": 5, "optim.learning_rates.decoder": 1e-3},
        {
            "optim": {"members": 3, "learning_rates": {"decoder": 1e-3}},
            "prior": {"guidance_scale": 5},
        },
        {"optim.members": 3, "optim": {"learning_rates.decoder": 1e-3}, "prior": {"guidance_scale": 5}},
        {
            "optim.members": np.int64(3),
            "prior.guidance_scale": 5,
            "optim.learning_rates.decoder": np.float64(1e-3),
        },
    ],
    ids=["dotted", "nested", "both", "numpy"],
)
def test_a_mapping_says_what_texts_say(mapping: dict[str, Any]) -> None:
    preset = load_preset("embedded-relief", mapping)
    assert preset == load_preset("embedded-relief", TEXTS)
    assert preset.optim.members == 3


def test_values_of_a_mapping_need_no_quotes() -> None:
    mapping = {
        "description": "a: b # c",
        "prior.checkpoint": Path("weights") / "x.safetensors",
        "output.write": ("map", "mesh"),
        "optim.objectives": None,
        "optim.early_stop.enabled": True,
    }
    preset = load_preset("embedded-relief", mapping)
    assert preset.description == "a: b # c"
    assert preset.prior.options["checkpoint"] == str(Path("weights") / "x.safetensors")
    assert preset.output.write == ["map", "mesh"]
    assert preset.optim.objectives == {}
    assert preset.optim.early_stop.enabled is True
    assert load_preset(preset.model_dump()) == preset


def test_a_new_component_starts_from_its_own_defaults_in_a_mapping_too() -> None:
    preset = load_preset("embedded-relief", {"prior.guidance_scale": 5, "prior": {"name": "ic-light"}})
    assert preset.prior.options == {"guidance_scale": 5}


def test_of_two_layers_the_later_one_wins() -> None:
    merged = merged_overrides(["optim.members=1", "optim.steps=2"], {"optim": {"members": 4}})
    assert merged == {"optim": {"members": 4, "steps": 2}}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"optim.members": 3, "optim": {"members": 5}}, "optim.members is set twice"),
        ({"optim": {"members": 3}, "optim.members": 3}, "optim.members is set twice"),
        ({"optim": None, "optim.members": 3}, "optim is set twice"),
        ({"optim.members": 3, "optim": None}, "optim is set twice"),
        ({"optim..members": 3}, "'optim..members' is no key"),
        ({"": 3}, "'' is no key"),
        ({3: 3}, "3 is no key"),
        ({"optim": {3: 3}}, "3 inside optim is no key"),
        ({"optim": {"members": {1, 2}}}, "optim.members is {1, 2}, of type set"),
        ({"output": {"write": ["map", {1}]}}, "output.write.1 is {1}, of type set"),
        ({"a." * 40 + "a": 1}, "a is nested deeper than 32 levels"),
        ({"optim": CIRCLE}, "optim is nested deeper than 32 levels"),
    ],
)
def test_what_cannot_be_meant_is_one_line(mapping: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("embedded-relief", mapping)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_of_a_mapping_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"optim\.member.*did you mean 'members'"):
        load_preset("embedded-relief", {"optim.member": 3})


def test_one_text_is_no_list_of_overrides() -> None:
    with pytest.raises(ConfigError, match=r"a list or a mapping, got the text 'optim\.members=3'"):
        load_preset("embedded-relief", "optim.members=3")


def test_a_preset_is_a_preset() -> None:
    assert isinstance(load_preset("embedded-relief", {}), Preset)
    assert load_preset("embedded-relief", {}) == load_preset("embedded-relief")
