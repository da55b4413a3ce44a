"""The new command: write a working one-file component with its test."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from shlex import quote
from string import Template
from typing import Annotated, Literal

import typer
from rich.text import Text

from redepth.cli import console
from redepth.errors import ConfigError, OutputError, brief

Kind = Literal["renderer", "prior", "depth-model", "objective"]

TEMPLATES = Path(__file__).parent / "templates"
"""``KIND.py.txt`` and ``test_KIND.py.txt``: they are no modules of this package."""

SETTINGS: dict[Kind, str] = {
    "renderer": "renderer.name={}",
    "prior": "prior.name={}",
    "depth-model": "depth_model.name={}",
    "objective": "optim.objectives.{}.weight=0.1",
}
"""The setting that uses a component of each kind."""

LONGEST = 60


def new(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="renderer, prior, depth-model or objective.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component, such as soft-light.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the two files.")] = Path(),
) -> None:
    """Write a component of your own that works, as one Python file, and its test."""
    stem = _checked_stem(kind, name)
    files = {
        folder / f"{stem}.py": f"{kind}.py.txt",
        folder / f"test_{stem}.py": f"test_{kind}.py.txt",
    }
    values = {"name": name, "file": f"{stem}.py", "class_name": _class_name(kind, name)}
    texts = {
        file: Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
        for file, template in files.items()
    }
    _write(folder, texts)
    component, test = files
    setting = SETTINGS[kind].format(name)
    for line in (
        f"written: {component}, {test}",
        "next:",
        f"  pytest {quote(str(test))}",
        f"  redepth refine photo.jpg --preset embedded --import {quote(str(component))} --set {setting}",
    ):
        console.note(Text(line))


def _write(folder: Path, texts: dict[Path, str]) -> None:
    """Write the files.

    Raises:
        ConfigError: one of them exists.
        OutputError: the folder cannot be written to.
    """
    from redepth import io

    for file in texts:
        if file.exists():
            raise ConfigError(f"{file} exists already: choose another name, or another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            io.save_text(file, text)
    except OSError as error:
        raise OutputError(
            f"--out {folder}: cannot be written to ({error.strerror or error}); choose another one"
        ) from None


def _checked_stem(kind: Kind, name: str) -> str:
    """Return the stem of the component's file. Raises ConfigError if the name cannot be used."""
    from redepth.components import FAMILIES
    from redepth.io.markup import parse_yaml

    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or len(name) > LONGEST:
        raise ConfigError(
            f"name {brief(name)}: give at most {LONGEST} lower-case letters, digits and hyphens, beginning "
            "with a letter, such as soft-light"
        )
    if parse_yaml(name) != name:
        raise ConfigError(f"name '{name}': in a preset YAML reads it as {parse_yaml(name)}; choose another")
    if name in FAMILIES[f"{kind}s"].entries():
        raise ConfigError(f"there is a {kind} '{name}' already (redepth list {kind}s); choose another name")
    stem = name.replace("-", "_")
    found = importlib.util.find_spec(stem)
    if found is not None and found.origin is not None:
        # pytest would import the component's file in place of that module.
        raise ConfigError(f"name '{name}': {stem}.py would hide the module {stem}; choose another")
    return stem


def _class_name(kind: Kind, name: str) -> str:
    """Return the name of the class: ``SoftLightRenderer``, which no imported class has."""
    camel, suffix = ("".join(part.title() for part in re.split("[-_]", text)) for text in (name, kind))
    return camel if camel.endswith(suffix) else camel + suffix
