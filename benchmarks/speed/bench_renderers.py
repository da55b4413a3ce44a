"""Time each renderer, forward and backward, relative to `blinn-phong`.

    python -m benchmarks.speed.bench_renderers [--device cuda] [--size 192] [--members 5] [--lights 2]

Writes benchmarks/results/renderers-SIZE-DEVICE.json and prints the table of docs/renderers.md. The renderers
take turns, so that other load of the machine slows all of them alike. Renderers whose packages are missing
are reported and left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.speed import records
from redepth import renderers
from redepth.errors import MissingDependencyError
from redepth.renderers.blinn_phong import BlinnPhong

OPTIONS: dict[str, dict[str, Any]] = {
    "shadows=soft": {"shadows": "soft"},
    "camera=pinhole": {"camera": "pinhole"},
    "light_saturation=0.5 ambient=0.1": {"light_saturation": 0.5, "ambient": 0.1},
}
console = Console()


def step(renderer: Any, depth: Tensor, linear: Tensor) -> Callable[[], None]:
    """Return a function that relights and computes the gradient with respect to the depth."""
    light = renderer.draw(len(depth), torch.Generator().manual_seed(0)).to(depth.device)

    def run() -> None:
        z = depth.detach().requires_grad_()
        renderer(z, linear, light).sum().backward()

    return run


def scene(members: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a smooth relief (members,1,size,size) and a linear picture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(members, 1, 9, 9, generator=generator)
    relief = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (2 + 0.3 * relief).to(device), torch.rand(1, 3, size, size, generator=generator).to(device)


def candidates(lights: int) -> dict[str, Any]:
    """Return every renderer that can run here, and `blinn-phong` under the shared options."""
    found: dict[str, Any] = {}
    for name in renderers.REGISTRY.entries():
        renderer = renderers.REGISTRY.build(name, {"lights": lights})
        try:
            getattr(renderer, "ensure_available", lambda: None)()
        except MissingDependencyError as error:
            console.print(f"{name} is left out: {error}", highlight=False, markup=False)
            continue
        found[name] = renderer
    found |= {f"blinn-phong {label}": BlinnPhong(lights=lights, **given) for label, given in OPTIONS.items()}
    return found


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    size: Annotated[int, typer.Option(help="Side of the pictures.", min=8)] = 192,
    members: Annotated[int, typer.Option(min=1)] = 5,
    lights: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(help="Timed runs of each.", min=2)] = 20,
    out: Annotated[Path, typer.Option(help="Folder of the rows.")] = records.RESULTS,
) -> None:
    """Time all renderers."""
    target = torch.device(device)
    common, given = records.circumstances(target), scene(members, size, target)
    runs = {name: step(renderer, *given) for name, renderer in candidates(lights).items()}
    rows = []
    for name, times in records.take_turns(runs, target, rounds).items():
        timing = records.timing(times)._asdict()
        rows.append(
            records.Row(
                benchmark="renderers",
                case="forward+backward",
                implementation=name,
                shape=(members, size, size),
                lights=lights,
                dtype="float32",
                **timing,
                **common,
            )
        )
    path = out / f"renderers-{size}-{target.type}.json"
    records.save(path, rows)
    base = next(row.median_ms for row in rows if row.implementation == "blinn-phong")
    table = Table("renderer", "ms", "20 to 80 %", "relative")
    for row in rows:
        spread = f"{row.p20_ms:.1f} to {row.p80_ms:.1f}"
        table.add_row(row.implementation, f"{row.median_ms:.1f}", spread, f"{row.median_ms / base:.2f}")
    console.print(table)
    console.print(f"written to {path}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
