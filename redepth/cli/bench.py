"""The bench commands: measure presets on a data set, and compare two runs."""

from __future__ import annotations

import math
from collections import Counter
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
from redepth.literals import Against, BenchCamera
from redepth.runtime.output import results_folder

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.bench import Comparison, Result, Run, Summary
    from redepth.bench.against import Applied, Held
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


EXIT_NOT_REPRODUCED = 3
"""The exit code of a run that misses a published number."""

AGAINST_FILE = "against.json"

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
    depth_models: Annotated[
        list[str] | None,
        typer.Option(
            "--depth-model",
            metavar="NAME",
            help="Measure this depth model as it is, without a preset or a refinement; repeat.",
        ),
    ] = None,
    overrides: options.Overrides = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Protocol name or YAML file, several with commas; repeat. Default: the data set's own."
        ),
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
    initial_only: Annotated[
        bool, typer.Option("--initial-only", help="Measure the predictions and refine nothing.")
    ] = False,
    against: Annotated[
        Against | None,
        typer.Option(help="Hold the predictions against published numbers; exit code 3 if they are missed."),
    ] = None,
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
    protocols, images = _images(dataset, reader, protocol or [], split, limit)
    run = benchmark.Run(
        dataset=dataset,
        options=reader,
        images=images,
        protocols=protocols,
        presets=_chosen(presets or [], depth_models or [], overrides or []),
        prompt=prompt,
        seed=seed,
        camera=camera,
        initial_only=initial_only or bool(depth_models),
    )
    _check_options(run, views=views)
    applied = _applied(run) if against is not None else None
    where = folder or Path("out/bench") / dataset
    resources = options.resources(workers, ray, threads, device)
    if line := benchmark.preparations_line(protocols):
        console.note(Text(line))
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
    if applied is None:
        # Of an earlier call: it may be about other numbers than the tables.
        (where / AGAINST_FILE).unlink(missing_ok=True)
    for (preset, image), error in failures.items():
        console.complain(f"{image} ({preset}): {error}")
    if results:
        _print_results(run, results)
        if not unwritten:
            console.note(Text(f"report: {where / 'report.html'}"))
    reproduced = applied is None or _print_against(run, results, applied, where)
    console.exit_if_failed(len(failures), len(run.tasks()))
    if unwritten:
        raise typer.Exit(console.EXIT_ERROR)
    if not reproduced:
        raise typer.Exit(EXIT_NOT_REPRODUCED)


def _check_options(run: Run, views: bool) -> None:
    """Raise ConfigError for options that ask for something that a run of predictions does not have."""
    if not run.initial_only:
        return
    if run.prompt is not None:
        raise ConfigError("--prompt is for a refinement, and --initial-only refines nothing: leave out one")
    if views:
        raise ConfigError("--views shows refinements, and --initial-only refines nothing: leave out one")


def _print_results(run: Run, results: Sequence[Result]) -> None:
    """Print a table for each protocol and preset, and for several protocols one with their main metrics."""
    from redepth import bench as benchmark

    tables = {protocol.name: benchmark.summarize(protocol, results) for protocol in run.protocols}
    for protocol in run.protocols:
        for preset, rows in tables[protocol.name].items():
            title = f"{run.dataset}, {preset}, protocol {protocol.name}"
            refined = None if run.initial_only else "refined"
            console.note(_table(title, rows, before="initial", after=refined))
        console.note(Text(protocol.line))
    for line in benchmark.losses(results):
        console.warn(line)
    if len(run.protocols) > 1:
        for preset in dict.fromkeys(result.preset for result in results):
            head, body = benchmark.side_by_side({name: of[preset] for name, of in tables.items()})
            table = console.table(f"{run.dataset}, {preset}, all protocols", *head)
            for cells in body:
                table.add_row(*cells)
            console.note(table)


# --- published numbers ----------------------------------------------------------------------------


def _applied(run: Run) -> list[Applied]:
    """Return the published numbers that apply to a run; warn where none does, before hours of work."""
    from redepth.bench import against, anchors

    numbers = anchors.published()
    against.check_against(run.dataset, numbers)
    applied, reasons = against.applicable(run, numbers)
    for reason in reasons:
        console.warn(f"--against published: {reason}")
    return applied


