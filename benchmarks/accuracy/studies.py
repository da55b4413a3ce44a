"""The studies of docs/results.md: their commands, the settings that were tried, and where rows are stored."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.config.hashing import preset_sha256
from redepth.experiments.grids import SHIFTED
from redepth.experiments.run import IDENTITY, ArmResult
from redepth.experiments.study import Study
from training.loop import json_lines

REPOSITORY = Path(__file__).parents[2]
STORED = REPOSITORY / "benchmarks" / "results" / "accuracy"
EXPERIMENTS, TUNING = STORED / "experiments", STORED / "tuning"
RUNS, TUNING_RUNS = Path("runs/experiments"), Path("runs/tuning")

ALL_SPLITS = " ".join(f"--split {name}" for name in ("in-domain", *SHIFTED))
OTHER_SPLITS = "--split lighting --split texture --split degraded --split sky"
PRIOR_SIDE = 96
"""Side of the pictures of the embedded priors, and of scenes by default."""
SEED_1 = "prior.checkpoint=runs/seed-1/relief-relighting-prior"
LARGE = "prior --preset embedded-relief-photo"
PHOTO = "prior --preset embedded"
STUDIES: dict[str, str] = {
    "relief": "prior --images 128 --arm trained --arm 'random weights' --arm 'smoothness only'",
    "relief-seed-1": f"prior --images 128 --arm trained --set {SEED_1}",
    "unshifted": "shift --images 128 --split in-domain --split shapes --strength 1",
    "unshifted-seed-1": "shift --images 128 --split in-domain --split shapes --strength 1 "
    f"--arm preset --set {SEED_1}",
    "prior": "prior --images 16",
    "conditions": "prior --images 8 --arm 'told the photo only' --arm 'told nothing' --arm 'no guidance'",
    "unconditional": "prior --images 16 --arm trained --arm unconditional --arm 'smoothness only' "
    "--set optim.parameterization=embeddings",
    "targets": "targets --images 12",
    "ensemble": "ensemble --images 12",
    "renderer": "renderer --images 6",
    "albedo": "albedo --images 16",
    "cost": "cost --images 4",
    "splits": f"shift --images 12 --strength 1 {OTHER_SPLITS} --split broad --split path-traced",
    "half": f"shift --images 4 --strength 0.5 {OTHER_SPLITS} --split relief --split shapes",
    "gates": f"prior --images 4 --arm oracle --arm 'imperfect teacher' --arm 'smoothness only' {ALL_SPLITS}",
    "192-relief": f"{LARGE} --images 32 --size 192 --arm trained",
    "192-shapes": f"{LARGE} --images 32 --size 192 --arm trained --split shapes",
    "192-in-domain": f"{LARGE} --images 16 --size 192 --arm trained --split in-domain",
    "192-path-traced": f"{LARGE} --images 32 --size 192 --arm trained --split path-traced",
    "192-controls": f"{LARGE} --images 8 --size 192 --arm 'random weights' --arm 'smoothness only'",
    "384-relief": f"{LARGE} --images 16 --size 384 --arm trained --set depth_model.longer_side=192",
    "unseen-rooms": f"{PHOTO} --images 24 --size 128 --split unseen-rooms --arm trained "
    "--arm 'random weights' --arm 'smoothness only' --arm oracle",
    "path-traced-rooms": f"{PHOTO} --images 24 --size 160 --split path-traced-rooms --arm trained "
    "--arm 'random weights' --arm 'smoothness only'",
    "photo-pair-192": f"{PHOTO} --images 8 --size 192 --split relief --split shapes --arm trained",
    "size-192": "prior --images 16 --size 192 --arm trained --arm 'smoothness only'",
    "size-192-whole": "prior --images 16 --size 192 --arm trained "
    "--set prior.view=whole --set optim.blend_scale=0.1",
    "adapt": "adapt --images 48",
}
"""Name -> arguments of `redepth experiment`."""

RELIEF_TUNING = "prior --images 16 --tuning --arm trained"
IN_DOMAIN_TUNING = "shift --images 16 --tuning --split in-domain"
LARGE_TUNING = "prior --images 8 --tuning --size 192 --arm trained"
FORMER = "renderer.lights=1 optim.members=5 optim.blend_scale=0.17"
EMBEDDINGS = f"{FORMER} optim.parameterization=embeddings optim.learning_rates.decoder=2e-6"
DECODER = f"{FORMER} optim.learning_rates.decoder"
ROOMS_TUNING = "prior --preset embedded --images 8 --tuning --split unseen-rooms --arm trained"
UNCONDITIONAL_TUNING = "prior --images 16 --tuning --arm unconditional"
ADAPT_TUNING = "adapt --images 32 --tuning --arm distil --split relief"
FASTER = "adapt.learning_rate=1e-3 adapt.anchor.keep_photos=8"
SLOW = "optim.learning_rates.embeddings=2e-3 optim.learning_rates.decoder=1.5e-4"
TUNED: dict[str, tuple[str, str]] = {
    "embeddings": (RELIEF_TUNING, f"{EMBEDDINGS} prior.t_min=0.55"),
    "embeddings-t-from-0.02": (RELIEF_TUNING, f"{EMBEDDINGS} prior.t_min=0.02"),
    "embeddings-t-from-0.3": (RELIEF_TUNING, EMBEDDINGS),
    "embeddings-two-lights": (RELIEF_TUNING, f"{EMBEDDINGS} renderer.lights=2"),
    "embeddings-80-steps": (RELIEF_TUNING, f"{EMBEDDINGS} optim.steps=80 optim.members=3"),
    **{
        f"decoder-{rate}": (RELIEF_TUNING, f"{DECODER}={rate}")
        for rate in ("4e-4", "1e-3", "1.5e-3", "2e-3", "3e-3", "4e-3")
    },
    "decoder-1e-3-guidance-1.5": (
        RELIEF_TUNING,
        f"{DECODER}=1e-3 prior.t_min=0.55 prior.guidance_scale=1.5",
    ),
    "decoder-1e-3-embeddings-1e-2": (RELIEF_TUNING, f"{DECODER}=1e-3 optim.learning_rates.embeddings=1e-2"),
    "decoder-1e-3-embeddings-3e-2": (RELIEF_TUNING, f"{DECODER}=1e-3 optim.learning_rates.embeddings=3e-2"),
    "seed-1-decoder-1e-3": (RELIEF_TUNING, f"{SEED_1} {DECODER}=1e-3"),
    "seed-1-decoder-1.5e-3": (RELIEF_TUNING, f"{SEED_1} {DECODER}=1.5e-3"),
    "as-it-ships": (RELIEF_TUNING, ""),
    "in-domain-as-it-ships": (IN_DOMAIN_TUNING, ""),
    "in-domain-blend-scale-0.17": (IN_DOMAIN_TUNING, "optim.blend_scale=0.17"),
    "192-as-it-ships": (LARGE_TUNING, ""),
    "192-multiscale": (LARGE_TUNING, "prior.view=multiscale"),
    "192-whole": (LARGE_TUNING, "prior.view=whole"),
    "192-whole-blend-scale-0.1": (LARGE_TUNING, "prior.view=whole optim.blend_scale=0.1"),
    "rooms-as-it-ships": (ROOMS_TUNING, ""),
    "rooms-rates-x-2.5": (
        ROOMS_TUNING,
        "optim.learning_rates.embeddings=5e-4 optim.learning_rates.decoder=5e-5",
    ),
    "rooms-rates-x-10": (ROOMS_TUNING, SLOW),
    "rooms-100-steps": (ROOMS_TUNING, "optim.steps=100"),
    "rooms-guidance-3": (ROOMS_TUNING, "prior.guidance_scale=3"),
    "rooms-blend-scale-0.2": (ROOMS_TUNING, "optim.blend_scale=0.2"),
    "unconditional-as-it-ships": (UNCONDITIONAL_TUNING, ""),
    "unconditional-embeddings": (UNCONDITIONAL_TUNING, "optim.parameterization=embeddings"),
    "unconditional-slow": (UNCONDITIONAL_TUNING, SLOW),
    "unconditional-slow-no-smoothness": (
        UNCONDITIONAL_TUNING,
        f"{SLOW} optim.objectives.smoothness.weight=0",
    ),
    "unconditional-slow-t-0.02-to-0.5": (UNCONDITIONAL_TUNING, f"{SLOW} prior.t_min=0.02 prior.t_max=0.5"),
    "unconditional-slow-t-0.5-to-0.98": (UNCONDITIONAL_TUNING, f"{SLOW} prior.t_min=0.5"),
    "adapt-keep-1": (
        ADAPT_TUNING,
        f"{FASTER} adapt.steps=300 adapt.anchor.keep_weight=1 adapt.anchor.weight=1",
    ),
    "adapt-keep-0.5": (
        ADAPT_TUNING,
        f"{FASTER} adapt.steps=400 adapt.anchor.keep_weight=0.5 adapt.anchor.weight=0.3",
    ),
    "adapt-keep-0.5-rate-2e-3": (
        ADAPT_TUNING,
        "adapt.learning_rate=2e-3 adapt.anchor.keep_photos=8 adapt.steps=300 adapt.anchor.keep_weight=0.5 "
        "adapt.anchor.weight=0.3",
    ),
    "adapt-1500-steps": (
        ADAPT_TUNING,
        "adapt.steps=1500 adapt.validate_every=75 adapt.patience=20",
    ),
}
"""Name -> arguments of `redepth experiment`, and the settings."""


def arguments(name: str) -> list[str]:
    """Return a study's arguments of `redepth experiment`."""
    return shlex.split(STUDIES[name])


