"""Presets: extends, merging, overrides, what is refused and how, and the paper's constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from redepth.components import resolve
from redepth.config import DEFAULT_PRESET, Preset, load_preset, preset_names
from redepth.errors import ConfigError, MissingDependencyError
from redepth.ops import geometry
from redepth.registry import Registry, options_schema

PARTS: dict[str, Any] = {
    "depth_model": {"name": "depth-anything", "longer_side": 280},
    "renderer": {"name": "blinn-phong", "lights": 2},
    "prior": {"name": "pixel-diffusion", "guidance_scale": 2.0},
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(source: Any, *overrides: str) -> str:
    """The message that a preset is refused with: always one line."""
    with pytest.raises(ConfigError) as error:
        resolve(load_preset(source, overrides))
    message = str(error.value)
    assert "\n" not in message
    return message


# --- the paper, constant by constant --------------------------------------------------------------

PAPER = {
    "depth_model.name": "depth-anything",
    "depth_model.checkpoint": "depth-anything/Depth-Anything-V2-Small-hf",
    "depth_model.longer_side": 518,
    "depth_model.resize_rule": "upper_bound",
    "depth_model.scale": 7.0,
    "depth_model.margin": 0.1,
    "renderer.name": "blinn-phong",
    "renderer.lights": 1,
    "renderer.min_log2_shininess": 2,
    "renderer.max_log2_shininess": 7,
    "prior.name": "stable-diffusion",
    "prior.checkpoint": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "prior.size": 512,
    "prior.score": "sds",
    "prior.guidance_scale": 50.0,
    "prior.guidance_base": "text",
    "prior.weighting": "uniform",
    "prior.t_min": 0.02,
    "prior.t_max": 0.60,
    "prior.reduction": "mean",
    "prior.dtype": "float16",
    "prior.negative_prompt": "",
    "optim.parameterization": "embeddings+decoder",
    "optim.steps": 1000,
    "optim.members": 10,
    "optim.learning_rates.embeddings": 1e-3,
    "optim.learning_rates.decoder": 2e-6,
    "optim.learning_rates.offset": 1e-3,
    "optim.schedule": "constant",
    "optim.weight_decay": 0.01,
    "optim.prior_weight": 1.0,
    "optim.objectives.smoothness.weight": 1.0,
    "optim.blend": "none",
    "optim.early_stop.enabled": False,
}


@pytest.mark.parametrize(("key", "value"), PAPER.items())
def test_the_default_preset_has_the_papers(key: str, value: Any) -> None:
    found: Any = resolve(load_preset()).model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_the_default_preset_has_no_other_objective() -> None:
    assert DEFAULT_PRESET == "re-depth-anything"
    assert set(load_preset().optim.objectives) == {"smoothness"}


def test_the_papers_resize_rule_makes_the_longer_side_518() -> None:
    preset = load_preset().depth_model.options
    size = geometry.network_size(
        480, 640, target=preset["longer_side"], multiple=14, rule=preset["resize_rule"]
    )
    assert max(size) == 518


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_valid(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    resolve(preset)


# --- merging --------------------------------------------------------------------------------------


def test_a_child_says_only_what_differs() -> None:
    parent, child = load_preset("embedded"), load_preset("smoke")
    assert child.optim.steps < parent.optim.steps
    assert child.optim.learning_rates == parent.optim.learning_rates
    assert child.optim.objectives == parent.optim.objectives
    assert child.prior == parent.prior
    assert child.depth_model.options == {**parent.depth_model.options, "longer_side": 96}


def test_a_file_extends_a_file_beside_it_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "sub/base.yaml", "extends: embedded\noptim: {members: 7}\n")
    child = write(tmp_path, "sub/child.yaml", "extends: base.yaml\noptim: {steps: 11}\n")
    monkeypatch.chdir(tmp_path.parent)
    preset = load_preset(child)
    assert (preset.optim.members, preset.optim.steps) == (7, 11)
    assert preset.name == "child"
    assert preset.prior == load_preset("embedded").prior
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


# --- overrides ------------------------------------------------------------------------------------


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
    found: Any = resolve(load_preset("smoke", [override])).model_dump()
    for part in path.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    text = "extends: smoke\noptim: {learning_rates: {embeddings: 1e-3}}\nprior: {t_min: 1e-2}\n"
    preset = resolve(load_preset(write(tmp_path, "mine.yaml", text)))
    assert preset.optim.learning_rates.embeddings == 1e-3
    assert preset.prior.options["t_min"] == 1e-2


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("override", ["", "members", "=3", "optim.=3", ".optim=3", "a..b=3", "a.b=[1", "a={"])
def test_an_override_of_the_wrong_form_is_named(override: str) -> None:
    assert f"override '{override}'" in refusal("smoke", override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.stpes=3", ("unknown key 'optim.stpes'", "did you mean 'steps'?", "members, ")),
        ("rendrer.lights=3", ("unknown key 'rendrer'", "did you mean 'renderer'?")),
        ("optim.early_stop.windw=3", ("'optim.early_stop.windw'", "did you mean 'window'?")),
        ("optim.learning_rates.decodr=1", ("'optim.learning_rates.decodr'", "did you mean 'decoder'?")),
        (
            "renderer.lihgts=3",
            ("unknown key 'renderer.lihgts'", "did you mean 'lights'?", "(valid: ambient,"),
        ),
        ("renderer.nmae=x", ("'renderer.nmae'", "did you mean 'name'?")),
        ("optim.objectives.smoothness.wieght=1", ("'optim.objectives.smoothness.wieght'", "'weight'?")),
        ("optim.objectives.smothness.weight=1", ("objective 'smothness'", "did you mean 'smoothness'?")),
        ("depth_model.name=depth-anythin", ("depth_model 'depth-anythin'", "did you mean 'depth-anything'?")),
        ("prior.name=stable-difusion", ("prior 'stable-difusion'", "did you mean 'stable-diffusion'?")),
    ],
)
def test_an_unknown_key_comes_with_the_nearest(override: str, words: tuple[str, ...]) -> None:
    message = refusal("smoke", override)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.steps=0", ("optim.steps", "greater than or equal to 1", "got 0")),
        ("optim.steps=100001", ("optim.steps", "less than or equal to 100000")),
        ("optim.members=1001", ("optim.members", "less than or equal to 1000")),
        ("optim.members=1.5", ("optim.members", "integer", "got 1.5")),
        ("optim.members=ten", ("optim.members", "integer", "got 'ten'")),
        ("optim.members=", ("optim.members", "integer", "got None")),
        ("optim.members_per_batch=0", ("optim.members_per_batch: ", "'auto'", "greater than or equal to 1")),
        ("optim.weight_decay=-1", ("optim.weight_decay", "greater than or equal to 0", "got -1")),
        ("optim.weight_decay=.inf", ("optim.weight_decay", "finite", "got inf")),
        ("optim.learning_rates.decoder=.nan", ("optim.learning_rates.decoder", "finite", "got nan")),
        ("optim.objectives.smoothness.weight=.inf", ("smoothness.weight", "finite")),
        ("optim.early_stop.min_improvement=1", ("optim.early_stop.min_improvement", "less than 1")),
        ("optim.schedule=linear", ("optim.schedule", "'constant' or 'cosine'", "got 'linear'")),
        ("optim=3", ("optim: ", "dictionary", "got 3")),
        ("renderer=phong", ("renderer: ", "dictionary", "got 'phong'")),
        ("prior.guidance_scale=-1", ("prior.guidance_scale", "greater than or equal to 0")),
        ("prior.guidance_scale=.inf", ("prior.guidance_scale", "finite", "got inf")),
        ("prior.t_max=1.2", ("prior.t_max", "less than or equal to 1")),
        ("prior.dtype=fp16", ("prior.dtype", "'float16'", "got 'fp16'")),
        ("depth_model.scale=1", ("depth_model.scale", "greater than 1")),
        ("depth_model.resize_rule=fit", ("depth_model.resize_rule", "'upper_bound'")),
    ],
)
def test_a_wrong_value_comes_with_the_allowed_ones(override: str, words: tuple[str, ...]) -> None:
    message = refusal("smoke", override)
    for word in words:
        assert word in message
    assert "literal[" not in message


def test_all_that_is_wrong_is_said_with_a_hint_each() -> None:
    message = refusal("smoke", "optim.members=x", "optim.stpes=3", "optim.early_stop.windw=4")
    assert "optim.members: " in message
    assert "did you mean 'steps'?" in message
    assert "did you mean 'window'?" in message


def test_a_missing_section_is_named() -> None:
    message = refusal({"renderer": {"lights": 1}, "prior": PARTS["prior"]})
    assert "depth_model: field required" in message
    assert "renderer.name: field required" in message
    assert "prior" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("mapping",)),
        ("- a\n- b\n", ("mapping",)),
        ("optim: [1\n", ("cannot read", "line")),
        ("a: b: c\n", ("cannot read",)),
        ("optim: !!python/object:os.system {}\n", ("cannot read",)),
        ("extends: [smoke]\n", ("extends", "smoke")),
        ("extends: 3\n", ("extends", "3")),
        ("extends: smok\n", ("unknown preset 'smok'", "'smoke'")),
        ("extends: gone.yaml\n", ("gone.yaml", "does not exist")),
        ("extends: smoke\n1: 2\n", ("keys should be strings",)),
    ],
)
def test_a_file_that_is_no_preset_is_refused(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "mine.yaml", text))
    for word in words:
        assert word in message


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    assert str(path) in refusal(path)
    assert "unknown preset" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "gone.yml")


def test_a_circle_is_shown(tmp_path: Path) -> None:
    first = write(tmp_path, "first.yaml", "extends: second.yaml\n")
    write(tmp_path, "second.yaml", f"extends: {first}\n")
    message = refusal(first)
    assert "circle" in message
    assert message.index("first.yaml") < message.index("second.yaml") < message.rindex("first.yaml")
    assert "circle" in refusal({"extends": str(first)})
    assert "circle" in refusal(write(tmp_path, "self.yaml", "extends: self.yaml\n"))


def test_a_file_may_shadow_and_extend_a_shipped_name(tmp_path: Path) -> None:
    path = write(tmp_path, "smoke.yaml", "extends: smoke\noptim: {members: 5}\n")
    assert load_preset(path).optim.members == 5
    assert load_preset("smoke").optim.members == 2


def test_a_preset_cannot_be_changed_in_place() -> None:
    preset = load_preset("smoke")
    for section, key in ((preset, "name"), (preset.optim, "steps"), (preset.prior, "name")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, key, "other")


# --- round trip -----------------------------------------------------------------------------------


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


# --- the registry's reading of a constructor ------------------------------------------------------


class Anything(Protocol):
    """A contract that asks for nothing."""


def test_a_schema_is_the_constructor_s_keyword_arguments() -> None:
    class Odd:
        def __init__(self, model_size: int, *args: Any, free=None, **kwargs: Any) -> None: ...  # type: ignore[no-untyped-def]

    class Bare: ...

    assert list(options_schema(Odd).model_fields) == ["model_size", "free"]
    assert not options_schema(Bare).model_fields
    registry = Registry("thing", "redepth.things", Anything)
    registry.register("odd")(Odd)
    with pytest.raises(ConfigError, match=r"thing\.model_size: field required"):
        registry.check("odd", {})
    assert registry.check("odd", {"model_size": "3"}) == {"model_size": 3, "free": None}
    with pytest.raises(ConfigError, match=r"unknown key 'thing\.fre'; did you mean 'free'"):
        registry.check("odd", {"model_size": 3, "fre": 1})


def test_a_component_whose_package_is_missing_says_what_to_install() -> None:
    registry = Registry("thing", "redepth.things", Anything)
    registry.add("far", "redepth.nowhere:Far", "one", needs=(("no_such_module", "far"),))
    assert registry.entries()["far"].missing() == ["far"]
    with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[far\]"'):
        registry.get("far")
    registry.add("lost", "redepth.nowhere:Lost", "one")
    with pytest.raises(ConfigError, match=r"'lost'.*cannot import redepth\.nowhere:Lost"):
        registry.get("lost")
    registry.add("function", "redepth.pipeline:refine", "one")
    with pytest.raises(ConfigError, match="not a class"):
        registry.get("function")


def test_a_class_that_does_not_follow_the_contract_is_refused_by_what_it_lacks() -> None:
    class Speaks(Protocol):
        tone: str

        def speak(self) -> str: ...

    class Mute:
        tone = "none"

    registry = Registry("voice", "redepth.voices", Speaks)
    registry.register("mute")(Mute)
    with pytest.raises(ConfigError, match=r"voice 'mute' lacks speak, which .*Speaks asks for"):
        registry.check("mute", {})


def test_a_section_set_to_null_is_taken_out() -> None:
    preset = load_preset("embedded", ["optim.objectives.smoothness=null"])
    assert preset.optim.objectives == {}
