"""The images that a protocol measures: a shipped list or the user's, checked against the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth import io
from redepth.data.datasets import REGISTRY, Dataset
from redepth.errors import ConfigError, InputError
from redepth.protocols.loading import PROTOCOLS
from redepth.protocols.schema import EvaluationProtocol, names_hash


def open_dataset(protocol: EvaluationProtocol, name: str, options: Mapping[str, Any]) -> Dataset:
    """Build a data set's reader with the options that the protocol fixes.

    Args:
        protocol: its reader options take precedence.
        name: name of the data set.
        options: options of the user, such as ``root``.

    Raises:
        ConfigError: the protocol belongs to another data set, or an option contradicts the protocol or is
            wrong.
        InputError: a folder has a name that no folder can have.
        MissingDependencyError: if the reader needs a package that is not installed.
    """
    if protocol.dataset not in (None, name):
        raise ConfigError(
            f"protocol {protocol.name} belongs to the data set {protocol.dataset}, not to {name}"
        )
    for key, value in options.items():
        fixed = protocol.options.get(key, value)
        if value != fixed:
            raise ConfigError(
                f"protocol {protocol.name} fixes {key}={fixed}, {key}={value} is another protocol"
            )
    dataset: Dataset = REGISTRY.build(name, {**options, **protocol.options})
    for value in getattr(dataset, "__dict__", {}).values():
        if isinstance(value, Path):
            io.check_name(value)
    return dataset


def read_names(path: str | Path) -> list[str]:
    """Read image names from a text file, one a line; empty lines and comments after a # are ignored.

    Raises:
        InputError: the file cannot be read, holds no name, or a name twice.
    """
    lines = io.read_text(path).splitlines()
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise InputError(f"{path}: holds no image name")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InputError(f"{path}: names an image twice: {repeated[0]}")
    return names


def select(
    protocol: EvaluationProtocol,
    dataset: Dataset,
    listed: Sequence[str] | None = None,
    *,
    partial: bool = False,
) -> tuple[EvaluationProtocol, list[str]]:
    """Return the images to measure, and the protocol pinned to them.

    Args:
        protocol: its split names a shipped list of images or their number.
        dataset: the data set; its `names` are the images that are present.
        listed: the user's list; None is the protocol's.
        partial: measure the images that are present, even if some are missing. The protocol that is returned
            is then pinned to this part of the split, and its results are not comparable with the whole.

    Raises:
        InputError: the list is not the protocol's, or some of its images are missing.
    """
    present = dataset.names()
    wanted = _wanted(protocol, present, listed)
    if not partial:
        _check(protocol, dataset, wanted, from_user=listed is not None)
    missing = sorted(set(wanted) - set(present))
    if missing and not partial:
        raise InputError(_missing_message(protocol, dataset, missing, len(wanted)))
    names = [name for name in wanted if name not in set(missing)]
    if not names:
        raise InputError(f"protocol {protocol.name}: none of its {len(wanted)} images is there")
    return protocol.pinned(names), names


def _wanted(
    protocol: EvaluationProtocol, present: Sequence[str], listed: Sequence[str] | None
) -> Sequence[str]:
    """Return the user's list, else the list that ships with the protocol, else all images."""
    if listed is not None:
        return listed
    if protocol.split.file is not None:
        return read_names(PROTOCOLS / "splits" / protocol.split.file)
    return present


def _check(protocol: EvaluationProtocol, dataset: Dataset, names: Sequence[str], *, from_user: bool) -> None:
    """Raise InputError unless the names have the split's number and hash."""
    split = protocol.split
    if split.count is not None and len(names) != split.count:
        missing = [] if from_user else dataset.check()
        reason = f": {missing[0]}" if missing else ""
        raise InputError(
            f"protocol {protocol.name}: the split '{split.name}' has {split.count} images, "
            f"{len(names)} are {'listed' if from_user else 'there'}{reason}"
        )
    sha256 = names_hash(names)
    if split.sha256 is not None and sha256 != split.sha256:
        advice = split.source if split.source else "use its own list"
        raise InputError(
            f"protocol {protocol.name}: these are not the images of the split '{split.name}' (their names' "
            f"hash is {sha256[:12]}, not {split.sha256[:12]}); {advice}"
        )


def _missing_message(
    protocol: EvaluationProtocol, dataset: Dataset, missing: Sequence[str], count: int
) -> str:
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    problems = dataset.check()
    reason = f"; {problems[0]}" if problems else ""
    return (
        f"protocol {protocol.name}: {len(missing)} of {count} images are not there ({shown}){reason}; "
        "complete the data set, or measure what is there as a part"
    )
