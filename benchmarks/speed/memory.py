"""Peak memory of a photo up to the limit of 100 megapixels, and of many photos in one process.

    python -m benchmarks.speed.memory                     # minutes; rows go to benchmarks/results
    python -m benchmarks.speed.memory --tiny              # small photos, in seconds

Parts: ``size`` (the whole of ``redepth refine --preset embedded-relief PHOTO`` with few steps, for several
sizes, each in a new process) and ``growth`` (300 photos in one process: its resident memory after every
fifth).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.speed.bench_refine import run_command
from benchmarks.speed.records import RESULTS, Row, circumstances, save_each
from redepth import io
from redepth.batch import Photo, Settings, check_photos, refine_photos
from redepth.components import resolve
from redepth.config import load_preset
from redepth.runtime.executors import Resources

SIZES = ((4000, 3000), (6000, 4000), (12_500, 8000))
"""Width and height: 12, 24 and 100 megapixels."""
STEPS = 4
"""Of each member: more take time, not memory."""
TINY_SIZES = ((400, 300), (800, 600))
PHOTOS = 300
LIMIT_MB = 4000
PARTS = ("size", "growth")

app = typer.Typer(add_completion=False)


def write_photo(path: Path, width: int, height: int, seed: int = 0) -> None:
    """Write a JPEG of smooth blobs."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def of_sizes(sizes: tuple[tuple[int, int], ...], preset: str) -> Iterator[Row]:
    """Measure the command on one photo of each size."""
    common = circumstances(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            path, out = Path(folder, f"{width}.jpg"), Path(folder, "out")
            write_photo(path, width, height)
            given: tuple[str | Path, ...] = (
                "refine",
                path,
                "--preset",
                preset,
                "--device",
                "cpu",
                "--out",
                out,
            )
            given += ("--set", f"optim.steps={STEPS}")
            seconds, peak = run_command(*given)
            written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            yield _row(
                "size",
                preset,
                seconds,
                peak,
                (width, height),
                common,
                {"steps": STEPS, "bytes_written": written},
            )


def growth(count: int) -> Iterator[Row]:
    """Measure this process while it refines many small photos, one row."""
    preset = resolve(load_preset("smoke", ["optim.steps=2", "optim.members=1"]))
    settings = Settings(preset, device="cpu")
    seen: list[float] = []
    began = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        for number in range(count):
            path = Path(folder, f"{number}.jpg")
            write_photo(path, 240, 180, seed=number)
            photos.append(Photo(path, Path(folder, "out", path.stem)))
        checked = [one.result for one in check_photos(photos, io.MAX_PIXELS) if one.result is not None]
        for ended, done in enumerate(refine_photos(checked, settings, Resources()), start=1):
            if done.result is None:
                raise RuntimeError(done.error)
            if ended % max(1, count // 5) == 0:
                seen.append(resident_mib())
    extra = {"photos": count, "resident_mib": seen}
    common = circumstances(torch.device("cpu"))
    yield _row("growth", "smoke", perf_counter() - began, max(seen), (240, 180), common, extra)


def resident_mib() -> float:
    """Return the resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _row(
    case: str,
    preset: str,
    seconds: float,
    peak: float,
    shape: tuple[int, ...],
    common: dict[str, Any],
    extra: dict[str, Any],
) -> Row:
    once = {f"{kind}_ms": seconds * 1e3 for kind in ("median", "p20", "p80")}
    load = {"load": round(os.getloadavg()[0], 1)}
    return Row(
        benchmark="memory",
        case=case,
        implementation=f"redepth refine --preset {preset}",
        **once,
        **common,
        repeats=1,
        shape=shape,
        lights=1,
        dtype="float32",
        peak_mib=peak,
        extra=extra | load,
    )


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; may be repeated.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small photos: a check.")] = False,
    out: Annotated[Path | None, typer.Option(help="File of the rows.")] = None,
) -> None:
    """Measure, store the rows as they come, and print them."""
    path = out or (Path("out") if tiny else RESULTS) / "memory-cpu.json"

    def rows() -> Iterator[Row]:
        if "size" in (only or PARTS):
            yield from of_sizes(TINY_SIZES if tiny else SIZES, "smoke" if tiny else "embedded-relief")
        if "growth" in (only or PARTS):
            yield from growth(10 if tiny else PHOTOS)

    for row in save_each(path, rows()):
        peak = (row.peak_mib or 0) * 2**20 / 1e6
        within = "" if row.case == "growth" or peak <= LIMIT_MB else f", over {LIMIT_MB} MB"
        seen = [round(value) for value in row.extra.get("resident_mib", [])]
        detail = f"resident {seen} MiB" if seen else f"{row.shape[0]} x {row.shape[1]}"
        typer.echo(f"{row.case}: {detail}, peak {peak:.0f} MB, {row.median_ms / 1e3:.0f} s{within}")
    typer.echo(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(app())
