"""Time members' decoders, forward and backward: one after the other and batched, in both memory layouts.

    python -m benchmarks.speed.bench_decoders              # rows go to results/decoders-DEVICE.json
    python -m benchmarks.speed.bench_decoders --members 3 --size embedded
    python -m benchmarks.speed.bench_decoders --tiny       # narrow networks, to check that it runs

Sizes: ``embedded`` (that preset's own network, 192 x 192) and ``small`` (Depth Anything V2 Small's shapes
with random weights, 518 x 518). All forms take turns in one process, so that a disturbance affects them
alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.speed import random_models
from benchmarks.speed.random_models import REAL, SMALL
from benchmarks.speed.records import Row, circumstances, result_path, save_each, take_turns, timing
from redepth.contracts import Execution
from redepth.depth_models.depth_anything import DepthAnything
from redepth.optim.parameterizations import Parameterization
from redepth.runtime.allocator import keep_freed_memory
from redepth.runtime.device import choose_device

SIZES = ("embedded", "small")
FORMS: dict[str, Execution] = {
    "loop": Execution(decoders="loop"),
    "loop, channels first": Execution(decoders="loop", channels_last=False),
    "batched": Execution(decoders="batched"),
    "batched, channels first": Execution(decoders="batched", channels_last=False),
}

app = typer.Typer(add_completion=False)
console = Console(width=120)


def network(size: str, device: torch.device, tiny: bool) -> tuple[DepthAnything, int]:
    """Return a depth model and the side of its picture."""
    if size == "embedded":
        return DepthAnything(checkpoint="embedded:relief-depth", longer_side=192).load(device), 192
    shapes = SMALL if tiny else REAL
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        own = random_models.depth_anything(shapes)
    model = DepthAnything(longer_side=shapes.photo)
    model.use(own.eval().requires_grad_(False), device)
    return model, shapes.photo


def decoders(size: str, how: Execution, members: int, device: torch.device, tiny: bool) -> Callable[[], Any]:
    """Return a function that decodes members of their own embeddings and decoders, and takes the way back."""
    model, side = network(size, device, tiny)
    model.tune(how)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
    state = Parameterization("embeddings+decoder", model, image, features, initial, members)
    parameters = [p for params in state.groups().values() for p in params]
    cotangent = torch.ones(members, 1, side, side, device=device)

    def run() -> None:
        for p in parameters:
            p.grad = None
        state.raw().backward(cotangent)

    return run


def measure(
    sizes: Sequence[str], counts: Sequence[int], device: torch.device, rounds: int, tiny: bool
) -> Iterator[Row]:
    """Time every form at every size with each number of members."""
    precision = {
        "tf32 in convolutions": torch.backends.cudnn.allow_tf32,
        "tf32 in products": torch.backends.cuda.matmul.allow_tf32,
    }
    for size in sizes:
        for members in counts:
            runs = {name: decoders(size, how, members, device, tiny) for name, how in FORMS.items()}
            side = 192 if size == "embedded" else (SMALL if tiny else REAL).photo
            for name, taken in take_turns(runs, device, rounds).items():
                yield Row(
                    benchmark="decoders",
                    case=size,
                    implementation=name,
                    **timing(taken)._asdict(),
                    shape=(members, side, side),
                    lights=1,
                    dtype="float32",
                    **circumstances(device),
                    extra={
                        "least_ms": min(taken),
                        **(precision if device.type == "cuda" else {}),
                        **({"tiny": True} if tiny else {}),
                    },
                )


def report(rows: Sequence[Row]) -> None:
    """Print the time of a member's decoder in each form, and its speed relative to the loop."""
    table = Table("size", "members", "form", "ms a member", "p20 to p80", "least", "loop / form")
    loops = {(row.case, row.shape): row.median_ms for row in rows if row.implementation == "loop"}
    for row in rows:
        members = row.shape[0]
        table.add_row(
            row.case,
            str(members),
            row.implementation,
            f"{row.median_ms / members:.4g}",
            f"{row.p20_ms / members:.4g} to {row.p80_ms / members:.4g}",
            f"{row.extra['least_ms'] / members:.4g}",
            f"{loops[row.case, row.shape] / row.median_ms:.2f}",
        )
    console.print(table)


@app.command()
def main(
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    size: Annotated[list[str] | None, typer.Option(help=f"{', '.join(SIZES)}; may be repeated.")] = None,
    members: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each form.")] = 20,
    tiny: Annotated[bool, typer.Option("--tiny", help="Narrow networks for the real size.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file; by default in benchmarks/results.")] = None,
) -> None:
    """Measure, print a table, and store the rows."""
    keep_freed_memory()  # as the command does
    if unknown := set(size or ()) - set(SIZES):
        raise typer.BadParameter(f"no {', '.join(unknown)}; there are: {', '.join(SIZES)}")
    on = choose_device(device)
    counts = members or ([1, 3, 10] if on.type == "cuda" else [3])
    path = result_path(out, "decoders", on)
    report(save_each(path, measure(size or SIZES, counts, on, rounds, tiny)))
    console.print(f"wrote {path}")


if __name__ == "__main__":
    app()
