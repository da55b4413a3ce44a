"""Load presets: by name, from a YAML file or from a mapping, with ``extends:`` and dotted overrides."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from redepth.config.overrides import Overrides, merged_overrides, without_replaced
from redepth.config.schema import Preset
from redepth.errors import ConfigError, InputError, brief, cut, nearest
from redepth.io import read_text
from redepth.io.markup import TEXT_LIMIT, parse_yaml
from redepth.io.paths import exists, expanded, is_folder
from redepth.registry import Location, explain

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "re-depth-anything"
LONGEST_CHAIN = 16
"""Most presets that may extend each other."""
SHOWN_SETTINGS = 4
"""Settings that the description of a derived preset names."""


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(source: str | Path | Mapping[str, Any] = DEFAULT_PRESET, overrides: Overrides = ()) -> Preset:
    """Load a preset by name, from a YAML file or from a mapping, and apply overrides (`Overrides`).

    A preset may have ``extends: NAME`` and then only the keys that differ; a section set to null is removed.
    A component whose name changes starts from its own defaults: the options of the former one are dropped.
    A preset without a description says what it extends and what it changes; without a name, a file has that
    of its stem.
    A file in ``extends:`` is searched in the preset's own folder first, then in the working directory. The
    order of overrides matters only if two texts set the same key.

    Raises:
        ConfigError: unknown preset or key (with the nearest valid one), wrong type, value out of
            range, unreadable file.
    """
    if isinstance(source, Mapping):
        data = _extend(dict(source), Path(), chain=())
    else:
        data = _load(_find(source, Path()), chain=())
    # All overrides are joined before they are applied: an option may precede its component's name.
    changes = merged_overrides(overrides)
    try:
        return Preset.model_validate(_merge(without_replaced(data, changes), changes))
    except ValidationError as error:
        raise ConfigError(f"preset: {explain(error, '', _valid_keys, Preset)}") from None


def _find(source: str | Path, folder: Path) -> Path:
    """Return the file of a preset: one that ships, or a file in the folder or the working directory."""
    names = preset_names()
    if str(source) in names:
        return PRESETS / f"{source}.yaml"
    try:
        path = expanded(source)
    except InputError as error:
        raise ConfigError(f"preset {error}") from None
    for candidate in (folder / path, path):
        if exists(candidate) and not is_folder(candidate):
            return candidate
    if path.suffix in {".yaml", ".yml"}:
        raise ConfigError(f"preset file {brief(str(source))} does not exist")
    hint = nearest(str(source), names)
    raise ConfigError(
        f"unknown preset {brief(str(source))}{hint} (valid: {', '.join(names)}, or a YAML file)"
    )


def _load(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Load a file and its parents; ``chain`` holds the files that led to it."""
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(cut(str(p)) for p in (*chain, resolved)[-3:])
        raise ConfigError(f"presets extend each other in a circle: {names}")
    if len(chain) == LONGEST_CHAIN:
        raise ConfigError(
            f"preset file '{cut(str(path))}': more than {LONGEST_CHAIN} presets extend each other"
        )
    return _extend(_read(path), path.parent, (*chain, resolved))


def _read(path: Path) -> dict[str, Any]:
    try:
        # A copy: what it returns is kept for the next call.
        data = copy.deepcopy(_parse(path, path.stat().st_mtime_ns))
    except InputError as error:
        raise ConfigError(f"cannot read preset file {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read preset file '{cut(str(path))}': {' '.join(str(error).split())}"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(f"preset file '{cut(str(path))}' must hold a mapping of sections")
    return {"name": path.stem, **data}


@lru_cache(maxsize=64)
def _parse(path: Path, _modified: int) -> Any:
    """Parse a file once for each time of its modification."""
    return parse_yaml(read_text(path, limit=4 * TEXT_LIMIT))


def _extend(data: dict[str, Any], folder: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Merge a preset over the one that it extends; its name and its description are its own."""
    parent = data.get("extends")
    changes = {key: value for key, value in data.items() if key != "extends"}
    if parent is None:
        return changes
    if not isinstance(parent, str):
        raise ConfigError(f"preset: extends: must be the name or the file of one preset, got {brief(parent)}")
    base = _load(_find(parent, folder), chain)
    base = without_replaced(base, changes)
    return _merge(base | _derived_titles(base["name"], changes), changes)


def _derived_titles(parent: str, changes: Mapping[str, Any]) -> dict[str, str]:
    """Return a name and a description for a preset that has none: its parent, and what differs from it."""
    settings = list(_leaves({k: v for k, v in changes.items() if k not in {"name", "description"}}))
    shown = ", ".join(settings[:SHOWN_SETTINGS])
    more = len(settings) - SHOWN_SETTINGS
    description = (
        f"extends {parent}" + (f": {shown}" if shown else "") + (f", {more} more" if more > 0 else "")
    )
    return {"name": f"{parent}, changed" if settings else parent, "description": description}


def _leaves(changes: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield each setting as ``key.path=value``."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield cut(f"{path}{key}={text}", 60)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply changes to a preset: null removes a section, a new name of a component replaces its options."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            merged[key] = dict(value) if renamed else _merge(old, value)
        elif isinstance(old, Mapping) and value is None:
            # A section of the schema may be absent, but it must not be None.
            del merged[key]
        else:
            merged[key] = value
    return merged


def _valid_keys(location: Location) -> list[str]:
    """Return the keys that a section of the schema may have."""
    section: Any = Preset
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
