"""The download command: fetch what a preset or a component loads, and say how much that is first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.text import Text

from redepth.cli import completion, console, options
from redepth.cli.parts import parts_of
from redepth.errors import ConfigError, NotDownloadedError, WeightsError, brief, nearest
from redepth.literals import CaptionerName

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.checkpoints import Pending
    from redepth.checkpoints.source import Source

KINDS = ("preset", "depth-model", "renderer", "prior", "objective", "captioner")
"""What can be named."""


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help=f"Presets, YAML files or components; their kind may come first: {', '.join(KINDS)}.",
            autocompletion=completion.presets_and_components,
        ),
    ],
    overrides: options.Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be fetched.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
) -> None:
    """Fetch the weights that a preset or a component loads, and nothing else; show their size first."""
    from redepth import checkpoints

    parts = [part for kind, name in _named(names) for part in _parts(kind, name, overrides or [])]
    with console.status("asking the hub"):
        # All are found before the size of the first is asked for.
        sources = [(role, source) for role, build in parts for source in _sources(build())]
        found = [(role, checkpoints.pending(source)) for role, source in dict.fromkeys(sources)]
    pending = list(dict.fromkeys(item for _, item in found if item.files))
    _print_plan(found)
    if not pending:
        console.out.print("Nothing to fetch.")
        return
    _print_total(pending)
    if any(role == "captioner" and item.files for role, item in found):
        console.out.print("Without the captioner: --set prompt.captioner=none", highlight=False)
    if dry_run:
        return
    if not yes and _on_a_terminal() and not typer.confirm("Download?", default=True):
        console.complain("nothing was fetched")
        raise typer.Exit(console.EXIT_ERROR)
    with console.status("downloading"):
        checkpoints.fetch(pending)
    console.note("All weights are on this machine.")


def _sources(component: object) -> list[Source]:
    from redepth import checkpoints

    try:
        return checkpoints.sources_of(component)
    except NotDownloadedError as error:
        raise WeightsError(f"{error.problem}: connect, and run redepth download again") from None


def _on_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and console.out.columns is not None


def _print_plan(found: Sequence[tuple[str, Pending]]) -> None:
    if not found:
        console.out.print("It loads no weights.")
        return
    table = console.table("", "for", "to fetch", "checkpoint")
    for role, item in found:
        at = f" at {item.source.revision}" if item.source.revision else ""
        table.add_row(role, _amount(item), f"{item.source.checkpoint}{at}")
    console.out.print(table)


def _amount(item: Pending) -> str:
    """Return how much is to come of a checkpoint, or where it is."""
    from redepth.checkpoints import EMBEDDED, size_text

    if item.files:
        return f"{size_text(item.bytes)} in {item.files} file{'s' if item.files > 1 else ''}"
    if item.source.checkpoint.startswith(EMBEDDED):
        return "ships with redepth"
    return "local folder" if item.source.is_local else "in the cache"


def _print_total(pending: Sequence[Pending]) -> None:
    from redepth.checkpoints import free_space, size_text

    folder, free = free_space()
    total = size_text(sum(item.bytes for item in pending))
    console.out.print(Text(f"To fetch: {total}. {size_text(free)} are free in {folder}"))


def _named(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return kind and name of each thing that is named.

    Raises:
        ConfigError: a name is unknown, or there are several of it.
    """
    kind = words[0].removesuffix("s")
    if kind in KINDS:
        if len(words) == 1:
            raise ConfigError(f"which {kind}? one of {', '.join(_names()[kind])}")
        return [(kind, name) for name in words[1:]]
    return [(_kind_of(word), word) for word in words]


def _kind_of(name: str) -> str:
    known = _names()
    kinds = [kind for kind, names in known.items() if name in names]
    if len(kinds) > 1:
        listed = " and a ".join(kinds)
        commands = " or ".join(f"redepth download {kind} {name}" for kind in kinds)
        raise ConfigError(f"'{name}' is a {listed}: say which one, {commands}")
    if kinds:
        return kinds[0]
    if Path(name).suffix in (".yaml", ".yml"):
        return "preset"
    hint = nearest(name, {name for names in known.values() for name in names})
    raise ConfigError(f"no preset or component {brief(name)}{hint} (redepth list shows all)")


def _names() -> dict[str, Sequence[str]]:
    from redepth.components import FAMILIES
    from redepth.config import preset_names

    families = {kind: list(FAMILIES[f"{kind}s"].entries()) for kind in KINDS if f"{kind}s" in FAMILIES}
    return {"preset": preset_names(), **families, "captioner": get_args(CaptionerName)}


def _parts(kind: str, name: str, overrides: Sequence[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the role and the builder of each component of a preset, or of the one component that is named.

    Raises:
        ConfigError: there is none of that name, or overrides are given for a component.
    """
    from redepth.components import FAMILIES

    if kind == "preset":
        yield from parts_of(options.resolved_preset(name, overrides)).items()
        return
    if overrides:
        raise ConfigError(f"--set belongs to presets, and '{name}' is a {kind}: leave it out")
    if kind == "captioner":
        if name not in get_args(CaptionerName):
            hint = nearest(name, get_args(CaptionerName))
            raise ConfigError(f"unknown captioner {brief(name)}{hint}")
        smoke = options.resolved_preset("smoke", [f"prompt.captioner={name}"])
        yield "captioner", parts_of(smoke)["captioner"]
        return
    registry = FAMILIES[f"{kind}s"]
    registry.get(name)
    yield kind.replace("-", " "), partial(registry.build, name, {})
