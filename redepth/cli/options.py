"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import typer.core

from redepth.cli import completion, console
from redepth.errors import ConfigError, cut, nearest
from redepth.literals import MAX_SEED, Export, Predicts

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.config import Preset
    from redepth.runtime.executors import Resources


class StrictCommand(typer.core.TyperCommand):
    """A command whose errors of usage are one line, and which refuses an option of one value given twice.

    The last one would win silently.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command. Raises ConfigError if they are wrong."""
        if ctx.resilient_parsing:
            # A shell completes a command that is not finished.
            return super().parse_args(ctx, args)
        try:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            rest = super().parse_args(ctx, args)
        except Exception as error:
            # The class of the error belongs to typer's own copy of click, or to click.
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            raise ConfigError(
                f"{cut(_with_nearest(message()), 300)} ({_words_of(ctx)} --help lists all options)"
            ) from None
        for option, times in Counter(order).items():
            single = not (getattr(option, "multiple", True) or getattr(option, "is_flag", False))
            if times > 1 and option.param_type_name == "option" and single:
                raise ConfigError(f"{option.opts[0]} is given {times} times; give it once")
        return rest


def _words_of(context: Any) -> str:
    """Return the words that call a command, such as ``redepth bench run``."""
    if context.parent is None:
        # What the program was started by may be `python -m redepth`, or a test.
        return "redepth"
    return f"{_words_of(context.parent)} {context.info_name}"


def _with_nearest(message: str) -> str:
    """Add the nearest valid value to a message about one that is not among the choices."""
    message = message.replace("Value error, ", "")
    wrong = re.search(r"'([^']*)' is not one of (.+?)\.?$", message)
    if wrong is None:
        return message
    valid = [word.strip("' ") for word in wrong[2].split(",")]
    return message.rstrip(".") + nearest(wrong[1], valid)


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise typer.BadParameter(f"'{name}' is not one of auto, cpu, cuda, cuda:0, cuda:1, ..., mps")
    return name


def _import_files(context: typer.Context, files: list[str] | None) -> list[str] | None:
    """Import component files before anything looks for their components."""
    if files and not context.resilient_parsing:
        from redepth.components import import_components

        for file in files:
            import_components(file)
    return files


def _set_quiet(quiet: bool) -> bool:
    if quiet:
        console.set_quiet(True)
    return quiet


PresetName = Annotated[
    str, typer.Option("--preset", help="Preset name or YAML file.", autocompletion=completion.presets)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override a setting, such as optim.members=3; repeat.",
        autocompletion=completion.settings,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N|mps",
        callback=_device,
        help="Device; with cuda, workers are spread over all GPUs.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random numbers.")]
Workers = Annotated[
    int, typer.Option(min=1, max=1024, help="Worker processes, each with its own copy of the models.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", help="Run on a Ray cluster: its address, auto, or local to start one here."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="CPU threads of each worker; without workers, of this process. Default: all."
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="FILE.py",
        callback=_import_files,
        help="Python file with components of yours (redepth new writes one); repeat.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_set_quiet, help="No progress and no summary; warnings and errors stay."
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete earlier results in the folder and start again.")]
Write = Annotated[
    str | None,
    typer.Option(metavar="LIST", help=f"Files to write, with commas: {', '.join(get_args(Export))}; or all."),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse pictures, masks and maps with more pixels than this.")
]
TruthKind = Annotated[Predicts, typer.Option("--gt-kind", help="Kind of map in --gt.")]
TruthOffset = Annotated[
    float,
    typer.Option(
        "--gt-offset", help="Added to a disparity in --gt, such as doffs of a Middlebury stereo pair."
    ),
]
TruthProtocol = Annotated[
    str,
    typer.Option("--protocol", help="Evaluation protocol of --gt: a name or YAML file, as of redepth bench."),
]
DatasetRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder of the data set's official download.")
]
ReaderOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the data set's reader, KEY=VALUE; repeat."),
]


def resolved_preset(name: str, overrides: Sequence[str]) -> Preset:
    """Load a preset and check its components' options."""
    from redepth.components import resolve
    from redepth.config import load_preset

    return resolve(load_preset(name, overrides))


def resolved_model(name: str, overrides: Sequence[str]) -> Preset:
    """Return a resolved preset of a depth model with its own defaults; the rest of it needs no download.

    Its name is the model's, with the checkpoint if that is not the model's own.

    Raises:
        ConfigError: the model is unknown, an override is wrong, or names another model.
    """
    from redepth.components import resolve
    from redepth.config import load_preset
    from redepth.depth_models import REGISTRY as DEPTH_MODELS

    data = {
        "name": name,
        "description": f"the depth model {name} with its own options",
        "depth_model": {"name": name},
        "renderer": {"name": "blinn-phong"},
        "prior": load_preset("embedded").prior.model_dump(),
        "optim": {"parameterization": "depth"},
    }
    preset = resolve(load_preset(data, overrides))
    chosen = preset.depth_model
    if chosen.name != name:
        raise ConfigError(
            f"--depth-model {cut(name)} and depth_model.name={cut(chosen.name)} are two models: name one, by "
            "--depth-model"
        )
    checkpoint = chosen.options.get("checkpoint")
    if checkpoint == DEPTH_MODELS.check(name, {}).get("checkpoint"):
        return preset
    # The weights are not those that the name stands for.
    return preset.model_copy(update={"name": f"{name} with {checkpoint}"})


def resources(workers: int, ray: str | None, threads: int | None, device: str) -> Resources:
    """Return where work runs. A GPU named by its index is every worker's; else all GPUs are shared out.

    Without workers, this process uses the threads from now on.

    Raises:
        ConfigError: the device is not here, or Ray is combined with the index of a GPU.
    """
    import torch

    from redepth.runtime.device import choose_device
    from redepth.runtime.executors import Resources
    from redepth.runtime.work import use_threads

    if ray is not None and device.startswith("cuda:"):
        raise ConfigError(f"Ray gives each worker its own GPU: --device cuda in place of {device}")
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if ray is None:
        choose_device(device)
    elif device == "cuda":
        # Ray's workers may have GPUs where this machine has none.
        gpus = max(gpus, 1)
    chosen = Resources(workers=workers, ray=ray, threads=threads, gpus=min(gpus, workers))
    if chosen.kind == "inline":
        use_threads(threads)
    return chosen


def reader_options(root: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the options of a data set's reader as values that JSON can hold.

    Raises:
        ConfigError: an option is not KEY=VALUE, its value is not YAML, or it is given twice.
    """
    from redepth.io.markup import parse_yaml

    values: dict[str, Any] = {} if root is None else {"root": str(root)}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"--option '{cut(option)}': give KEY=VALUE")
        if key in values:
            raise ConfigError(f"--option '{cut(key)}': given twice, or beside --root; give it once")
        try:
            values[key] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(f"--option '{cut(option)}': the value is not valid YAML: {error}") from None
    return values
