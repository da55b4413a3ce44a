"""Several protocols measured on one data set in one run: what they must share, and what each photo needs.

They share the reader and the images. Those that crop the photo alike also share each prediction, because a
model sees the same picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth.data.datasets import REGISTRY as DATASETS
from redepth.data.datasets import Dataset
from redepth.errors import ConfigError
from redepth.protocols import EvaluationProtocol, load_protocol, open_dataset, select
from redepth.registry import options_schema


def load_protocols(sources: Sequence[str | Path]) -> list[EvaluationProtocol]:
    """Load protocols by name or from YAML files.

    Raises:
        ConfigError: one is unknown or wrong, or two have one name.
    """
    loaded = [load_protocol(source) for source in sources]
    for name, times in Counter(protocol.name for protocol in loaded).items():
        if times > 1:
            raise ConfigError(
                f"{times} protocols are named {name}: give each protocol once, and your own a name of its own"
            )
    return loaded


def preparations(protocols: Sequence[EvaluationProtocol]) -> list[list[EvaluationProtocol]]:
    """Group protocols by the picture that a model is given: those of a group crop the photo alike.

    The groups are in the order of their first protocols.
    """
    groups: list[list[EvaluationProtocol]] = []
    for protocol in protocols:
        group = next((group for group in groups if group[0].crop == protocol.crop), None)
        if group is None:
            groups.append([protocol])
        else:
            group.append(protocol)
    return groups


def preparations_line(protocols: Sequence[EvaluationProtocol]) -> str:
    """Return in words which protocols share a prediction; empty if there is one protocol."""
    if len(protocols) < 2:
        return ""
    groups = preparations(protocols)
    if len(groups) == 1:
        return f"{len(protocols)} protocols on the same predictions"
    parts = [f"{_picture(group[0])} for {', '.join(one.name for one in group)}" for group in groups]
    return f"each photo is predicted {len(groups)} times, because the protocols crop it differently: " + (
        "; ".join(parts)
    )


def _picture(protocol: EvaluationProtocol) -> str:
    crop = protocol.crop
    if crop is None:
        return "whole"
    return f"cropped to {crop.width} x {crop.height} ({crop.vertical}, {crop.horizontal})"


def with_shared_options(protocols: Sequence[EvaluationProtocol], name: str) -> list[EvaluationProtocol]:
    """Return protocols that share a reader: what one fixes of it is fixed by all, and part of their hashes.

    A value that the reader has anyway is left out: with it, the ground truth is the same as without.

    Args:
        protocols: at least one.
        name: name of the data set.

    Raises:
        ConfigError: two protocols fix an option differently.
    """
    usual = options_schema(DATASETS.get(name)).model_fields
    fixed = {
        key: value
        # A protocol of another data set is refused when the reader is built.
        for key, value in _fixed_options([p for p in protocols if p.dataset in (None, name)]).items()
        if key not in usual or usual[key].default != value
    }
    return [
        protocol.model_copy(update={"options": {**fixed, **protocol.options}}) if fixed else protocol
        for protocol in protocols
    ]


def open_together(protocols: Sequence[EvaluationProtocol], name: str, options: Mapping[str, Any]) -> Dataset:
    """Build a data set's reader with the options that any of the protocols fixes.

    Args:
        protocols: at least one, as `with_shared_options` returns them.
        name: name of the data set.
        options: options of the user, such as ``root``.

    Raises:
        ConfigError: a protocol belongs to another data set, an option contradicts a protocol or is wrong, or
            two protocols fix an option differently.
        InputError: a folder has a name that no folder can have.
        MissingDependencyError: if the reader needs a package that is not installed.
    """
    datasets = [open_dataset(protocol, name, options) for protocol in protocols]
    if len(protocols) == 1:
        return datasets[0]
    return open_dataset(protocols[0], name, {**options, **_fixed_options(protocols)})


def _fixed_options(protocols: Sequence[EvaluationProtocol]) -> dict[str, Any]:
    fixed: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for protocol in protocols:
        for key, value in protocol.options.items():
            if fixed.setdefault(key, value) != value:
                raise ConfigError(
                    f"protocols {owner[key]} and {protocol.name} cannot be measured in one run: they fix "
                    f"{key}={fixed[key]} and {key}={value} of the data set's reader; run them apart"
                )
            owner.setdefault(key, protocol.name)
    return fixed


def select_together(
    protocols: Sequence[EvaluationProtocol],
    dataset: Dataset,
    listed: Sequence[str] | None = None,
    *,
    partial: bool = False,
) -> tuple[list[EvaluationProtocol], list[str]]:
    """Return the protocols pinned to one list of images, and the images.

    Without the user's list it is that of the protocols that have one; the others are pinned to it.

    Args:
        protocols: at least one.
        dataset: the data set.
        listed: the user's list.
        partial: see `redepth.protocols.select`.

    Raises:
        ConfigError: two protocols have lists of other images.
        InputError: see `redepth.protocols.select`.
    """
    names = listed
    if names is None:
        with_list = [protocol for protocol in protocols if _has_list(protocol)] or list(protocols[:1])
        names = select(with_list[0], dataset, partial=partial)[1]
        for protocol in with_list[1:]:
            others = select(protocol, dataset, partial=partial)[1]
            if set(others) != set(names):
                raise ConfigError(
                    f"protocols {with_list[0].name} and {protocol.name} measure other images ({len(names)} "
                    f"and {len(others)}) and cannot share a run: run them apart"
                )
    pinned = [select(protocol, dataset, names, partial=partial)[0] for protocol in protocols]
    return pinned, list(names)


def _has_list(protocol: EvaluationProtocol) -> bool:
    split = protocol.split
    return any(part is not None for part in (split.file, split.count, split.sha256))
