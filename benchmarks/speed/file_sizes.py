"""The size of the files of one photo, by choice.

    python -m benchmarks.speed.file_sizes           # 3000 x 2000; the rows go to benchmarks/results
    python -m benchmarks.speed.file_sizes --photo mine.jpg --write all

Each choice is written after one step of the embedded preset: more steps change the size of no npy file, and
that of compressed ones little.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

import redepth
from benchmarks.speed.memory import write_photo
from benchmarks.speed.records import RESULTS
from redepth import io
from redepth.config.schema import DEFAULT_EXPORTS

SIZE = (3000, 2000)
EARLIER = ("map", "preview", "initial", "uncertainty", "normals", "comparison", "points")
"""What was written before there was a choice."""

app = typer.Typer(add_completion=False)


def sizes(photo: Path, write: str) -> dict[str, int]:
    """Return the bytes of each file of a photo."""
    overrides = ["optim.steps=1", "optim.members=2", f"output.write=[{write}]"]
    with tempfile.TemporaryDirectory() as folder:
        redepth.refine(photo, "embedded", overrides=overrides, device="cpu").save(folder)
        return {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}


@app.command()
def main(
    photo: Annotated[Path | None, typer.Option(help="By default a generated one.")] = None,
    write: Annotated[str | None, typer.Option(help="Instead of the default and all files of before.")] = None,
    out: Annotated[Path, typer.Option(help="File of the rows.")] = RESULTS / "files" / "sizes.json",
) -> None:
    """Write the files, print their sizes and store them."""
    choices = [write] if write else [",".join(names) for names in (EARLIER, DEFAULT_EXPORTS)]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = photo or Path(folder, "photo.jpg")
        if photo is None:
            write_photo(path, *SIZE)
        for choice in choices:
            found = rows[choice] = sizes(path, choice)
            typer.echo(f"{choice}: {sum(found.values()) / 1e6:.1f} MB")
            for name, size in found.items():
                typer.echo(f"    {name:20} {size / 1e6:.2f} MB")
    if photo is None and write is None:
        io.save_json(out, {"width": SIZE[0], "height": SIZE[1], "bytes": rows})


if __name__ == "__main__":
    sys.exit(app())
