"""Replace the files of a folder as a whole: after a kill at any moment it is the old folder or the new one.

Everything is first written to a hidden work folder beside the folder, ``.redepth-*``, that only its owner can
read. Two renames then swap the folders::

    out/coins                    -> out/.redepth-TOKEN/old
    out/.redepth-TOKEN/new       -> out/coins

A kill between the two leaves a work folder from which `recover` completes the swap. The owner of a work
folder holds a lock on it, which ends with the process: so `recover` knows the folders that were left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from redepth.errors import InputError
from redepth.io.files import StrPath
from redepth.io.names import as_text

PREFIX = ".redepth-"
PLAN = "plan.json"

_Lock = Literal["ours", "held", "unknown"]

ABANDONED_AFTER = 86400.0
"""Age in seconds of a work folder that counts as left behind where the file system has no locks."""


@contextmanager
def replaced_folder(folder: StrPath, replaced: Iterable[str], record: str) -> Iterator[Path]:
    """Yield an empty folder whose files become those of ``folder`` when the block ends without an error.

    Otherwise ``folder`` stays as it was. Files in it that are not ``replaced`` are kept.

    A folder that cannot be moved as a whole (a mount point, the working directory, one in a read-only folder)
    loses its record first and gets the new one last.

    Args:
        folder: the folder; missing parents are created.
        replaced: names of the files of an earlier result.
        record: name of the file that makes a result complete.

    Raises:
        InputError: ``folder`` is something else.
        OSError: it cannot be written to, or the disk is full.
    """
    target = Path(os.path.realpath(folder))
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(f"{folder}: is not a folder; move the file away, or choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = _can_be_moved(target)
    place = target.parent if whole else target
    place.mkdir(exist_ok=True)
    recover(place)
    with _work_folder(place, target.name, replaced) as work:
        new = work / "new"
        new.mkdir()
        yield new
        if not (whole and _swapped(work, target)):
            _move_files(new, target, replaced, record)


def recover(folder: StrPath) -> None:
    """Complete the swaps in a folder that a kill cut off, and remove the work folders left behind."""
    try:
        with os.scandir(folder) as entries:
            left = [Path(e.path) for e in entries if e.name.startswith(PREFIX) and _is_ours(e)]
    except OSError:
        return
    for work in left:
        with suppress(OSError, ValueError, KeyError), _lock(work) as state:
            if state == "ours" or (state == "unknown" and _is_old(work)):
                _settle(work)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a folder of this user: others could plant one in a shared folder."""
    with suppress(OSError):
        stat = entry.stat(follow_symlinks=False)
        return entry.is_dir(follow_symlinks=False) and (os.name == "nt" or stat.st_uid == os.getuid())
    return False


@contextmanager
def _work_folder(place: Path, name: str, replaced: Iterable[str]) -> Iterator[Path]:
    """Yield a locked work folder; settle and remove it in the end."""
    with ExitStack() as stack:
        work = _new_work_folder(place, stack)
        plan = {"folder": as_text(name), "replaced": list(replaced)}
        (work / PLAN).write_text(json.dumps(plan), encoding="utf-8")
        try:
            yield work
        finally:
            _settle(work)


def _new_work_folder(place: Path, stack: ExitStack) -> Path:
    """Make a work folder and lock it until the stack is closed."""
    while True:
        work = place / f"{PREFIX}{uuid.uuid4().hex[:16]}"
        work.mkdir(mode=0o700)
        # Before it has its lock, another process may take it for one that was left behind.
        with suppress(FileNotFoundError):
            if stack.enter_context(_lock(work)) != "held" and work.is_dir():
                return work


def _settle(work: Path) -> None:
    """Bring a swap to its end, wherever it was cut off, and remove the work folder."""
    old, new = work / "old", work / "new"
    if old.exists():
        plan = json.loads((work / PLAN).read_text(encoding="utf-8"))
        target = work.parent / os.path.basename(_as_name(plan["folder"]))
        if not target.exists():
            os.rename(new if new.exists() else old, target)
        if old.exists():
            for entry in old.iterdir():
                if entry.name not in plan["replaced"] and not os.path.lexists(target / entry.name):
                    os.rename(entry, target / entry.name)
            # What is being deleted is no old result any more.
            os.rename(old, work / "gone")
    shutil.rmtree(work, ignore_errors=True)


def _as_name(text: str) -> str:
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _swapped(work: Path, target: Path) -> bool:
    """Begin to swap the folders, which `_settle` ends; return False if the system does not allow that."""
    try:
        if target.exists():
            shutil.copymode(target, work / "new")
            os.rename(target, work / "old")
        else:
            os.rename(work / "new", target)
    except OSError:
        return False
    return True


def _move_files(new: Path, target: Path, replaced: Iterable[str], record: str) -> None:
    (target / record).unlink(missing_ok=True)
    names = {path.name for path in new.iterdir()}
    for name in set(replaced) - names:
        (target / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == record):
        os.replace(new / name, target / name)


def _can_be_moved(target: Path) -> bool:
    try:
        here = Path.cwd()
    except OSError:
        here = target.parent
    inside = here == target or target in here.parents
    return os.access(target.parent, os.W_OK) and not inside and not os.path.ismount(target)


@contextmanager
def _lock(work: Path) -> Iterator[_Lock]:
    """Hold the lock of a work folder, if it is free; the kernel frees it when the process ends.

    Raises:
        OSError: the folder is gone.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield "unknown"
        return
    descriptor = os.open(work, os.O_RDONLY)
    try:
        state: _Lock = "ours"
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = "held"
        except OSError:  # a network file system
            state = "unknown"
        yield state
    finally:
        os.close(descriptor)


def _is_old(work: Path) -> bool:
    return time.time() - work.stat().st_mtime > ABANDONED_AFTER
