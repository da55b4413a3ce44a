"""A preset as YAML with a comment above each setting: what its docstring says."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from redepth.cli.docstrings import described, shortened
from redepth.config import Component, Preset, Term
from redepth.io.markup import dump_yaml
from redepth.registry import options_schema

WIDTH = 100
"""Columns of the text."""
MOST_LINES = 2
"""Lines of a comment."""

_SECTIONS = {"depth_model": "depth-models", "renderer": "renderers", "prior": "priors"}


def commented_yaml(preset: Preset) -> str:
    """Return a resolved preset as YAML with comments, which loads back to an equal preset."""
    return "".join(f"{line}\n" for line in _lines(preset.model_dump(), comments(preset), ()))


@dataclass(frozen=True)
class Comment:
    """What a setting means, and the words that it may be."""

    text: str
    choices: tuple[str, ...] = ()

    def lines(self, width: int) -> list[str]:
        """Return the comment within a number of columns: as many whole sentences as fit, then the choices."""
        # Words are not broken, so the lines are not full.
        limit = MOST_LINES * width - 20
        text = shortened(self.text, limit)
        if not set(self.choices) <= set(re.findall(r"[\w+.-]*\w", text)):
            listed = f" One of {', '.join(self.choices)}."
            text = shortened(self.text, limit - len(listed)) + listed
        return textwrap.wrap(text, width, break_on_hyphens=False)


def comments(preset: Preset) -> dict[str, Comment]:
    """Return the comment of each setting of a resolved preset, by its dotted key."""
    from redepth.components import FAMILIES

    found = dict(_sections("", preset))
    for section, family in _SECTIONS.items():
        component: Component = getattr(preset, section)
        found[f"{section}.name"] = Comment(f"one of those that redepth list {family} shows.")
        found |= _options(section, FAMILIES[family].get(component.name))
    objectives = FAMILIES["objectives"]
    for name in preset.optim.objectives:
        key = f"optim.objectives.{name}"
        found[key] = Comment(f"{objectives.entries()[name].summary}.")
        found |= _comments(f"{key}.", Term, Term)
        found |= _options(key, objectives.get(name))
    return found


def _sections(prefix: str, section: BaseModel) -> Iterator[tuple[str, Comment]]:
    """Yield the comments of a section of the schema and of the sections inside it."""
    yield from _comments(prefix, type(section), type(section)).items()
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _sections(f"{prefix}{name}.", value)


def _options(section: str, component: type) -> dict[str, Comment]:
    """Return the comments of a component's options; those of other packages may have no docstring."""
    return _comments(f"{section}.", component, options_schema(component))


def _comments(prefix: str, owner: type, schema: type[BaseModel]) -> dict[str, Comment]:
    texts = described(owner)
    return {
        f"{prefix}{name}": Comment(texts[name], _choices(field.annotation))
        for name, field in schema.model_fields.items()
        if name in texts
    }


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the words that a setting may be, if it may be nothing else."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        inner = [_choices(part) for part in parts]
        return tuple(word for words in inner for word in words) if all(inner) else ()
    return ()


def _lines(values: Mapping[str, Any], texts: Mapping[str, Comment], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a section."""
    indent = "  " * len(path)
    for name, value in values.items():
        key = (*path, name)
        if comment := texts.get(".".join(key)):
            yield from (f"{indent}# {line}" for line in comment.lines(WIDTH - len(indent) - 2))
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, texts, key)
        else:
            # Not `str.splitlines`, which breaks a text at other characters, too.
            yield from (f"{indent}{line}" for line in dump_yaml({name: value}).rstrip("\n").split("\n"))
