"""The commands that show what there is: list and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.text import Text

from redepth.cli import completion, console, options, tables
from redepth.cli.doctor import print_needed
from redepth.literals import FamilyName

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.cli.checks import Check

_USE = {
    "presets": "redepth refine PHOTO --preset NAME",
    "renderers": "--set renderer.name=NAME",
    "priors": "--set prior.name=NAME",
    "objectives": "--set optim.objectives.NAME.weight=1",
    "depth-models": "--set depth_model.name=NAME",
    "datasets": "redepth bench NAME",
    "protocols": "redepth bench DATASET --protocol NAME",
}
"""How a component of each family is chosen, in the order of the listing."""

_STATES: dict[str, str] = {
    "download": "its weights are not here",
    "install": "a package is missing",
    "unavailable": "not on this machine, such as without a GPU",
}
"""What a state other than ready means, in the order of the listing's legend."""

_NAMES_ALONE = ("depth-models", "priors", "objectives", "datasets", "protocols")
"""Families whose names say enough for the overview."""


def list_families(
    family: Annotated[
        str | None,
        typer.Argument(
            metavar="[FAMILY]",
            help=f"One of {', '.join(get_args(FamilyName))}.",
            autocompletion=completion.families,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    imports: options.Imports = None,
) -> None:
    """List presets and components, also of other packages, and whether each can run here."""
    if as_json:
        chosen = get_args(FamilyName) if family is None else (family,)
        console.write_json({name: _records(name, family is not None) for name in chosen})
    elif family is None:
        _print_overview()
    else:
        _print_family(family)


# --- all families ---------------------------------------------------------------------------------


def _print_overview() -> None:
    needed: list[Check] = []
    for family in _USE:
        checks = _checks(family)
        needed += checks.values()
        console.out.print(Text.assemble((family, "bold"), f"  {_USE[family]}"))
        print_rows = _print_names if family in _NAMES_ALONE else _print_rows
        print_rows(family, checks)
        console.out.print()
    for line in (
        *_legend(needed),
        "Licences, what is missing: redepth list FAMILY; settings: redepth show PRESET",
    ):
        console.out.print(line, highlight=False)


def _print_rows(family: str, checks: Mapping[str, Check]) -> None:
    """Print a line for each component: whether it can run here, and what it is."""
    from redepth.components import list_components

    components, width = list_components(family), console.out.columns
    left = max(map(len, components)) + 2
    state = max((len(check.state) for check in checks.values()), default=0) + 2
    for name, summary in components.items():
        row = Text(f"  {name:<{left}}{checks[name].state:<{state}}{summary}")
        if width is not None:
            row.truncate(width, overflow="ellipsis")
        console.out.print(row)


def _print_names(family: str, checks: Mapping[str, Check]) -> None:
    """Print the names of the components, those that need the same to run here together."""
    from redepth.components import list_components

    groups: dict[str, list[str]] = {}
    for name in list_components(family):
        groups.setdefault(checks[name].state if name in checks else "", []).append(name)
    # Where all are the same, such as ready, the names alone say enough.
    several = len(groups) > 1
    order = ("ready", *_STATES)
    for state, names in sorted(groups.items(), key=lambda group: order.index(group[0]) if several else 0):
        text = f"{state}: {', '.join(names)}" if several else ", ".join(names)
        width = console.out.columns
        for number, line in enumerate(tables.wrap(text, width and width - 4)):
            console.out.print(Text(f"{'    ' if number else '  '}{line}"))


def _legend(checks: Sequence[Check]) -> list[str]:
    """Return a line about what the states besides ready mean, if there are any in the listing."""
    present = {check.state for check in checks}
    words = [f"{state}: {meaning}" for state, meaning in _STATES.items() if state in present]
    return ["; ".join(words)] if words else []


# --- one family -----------------------------------------------------------------------------------


def _print_family(family: str) -> None:
    """List one family, with a check of each component: it imports the component."""
    from redepth.components import list_components

    checks, licences = _checks(family), _licences(family)
    columns = {"name": True, "here": bool(checks), "licence of the weights": any(licences.values())}
    shown = [name for name, is_there in columns.items() if is_there]
    table = console.table(f"{family}: {_USE[family]}", *shown, "what it is", prose=True)
    for name, summary in list_components(family).items():
        cells = {"name": name, "licence of the weights": licences[name]}
        cells["here"] = checks[name].state if name in checks else ""
        table.add_row(*(cells[column] for column in shown), summary)
    console.out.print(table)
    for check in checks.values():
        if check.cure:
            console.out.print(Text(f"{check.what}: {check.cure}"))
    print_needed(list(checks.values()))
    if family == "datasets":
        _print_downloads()


def _print_downloads() -> None:
    """Say which data sets have to be downloaded by the user: redepth downloads none."""
    from redepth.data import datasets
    from redepth.registry import options_schema

    names = [
        name
        for name, entry in datasets.REGISTRY.entries().items()
        if not entry.missing() and "root" in options_schema(entry.load()).model_fields
    ]
    files = f"give --root FOLDER for {', '.join(names)}; docs/benchmarks.md has their layouts and downloads"
    console.out.print(Text(files))


def _checks(family: str) -> dict[str, Check]:
    from redepth.cli import capabilities

    return {check.what: check for check in capabilities.family(family)}


def _licences(family: str) -> dict[str, str]:
    """Return the licence of each component's weights; empty where it has none."""
    from redepth.components import FAMILIES, list_components

    entries = FAMILIES[family].entries() if family in FAMILIES else {}
    return {name: entries[name].licence if name in entries else "" for name in list_components(family)}


def _records(family: str, checked: bool) -> list[dict[str, Any]]:
    """Return what ``--json`` prints of a family; docs/command_line.md describes the keys."""
    from redepth.components import list_components

    licences = _licences(family)
    checks: Mapping[str, Check] = _checks(family) if checked else {}
    records = []
    for name, summary in list_components(family).items():
        record: dict[str, Any] = {"name": name, "summary": summary, "licence": licences[name] or None}
        if name in checks:
            check = asdict(checks[name])
            record |= {key: check[key] for key in ("state", "found", "cure", "commands")}
        records.append(record)
    return records


# --- a preset -------------------------------------------------------------------------------------


def show(
    preset: Annotated[
        str, typer.Argument(help="Preset name or YAML file.", autocompletion=completion.presets)
    ] = "re-depth-anything",
    overrides: options.Overrides = None,
    plain: Annotated[bool, typer.Option("--plain", "--no-comments", help="Leave the comments out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of YAML.")] = False,
    imports: options.Imports = None,
) -> None:
    """Print a preset in full, with a comment on each setting: to save, edit and use as --preset FILE."""
    from redepth.cli.commented import commented_yaml

    resolved = options.resolved_preset(preset, overrides or [])
    if as_json:
        console.write_json(resolved.model_dump(mode="json"))
    else:
        console.write(resolved.to_yaml() if plain else commented_yaml(resolved))
