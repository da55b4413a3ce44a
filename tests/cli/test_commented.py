"""The comments of `redepth show`: every setting has a short one, from its docstring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from redepth.cli.commented import MOST_LINES, WIDTH, Comment, _choices, commented_yaml, comments
from redepth.cli.docstrings import described, shortened
from redepth.components import FAMILIES, resolve
from redepth.config import load_preset, preset_names
from redepth.io.markup import parse_yaml
from redepth.registry import Entry
from redepth.renderers import REGISTRY as RENDERERS


def keys(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, Mapping):
            yield from keys(value, (*path, name))


def chosen() -> Iterator[Any]:
    """Every preset, and every renderer, prior and objective in a preset."""
    yield from (pytest.param(name, [], id=name) for name in preset_names())
    for family, section in (("renderers", "renderer"), ("priors", "prior")):
        for name in FAMILIES[family].entries():
            yield pytest.param("smoke", [f"{section}.name={name}"], id=name)
    for name in FAMILIES["objectives"].entries():
        yield pytest.param("smoke", [f"optim.objectives.{name}.weight=1"], id=name)
    # A depth model that has no embeddings can only be refined as a map.
    for name in FAMILIES["depth-models"].entries():
        overrides = [f"depth_model.name={name}", "optim.parameterization=depth"]
        yield pytest.param("smoke", overrides, id=name)


@pytest.mark.parametrize(("preset", "overrides"), chosen())
def test_every_setting_has_a_short_comment(preset: str, overrides: list[str]) -> None:
    resolved = resolve(load_preset(preset, overrides))
    found = comments(resolved)
    for path in keys(resolved.model_dump()):
        key = ".".join(path)
        assert key in found, f"{key} has no docstring"
        lines = found[key].lines(WIDTH - 2 * len(path))
        assert 1 <= len(lines) <= MOST_LINES, key
        assert not any("`" in line for line in lines), key


def test_a_comment_stands_above_its_setting() -> None:
    lines = commented_yaml(resolve(load_preset("smoke"))).splitlines()
    steps = lines.index("  steps: 3")
    assert lines[steps - 1] == "  # number of optimization steps of each member."
    assert max(map(len, lines)) <= WIDTH
    score = lines.index("  score: sds")
    assert "One of sds," in " ".join(lines[score - 2 : score])


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb\x1cc\r\n\nd"])
def test_a_text_with_unusual_ends_of_lines_loads_back_equal(text: str) -> None:
    changes = {"description": text, "prior.negative_prompt": text}
    preset = resolve(load_preset("re-depth-anything", changes))
    assert resolve(load_preset(parse_yaml(commented_yaml(preset)))) == preset


@dataclass
class Base:
    """A base.

    Args:
        first: of ``Base``, see `x`.
        second, third: for two
            of them.

    Note: this is no setting.
    """

    first: int = 0


class Derived(Base):
    """Overrides.

    Attributes:
        first: of the derived class.
    """

    def __init__(self, fourth: int) -> None:
        """Make one.

        Args:
            fourth: of the constructor.

        Raises:
            ValueError: never.
        """


def test_docstrings_of_bases_and_constructors_are_read() -> None:
    assert described(Base) == {
        "first": "of Base, see x.",
        **dict.fromkeys(("second", "third"), "for two of them."),
    }
    assert described(Derived)["first"] == "of the derived class."
    assert described(Derived)["fourth"] == "of the constructor."
    assert described(Derived)["second"] == "for two of them."
    assert not {"ValueError", "Note"} & set(described(Derived))


def test_whole_sentences_are_kept() -> None:
    text = "One of Lin et al. (2024). Two is 2.5 long. Three."
    assert shortened(text, 1) == "One of Lin et al. (2024)."
    assert shortened(text, 45) == "One of Lin et al. (2024). Two is 2.5 long."
    assert shortened(text, 100) == text


def test_choices_are_listed_unless_the_text_names_them() -> None:
    assert _choices(Literal["a", "b"] | None) == ("a", "b")
    assert _choices(Literal["auto"] | int) == ()
    assert Comment("the kind.", ("a", "b")).lines(80) == ["the kind. One of a, b."]
    assert Comment("the kind: a, or b.", ("a", "b")).lines(80) == ["the kind: a, or b."]


def test_a_component_without_docstring_is_shown_without_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    from redepth.renderers.ggx import GGX

    class Bare(GGX):
        def __init__(self, odd: float = 1.0) -> None:
            super().__init__()

    monkeypatch.setitem(RENDERERS._entries, "bare", Entry("bare", Bare))
    text = commented_yaml(resolve(load_preset("smoke", ["renderer.name=bare"])))
    assert "\n  odd: 1.0\n" in text
