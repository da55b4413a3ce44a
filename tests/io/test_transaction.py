"""A folder is replaced as a whole, whenever its process ends."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from redepth import io
from redepth.errors import InputError
from redepth.io import transaction

FILES = ("a.npy", "b.npy", "run.json")


class Killed(BaseException):
    """The process ends here: nothing works after it."""


def save(folder: Path, text: str, *more: str) -> None:
    with io.replaced_folder(folder, [*FILES, "old.npy"], "run.json") as new:
        for name in (*FILES, *more):
            (new / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def whole(text: str, *more: str) -> dict[str, str]:
    return dict.fromkeys([*sorted((*FILES, *more))], text)


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".redepth-*"))


def kill_at(patched: pytest.MonkeyPatch, number: int) -> list[str]:
    """Raise at a call that changes the disk, and at all that follow; return the names of the calls."""
    calls: list[str] = []

    def dying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) > number:
                raise Killed
            return function(*args, **options)

        return call

    for module, name in ((os, "rename"), (os, "replace"), (os, "mkdir"), (os, "unlink"), (shutil, "rmtree")):
        patched.setattr(module, name, dying(name, getattr(module, name)))
    patched.setattr(Path, "write_text", dying("write", Path.write_text))
    return calls


def test_a_folder_is_written_and_replaced_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    save(folder, "1", "old.npy")
    assert content(folder) == whole("1", "old.npy")
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "x").touch()
    folder.chmod(0o750)
    save(folder, "2")
    assert (folder / "sub" / "x").is_file()
    shutil.rmtree(folder / "sub")
    assert content(folder) == whole("2") | {"notes.txt": "mine"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_what_is_being_written_is_private_and_an_error_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    save(folder, "1")

    def fail() -> None:
        with io.replaced_folder(folder, FILES, "run.json") as new:
            assert new.parent.parent == tmp_path
            assert stat.S_IMODE(new.parent.stat().st_mode) == 0o700
            (new / "a.npy").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert content(folder) == whole("1")
    assert not hidden(tmp_path)


@pytest.mark.parametrize("number", range(18))
def test_a_kill_at_any_call_leaves_the_old_or_the_new(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    save(folder, "1", "old.npy")
    (folder / "notes.txt").write_text("mine")
    with monkeypatch.context() as patched:
        calls = kill_at(patched, number)
        try:
            save(folder, "2")
        except Killed:
            assert len(calls) > number
        else:
            assert len(calls) <= number
    if folder.exists():
        found = content(folder)
        found.pop("notes.txt", None)
        assert found in (whole("1", "old.npy"), whole("2"))
    io.recover(tmp_path)
    mine = {"notes.txt": "mine"}
    assert content(folder) in (whole("1", "old.npy") | mine, whole("2") | mine)
    assert not hidden(tmp_path)
    save(folder, "3")
    assert content(folder) == whole("3") | mine


def test_the_kills_reach_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "out", "1")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with monkeypatch.context() as patched:
        calls = kill_at(patched, 100)
        save(tmp_path / "out", "2")
    assert len(calls) <= 17
    assert calls.count("rename") == 4


@pytest.mark.parametrize("number", range(12))
def test_a_folder_that_cannot_be_moved_loses_its_record_first(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "1", "old.npy")
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        kill_at(patched, number)
        with suppress(Killed):
            save(Path(), "2")
    found = {name: text for name, text in content_of_files(tmp_path).items() if name != "notes.txt"}
    if "run.json" in found:
        assert found in (whole("1", "old.npy"), whole("2"))
    save(Path(), "3")
    assert content(Path()) == whole("3") | {"notes.txt": "mine"}


def content_of_files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_work_in_hand_is_left_alone_and_other_peoples_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with io.replaced_folder(tmp_path / "a", FILES, "run.json") as new:
        (new / "run.json").write_text("1")
        save(tmp_path / "b", "2")
        io.recover(tmp_path)
        assert len(hidden(tmp_path)) == 1
    assert content(tmp_path / "a") == {"run.json": "1"}
    planted = tmp_path / ".redepth-0"
    planted.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: os.geteuid() + 1)
        io.recover(tmp_path)
    assert planted.is_dir()
    io.recover(tmp_path)
    assert not planted.exists()
    io.recover(tmp_path / "none")


def test_where_there_are_no_locks_only_what_is_old_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def without(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(fcntl, "flock", without)
    left = tmp_path / ".redepth-0"
    left.mkdir()
    save(tmp_path / "out", "1")
    assert left.is_dir()
    os.utime(left, (0, 0))
    save(tmp_path / "out", "2")
    assert not left.exists()
    assert content(tmp_path / "out") == whole("2")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out: is not a folder"):
        save(tmp_path / "out", "1")
    assert not hidden(tmp_path)


def test_a_folder_that_the_system_does_not_let_go_is_written_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "out", "1", "old.npy")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if source == tmp_path / "out":
            raise PermissionError("not yours")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    save(tmp_path / "out", "2")
    assert content(tmp_path / "out") == whole("2")
    assert not hidden(tmp_path)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    save(tmp_path / "real" / "out", "1")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "out")
    save(tmp_path / "link", "2")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real" / "out") == whole("2")


SAVER = """
import sys
from pathlib import Path
from redepth import io
folder, number = Path(sys.argv[1]), 0
while True:
    number += 1
    with io.replaced_folder(folder, ["a.npy", "b.npy", "run.json"], "run.json") as new:
        for name in ("a.npy", "b.npy", "run.json"):
            (new / name).write_text(str(number % 10))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    folder, clock = tmp_path / "out", random.Random(0)
    save(folder, "0")
    (folder / "notes.txt").write_text("mine")
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder)], cwd=Path(io.__file__).parents[2]
        )
        while not hidden(tmp_path):
            time.sleep(0.005)
        time.sleep(0.2 * clock.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        io.recover(tmp_path)
        found = content(folder)
        assert found.pop("notes.txt") == "mine"
        assert found == whole(found["run.json"])
        assert not hidden(tmp_path)
    assert transaction.PREFIX == ".redepth-"
