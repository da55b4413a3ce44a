"""The paper's preset at its real size, as a user runs it: first from the hub, then from the cache.

    python -m benchmarks.speed.real_size              # 4.4 GB twice on the disk; minutes on a CPU
    python -m benchmarks.speed.real_size --tiny       # the same with narrow networks, in seconds

Checkpoints of the real shapes with random weights are written in the layout of the hub's repositories and
served on loopback. ``redepth refine photo --preset re-depth-anything --prompt ...`` runs twice with few
steps, each time in a new process. The first run downloads the checkpoints; the second runs without the server
and reads them from the cache. A row has the wall time and the peak resident memory of one run.
`benchmarks.speed.gpu` measures the steps in more detail.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import transformers
import typer
from rich.console import Console

from benchmarks.speed import random_models
from benchmarks.speed.bench_refine import run_command
from benchmarks.speed.random_models import REAL, SMALL, Shapes
from benchmarks.speed.records import RESULTS, ROOT, Row, circumstances, save
from benchmarks.speed.report import PAPER
from benchmarks.speed.ways import PHOTO
from redepth.checkpoints import size_text
from tests.support.hub_repositories import DEPTH, PROCESSOR, SD
from tests.support.hub_server import Hub, serving

PROMPT = "a statue"
STEPS = 2

app = typer.Typer(add_completion=False)
console = Console(width=120)


def write(folder: Path, shapes: Shapes) -> dict[str, Path]:
    """Write the repositories, in float32 like the originals; return name -> folder."""
    depth, sd = folder / "depth", folder / "sd"
    makers = {
        depth: random_models.depth_anything,
        sd / "unet": random_models.unet,
        sd / "vae": random_models.vae,
    }
    transformers.utils.logging.disable_progress_bar()
    for place, make in makers.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # One file each, as on the hub.
            make(shapes).save_pretrained(place, max_shard_size="20GB")
    (depth / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")
    random_models.write_text(sd, shapes)
    diffusers.DDIMScheduler(**random_models.SCHEDULE).save_pretrained(sd / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    (sd / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return {DEPTH: depth, SD: sd}


def arguments(out: Path, shapes: Shapes, steps: int) -> list[str | Path]:
    """Return the arguments of the command."""
    given: list[str | Path] = ["refine", PHOTO, "--preset", PAPER, "--prompt", PROMPT, "--out", out]
    given += ["--device", "cpu", "--set", f"optim.steps={steps}", "--set", "optim.members=1"]
    if shapes is not REAL:
        given += ["--set", f"depth_model.longer_side={shapes.photo}", "--set", f"prior.size={shapes.square}"]
    return given


def call(hub: Hub, home: Path, given: list[str | Path]) -> tuple[float, float, dict[str, Any]]:
    """Run the command; return wall seconds, peak resident memory in MiB, and its record."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "REDEPTH_CACHE": f"{home}/r"}
    os.environ.update(own)
    seconds, peak = run_command(*given)
    record = next(Path(given[given.index("--out") + 1]).rglob("run.json"))
    return seconds, peak, json.loads(record.read_text(encoding="utf-8"))


def row(
    name: str,
    found: tuple[float, float, dict[str, Any]],
    load: float,
    extra: dict[str, Any],
    common: dict[str, Any],
) -> Row:
    """Make the row of one run."""
    seconds, peak, record = found
    busy = load > 0.5 * (os.cpu_count() or 1)
    note = (
        f"the machine was {'busy with other work' if busy else 'otherwise idle'}: load {load:.1f} before it"
    )
    once = {f"{kind}_ms": seconds * 1e3 for kind in ("median", "p20", "p80")}
    return Row(
        benchmark="real-size",
        case=name,
        implementation=f"redepth refine --preset {PAPER}",
        **once,
        **common,
        repeats=1,
        shape=(record["members_done"], *record["network_size"]),
        lights=record["preset"]["renderer"]["lights"],
        dtype=record["prior"]["dtype"],
        peak_mib=peak,
        extra={
            "steps": record["preset"]["optim"]["steps"],
            "timings": record["timings"],
            "note": note,
            **extra,
        },
    )


def measure(folder: Path, shapes: Shapes, steps: int) -> list[Row]:
    """Write, serve, and run twice."""
    given = arguments(folder / "out", shapes, steps)
    common = circumstances(torch.device("cpu"))
    with serving() as hub:
        for name, place in write(folder / "hub", shapes).items():
            hub.add(name, place)
        load = os.getloadavg()[0]
        first = call(hub, folder / "home", given)
        files = [path for path in (folder / "home" / "hub").rglob("blobs/*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    tiny = {} if shapes is REAL else {"tiny": True}
    rows = [
        row(
            "first run",
            first,
            load,
            {"downloaded_files": len(files), "downloaded_bytes": size, **tiny},
            common,
        )
    ]
    load = os.getloadavg()[0]
    # The server has stopped. The cached prompt is deleted, so that its encoder is loaded again.
    for path in (folder / "home" / "r").rglob("*.safetensors"):
        path.unlink()
    return [*rows, row("next run", call(hub, folder / "home", given), load, tiny, common)]


@app.command()
def main(
    tiny: Annotated[bool, typer.Option("--tiny", help="Narrow networks: a check.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the one member.")] = STEPS,
    out: Annotated[Path | None, typer.Option(help="File of the rows.")] = None,
) -> None:
    """Measure the command at real size."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), SMALL if tiny else REAL, steps)
    for found in rows:
        peak = size_text(int((found.peak_mib or 0) * 2**20))
        console.print(f"{found.case}: {found.median_ms / 1e3:.0f} s, peak {peak}", highlight=False)
    path = out or (ROOT / "out" if tiny else RESULTS) / "real-size-cpu.json"
    save(path, rows)
    console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    app()
