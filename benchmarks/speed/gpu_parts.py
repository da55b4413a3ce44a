"""The parts of `benchmarks.speed.gpu`, each in a process of its own.

    python -m benchmarks.speed.gpu_parts PART rows.jsonl SCRATCH [--tiny]

``SCRATCH`` is a folder that the parts of one run share: the first part that needs the networks writes them
there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.speed import gpu_pieces, gpu_steps, gpu_tests
from benchmarks.speed.gpu_part import Part
from benchmarks.speed.ways import console

PARTS: dict[str, Callable[[Part], None]] = {
    "rates": gpu_pieces.rates,
    "kernel-tests": gpu_tests.kernel_tests,
    "tests": gpu_tests.tests,
    "steps": gpu_steps.steps,
    "kernels": gpu_steps.kernels,
    "options": gpu_steps.options,
    "shading": gpu_pieces.shading,
    "norms": gpu_pieces.norms,
    "decoders": gpu_pieces.decoders,
    "compile": gpu_steps.compile_prior,
    "fast": gpu_steps.fast,
    "mesh": gpu_tests.mesh,
    "compiled-tests": gpu_tests.compiled_tests,
    "compile-all": gpu_steps.compile_all,
}


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    rows: Annotated[Path, typer.Argument(help="The file that rows are appended to.")],
    scratch: Annotated[Path, typer.Argument(help="The folder that the parts of a run share.")],
    tiny: Annotated[bool, typer.Option("--tiny", help="Small sizes.")] = False,
    limit: Annotated[float, typer.Option(help="Seconds after which it is stopped.")] = 600.0,
    ways: Annotated[str, typer.Option(help="With commas: only ways whose name contains one.")] = "",
) -> None:
    """Run one part."""
    part = Part(rows, scratch, tiny, limit, tuple(word for word in ways.split(",") if word))
    if not tiny and not torch.cuda.is_available():
        raise typer.BadParameter("there is no CUDA GPU here; --tiny runs on a CPU")
    PARTS[name](part)
    if part.failures:
        console.print("FAILED: " + "; ".join(part.failures), markup=False)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
