"""Options that the training commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Samples = Annotated[
    int | None, typer.Option(help="Training samples, in one cycle; by default the network's own.")
]

Seed = Annotated[int, typer.Option(help="Seed of weights, scenes and noise.")]

Device = Annotated[str, typer.Option(help="cpu, cuda or mps; scenes are always drawn on the CPU.")]

Runs = Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")]

Until = Annotated[int | None, typer.Option(help="Stop after this step; the same command goes on.")]

Compile = Annotated[bool, typer.Option(help="Compile the network: a fifth faster; needs a C++ compiler.")]
