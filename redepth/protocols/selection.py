"""Which images a protocol measures: lists that ship, lists of the user's, and the check that they are it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redepth.data.datasets import REGISTRY, Dataset
from redepth.errors import ConfigError, InputError
from redepth.protocols.record import PROTOCOLS, Protocol, names_hash


def open_dataset(protocol: Protocol, name: str, options: Mapping[str, Any]) -> Dataset:
    """Build a data set as a protocol wants it.

    Args:
        protocol: its own options of the reader come first.
        name: of the data set.
        options: of the user, such as ``root``.

    Raises:
        ConfigError: the protocol belongs to another data set, or an option contradicts it or is wrong.
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
    return dataset


def read_names(path: str | Path) -> list[str]:
    """Read image names from a text file, one a line; empty lines and what follows a # are left out.

    Raises:
        InputError: the file cannot be read, holds no name, or a name twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"{path}: cannot be read ({reason}); give a text file of image names") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise InputError(f"{path}: holds no image name")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: names an image twice: {twice[0]}")
    return names


def select(
    protocol: Protocol, dataset: Dataset, listed: Sequence[str] | None = None, *, partial: bool = False
) -> tuple[Protocol, list[str]]:
    """Return the images to measure, and the protocol pinned to them.

    Args:
        protocol: which names a shipped list, or how many images there must be.
        dataset: the data set, where it says what is there.
        listed: the user's list; None is the protocol's.
        partial: measure those that are there, however few. The protocol that is returned is then another
            one than that of the whole split, and its results are not comparable with those.

    Raises:
        InputError: the list is not the protocol's, or images of it are not there.
    """
    there = dataset.names()
    wanted = list(listed) if listed is not None else _shipped(protocol) or there
    if not partial:
        _check(protocol, dataset, wanted, given=listed is not None)
    lacking = sorted(set(wanted) - set(there))
    if lacking and not partial:
        raise InputError(_lacking(protocol, dataset, lacking, len(wanted)))
    found = [name for name in wanted if name not in set(lacking)]
    if not found:
        raise InputError(f"protocol {protocol.name}: none of its {len(wanted)} images is there")
    return protocol.pinned(found), found


def _shipped(protocol: Protocol) -> list[str] | None:
    return None if protocol.split.file is None else read_names(PROTOCOLS / "splits" / protocol.split.file)


def _check(protocol: Protocol, dataset: Dataset, names: Sequence[str], *, given: bool) -> None:
    split = protocol.split
    if split.count is not None and len(names) != split.count:
        lacking = [] if given else dataset.check()
        reason = f": {lacking[0]}" if lacking else ""
        raise InputError(
            f"protocol {protocol.name}: the split '{split.name}' has {split.count} images, "
            f"{len(names)} are {'listed' if given else 'there'}{reason}"
        )
    found = names_hash(names)
    if split.sha256 is not None and found != split.sha256:
        raise InputError(
            f"protocol {protocol.name}: these are not the images of the split '{split.name}' (their names' "
            f"hash is {found[:12]}, not {split.sha256[:12]}); {split.source or 'use its own list'}"
        )


def _lacking(protocol: Protocol, dataset: Dataset, lacking: Sequence[str], count: int) -> str:
    shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    missing = dataset.check()
    reason = f"; {missing[0]}" if missing else ""
    return (
        f"protocol {protocol.name}: {len(lacking)} of {count} images are not there ({shown}){reason}; "
        "complete the data set, or measure what is there as a part"
    )
