"""What is done already: the identity of a result, and resumable tasks, each of which writes one row.

A result is done if its record names the same `Identity` as a new one would have, and its files are as they
were written. A folder of tasks holds one piece of work, which a JSON file in it identifies. Its rows are
``images/VARIANT/IMAGE.json``.
"""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from redepth import io
from redepth.errors import ConfigError, InputError
from redepth.runtime import component_files
from redepth.runtime.executors import Done, Make, Resources, executor

M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)

Task = tuple[str, str]
"""A variant (a preset, an arm) and the name of an image."""


ROW_NAME = 255 - len(".error-refined.jpg")
"""Most bytes of the name of a task in its files; the longest suffix follows."""


class Identity(BaseModel):
    """What a result depends on besides its settings.

    Attributes:
        inputs: what was read, such as ``photo`` or ``depth_model.path`` -> SHA-256, or a short text.
        versions: distribution -> version of redepth and of the packages that the components are from.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def of(cls, files: Mapping[str, Iterable[Path]], versions: Mapping[str, str], **inputs: str) -> Identity:
        """Hash the files, imported code as it was executed, and add further inputs."""
        hashes = {name: component_files.sha256_of_files(paths) for name, paths in files.items()}
        return cls(inputs={**inputs, **hashes}, versions=dict(versions))

    def changes(self, now: Identity) -> Iterator[str]:
        """Yield in words how another identity differs from this one."""
        for name in sorted({*self.inputs, *now.inputs}):
            before, after = self.inputs.get(name), now.inputs.get(name)
            what = INPUTS.get(name, name if name.startswith("the ") else f"the file of {name}")
            if before is None:
                yield f"{what} is new"
            elif after is None:
                yield f"{what} is not used any more"
            elif before != after:
                yield f"{what} changed"
        for name in sorted({*self.versions, *now.versions}):
            old, new = self.versions.get(name, "none"), now.versions.get(name, "none")
            if old != new:
                yield first_difference(old, new, name)


INPUTS = {"depth_model.path": "the depth map", "depth_model.prompt_depth": "the prompt depth"}
"""The inputs whose names in messages are not those of the options."""


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record in a JSON file, None if there is no such file.

    Raises:
        ValueError: it holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except RecursionError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no record")
    return record


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """Return in words the first setting that differs, as a dotted key with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    before, after = (textwrap.shorten(str(value), 40) for value in (old, new))
    return f"{where} {before} was used, it is {after} now"


