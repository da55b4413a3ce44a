"""Evaluation protocols by name: those that ship, a YAML file, or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from redepth.errors import ConfigError, InputError, brief, cut, nearest
from redepth.io import read_text
from redepth.io.markup import TEXT_LIMIT, parse_yaml
from redepth.io.paths import exists, expanded, is_folder
from redepth.protocols.schema import EvaluationProtocol
from redepth.registry import Location, explain

PROTOCOLS = Path(__file__).parent
"""The folder of the protocols that ship."""

DEFAULT_PROTOCOL = "redepth-paper"
_USUAL = {"kitti": "kitti-eigen", "nyuv2": "nyuv2-eigen"}
"""Data set -> its usual protocol, where the two have different names."""


def protocol_names() -> list[str]:
    """Return the names of the protocols that ship with the package."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def protocol_for(dataset: str) -> str:
    """Return the name of a data set's usual protocol; the paper's protocol if the data set has none."""
    name = _USUAL.get(dataset, dataset)
    return name if name in protocol_names() else DEFAULT_PROTOCOL


def load_protocol(source: str | Path | Mapping[str, Any]) -> EvaluationProtocol:
    """Load an evaluation protocol by name, from a YAML file or from a mapping.

    Raises:
        ConfigError: unknown protocol or key (with the nearest valid one), wrong type, value out of range,
            unreadable file.
    """
    data = dict(source) if isinstance(source, Mapping) else _read(_find(source))
    try:
        return EvaluationProtocol.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"protocol: {explain(error, '', _valid_keys, EvaluationProtocol)}") from None


def _find(source: str | Path) -> Path:
    names = protocol_names()
    if str(source) in names:
        return PROTOCOLS / f"{source}.yaml"
    try:
        path = expanded(source)
    except InputError as error:
        raise ConfigError(f"protocol {error}") from None
    if exists(path) and not is_folder(path):
        return path
    if path.suffix in {".yaml", ".yml"}:
        raise ConfigError(f"protocol file {brief(str(source))} does not exist")
    hint = nearest(str(source), names)
    raise ConfigError(
        f"unknown protocol {brief(str(source))}{hint} (valid: {', '.join(names)}, or a YAML file)"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = parse_yaml(read_text(path, limit=4 * TEXT_LIMIT))
    except InputError as error:
        raise ConfigError(f"cannot read protocol file {error}") from None
    except ValueError as error:
        raise ConfigError(f"cannot read protocol file '{cut(str(path))}': {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"protocol file '{cut(str(path))}' must hold a mapping")
    return {"name": path.stem, **data}


def _valid_keys(location: Location) -> list[str]:
    """Return the keys that are valid at a location of the schema."""
    section: type[BaseModel] | None = EvaluationProtocol
    for part in location:
        section = _section_of(section, str(part))
    return [] if section is None else list(section.model_fields)


def _section_of(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """Return the schema of a key's value; None if the value is no section."""
    field = section.model_fields.get(key) if section is not None else None
    if field is None:
        return None
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
