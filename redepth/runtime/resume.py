"""Resumable tasks: each finished task writes one row, and a later call runs the tasks without a row.

A folder holds one piece of work, which a JSON file in it identifies. Its rows are
``images/VARIANT/IMAGE.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from redepth import io
from redepth.errors import ConfigError, InputError
from redepth.runtime.executors import Done, Make, Resources, executor

M = TypeVar("M", bound=BaseModel)

Task = tuple[str, str]
"""A variant (a preset, an arm) and the name of an image."""


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
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.parent} is not the folder of a {what}: {path.name}: {reason}") from None


def row_path(folder: Path, task: Task) -> Path:
    """Return the path of a task's row; other files of the task are beside it."""
    variant, image = (quote(part, safe=" ") for part in task)
    return folder / "images" / variant / f"{image}.json"


def read_row(folder: Path, task: Task, kind: type[M]) -> M | None:
    """Return the row of a finished task, or None; a damaged file counts as none."""
    try:
        return kind.model_validate_json(row_path(folder, task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(folder: Path, tasks: Iterable[Task], kind: type[M]) -> dict[Task, M]:
    """Return the rows of those tasks that are finished."""
    rows = {task: read_row(folder, task, kind) for task in tasks}
    return {task: row for task, row in rows.items() if row is not None}


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