def _print_against(run: Run, results: Sequence[Result], applied: Sequence[Applied], where: Path) -> bool:
    """Print how far the predictions are from published numbers; return False if one is missed."""
    from redepth import io
    from redepth.bench import against

    held, reasons = against.hold(run, results, applied)
    for reason in reasons:
        console.warn(f"--against published: {reason}")
    io.save_json(where / AGAINST_FILE, [one.record() for one in held])
    judged = against.verdicts(held)
    if held:
        head = ("preset", "protocol", "metric", "whose number", "theirs", "here", "distance", "allowed")
        table = console.table("predictions against published or reproduced numbers", *head, "verdict")
        for one in held:
            anchor = one.applied.anchor
            table.add_row(
                one.applied.preset,
                anchor.protocol,
                anchor.metric,
                f"{one.applied.source.by} ({one.applied.source.kind})",
                f"{anchor.value:.4g}",
                f"{one.value:.4g}",
                f"{100 * one.distance:+.1f} %",
                "-" if anchor.tolerance is None else f"{100 * anchor.tolerance:.0f} %",
                _verdict(one, anchor.differs),
            )
        console.note(table)
    if not judged:
        console.warn("--against published: no number was checked, so nothing is known of this installation")
        return True
    missed = [measurement for measurement, reproduced in judged.items() if not reproduced]
    if missed:
        console.warn(
            f"this installation misses the published and the reproduced numbers of {len(missed)} of "
            f"{len(judged)} measurements: compare weights, preprocessing and data with docs/benchmarks.md "
            "before you trust its other numbers"
        )
        return False
    console.note(
        Text(
            f"this installation has the published or reproduced numbers of all {len(judged)} measurements "
            "that have one"
        )
    )
    return True


def _verdict(one: Held, differs: str) -> str:
    """Return the verdict on a measurement, which the rows of its sources share."""
    if one.agrees is None:
        return f"none: {differs}"
    return "reproduced" if one.reproduced else "NOT reproduced"


@app.command("compare", cls=options.StrictCommand)
def bench_compare(
    a: Annotated[Path, typer.Argument(help="Folder of one run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two runs, image by image, by each protocol of both: refined depth, or predictions alone."""
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
    dataset: str, reader: dict[str, Any], chosen: Sequence[str], split: Path | None, limit: int | None
) -> tuple[list[EvaluationProtocol], list[str]]:
    """Return the evaluation protocols, pinned to the images, and the images; none is read yet."""
    from redepth import bench as benchmark
    from redepth import protocols

    loaded = benchmark.load_protocols(_names(chosen) or [protocols.protocol_for(dataset)])
    loaded = benchmark.with_shared_options(loaded, dataset)
    opened = benchmark.open_together(loaded, dataset, reader)
    names = protocols.read_names(split) if split is not None else None
    if limit is not None:
        names = (names or benchmark.select_together(loaded, opened, partial=True)[1])[:limit]
    selected = benchmark.select_together(loaded, opened, names, partial=limit is not None)
    if names is None and all(protocol.split.count is None for protocol in loaded):
        # A split of whatever is complete: what is not would be missed in silence.
        missing = opened.check()
        for problem in missing[:_NAMED]:
            console.warn(f"left out: {problem}")
        if len(missing) > _NAMED:
            console.warn(f"left out: {len(missing) - _NAMED} more")
    return selected


def _names(chosen: Sequence[str]) -> list[str]:
    """Return the protocols of all options; a file may have commas in its name.

    Raises:
        ConfigError: there is nothing between two commas.
    """
    from redepth.io.paths import exists

    names = []
    for text in chosen:
        parts = text.split(",")
        while parts:
            # The longest name of a file that begins here, or else all up to the next comma.
            ends = range(len(parts), 1, -1)
            end = next((end for end in ends if exists(Path(",".join(parts[:end]).strip()))), 1)
            names.append(",".join(parts[:end]).strip())
            parts = parts[end:]
            if not names[-1]:
                raise ConfigError(
                    f"--protocol '{cut(text)}': a name is missing; give names with commas between"
                )
    return names


def _chosen(presets: Sequence[str], models: Sequence[str], overrides: Sequence[str]) -> dict[str, Preset]:
    """Return the resolved presets by name, or a preset of each depth model that is measured as it is."""
    if not models:
        return _presets(presets or ["embedded"], overrides)
    if presets:
        raise ConfigError("--depth-model measures a model without a preset: leave out --preset")
    if repeated := [name for name, times in Counter(models).items() if times > 1]:
        raise ConfigError(f"--depth-model {cut(repeated[0])}: given twice")
    resolved = (options.resolved_model(name, overrides) for name in models)
    return {preset.name: preset for preset in resolved}


def _presets(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Preset]:
    """Return the resolved presets by name; a second one of a name keeps what the user wrote."""
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise ConfigError(f"--preset {cut(repeated[0])}: given twice")
    presets: dict[str, Preset] = {}
    for name in names:
        preset = options.resolved_preset(name, overrides)
        presets[name if preset.name in presets else preset.name] = preset
    return presets


def _table(title: str, rows: Sequence[Summary], before: str, after: str | None) -> Table:
    """Make a table of the metrics; without ``after`` only of what was predicted."""
    if after is None:
        table = console.table(title, "metric", before, "images")
        for row in rows:
            table.add_row(row.metric, f"{row.initial:.4g}", str(row.images))
        return table
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
