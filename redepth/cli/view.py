"""The view command: open the page of a result in the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from redepth.cli import console
from redepth.errors import InputError, nearest
from redepth.literals import VIEW_FILE

_NAMED = 5
"""How many results are named where one must be chosen."""


def view(
    result: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|FILE", help="Folder of a result, such as out/photo, or its page."),
    ],
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the address of the page and open no browser.")
    ] = False,
) -> None:
    """Open the page of a result in the browser: under a light to drag, compared, and in 3D."""
    address = find_page(result).resolve().as_uri()
    opened = not print_only and has_screen() and webbrowser.open(address)
    if not (opened or print_only):
        console.warn("no browser can be opened here; open this address in one:")
    console.out.print(Text(address), soft_wrap=True)


def find_page(result: Path) -> Path:
    """Return the page of a result: the file itself, the one in its folder, or that of the only result in it.

    Raises:
        InputError: there is none, or the folder holds several results.
    """
    from redepth.io.paths import exists, expanded, is_folder

    path = expanded(result)
    if is_folder(path):
        return _page_in(path)
    if not exists(path):
        siblings = [entry.name for entry in path.parent.iterdir()] if is_folder(path.parent) else []
        hint = nearest(path.name, siblings) or "; give the folder of a result, such as out/photo"
        raise InputError(f"{result}: there is no such folder or file{hint}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{result}: is not a page; give the folder of a result, or the {VIEW_FILE} in it")
    return path


def _page_in(folder: Path) -> Path:
    if (folder / VIEW_FILE).is_file():
        return folder / VIEW_FILE
    if record := _record(folder):
        # The record does not hold the whole command, and another one would replace the result.
        raise InputError(
            f"{folder}: this result has no {VIEW_FILE}: run your command of redepth refine again with "
            f"--write {_written(record)}"
        )
    if (folder / "side-by-side.mp4").is_file():
        raise InputError(f"{folder}: is a clip's folder: open {folder / 'side-by-side.mp4'} in a player")
    pages = sorted(folder.glob(f"*/{VIEW_FILE}"))
    if len(pages) == 1:
        return pages[0]
    if pages:
        names = ", ".join(str(page.parent) for page in pages[:_NAMED])
        more = f" and {len(pages) - _NAMED} more" if len(pages) > _NAMED else ""
        raise InputError(f"{folder}: holds {len(pages)} results: {names}{more}; name one")
    raise InputError(f"{folder}: is not the folder of a result; give one that redepth refine wrote")


def _record(folder: Path) -> dict[str, Any]:
    """Return the run record in a folder; empty if there is none that can be read."""
    from redepth.runtime.resume import read_record

    try:
        return read_record(folder / "run.json") or {}
    except ValueError:
        return {}


def _written(record: dict[str, Any]) -> str:
    """Return the value of ``--write`` that keeps the files of a result and adds the page."""
    try:
        written = [str(name) for name in record["preset"]["output"]["write"]]
    except (KeyError, TypeError):
        return "all"
    return ",".join(dict.fromkeys([*written, "view"]))


def has_screen() -> bool:
    """Return whether a browser with a window can open; those in a terminal cannot show the page."""
    if sys.platform in ("win32", "darwin") or "BROWSER" in os.environ:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
