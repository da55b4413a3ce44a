"""The combinations of varied settings, and what is wrong with them before any work."""

from __future__ import annotations

from typing import Any

import pytest

from redepth.ablations import MOST_VARIANTS, parse_axes, short_names, variants_of
from redepth.ablations.variants import refuse
from redepth.errors import ConfigError


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("renderer.name=ggx,lambert", ["ggx", "lambert"]),
        ("optim.steps = 1, 2", [1, 2]),
        ("prior.guidance_scale=1e-3,2.5", [0.001, 2.5]),
        ("optim.budget=null,60s", [None, "60s"]),
        ("optim.early_stop.enabled=false,true", [False, True]),
        ("output.write=[map],[map, mesh]", [["map"], ["map", "mesh"]]),
        ('output.write="map,mesh",map', ["map,mesh", "map"]),
        ('prior.name="true",x', ["true", "x"]),
    ],
)
def test_values_are_yaml(axis: str, values: list[Any]) -> None:
    assert list(parse_axes([axis]).values()) == [values]


@pytest.mark.parametrize(
    ("vary", "overrides", "words"),
    [
        ([], [], "nothing is varied: give --vary"),
        (["renderer.name"], [], "--vary 'renderer.name': give KEY=VALUE,VALUE"),
        (["=1,2"], [], "--vary '=1,2'"),
        (["a..b=1,2"], [], "--vary 'a..b=1,2'"),
        (["optim.steps="], [], "--vary optim.steps: has no value"),
        (["optim.steps=1,2,1"], [], "has a value twice"),
        (["optim.steps=[1"], [], "not valid YAML"),
        (["optim.steps=1", "optim.steps=2"], [], "--vary optim.steps: given twice"),
        (["optim.steps=1,2"], ["optim.steps=3"], "optim.steps: given by --vary and by --set"),
        (
            ["renderer.name=ggx,lambert", "renderer={name: phong}"],
            [],
            "--vary renderer.name and --vary renderer: one of them holds the other",
        ),
        (
            ["renderer={name: phong}", "renderer.name=ggx,lambert"],
            [],
            "--vary renderer and --vary renderer.name: one of them holds the other",
        ),
        (
            ["renderer.name=ggx,lambert"],
            ["renderer={name: phong}"],
            "--vary renderer.name and --set renderer: one of them holds the other",
        ),
        (
            ["renderer={name: phong}"],
            ["renderer.lights=2"],
            "--vary renderer and --set renderer.lights: one of them holds the other",
        ),
    ],
)
def test_what_cannot_be_varied_is_refused(vary: list[str], overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_axes(vary, overrides)
    assert words in str(error.value)


def test_keys_that_only_begin_alike_are_varied_together() -> None:
    axes = parse_axes(["optim.steps=1,2", "optim.step=1"], ["renderer.name=ggx", "optim.members=1"])
    assert list(axes) == ["optim.steps", "optim.step"]


def test_too_many_combinations_are_refused() -> None:
    numbers = ",".join(map(str, range(1, 17)))
    axes = parse_axes([f"optim.steps={numbers}", f"optim.members={numbers}"])
    assert len(axes["optim.steps"]) * len(axes["optim.members"]) == MOST_VARIANTS
    with pytest.raises(ConfigError, match=r"512 combinations are too many \(at most 256\)"):
        parse_axes([f"optim.steps={numbers}", f"optim.members={numbers}", "renderer.lights=1,2"])


def test_every_combination_is_a_preset_with_overrides() -> None:
    axes = parse_axes(["renderer.name=ggx,lambert", "prior.score=sds,csd"])
    variants = variants_of("smoke", ["optim.steps=2", "renderer.lights=4"], axes)
    assert [variant.name for variant in variants] == [
        "renderer.name=ggx+prior.score=sds",
        "renderer.name=ggx+prior.score=csd",
        "renderer.name=lambert+prior.score=sds",
        "renderer.name=lambert+prior.score=csd",
    ]
    assert [variant.label for variant in variants][1] == "renderer ggx, score csd"
    for variant in variants:
        assert variant.preset.optim.steps == 2
        assert variant.preset.renderer.options["lights"] == 4
        assert variant.preset.renderer.name == variant.values["renderer.name"]
        assert variant.preset.prior.options["score"] == variant.values["prior.score"]
        assert {"map", "initial", "normals", "comparison"} <= set(variant.preset.output.write)


def test_files_that_the_user_chose_are_written_besides_those_of_the_sheet() -> None:
    (variant,) = variants_of("smoke", ["output.write=mesh"], parse_axes(["optim.steps=1"]))
    assert variant.preset.output.write == ["map", "initial", "normals", "mesh"]


def test_each_variant_has_a_folder_of_its_own() -> None:
    axes = parse_axes(
        ["prior.weights=trained,random", "optim.budget=null,60s", "depth_model.longer_side=64,96"]
    )
    names = [variant.name for variant in variants_of("smoke", [], axes)]
    assert len(set(names)) == 8
    assert names[0] == "prior.weights=trained+optim.budget=null+depth_model.longer_side=64"
    # A value that is no name of a folder.
    (odd,) = variants_of("smoke", [], parse_axes(['description="a/b"']))
    assert "/" not in odd.name


def test_bad_combinations_are_named_together() -> None:
    with pytest.raises(ConfigError) as error:
        variants_of("smoke", [], parse_axes(["renderer.name=ggx,no-such", "optim.steps=1,0"]))
    message = str(error.value)
    assert message.startswith("3 of 4 combinations cannot be used: ")
    assert "renderer.name=ggx+optim.steps=0 and 1 more: preset: optim.steps" in message
    assert "renderer.name=no-such+optim.steps=1: unknown renderer 'no-such'" in message
    assert "\n" not in message


def test_many_reasons_are_cut() -> None:
    refuse({}, 10)
    with pytest.raises(ConfigError, match=r"^5 of 10 .*a: 1; b: 2; c: 3; and 2 more problems$"):
        refuse({name: str(n) for n, name in enumerate("abcde", 1)}, 10)


def test_short_names_stay_different() -> None:
    assert short_names(["renderer.name", "prior.score"]) == ["renderer", "score"]
    assert short_names(["prior.weights", "depth_model.weights"]) == ["prior.weights", "depth_model.weights"]
