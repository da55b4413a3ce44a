"""The bench commands: measure presets on a data set, and compare two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.text import Text

from redepth.cli import completion, console, options, progress
from redepth.cli.tables import Table
from redepth.errors import ConfigError, OutputError, cut
from redepth.literals import BenchCamera
from redepth.runtime.output import results_folder

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.bench import Comparison, Summary
    from redepth.config import Preset
    from redepth.protocols import EvaluationProtocol


class _RunByDefault(typer.core.TyperGroup):
    """`redepth bench DATASET` is `redepth bench run DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            # Data sets have other names than the commands, but a command may be misspelt.
            if close := get_close_matches(args[0], self.commands, n=1, cutoff=0.75):
                raise ConfigError(f"no command bench {cut(args[0])}; did you mean '{close[0]}'?")
            args = ["run", *args]
        return super().parse_args(ctx, args)


_NAMED = 5
"""How many images that are left out are named."""

app = typer.Typer(
    cls=_RunByDefault,
    help="Measure presets on a data set with ground truth (bench DATASET), or compare two runs.",
    invoke_without_command=True,
)


@app.callback()
def bench_default(ctx: typer.Context) -> None:
    """Run on `motorcycle` where no data set is named."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(bench_run, dataset="motorcycle")


@app.command("run", cls=options.StrictCommand)
def bench_run(
    dataset: Annotated[str, typer.Argument(help="Data set; see `redepth list datasets`.")] = "motorcycle",
    root: options.DatasetRoot = None,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="Preset name or YAML file; repeat. Default: embedded.",
            autocompletion=completion.presets,
        ),
    ] = None,
    overrides: options.Overrides = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or YAML file; by default the data set's own.")
    ] = None,
    reader_options: options.ReaderOptions = None,
    split: Annotated[Path | None, typer.Option(help="File of image names, one per line.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; by default out/bench/DATASET.")
    ] = None,
    workers: options.Workers = 1,
    ray: options.RayAddress = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
    prompt: Annotated[
        str | None, typer.Option(help="Prompt for the prior, the same for every photo; replaces captions.")
    ] = None,
    seed: options.Seed = 0,
    camera: Annotated[
        BenchCamera,
        typer.Option(help="Refine with the camera of the preset's renderer, or with that of the data set."),
    ] = "preset",
    max_pixels: options.MaxPixels = 100_000_000,
    arrays: Annotated[bool, typer.Option("--arrays", help="Also store the maps of every image.")] = False,
    views: Annotated[
        bool, typer.Option("--views", help="Also write a page for every image, to which the report links.")
    ] = False,
    fresh: options.Fresh = False,
    imports: options.Imports = None,
    quiet: options.Quiet = False,
) -> None:
    """Refine and measure every image; the same command resumes a killed run."""
    from redepth import bench as benchmark

    reader = options.reader_options(root, reader_options or [])
    pinned, images = _images(dataset, reader, protocol, split, limit)
    run = benchmark.Run(
        dataset=dataset,
        options=reader,
        images=images,
        protocol=pinned,
        presets=_presets(presets or ["embedded"], overrides or []),
        prompt=prompt,
        seed=seed,
        camera=camera,
    )
    where = folder or Path("out/bench") / dataset
    resources = options.resources(workers, ray, threads, device)
    unwritten = False
    with results_folder(where), progress.resumable_tasks(where, len(run.tasks())) as on_done:
        try:
            results, failures = benchmark.run_benchmark(
                run,
                where,
                resources,
                device=device,
                fresh=fresh,
                keep_arrays=arrays,
                keep_views=views,
                max_pixels=max_pixels,
                on_done=on_done,
            )
        except OutputError as problem:
            # The rows are written, the tables made of them are not.
            console.complain(str(problem))
            results, failures, unwritten = benchmark.finished_rows(run, where), {}, True
    for (preset, image), error in failures.items():
        console.complain(f"{image} ({preset}): {error}")
    if results:
        for preset, rows in benchmark.summarize(run.protocol, results).items():
            title = f"{dataset}, {preset}, protocol {run.protocol.name}"
            console.note(_table(title, rows, before="initial", after="refined"))
        console.note(Text(run.protocol.line))
        for line in benchmark.losses(results):
            console.warn(line)
        if not unwritten:
            console.note(Text(f"report: {where / 'report.html'}"))
    console.exit_if_failed(len(failures), len(failures) + len(results))
    if unwritten:
        raise typer.Exit(console.EXIT_ERROR)


@app.command("compare", cls=options.StrictCommand)
def bench_compare(
    a: Annotated[Path, typer.Argument(help="Folder of one run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare the refined results of two runs of one protocol, image by image."""
    from redepth.bench import compare

    pairs = list(compare(a, b))
    if as_json:
        console.write_json({"a": a, "b": b, "comparisons": [_pair_record(pair) for pair in pairs]})
        return
    for pair in pairs:
        title = f"{pair.preset} ({a}) against {pair.other} ({b}), protocol {pair.protocol}"
        console.out.print(_table(title, pair.summaries, before=pair.preset, after=pair.other))


def _pair_record(pair: Comparison) -> dict[str, Any]:
    """Return what ``bench compare --json`` prints of two presets; docs/command_line.md has the keys."""
    metrics = [
        {
            "metric": row.metric,
            "a": row.initial,
            "b": row.refined,
            "change": row.change,
            "low": row.low,
            "high": row.high,
            "wins": row.wins,
            "images": row.images,
        }
        for row in pair.summaries
    ]
    return {"a": pair.preset, "b": pair.other, "protocol": pair.protocol, "metrics": metrics}


def _images(
    dataset: str, reader: dict[str, Any], protocol: str | None, split: Path | None, limit: int | None
) -> tuple[EvaluationProtocol, list[str]]:
    """Return the evaluation protocol, pinned to the images, and the images; none is read yet."""
    from redepth import protocols

    chosen = protocols.load_protocol(protocol or protocols.protocol_for(dataset))
    opened = protocols.open_dataset(chosen, dataset, reader)
    names = protocols.read_names(split) if split is not None else None
    if limit is not None:
        names = (names or protocols.select(chosen, opened, partial=True)[1])[:limit]
    selected = protocols.select(chosen, opened, names, partial=limit is not None)
    if names is None and chosen.split.count is None:
        # A split of whatever is complete: what is not would be missed in silence.
        missing = opened.check()
        for problem in missing[:_NAMED]:
            console.warn(f"left out: {problem}")
        if len(missing) > _NAMED:
            console.warn(f"left out: {len(missing) - _NAMED} more")
    return selected


def _presets(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Preset]:
    """Return the resolved presets by name; a second one of a name keeps what the user wrote."""
    presets: dict[str, Preset] = {}
    for name in names:
        preset = options.resolved_preset(name, overrides)
        presets[name if preset.name in presets else preset.name] = preset
    return presets


def _table(title: str, rows: Sequence[Summary], before: str, after: str) -> Table:
    table = console.table(title, "metric", before, after, "change", "95 % interval", "improved")
    for row in rows:
        known = not math.isnan(row.change)
        table.add_row(
            row.metric,
            f"{row.initial:.4g}",
            f"{row.refined:.4g}",
            f"{row.change:+.1f} %" if known else "-",
            f"{row.low:+.1f} to {row.high:+.1f} %" if known and row.images > 1 else "-",
            f"{100 * row.wins:.0f} %",
        )
    return table
