"""The difference between two evaluation protocols, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redepth.errors import ConfigError
from redepth.protocols.schema import PROSE, EvaluationProtocol

_WORDS = {
    "name": "the name",
    "version": "the version",
    "dataset": "the data set",
    "options": "the reader's option",
    "split.name": "the split",
    "split.file": "the list of the split",
    "split.count": "the number of images",
    "split.sha256": "the hash of the image names",
    "crop": "the crop of photo and ground truth",
    "range.near": "the least depth",
    "range.far": "the greatest depth",
    "region": "the region that is measured",
    "alignment.disparity": "the alignment of disparity",
    "alignment.depth": "the alignment of depth",
    "alignment.trim": "the share that the alignment leaves out",
    "alignment.clip": "which aligned depths are clipped",
    "resolution": "the resolution of the evaluation",
    "interpolation": "the interpolation of the prediction",
    "silog_lambda": "the lambda of SI-log",
    "measures": "what is measured besides depth",
    "averaging": "the averaging",
}


def difference(a: EvaluationProtocol, b: EvaluationProtocol) -> list[str]:
    """Return in words each difference of two protocols that can change a number; empty if there is none."""
    first, second = (_flat(protocol.model_dump(mode="json", exclude=PROSE)) for protocol in (a, b))
    one, other = (a.name, b.name) if a.name != b.name else ("the first", "the second")
    return [
        f"{_worded(key)} is {_shown(first.get(key))} in {one} and {_shown(second.get(key))} in {other}"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def require_same(a: EvaluationProtocol, b: EvaluationProtocol) -> None:
    """Refuse to compare results of two protocols.

    Raises:
        ConfigError: if they differ, with every difference.
    """
    differences = difference(a, b)
    if differences:
        raise ConfigError(
            f"results under {a.name} and {b.name} cannot be compared: {'; '.join(differences)}. "
            "Measure both under one protocol"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"crop": {"height": 3}}`` -> ``{"crop.height": 3}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _worded(key: str) -> str:
    """``crop.height`` -> ``the crop of photo and ground truth (height)``."""
    if key in _WORDS:
        return _WORDS[key]
    section, _, rest = key.partition(".")
    return f"{_WORDS.get(section, section)} ({rest})"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
