"""`redepth view`: which page it opens, and what it says where there is none."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest

from tests.support.command import call, one_line


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open; there is a screen."""
    addresses: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or True)
    return addresses


def page(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "view.html"
    path.write_text("<!doctype html>")
    return path


def test_it_opens_the_page_of_a_folder_or_a_file(tmp_path: Path, opened: list[str]) -> None:
    path = page(tmp_path / "out" / "a b#c")
    for given in (path, path.parent, tmp_path / "out"):
        done = call("view", given)
        assert (done.code, done.err) == (0, "")
        assert done.out.strip() == path.as_uri()
    assert opened == [path.as_uri()] * 3
    assert "a%20b%23c" in opened[0]


def test_it_prints_the_address_where_no_browser_opens(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = page(tmp_path / "a")
    done = call("view", path, "--print")
    assert (done.code, done.out.strip(), done.err) == (0, path.as_uri(), "")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    done = call("view", path)
    assert (done.code, done.out.strip()) == (0, path.as_uri())
    assert done.err.startswith("warning: no browser")
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert call("view", path).err.startswith("warning: no browser")


def test_a_result_without_a_page_names_the_files_to_write(tmp_path: Path, opened: list[str]) -> None:
    """Nothing else of a command: a record does not hold all options, and another result would replace it."""
    folder = tmp_path / "out" / "coins"
    folder.mkdir(parents=True)
    record = {"photo": {"source": "my coins.png"}, "preset": {"name": "mine", "output": {"write": ["map"]}}}
    (folder / "run.json").write_text(json.dumps(record))
    done = call("view", folder)
    one_line(done, "no view.html: run your command of redepth refine again with --write map,view\n")
    assert "mine" not in done.err
    assert "my coins" not in done.err
    (folder / "run.json").write_text("{}")
    one_line(call("view", folder), "is not the folder of a result")
    (folder / "run.json").write_text('{"photo": null}')
    one_line(call("view", folder), "again with --write all\n")


def test_errors_say_what_to_give(tmp_path: Path, opened: list[str]) -> None:
    one_line(call("view", tmp_path / "coin"), "no such folder or file", "give the folder of a result")
    one_line(call("view", tmp_path), "is not the folder of a result")
    for name in ("coins", "moon"):
        page(tmp_path / name)
    one_line(call("view", tmp_path / "coin"), "did you mean 'coins'?")
    one_line(call("view", tmp_path), "holds 2 results", str(tmp_path / "moon"), "name one")
    (tmp_path / "a.png").write_bytes(b"")
    one_line(call("view", tmp_path / "a.png"), "is not a page")
    assert opened == []
