"""Loading presets: extends, merging, overrides and the round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redepth.components import resolve
from redepth.config import PRESETS, Preset, load_preset, preset_names
from tests.support.presets import PARTS, write


def test_a_child_says_only_what_differs() -> None:
    parent, child = load_preset("embedded-relief"), load_preset("smoke")
    assert child.optim.steps < parent.optim.steps
    assert child.optim.learning_rates == parent.optim.learning_rates
    assert child.optim.objectives == parent.optim.objectives
    assert child.prior == parent.prior
    assert child.depth_model.options == {**parent.depth_model.options, "longer_side": 96}


def test_a_file_extends_a_file_beside_it_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "sub/base.yaml", "extends: embedded-relief\noptim: {members: 7}\n")
    child = write(tmp_path, "sub/child.yaml", "extends: base.yaml\noptim: {steps: 11}\n")
    monkeypatch.chdir(tmp_path.parent)
    preset = load_preset(child)
    assert (preset.optim.members, preset.optim.steps) == (7, 11)
    assert preset.name == "child"
    assert preset.prior == load_preset("embedded-relief").prior
    # What is not beside the file is looked for from where the user stands, as before.
    monkeypatch.chdir(tmp_path)
    other = write(tmp_path, "elsewhere/other.yaml", "extends: sub/child.yaml\n")
    assert load_preset(other).optim == preset.optim


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "extends: smoke\noptim: {members: 3}\n")
    assert load_preset(path).optim.members == 3
    write(tmp_path, "mine.yaml", "extends: smoke\noptim: {members: 14}\n")
    assert load_preset(path).optim.members == 14


def test_a_mapping_may_extend_and_is_left_as_it_was() -> None:
    source = {"extends": "smoke", "optim": {"members": 4}}
    preset = load_preset(source, ["optim.steps=9"])
    assert (preset.optim.members, preset.optim.steps) == (4, 9)
    assert source == {"extends": "smoke", "optim": {"members": 4}}
    assert load_preset("smoke").optim.members == 2


def test_another_component_starts_from_its_own_defaults() -> None:
    same = load_preset({**PARTS, "extends": "smoke", "prior": {"name": "pixel-diffusion", "t_max": 0.8}})
    assert same.prior.options["guidance_scale"] == load_preset("smoke").prior.options["guidance_scale"]
    other = load_preset({"extends": "smoke", "prior": {"name": "stable-diffusion", "t_max": 0.8}})
    assert other.prior.options == {"t_max": 0.8}
    override = load_preset("smoke", ["prior.name=stable-diffusion"])
    assert override.prior.options == {}


def test_overrides_mean_the_same_in_any_order() -> None:
    orders = [
        ["prior.name=stable-diffusion", "prior.guidance_scale=3"],
        ["prior.guidance_scale=3", "prior.name=stable-diffusion"],
    ]
    for order in orders:
        assert load_preset("smoke", order).prior.options == {"guidance_scale": 3}
    assert load_preset("smoke", ["optim.members=3", "optim.members=4"]).optim.members == 4


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optim.members=3", "optim.members", 3),
        (" optim.members =3", "optim.members", 3),
        ("optim.learning_rates.embeddings=1e-3", "optim.learning_rates.embeddings", 1e-3),
        ("optim.learning_rates.embeddings=1.0e-03", "optim.learning_rates.embeddings", 1e-3),
        ("prior.guidance_scale=5e+1", "prior.guidance_scale", 50.0),
        ("prior.guidance_scale=5", "prior.guidance_scale", 5.0),
        ("optim.members_per_batch=auto", "optim.members_per_batch", "auto"),
        ("optim.members_per_batch=2", "optim.members_per_batch", 2),
        ("optim.early_stop.enabled=true", "optim.early_stop.enabled", True),
        ("depth_model.revision=null", "depth_model.revision", None),
        ("depth_model.revision='1234'", "depth_model.revision", "1234"),
        ("prior.checkpoint=C:/models=old/sd", "prior.checkpoint", "C:/models=old/sd"),
        ("optim.learning_rates={depth: 0.5}", "optim.learning_rates.depth", 0.5),
        ("optim.objectives.smoothness.weight=2e-1", "optim.objectives.smoothness.weight", 0.2),
    ],
)
def test_an_override_reaches_its_key(override: str, path: str, value: Any) -> None:
    section: Any = resolve(load_preset("smoke", [override])).model_dump()
    for part in path.split("."):
        section = section[part]
    assert section == value
    assert type(section) is type(value)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    text = "extends: smoke\noptim: {learning_rates: {embeddings: 1e-3}}\nprior: {t_min: 1e-2}\n"
    preset = resolve(load_preset(write(tmp_path, "mine.yaml", text)))
    assert preset.optim.learning_rates.embeddings == 1e-3
    assert preset.prior.options["t_min"] == 1e-2


def test_a_file_may_shadow_and_extend_a_shipped_name(tmp_path: Path) -> None:
    path = write(tmp_path, "smoke.yaml", "extends: smoke\noptim: {members: 5}\n")
    assert load_preset(path).optim.members == 5
    assert load_preset("smoke").optim.members == 2


@pytest.mark.parametrize("name", preset_names())
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    for preset in (load_preset(name), resolve(load_preset(name))):
        path = write(tmp_path, "another-name.yaml", preset.to_yaml())
        assert load_preset(path) == preset
        assert load_preset(preset.model_dump()) == preset
    pinhole = ["renderer.camera=pinhole", "renderer.intrinsics=[0.9, 1.2, 0.5, 0.5]"]
    change = ["optim.learning_rates.embeddings=1e-7", "description='é: #'", *pinhole]
    changed = resolve(load_preset(name, change))
    assert load_preset(write(tmp_path, "changed.yaml", changed.to_yaml())) == changed
    assert Preset.model_validate(changed.model_dump()) == changed


def test_resolving_writes_every_default_out() -> None:
    preset = resolve(Preset.model_validate(PARTS))
    written = {"lights": 2, "min_log2_shininess": 2, "max_log2_shininess": 7, "camera": "orthographic"}
    assert written.items() <= preset.renderer.options.items()
    assert preset.prior.options["view"] == "own-scale"
    assert resolve(preset) == preset


def test_a_section_set_to_null_is_taken_out() -> None:
    preset = load_preset("embedded-relief", ["optim.objectives.smoothness=null"])
    assert preset.optim.objectives == {}


# --- names and descriptions -----------------------------------------------------------------------


def test_a_derived_preset_says_what_it_changes_and_not_what_its_parent_says(tmp_path: Path) -> None:
    path = write(
        tmp_path, "mine.yaml", "extends: embedded-relief\nprior: {guidance_scale: 5.0}\noptim: {steps: 9}\n"
    )
    derived = load_preset(path)
    assert derived.name == "mine"
    assert derived.description == "extends embedded-relief: prior.guidance_scale=5.0, optim.steps=9"
    child = load_preset(write(tmp_path, "child.yaml", "extends: mine.yaml\noptim: {members: 2}\n"))
    assert (child.name, child.description) == ("child", "extends mine: optim.members=2")
    own = load_preset(write(tmp_path, "own.yaml", "extends: embedded-relief\ndescription: For coins.\n"))
    assert own.description == "For coins."


def test_a_derived_mapping_has_neither_its_parents_name_nor_its_description() -> None:
    changed = load_preset({"extends": "embedded-relief", "optim": {"steps": 9}})
    assert (changed.name, changed.description) == (
        "embedded-relief, changed",
        "extends embedded-relief: optim.steps=9",
    )
    same = load_preset({"extends": "embedded-relief"})
    assert (same.name, same.description) == ("embedded-relief", "extends embedded-relief")
    assert load_preset({"extends": "embedded-relief", "name": "mine"}).name == "mine"


def test_a_description_names_a_few_of_many_changes() -> None:
    rates = dict.fromkeys(("embeddings", "decoder", "encoder", "depth", "offset"), 1e-4)
    optim = {"learning_rates": rates, "objectives": {}, "steps": 7}
    description = load_preset({"extends": "embedded-relief", "optim": optim}).description
    assert description.startswith("extends embedded-relief: optim.learning_rates.embeddings=0.0001, ")
    assert description.endswith("=0.0001, 3 more")
    removed = load_preset({"extends": "embedded-relief", "optim": {"objectives": None}})
    assert removed.description == "extends embedded-relief: optim.objectives=null"


def test_presets_that_ship_have_descriptions_of_their_own() -> None:
    for name in preset_names():
        text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
        assert "\ndescription: " in f"\n{text}"
        assert not load_preset(name).description.startswith("extends ")


def test_overrides_keep_name_and_description() -> None:
    plain, overridden = load_preset("embedded-relief"), load_preset("embedded-relief", ["optim.steps=9"])
    assert (overridden.name, overridden.description) == (plain.name, plain.description)
