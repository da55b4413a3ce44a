"""The first part of the experiment `adapt`: the adapted models, each trained once and then kept.

Layout, in the folder of the experiment::

    photos/SCENES/               the photos without labels, as PNG
    refined/SCENES, PRIOR/       their refinements, which the adaptations share
    adapted/SCENES, MODEL/       one adaptation each (`redepth.adaptation.record`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from redepth import io
from redepth.adaptation.record import CHECKPOINT, SUMMARY_FILE, Adapted, Event
from redepth.adaptation.result import adapted_preset
from redepth.adaptation.run import adapt
from redepth.components import resolve
from redepth.config import Preset
from redepth.errors import ConfigError
from redepth.experiments.study import ArmRun, SceneSet, Study, open_scenes
from redepth.experiments.unlabelled import ADAPTATION_SEED, KEEP_SEED, KEPT_SPLIT, Adaptation, write_photos
from redepth.runtime.executors import Resources, executor

PHOTOS, REFINED, ADAPTED = "photos", "refined", "adapted"

OnAdapt = Callable[[str, Event], None]
"""Called with the name of an arm and each event of its adaptation, in the process that runs it: it must be
picklable."""


def ignore(arm: str, event: Event) -> None:
    """Show nothing."""


def adapt_models(
    study: Study,
    folder: Path,
    resources: Resources,
    *,
    device: str = "auto",
    fresh: bool = False,
    max_pixels: int = io.MAX_PIXELS,
    on_adapt: OnAdapt = ignore,
) -> dict[str, str]:
    """Adapt the models that the folder lacks; return the arms whose adaptation failed, with the reasons.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the same call continues.
    """
    photos = _write_photos(study, folder)
    make = partial(_make_adapter, study, folder, photos, device, fresh, max_pixels, on_adapt)
    failed: dict[Path, str] = {}
    for arms in _in_order(study, folder):
        for done in executor(resources).run(make, arms):
            if done.result is None and not done.interrupted:
                failed[model_folder(folder, study.arms[done.item])] = done.error
    adapted = {name: model_folder(folder, arm) for name, arm in study.arms.items() if arm.adapt}
    return {name: failed[path] for name, path in adapted.items() if path in failed}


def model_folder(folder: Path, arm: ArmRun) -> Path:
    """Return the folder of an arm's adaptation."""
    return _folder(folder, ADAPTED, arm, adaptation_of(arm).name)


def adaptation_of(arm: ArmRun) -> Adaptation:
    """Return how an arm's model is adapted. Raises ValueError if it is not."""
    if arm.adapt is None:
        raise ValueError("this arm has no adapted model")
    return arm.adapt


def adapted_of(folder: Path, arm: ArmRun) -> Adapted:
    """Return the result of an arm's adaptation."""
    text = (model_folder(folder, arm) / SUMMARY_FILE).read_text(encoding="utf-8")
    return Adapted.model_validate_json(text)


def measured_preset(study: Study, folder: Path, arm: ArmRun) -> Preset:
    """Return the preset that an arm is measured with: the study's, with the arm's adapted model.

    What an arm changes, such as the prior, concerns the adaptation alone.
    """
    if arm.adapt is None:
        return arm.preset
    checkpoint = model_folder(folder, arm) / CHECKPOINT
    return resolve(adapted_preset(study.base, checkpoint, study.base.depth_model.options.get("scale")))


def seconds_of(adapted: Adapted, arm: ArmRun) -> float:
    """Return the time of an adaptation, as if it had shared no refined photo with another."""
    stages = {stage: seconds for stage, seconds in adapted.seconds.items() if stage != "refine"}
    refined = len(adapted.held_out)
    if arm.preset.adapt.method == "distil":
        refined = adaptation_of(arm).photos
    return sum(stages.values()) + refined * (adapted.refine_seconds or 0.0)


def _in_order(study: Study, folder: Path) -> tuple[list[str], list[str]]:
    """Return an arm for each model: those that refine photos for others, and those that find them refined."""
    arms: dict[Path, str] = {}
    for name, arm in study.arms.items():
        if arm.adapt is not None:
            arms.setdefault(model_folder(folder, arm), name)
    first: dict[Path, str] = {}
    for name in sorted(arms.values(), key=lambda name: _refines(study.arms[name]), reverse=True):
        first.setdefault(_refined_folder(folder, study.arms[name]), name)
    names = [name for name in arms.values() if name in first.values()]
    return names, [name for name in arms.values() if name not in names]


def _refines(arm: ArmRun) -> tuple[bool, int]:
    """Return a key by which adaptations that refine more photos are greater."""
    return arm.preset.adapt.method == "distil", adaptation_of(arm).photos


def _refined_folder(folder: Path, arm: ArmRun) -> Path:
    return _folder(folder, REFINED, arm, adaptation_of(arm).prior)


def _folder(folder: Path, part: str, arm: ArmRun, name: str) -> Path:
    return folder / part / f"{adaptation_of(arm).scenes}, {name}"


# --- the photos -----------------------------------------------------------------------------------


def _write_photos(study: Study, folder: Path) -> dict[str, list[Path]]:
    """Write the photos of every set of scenes, and return label -> paths."""
    adaptations = [arm.adapt for arm in study.arms.values() if arm.adapt is not None]
    written = {}
    for scenes in study.sets:
        counts = [each.photos for each in adaptations if each.scenes == scenes.label]
        seed = ADAPTATION_SEED
        if scenes.split == KEPT_SPLIT:
            counts, seed = [each.keep for each in adaptations], KEEP_SEED
        if counts:
            written[scenes.label] = _written(scenes, max(counts), seed, folder / PHOTOS / scenes.label)
    return written


def _written(scenes: SceneSet, count: int, seed: int, folder: Path) -> list[Path]:
    reader = open_scenes(**scenes.options | {"seed": seed, "count": max(count, 1)})
    if shared := set(reader.names()) & set(scenes.images):
        raise ConfigError(f"{scenes.label}: {len(shared)} measured scenes are among the photos to adapt to")
    return write_photos(reader, count, folder)


# --- the work -------------------------------------------------------------------------------------


def _make_adapter(
    study: Study,
    folder: Path,
    photos: Mapping[str, list[Path]],
    device: str,
    fresh: bool,
    max_pixels: int,
    on_adapt: OnAdapt,
) -> Callable[[str], Adapted]:
    """Return a worker that adapts the model of an arm."""

    def work(name: str) -> Adapted:
        arm = study.arms[name]
        adaptation = adaptation_of(arm)
        return adapt(
            photos[adaptation.scenes][: adaptation.photos],
            arm.preset,
            model_folder(folder, arm),
            keep=photos[KEPT_SPLIT][: adaptation.keep] if adaptation.keep else (),
            refined=_refined_folder(folder, arm),
            seed=study.seed,
            device=device,
            fresh=fresh,
            max_pixels=max_pixels,
            on_event=partial(on_adapt, name),
        )

    return work
