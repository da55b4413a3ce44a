"""The registry: schemas from constructors, missing packages, contracts."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import pytest

from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.errors import ConfigError, MissingDependencyError, RenamedOptionWarning
from redepth.literals import RENAMED_OPTIONS
from redepth.priors import REGISTRY as PRIORS
from redepth.registry import Registry, options_schema
from redepth.renderers import REGISTRY as RENDERERS


class Anything(Protocol):
    """A contract without members."""


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


class Lamp:
    """A component with a renamed option."""

    renamed_options: ClassVar[dict[str, str]] = {"watts": "power"}

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power


def lamps() -> Registry:
    registry = Registry("lamp", "redepth.lamps", Anything)
    registry.register("lamp")(Lamp)
    return registry


def test_the_former_name_of_an_option_works_with_a_warning() -> None:
    with pytest.warns(RenamedOptionWarning, match=r"^lamp\.watts is deprecated, .* lamp\.power$") as caught:
        assert lamps().check("lamp", {"watts": "3"}) == {"power": 3.0}
    assert [warning.filename for warning in caught] == [__file__]
    assert issubclass(RenamedOptionWarning, DeprecationWarning)
    with pytest.warns(RenamedOptionWarning, match=r"room\.watts"):
        lamps().check("lamp", {"watts": 3}, where="room")
    with pytest.warns(RenamedOptionWarning):
        assert lamps().build("lamp", {"watts": 3}).power == 3
    assert lamps().with_current_names("lamp", {"watts": 3}, warn=False) == {"power": 3}
    assert lamps().check("lamp", {"power": 3}) == {"power": 3.0}


class Dimmer:
    """A component with a renamed option whose values were renamed, too."""

    renamed_options: ClassVar[dict[str, str]] = {"glow": "light"}
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"glow": {"strong": "bright"}}

    def __init__(self, *, light: str = "dark") -> None:
        self.light = light


def test_the_values_of_a_former_option_get_their_new_names() -> None:
    registry = Registry("lamp", "redepth.lamps", Anything)
    registry.register("dimmer")(Dimmer)
    with pytest.warns(RenamedOptionWarning, match=r"use its new name lamp\.light=bright$"):
        assert registry.check("dimmer", {"glow": "strong"}) == {"light": "bright"}
    with pytest.warns(RenamedOptionWarning, match=r"use its new name lamp\.light$"):
        assert registry.check("dimmer", {"glow": "other"}) == {"light": "other"}
    assert registry.check("dimmer", {"light": "strong"}) == {"light": "strong"}


def test_both_names_of_an_option_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lamp\.watts is the former name of lamp\.power, and both are set"):
        lamps().check("lamp", {"watts": 3, "power": 3})


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
    with pytest.raises(ConfigError, match=r"voice 'mute' lacks speak, which .*Speaks requires"):
        registry.check("mute", {})


def test_layers_of_presets_know_every_former_name() -> None:
    """`redepth.config` merges layers by this table, because it cannot see the components."""
    for section, registry in (("depth_model", DEPTH_MODELS), ("renderer", RENDERERS), ("prior", PRIORS)):
        found: dict[str, str] = {}
        for name in registry.entries():
            found |= getattr(registry.get(name), "renamed_options", {})
        assert RENAMED_OPTIONS.get(section, {}) == found