def tuning_arguments(name: str) -> list[str]:
    """Return the arguments of `redepth experiment` by which a setting was tried."""
    options, settings = TUNED[name]
    overrides = [part for setting in settings.split() for part in ("--set", setting)]
    return [*shlex.split(options), *overrides]


def values_of(option: str, options: list[str]) -> list[str]:
    """Return every value of an option, such as ``--set``, in a list of arguments."""
    return [value for name, value in pairwise(options) if name == option]


# --- what is stored -------------------------------------------------------------------------------


def stored_study(folder: Path) -> Study:
    """Return the description of a stored experiment."""
    return Study.model_validate_json((folder / IDENTITY).read_text(encoding="utf-8"))


def stored_rows(folder: Path) -> list[ArmResult]:
    """Return the rows of a stored experiment."""
    return [ArmResult.model_validate(row) for row in json_lines(folder / "rows.jsonl")]


# --- the preset -----------------------------------------------------------------------------------


def size_of(options: list[str]) -> int:
    """Return the side of the scenes of a study's arguments, in pixels."""
    return int((values_of("--size", options) or [PRIOR_SIDE])[-1])


def preset_today(options: list[str]) -> Preset:
    """Return the preset that a study's arguments stand for today."""
    overrides = [f"depth_model.longer_side={size_of(options)}", *values_of("--set", options)]
    preset = (values_of("--preset", options) or ["embedded-relief"])[-1]
    return resolve(load_preset(preset, overrides))


def is_of_todays_preset(study: Study, options: list[str]) -> bool:
    """Return whether a stored study was measured with the preset that its arguments stand for today.

    An option that was added since has its default in both. How models are adapted is no part of the hash, and
    counts for the experiment `adapt` alone.
    """
    measured, today = resolve(study.base), preset_today(options)
    if study.experiment == "adapt" and measured.adapt != today.adapt:
        return False
    return preset_sha256(measured) == preset_sha256(today)