def why_again(record: Mapping[str, Any], now: Identity, folder: Path) -> str:
    """Return why a result does not count as done, in words; empty if it does.

    Args:
        record: what was stored with the result: its ``identity``, and the ``files`` that it consists of.
        now: the identity that a new result would have.
        folder: where the files are.
    """
    try:
        changes = list(Identity.model_validate(record["identity"]).changes(now))
        damage = io.damage(folder, record["files"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return "its record does not say what it was made from"
    return "; ".join([*changes, damage] if damage else changes)


def claim(
    path: Path, identity: M, differences: Callable[[M, M], Iterable[str]], what: str, *, fresh: bool = False
) -> None:
    """Write the identity of a piece of work to its folder, after a check that the folder is free for it.

    Args:
        path: the file of the identity.
        identity: everything that decides the numbers of the work.
        differences: describes in words how the identity in the folder differs from the new one; yields
            nothing where the work may be continued.
        what: the kind of work, for messages.
        fresh: delete the rows that the folder holds.

    Raises:
        ConfigError: if it holds other work of this kind and ``fresh`` is not set, or work of another kind.
    """
    if not path.is_file() and any(path.parent.glob("images/*/*")):
        raise ConfigError(
            f"{path.parent} holds images of something else than this {what}: choose another --out"
        )
    if path.is_file() and not fresh:
        stored = load_identity(path, type(identity), what)
        if changes := list(differences(stored, identity)):
            raise ConfigError(
                f"{path.parent} holds another {what} ({'; '.join(changes)}): choose another --out, or forget "
                "it with --fresh"
            )
    if fresh:
        for old in sorted(path.parent.glob("images/*/*")):
            old.unlink()
    io.save_json(path, identity.model_dump(mode="json"))


def load_identity(path: Path, kind: type[M], what: str) -> M:
    """Read the identity of a folder's work.

    Raises:
        InputError: if the folder holds none.
    """
    try:
        # Not by pydantic's own reader, which refuses the name of a folder that is not UTF-8.
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        article = "an" if what[0] in "aeiou" else "a"
        raise InputError(
            f"{path.parent} is not the folder of {article} {what}: {path.name}: {reason}"
        ) from None


def row_path(folder: Path, task: Task) -> Path:
    """Return the path of a task's row; other files of the task are beside it."""
    variant, image = map(_row_name, task)
    return folder / "images" / variant / f"{image}.json"


def _row_name(name: str) -> str:
    """Return a name of a file that no other name has; plain ASCII stays readable."""
    quoted = quote(name, safe=" ") if name.isascii() else ""
    # A hashed name holds "=", which a quoted one never does.
    return quoted if io.is_safe_name(quoted, ROW_NAME) else io.hashed_name(name)


def begin_row(folder: Path, task: Task) -> Path:
    """Remove the row and the files of a task, the row first, and return the path of the new row."""
    path = row_path(folder, task)
    record = _record(path)
    path.unlink(missing_ok=True)
    for name in map(str, record.get("files", ())):
        if name.startswith(f"{path.stem}.") and io.is_safe_name(name):
            (path.parent / name).unlink(missing_ok=True)
    return path


def finish_row(path: Path, row: Mapping[str, Any], identity: Identity, files: Iterable[Path]) -> None:
    """Write the row of a task whose other files are written: if it exists, they exist too."""
    io.save_json(path, {**row, "identity": identity.model_dump(), "files": io.manifest(files)})


def _record(path: Path) -> dict[str, Any]:
    try:
        return read_record(path) or {}
    except ValueError:
        return {}


def read_row(folder: Path, task: Task, kind: type[M]) -> M | None:
    """Return the row of a finished task, or None; a damaged file counts as none."""
    try:
        return kind.model_validate(_record(row_path(folder, task)))
    except ValueError:
        return None


def read_identity(folder: Path, task: Task) -> Identity | None:
    """Return what the row of a finished task was made from, or None if its record does not say that."""
    try:
        return Identity.model_validate(_record(row_path(folder, task)).get("identity"))
    except ValueError:
        return None


def read_rows(folder: Path, tasks: Iterable[Task], kind: type[M]) -> dict[Task, M]:
    """Return the rows of those tasks that are finished."""
    rows = {task: read_row(folder, task, kind) for task in tasks}
    return {task: row for task, row in rows.items() if row is not None}


def done_rows(
    folder: Path, tasks: Iterable[Task], kind: type[M], identify: Callable[[Task], Identity]
) -> dict[Task, M]:
    """Return the rows of those tasks that are finished and still hold; log why others are measured again.

    Args:
        folder: of the rows.
        tasks: all tasks.
        kind: of a row.
        identify: returns the identity of a task; an error leaves the task to its worker, which reports it.
    """
    done = {}
    for task, row in read_rows(folder, tasks, kind).items():
        path = row_path(folder, task)
        try:
            reason = why_again(_record(path), identify(task), path.parent)
        except Exception:  # of an image that cannot be read any more
            continue
        if reason:
            log.warning("%s (%s): measured again: %s", task[1], task[0], reason)
        else:
            done[task] = row
    return done


def run_tasks(
    make: Make[Task, M],
    left: Sequence[Task],
    finished: dict[Task, M],
    resources: Resources,
    on_done: Callable[[Done[Task, M], int, int], None],
) -> dict[Task, str]:
    """Run the tasks that are left, add their rows to the finished ones, and return why some failed.

    Args:
        make: makes a worker, which writes the row of its task.
        left: tasks without a row.
        finished: rows of the others.
        resources: where the work runs.
        on_done: called after each task with its outcome, how many have ended, and how many there are.

    Raises:
        KeyboardInterrupt: after Ctrl-C. A task that it ended does not count as failed.
    """
    failures: dict[Task, str] = {}
    total = len(finished) + len(left)
    for done in executor(resources).run(make, left):
        if done.interrupted:
            continue
        if done.result is None:
            failures[done.item] = done.error
        else:
            finished[done.item] = done.result
        on_done(done, len(finished) + len(failures), total)
    return failures
