"""The doctor command."""

from __future__ import annotations

import typer
from rich.text import Text

from redepth.cli import console, options


def doctor(imports: options.Imports = None) -> None:
    """Check this machine: versions, devices, extras, hub, cache, embedded weights, every component."""
    from redepth.cli import checks

    healthy = True
    for section, rows in checks.report().items():
        table = console.table(section, "", "what", "found", "to make it run")
        for row in rows:
            sign = Text("ok", "green") if row.ok else Text("no", "red")
            table.add_row(sign, Text(row.what), Text(row.found), Text(row.cure))
            healthy &= row.ok or not row.vital
        console.out.print(table)
    if not healthy:
        raise typer.Exit(console.EXIT_ERROR)
