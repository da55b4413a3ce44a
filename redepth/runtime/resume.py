"""Work in tasks, each with a row on the disk that is written as it ends: what was killed goes on.

A folder holds one piece of work, which a file in it names; its rows are ``images/VARIANT/IMAGE.json``.
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
"""What is done (a preset, an arm) and to which image."""


def claim(
    path: Path, identity: M, differences: Callable[[M, M], Iterable[str]], what: str, *, fresh: bool = False
) -> None:
    """Make a folder this work's.

    Args:
        path: the file that names the work.
        identity: what decides its numbers.
        differences: says in words what of the work that the folder holds differs from another; nothing
            where that may go on in it.
        what: the kind of work, for messages.
        fresh: forget what the folder holds.

    Raises:
        ConfigError: if it holds other work of this kind and ``fresh`` is not set, or work of another kind.
    """
    if not path.is_file() and any(path.parent.glob("images/*/*")):
        raise ConfigError(
            f"{path.parent} holds images of something else than this {what}: choose another --out"
        )
    if path.is_file() and not fresh:
        there = load_identity(path, type(identity), what)
        if found := list(differences(there, identity)):
            raise ConfigError(
                f"{path.parent} holds another {what} ({'; '.join(found)}): choose another --out, or forget "
                "it with --fresh"
            )
    if fresh:
        for old in sorted(path.parent.glob("images/*/*")):
            old.unlink()
    io.save_json(path, identity.model_dump(mode="json"))


def load_identity(path: Path, kind: type[M], what: str) -> M:
    """Read what a folder's work is.

    Raises:
        InputError: if it holds none.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.parent} is no folder of a {what}: {path.name}: {reason}") from None


def row_path(folder: Path, task: Task) -> Path:
    """Return where a task's row is; what else it leaves lies beside it."""
    variant, image = (quote(part, safe=" ") for part in task)
    return folder / "images" / variant / f"{image}.json"


def read_row(folder: Path, task: Task, kind: type[M]) -> M | None:
    """Return the row of a task that is done; a damaged file counts as none."""
    try:
        return kind.model_validate_json(row_path(folder, task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(folder: Path, tasks: Iterable[Task], kind: type[M]) -> dict[Task, M]:
    """Return the rows of those tasks that are done."""
    return {task: found for task in tasks if (found := read_row(folder, task, kind)) is not None}


def run_tasks(
    make: Make[Task, M],
    left: Sequence[Task],
    finished: dict[Task, M],
    resources: Resources,
    on_done: Callable[[Done[Task, M], int, int], None],
) -> dict[Task, str]:
    """Do the tasks that are left, adding to the finished ones, and return why some failed.

    Args:
        make: makes a worker, which writes the row of its task.
        left: not done yet.
        finished: rows of the others.
        resources: where the work runs.
        on_done: called after each task with its outcome, how many have ended, and how many there are.
    """
    failures: dict[Task, str] = {}
    total = len(finished) + len(left)
    for done in executor(resources).run(make, left):
        if done.result is None:
            failures[done.given] = done.error
        else:
            finished[done.given] = done.result
        on_done(done, len(finished) + len(failures), total)
    return failures
