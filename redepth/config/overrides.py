"""Overrides of a preset: ``key.path=value`` texts, as on the command line, or a mapping of Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from redepth.errors import ConfigError, brief, cut
from redepth.io.markup import DEPTH_LIMIT, parse_yaml
from redepth.literals import RENAMED_OPTIONS

Overrides: TypeAlias = Sequence[str] | Mapping[str, Any]
"""A list of ``key.path=value`` texts, whose values are YAML; or a mapping of Python values, whose keys are
dotted, nested or both, such as ``{"optim.members": 3, "prior": {"guidance_scale": 5}}``."""


def merged_overrides(*layers: Overrides) -> dict[str, Any]:
    """Return some overrides as one nested mapping; of two layers that set the same key, the later one wins.

    Raises:
        ConfigError: a text is not ``key.path=value``, or a mapping sets a key twice or holds a value that no
            preset can hold.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        later = _nested(layer)
        merged = _join(without_replaced(merged, later), later)
    return merged


def without_replaced(layer: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the options that later ones set under another of their names."""
    kept = dict(layer)
    for section, names in RENAMED_OPTIONS.items():
        old, new = layer.get(section), later.get(section)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            other = {**names, **{current: former for former, current in names.items()}}
            kept[section] = {key: value for key, value in old.items() if other.get(key) not in new}
    return kept


def _nested(overrides: Overrides) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        return _of_mapping(overrides, ())
    if isinstance(overrides, str):
        raise ConfigError(f"overrides must be a list or a mapping, got the text {brief(overrides)}")
    nested: dict[str, Any] = {}
    for text in overrides:
        nested = _join(nested, _of_text(text))
    return nested


def _of_text(override: str) -> dict[str, Any]:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys) or len(keys) > DEPTH_LIMIT:
        raise ConfigError(f"override '{cut(override)}' is not of the form key.path=value")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"override '{cut(override)}': the value is not valid YAML: {error}") from None
    return _wrapped(keys, value)


def _wrapped(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return ``{a: {b: value}}`` for the keys a and b."""
    for key in reversed(keys):
        value = {key: value}
    return value


def _join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Join two sets of overrides; the second one wins."""
    joined = dict(first)
    for key, value in second.items():
        old = joined.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _join(old, value)
        joined[key] = value
    return joined


def _of_mapping(overrides: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a mapping with dotted keys as a nested one; ``path`` leads to it."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        keys = key.split(".") if isinstance(key, str) else []
        if not keys or not all(keys):
            inside = f" inside {'.'.join(path)}" if path else ""
            raise ConfigError(
                f"overrides: {brief(key)}{inside} is no key; give texts such as 'optim.members'"
            )
        where = (*path, *keys)
        _add(nested, _wrapped(keys, _plain(value, where)), path)
    return nested


def _add(nested: dict[str, Any], more: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Add overrides of the same mapping, in place. Raises ConfigError if they set what is set already."""
    for key, value in more.items():
        where = (*path, key)
        old = nested.get(key)
        if key not in nested:
            nested[key] = value
        elif isinstance(old, dict) and isinstance(value, Mapping):
            _add(old, value, where)
        else:
            raise ConfigError(f"overrides: {'.'.join(where)} is set twice; give it once")


def _plain(value: Any, where: tuple[str, ...]) -> Any:
    """Return a value as YAML would hold it. Raises ConfigError if it cannot."""
    if len(where) > DEPTH_LIMIT:
        raise ConfigError(f"overrides: {where[0]} is nested deeper than {DEPTH_LIMIT} levels; flatten it")
    if isinstance(value, Mapping):
        return _of_mapping(value, where)
    if isinstance(value, list | tuple):
        return [_plain(item, (*where, str(number))) for number, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return _plain(value.item(), where)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        f"overrides: {'.'.join(where)} is {brief(value)}, of type {type(value).__name__}; give a number, a "
        "text, a boolean, None, a list or a mapping"
    )
