"""The commands that show what there is: list and show."""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer
from rich.table import Table
from rich.text import Text

from redepth.cli import completion, console, options
from redepth.errors import RedepthError
from redepth.literals import FamilyName


def list_families(
    family: Annotated[FamilyName | None, typer.Argument(help="Family to list; by default all.")] = None,
    imports: options.Imports = None,
) -> None:
    """List presets and components, also of other packages; with a family, what each still needs here."""
    if family is None:
        for name in get_args(FamilyName):
            console.out.print(_table(name))
    else:
        _list_family(family)


def _list_family(name: str) -> None:
    """List one family, with a check of each component: it imports the component and may query the hub."""
    from redepth.cli import checks

    cures = {check.what: check.cure for check in checks.family(name)}
    console.out.print(_table(name, cures))
    if any(cures.values()):
        console.out.print("redepth doctor shows how to install what is missing.", highlight=False)


def _table(name: str, cures: dict[str, str] | None = None) -> Table:
    """Make the table of a family; ``cures`` adds a column with what is missing on this machine."""
    from redepth.components import list_components

    licences = _licences(name)
    columns = ["name", "what it is"]
    if licences:
        columns.append("licence of the weights")
    if cures is not None:
        columns.append("to run it here")
    table = console.table(name, *columns)
    for component, summary in list_components(name).items():
        row = [Text(component), Text(summary)]
        if licences:
            row.append(Text(licences[component]))
        if cures is not None and component in cures:
            # `doctor` shows the whole line, with what to do.
            row.append(Text(_first_part(cures[component]) or "nothing more"))
        table.add_row(*row)
    return table


def _first_part(line: str) -> str:
    """Return a message up to its first colon that is outside of brackets."""
    depth = 0
    for i, character in enumerate(line):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and line[i : i + 2] == ": ":
            return line[:i]
    return line


def _licences(family: str) -> dict[str, str]:
    """Return the licence of each component's weights, where those of a family have any."""
    from redepth.components import FAMILIES

    entries = FAMILIES[family].entries() if family in FAMILIES else {}
    licences = {name: entry.licence for name, entry in entries.items()}
    return licences if any(licences.values()) else {}


def show(
    preset: Annotated[
        str, typer.Argument(help="Preset name or YAML file.", autocompletion=completion.presets)
    ] = "re-depth-anything",
    overrides: options.Overrides = None,
    imports: options.Imports = None,
) -> None:
    """Print a preset in full: parents merged, overrides applied, every default written out."""
    # Plain write: rich would wrap long lines, and the output is meant to be saved as a file.
    text = options.resolved_preset(preset, overrides or []).to_yaml()
    if sys.stdout is None:
        raise RedepthError("the output is closed, so there is nothing to print to: redirect it to a file")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has what it wanted: the command ends silently
        raise
    except (OSError, UnicodeEncodeError) as error:
        raise RedepthError(f"the output cannot be written to ({error}): redirect it to a file") from None
