"""The state of a training on disk, and its log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from redepth import io
from redepth.errors import ConfigError, InputError
from redepth.runtime.resume import first_difference

STATE_FILE, LOG_FILE = "state.safetensors", "log.jsonl"
RECORD = "redepth"
"""The entry of the file's metadata that holds the record."""

FRESH = "choose another folder, or forget it with --fresh"


class StateRecord(BaseModel):
    """The state of a training besides its tensors.

    Attributes:
        identity: what decides the numbers of the training.
        names: SHA-256 of each photo -> its name, for messages.
        step: number of steps that are done.
        chosen: step of the best validation.
        distances: step -> mean distance of each validation.
        stale: number of validations since the best one.
        stopped: why it ended by itself; empty while it has not.
        seconds: so far.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    identity: dict[str, Any]
    names: dict[str, str] = {}
    step: int = 0
    chosen: int = 0
    distances: dict[int, float] = {}
    stale: int = 0
    stopped: str = ""
    seconds: float = 0.0


def save_state(folder: Path, record: StateRecord, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the state; a kill leaves the earlier one or this one.

    Args:
        folder: of the training.
        record: its numbers.
        tensors: groups of tensors, such as ``weights``, each by the name of the weight.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    from safetensors.torch import save_file

    flat = {
        f"{group}/{name}": values.detach().cpu().contiguous()
        for group, named in tensors.items()
        for name, values in named.items()
    }
    io.require_room(folder, sum(values.nbytes for values in flat.values()))
    with io.atomic_path(folder / STATE_FILE) as path:
        save_file(flat, path, metadata={RECORD: record.model_dump_json()})


def load_state(
    folder: Path, identity: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> tuple[StateRecord, dict[str, dict[str, Tensor]]] | None:
    """Read the state that `save_state` wrote, on the CPU; None if there is none.

    Args:
        folder: of the training.
        identity: of the training that is to go on.
        names: SHA-256 of its photos -> name, for messages.

    Raises:
        ConfigError: it is of a training with another identity.
        InputError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_FILE
    if not path.is_file():
        return None
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            record = StateRecord.model_validate_json((file.metadata() or {})[RECORD])
            for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                group, _, name = key.partition("/")
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: is not the state of a training ({io.reason(error)}): {FRESH}") from None
    # As it is stored: tuples are lists there.
    now = json.loads(io.json_text(identity))
    if record.identity != now:
        changed = _other_photos(record, now, names or {}) or first_difference(record.identity, now)
        raise ConfigError(f"{folder} holds another training ({changed}): {FRESH}")
    return record, tensors


def _other_photos(record: StateRecord, now: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return in words which photos differ; empty where other things do."""
    used, wanted = (_photos_of(identity) for identity in (record.identity, now))
    named = {**names, **record.names}
    new, gone = (
        ", ".join(sorted(named.get(sha256, sha256[:8]) for sha256 in some))
        for some in (wanted - used, used - wanted)
    )
    parts = [new and f"{new} did not belong to it", gone and f"it has {gone}, which cannot be used now"]
    return "; ".join(part for part in parts if part)


def _photos_of(identity: Mapping[str, Any]) -> set[str]:
    lessons = identity.get("lessons", {}).values()
    return {*identity.get("held_out", ()), *(sha for lesson in lessons for sha in lesson["photos"])}


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Return the state of AdamW: each of its entries as a group of tensors by the name of the weight."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for entry, values in optimizer.state.get(parameter, {}).items():
            groups.setdefault(f"optimizer {entry}", {})[name] = values
    return groups


def set_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    groups: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Set the state that `optimizer_tensors` returned. A weight that never had a gradient has none."""
    for group, named in groups.items():
        kind, _, entry = group.partition(" ")
        if kind != "optimizer":
            continue
        for name, values in named.items():
            parameter = parameters[name]
            if entry != "step":
                # In the memory layout of the weight, as AdamW makes it.
                values = torch.empty_like(parameter).copy_(values)
            optimizer.state[parameter][entry] = values


class TrainingLog:
    """The file with a line of JSON per step and per validation.

    Args:
        folder: of the training.
        step: of the state that the training continues from: later lines of an ended process are removed.
        write: whether this process writes the file.
    """

    def __init__(self, folder: Path, step: int, write: bool) -> None:
        self._path, self._write = folder / LOG_FILE, write
        if write:
            kept = [row for row in read_log(folder) if row["step"] <= step] if step else []
            io.save_text(self._path, "".join(map(io.json_line, kept)))

    def add(self, **row: Any) -> None:
        """Append a line."""
        if self._write:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(io.json_line(row))


def read_log(folder: Path) -> Sequence[dict[str, Any]]:
    """Return the lines of a training's log; a last line that a kill cut off is left out.

    A line of a step has ``step`` (1 for the first), ``loss``, ``losses`` (lesson -> name -> mean), ``rate``
    and ``norm`` (of the gradient, before it is clipped). One of a validation has ``step`` and ``distance``.
    """
    rows = []
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
