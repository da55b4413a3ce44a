"""One registry per family: a name stands for ``"module:Class"``, for a class, or for an entry point.

A component's options are the typed keyword arguments of its constructor. They are checked (names,
types, ranges) by a pydantic model built from that signature, before any weights are touched.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from redepth.errors import ConfigError, MissingDependencyError, nearest

C = TypeVar("C", bound=type)


def require(module: str, extra: str) -> Any:
    """Import an optional module, or say which extra brings it.

    Raises:
        MissingDependencyError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'{module} is needed for this: pip install "redepth[{extra}]" ({error})'
        ) from error


@dataclass(frozen=True)
class Entry:
    """One registered component: where its class is, and the modules beyond the core that it needs."""

    name: str
    target: str | type
    summary: str = ""
    needs: tuple[tuple[str, str], ...] = ()

    def load(self) -> type:
        """Import and return the class."""
        if not isinstance(self.target, str):
            return self.target
        for module, extra in self.needs:
            require(module, extra)
        module_name, _, attribute = self.target.partition(":")
        component = getattr(importlib.import_module(module_name), attribute)
        if not inspect.isclass(component):
            raise ConfigError(f"component '{self.name}': {self.target} is not a class")
        return component

    def missing(self) -> list[str]:
        """Return the extras that have to be installed before this can run here."""
        return [extra for module, extra in self.needs if importlib.util.find_spec(module) is None]


class Registry:
    """The components of one family, by name.

    Args:
        family: the singular used in messages and presets, such as ``"renderer"``.
        group: the entry-point group that third-party packages use, such as ``"redepth.renderers"``.
    """

    def __init__(self, family: str, group: str) -> None:
        self.family = family
        self.group = group
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: str, summary: str, needs: tuple[tuple[str, str], ...] = ()) -> None:
        """Register ``"module:Class"`` without importing it."""
        self._entries[name] = Entry(name, target, summary, needs)

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that makes a class a component under this name.

        Raises:
            ConfigError: if another class already has the name.
        """

        def decorate(component: C) -> C:
            known = self._entries.get(name)
            if known is not None and _path(known.target) != _path(component):
                raise ConfigError(
                    f"{self.family} '{name}' is already registered by {_path(known.target)}; "
                    "choose another name"
                )
            summary = (inspect.getdoc(component) or "").partition("\n")[0]
            self._entries[name] = Entry(name, component, summary)
            return component

        return decorate

    def entries(self) -> dict[str, Entry]:
        """Return every component by name, those of installed packages included."""
        found = {
            point.name: Entry(point.name, point.value, f"from package {_distribution(point)}")
            for point in entry_points(group=self.group)
        }
        return {**found, **self._entries}

    def get(self, name: str) -> type:
        """Return the class registered under the name.

        Raises:
            ConfigError: for an unknown name, with the nearest valid one.
            MissingDependencyError: if it needs a package that is not installed.
        """
        entries = self.entries()
        if name not in entries:
            valid = ", ".join(sorted(entries))
            hint = nearest(name, entries)
            raise ConfigError(f"unknown {self.family} '{name}'{hint} (valid: {valid})")
        return entries[name].load()

    def check(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a component with defaults filled in and types coerced.

        Raises:
            ConfigError: naming the key, what was wrong and the nearest valid key.
        """
        schema = options_schema(self.get(name))
        try:
            return schema(**options).model_dump()
        except ValidationError as error:
            raise ConfigError(explain(error, self.family, list(schema.model_fields))) from None

    def build(self, name: str, options: Mapping[str, Any]) -> Any:
        """Check the options and construct the component."""
        return self.get(name)(**self.check(name, options))


def options_schema(component: type) -> type[BaseModel]:
    """Build the pydantic model of a constructor's keyword arguments."""
    # A dataclass inherits fields whose annotations belong to the namespaces of its base classes.
    source = component if is_dataclass(component) else component.__init__  # type: ignore[misc]
    hints = get_type_hints(source, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(component).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra="forbid", protected_namespaces=())
    return create_model(component.__name__ + "Options", __config__=config, **fields)


def explain(error: ValidationError, where: str, valid: list[str] | None = None) -> str:
    """Turn a pydantic error to one line: key, complaint, value given, nearest valid key."""
    lines = []
    for item in error.errors():
        key = ".".join([where, *(str(part) for part in item["loc"])]).strip(".")
        if item["type"] == "extra_forbidden":
            names = valid or []
            listed = f" (valid: {', '.join(sorted(names))})" if names else ""
            lines.append(f"unknown key '{key}'{nearest(str(item['loc'][-1]), names)}{listed}")
        else:
            message = item["msg"][:1].lower() + item["msg"][1:]
            given = "" if item["type"] == "missing" else f", got {item['input']!r}"
            lines.append(f"{key}: {message}{given}")
    return "; ".join(lines)


def _path(target: str | type) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def _distribution(point: Any) -> str:
    return point.dist.name if point.dist is not None else point.value
