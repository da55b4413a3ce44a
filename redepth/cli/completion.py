"""What a shell completes besides commands and options: presets, components and settings.

A key press must not wait for torch: this module imports names and schemas alone. So it knows the
components that ship with redepth and those of installed packages, but no options of components.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from redepth.literals import FamilyName

# Imports of pydantic, for types alone.
if TYPE_CHECKING:
    from pydantic import BaseModel

    from redepth.registry import Registry


def presets(incomplete: str) -> list[str]:
    """Return the names of the presets that ship with the package."""
    from redepth.config import preset_names

    return _starting(preset_names(), incomplete)


def families(incomplete: str) -> list[str]:
    """Return the families that can be listed."""
    return _starting(list(get_args(FamilyName)), incomplete)


def presets_and_components(incomplete: str) -> list[str]:
    """Return the names of presets, depth models, renderers and priors."""
    names = [
        name for section in ("depth_model", "renderer", "prior") for name in _registry(section).entries()
    ]
    return _starting([*presets(""), *sorted(names)], incomplete)


def settings(incomplete: str) -> list[str]:
    """Return the keys of settings, such as ``optim.steps=``; after the ``=``, the values that are known."""
    from redepth.config import Preset

    key, equals, value = incomplete.partition("=")
    fields = dict(_fields(Preset, ""))
    if not equals:
        return _starting([f"{field}=" for field in fields], incomplete)
    done, comma, last = value.rpartition(",")
    return [f"{key}={done}{comma}{choice}" for choice in _starting(_choices(key, fields.get(key)), last)]


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key of each setting below a section, and its annotation."""
    from pydantic import BaseModel

    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _fields(annotation, f"{prefix}{name}.")
        elif get_origin(annotation) is not dict:
            yield f"{prefix}{name}", annotation


def _choices(key: str, annotation: Any) -> list[str]:
    section, _, last = key.rpartition(".")
    if section in ("depth_model", "renderer", "prior") and last == "name":
        return sorted(_registry(section).entries())
    if annotation is bool:
        return ["false", "true"]
    parts = [annotation, *get_args(annotation)]
    return [str(value) for part in parts if get_origin(part) is Literal for value in get_args(part)]


def _registry(section: str) -> Registry:
    from redepth import depth_models, priors, renderers

    return {"depth_model": depth_models, "renderer": renderers, "prior": priors}[section].REGISTRY


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
