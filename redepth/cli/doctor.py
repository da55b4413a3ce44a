"""The doctor command: what can run on this machine, what is missing, and the commands that get it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from redepth.cli import console, options, tables

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.cli.checks import Check

_COMPONENTS = ("presets", "depth-models", "renderers", "priors", "objectives")
_MOST_DOWNLOADS = 3
"""Commands of one kind that are listed; more become one with NAME."""
_DOWNLOAD = re.compile(r"(redepth download [\w-]+) \S+")

Report = Mapping[str, "Sequence[Check]"]


def doctor(
    everything: Annotated[bool, typer.Option("--all", help="Show every check and every component.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all checks as JSON.")] = False,
    imports: options.Imports = None,
) -> None:
    """Check this machine: what can run, what is missing, and the commands that get it."""
    found = report()
    healthy = all(check.ok for checks in found.values() for check in checks if check.vital)
    if as_json:
        console.write_json(as_record(found, healthy))
    elif everything:
        _print_all(found)
    else:
        _print_overview(found)
    if not healthy:
        raise typer.Exit(console.EXIT_ERROR)


def report() -> dict[str, list[Check]]:
    """Return the checks by section: those of the machine, then a section for each family."""
    from redepth.cli import capabilities, checks

    sections = checks.machine()
    for family in _COMPONENTS:
        sections[family] = []
        for check in capabilities.family(family):
            backends = capabilities.backends(family, check.what) if family != "presets" else []
            sections[family] += [check, *backends]
    return sections


def as_record(found: Report, healthy: bool) -> dict[str, object]:
    """Return the report as it is printed by ``--json``; docs/command_line.md describes the keys."""
    sections = {
        section: [{**asdict(check), "ok": check.ok} for check in checks] for section, checks in found.items()
    }
    commands = [*_for_presets(found), *_for_extras(found)]
    return {"healthy": healthy, "checks": sections, "commands": commands}


def _for_presets(found: Report) -> list[str]:
    """Return the commands that make all presets run here."""
    from redepth.cli.checks import merged

    return merged(command for check in found["presets"] for command in check.commands)


def _for_extras(found: Report) -> list[str]:
    """Return the commands that install the optional packages which no preset needs."""
    from redepth.cli.checks import APART, extras_in, merged

    others = APART | extras_in(_for_presets(found))
    return merged(c for check in found["extras"] if check.what not in others for c in check.commands)


# --- the overview ---------------------------------------------------------------------------------


def _print_overview(found: Report) -> None:
    _print_facts(_facts(found))
    console.out.print()
    console.out.print(_counts(found))
    _print_broken(found)
    hub = next(check for check in found["hub"] if check.what == "hub")
    when = "" if hub.ok else ", once the hub is reachable"
    _print_group(f"To make the other presets run{when}:", _for_presets(found))
    _print_group("Optional packages, which redepth doctor --all explains:", _for_extras(found))
    console.out.print()
    console.out.print("Other weights: redepth download NAME, with a name of redepth list.", highlight=False)
    console.out.print("Every check and component: redepth doctor --all", highlight=False)


def _facts(found: Report) -> dict[str, str]:
    """Return what this machine has, in words."""
    by_name = {check.what: check for section in ("devices", "hub") for check in found[section]}
    gpu = next((by_name[name] for name in ("cuda", "mps") if by_name[name].ok), None)
    device = f"cpu, {by_name['cpu'].found}"
    pair = "intact" if all(check.ok for check in found["embedded weights"]) else "broken, see below"
    hub = by_name["hub"]
    return {
        "software": ", ".join(f"{check.what} {check.found}" for check in found["software"]),
        "device": f"{device}; no GPU" if gpu is None else f"{gpu.what}, {gpu.found}; {device}",
        "embedded weights": pair,
        "hub": "reachable" if hub.ok else f"not reachable: {hub.found}",
        "cache": by_name["cache"].found,
    }


def _print_facts(facts: Mapping[str, str]) -> None:
    left = max(map(len, facts)) + 2
    width = console.out.columns
    for name, fact in facts.items():
        first, *rest = tables.wrap(fact, width and width - left)
        console.out.print(Text.assemble((name.ljust(left), "bold"), first))
        for line in rest:
            console.out.print(Text(" " * left + line))


def _counts(found: Report) -> tables.Table:
    """Return the table of how many of each family can run."""
    table = console.table("", "", "ready", "download", "install", "not here", "ready are", prose=True)
    for family in _COMPONENTS:
        # A backend is part of a component.
        checks = [check for check in found[family] if "(" not in check.what]
        states = [check.state for check in checks]
        counts = [str(states.count(state) or "") for state in ("download", "install", "unavailable")]
        ready = [check.what for check in checks if check.ok]
        table.add_row(family, f"{len(ready)} of {len(checks)}", *counts, ", ".join(ready))
    return table


def _print_broken(found: Report) -> None:
    """Print what decides the exit code, and each cure once."""
    broken = [(section, c) for section, checks in found.items() for c in checks if c.vital and not c.ok]
    if broken:
        console.out.print()
    for section, check in broken:
        problem = f"{section}: {check.what}: {check.found}"
        console.out.print(Text.assemble(("broken: ", "bold red"), problem))
    for cure in dict.fromkeys(check.cure for _, check in broken if check.cure):
        console.out.print(Text(f"  {cure}"))


def _print_group(heading: str, lines: Sequence[str]) -> None:
    """Print commands under a heading, after an empty line; nothing without commands."""
    if lines:
        console.out.print()
        console.out.print(heading, highlight=False)
        _print_commands(lines)


def _print_commands(lines: Iterable[str]) -> None:
    for line in lines:
        console.out.print(Text(f"  {line}"))


# --- everything -----------------------------------------------------------------------------------


def _print_all(found: Report) -> None:
    for section, checks in found.items():
        table = console.table(section, "", "what", "found", prose=True)
        for check in checks:
            sign = Text("ok", "green") if check.ok else Text("no", "red")
            table.add_row(sign, check.what, ": ".join(filter(None, (check.found, check.cure))))
        console.out.print(table)
        print_needed(checks)
        console.out.print()


def print_needed(checks: Sequence[Check]) -> None:
    """Print the commands that checks ask for, each once, below the table of the checks."""
    from redepth.cli.checks import merged

    wanted = merged(command for check in checks for command in check.commands)
    downloads = [command for command in wanted if _DOWNLOAD.fullmatch(command)]
    if len(downloads) > _MOST_DOWNLOADS:
        shared = dict.fromkeys(_DOWNLOAD.sub(r"\1 NAME", command) for command in downloads)
        wanted = [*(command for command in wanted if command not in downloads), *shared]
    if wanted:
        console.out.print("to make them run:", highlight=False)
        _print_commands(wanted)
