"""The variants of an ablation: every combination of the varied settings, checked before any work."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redepth import io
from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.config.schema import EXPORTS
from redepth.errors import ConfigError, RedepthError, cut
from redepth.io.markup import parse_yaml
from redepth.literals import Export

MOST_VARIANTS = 256
"""Most combinations of one ablation: each loads its models and refines every photo."""

NEEDED: tuple[Export, ...] = ("map", "initial", "normals")
"""What the sheet is drawn of; it is written besides what the preset writes."""

_NAMED = 3
"""How many problems of combinations are named."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One combination.

    Attributes:
        name: such as ``renderer.name=ggx+prior.score=sds``; also the name of its folder.
        values: the varied settings -> their values.
        preset: resolved.
    """

    name: str
    values: Mapping[str, Any]
    preset: Preset

    @property
    def texts(self) -> list[str]:
        """The values as one writes them."""
        return [_text(value) for value in self.values.values()]

    @property
    def label(self) -> str:
        """The combination in few words, such as ``renderer ggx, score sds``."""
        names = short_names(list(self.values))
        return ", ".join(f"{name} {text}" for name, text in zip(names, self.texts, strict=True))


def parse_axes(vary: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the varied settings and their values.

    Args:
        vary: ``KEY=VALUE,VALUE,...`` each; the values are YAML, so ``KEY=[1, 2],[3, 4]`` has two lists.
        overrides: of the preset; they must not set what is varied.

    Raises:
        ConfigError: not of this form, a setting or a value twice, a setting and the section that holds it, or
            too many combinations.
    """
    axes: dict[str, list[Any]] = {}
    for axis in vary:
        key, equals, text = (part.strip() for part in axis.partition("="))
        if not equals or not all(key.split(".")):
            raise ConfigError(
                f"--vary '{cut(axis)}': give KEY=VALUE,VALUE, such as renderer.name=ggx,lambert"
            )
        if key in axes:
            raise ConfigError(f"--vary {cut(key)}: given twice; write all its values with commas")
        _refuse_overlap(key, axes, "--vary")
        axes[key] = _values(key, text)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in axes:
            raise ConfigError(f"{cut(key)}: given by --vary and by --set; remove one")
        _refuse_overlap(key, axes, "--set")
    if not axes:
        raise ConfigError("nothing is varied: give --vary KEY=VALUE,VALUE, such as renderer.name=ggx,lambert")
    count = math.prod(map(len, axes.values()))
    if count > MOST_VARIANTS:
        raise ConfigError(
            f"{count} combinations are too many (at most {MOST_VARIANTS}): vary less, or give several "
            "commands with an --out each"
        )
    return axes


def overlaps(key: str, other: str) -> bool:
    """Return whether two keys are the same, or one is a section that holds the other."""
    return all(one == two for one, two in zip(key.split("."), other.split("."), strict=False))


def _refuse_overlap(key: str, axes: Iterable[str], option: str) -> None:
    """Raise ConfigError if a key and a varied one set the same: the names of variants would be wrong."""
    for axis in axes:
        if overlaps(key, axis):
            raise ConfigError(
                f"--vary {cut(axis)} and {option} {cut(key)}: one of them holds the other; remove one"
            )


def _values(key: str, text: str) -> list[Any]:
    try:
        values: list[Any] = parse_yaml(f"[{text}]")
    except ValueError as error:
        raise ConfigError(f"--vary {cut(key)}={cut(text)}: the values are not valid YAML: {error}") from None
    if not values:
        raise ConfigError(f"--vary {cut(key)}: has no value; give some with commas")
    texts = [_text(value) for value in values]
    if len(set(texts)) < len(texts):
        raise ConfigError(f"--vary {cut(key)}={cut(text)}: has a value twice; remove one")
    return values


def variants_of(preset: str, overrides: Sequence[str], axes: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Return every combination, the last setting changing fastest.

    Raises:
        ConfigError: some combinations cannot be used; the message names them and the reasons.
    """
    made, problems = [], {}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        name = _name(chosen)
        varied = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
        try:
            made.append(Variant(name, chosen, _resolved(preset, [*overrides, *varied])))
        except RedepthError as error:
            problems[name] = str(error)
    refuse(problems, math.prod(map(len, axes.values())))
    return made


def refuse(problems: Mapping[str, str], total: int) -> None:
    """Raise ConfigError if there are problems, variant -> problem. Variants of one problem are one entry."""
    if not problems:
        return
    by_reason: dict[str, list[str]] = {}
    for name, reason in problems.items():
        by_reason.setdefault(reason, []).append(name)
    parts = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in itertools.islice(by_reason.items(), _NAMED)
    ]
    if len(by_reason) > _NAMED:
        parts.append(f"and {len(by_reason) - _NAMED} more problems")
    raise ConfigError(f"{len(problems)} of {total} combinations cannot be used: {'; '.join(parts)}")


def _resolved(preset: str, overrides: Sequence[str]) -> Preset:
    loaded = load_preset(preset, overrides)
    written = {*loaded.output.write, *NEEDED}
    output = loaded.output.model_copy(update={"write": [name for name in EXPORTS if name in written]})
    return resolve(loaded.model_copy(update={"output": output}))


def _name(values: Mapping[str, Any]) -> str:
    name = "+".join(f"{key}={_text(value)}" for key, value in values.items())
    return name if io.is_safe_name(name) else io.hashed_name(name)


def _text(value: Any) -> str:
    """Return a value as one writes it: a text without quotes where it stays one."""
    with suppress(ValueError):
        if isinstance(value, str) and parse_yaml(f"[{value}]") == [value]:
            return value
    return json.dumps(value, ensure_ascii=False)


def short_names(keys: Sequence[str]) -> list[str]:
    """Return ``renderer`` for ``renderer.name``, ``score`` for ``prior.score``; the keys if these clash."""
    short = [key.removesuffix(".name").rpartition(".")[2] for key in keys]
    return short if len(set(short)) == len(short) else list(keys)
