"""Refine photos by any executor: captions first, then one photo after the other into its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from redepth import components, exports, io
from redepth.batch.checking import check_kept, decode_inputs
from redepth.batch.identity import identity_of
from redepth.batch.records import SILENT, Display, Photo, Refined, Settings
from redepth.captions import captions_or_errors
from redepth.components import Components
from redepth.config import Preset
from redepth.errors import PartlyWrittenError
from redepth.pipeline import Pipeline
from redepth.priors.prompts import Captioner, Prompt
from redepth.runtime.allocator import keep_freed_memory
from redepth.runtime.device import choose_device
from redepth.runtime.executors import Done, Executor, Make, Resources, executor
from redepth.runtime.resume import Identity


def refine_photos(
    photos: Sequence[Photo], settings: Settings, resources: Resources, display: Display = SILENT
) -> Iterator[Done[Photo, Refined]]:
    """Refine photos and write their folders.

    All captions are written before this function returns: the captioner is unloaded before the first
    refinement. The rest of the work happens while the outcomes are read.

    Returns:
        The outcome of each photo as it ends; first of those that cannot be captioned. After Ctrl-C no further
        photo is started; a photo that had taken a step is written, marked partial; KeyboardInterrupt is
        raised in the end.

    Raises:
        WeightsError: if weights are missing.
    """
    if resources.kind == "inline":
        built = components.build(settings.preset, choose_device(settings.device))
        make = partial(make_worker, settings, built, display)
        captioned = _with_prompts(photos, settings, built.captioner, display)
    else:
        make = partial(make_worker, settings, settings.preset, SILENT)
        # Here, because a worker would load the captioner again for each photo.
        captioned = with_prompts(photos, settings, display)
    return _outcomes(executor(resources), make, captioned)


def _outcomes(
    runner: Executor, make: Make[Photo, Refined], captioned: Sequence[Done[Photo, Photo]]
) -> Iterator[Done[Photo, Refined]]:
    interrupted = False
    for failed in captioned:
        if failed.result is None:
            yield Done(failed.index, failed.item, error=failed.error)
    photos = [done.result for done in captioned if done.result is not None]
    for done in runner.run(make, photos):
        if done.result is not None and done.result.interrupted:
            interrupted = True
            runner.stop()
        yield done
    if interrupted:
        raise KeyboardInterrupt


def with_prompts(
    photos: Sequence[Photo], settings: Settings, display: Display = SILENT
) -> list[Done[Photo, Photo]]:
    """Return each photo with its prompt, or why it has none; the captioner is loaded once, and unloaded."""
    captioner = None
    if settings.prompt is None and settings.preset.prompt.captioner != "none":
        captioner = components.captioner_of(settings.preset, choose_device(settings.device))
    return _with_prompts(photos, settings, captioner, display)


def _with_prompts(
    photos: Sequence[Photo], settings: Settings, captioner: Captioner | None, display: Display
) -> list[Done[Photo, Photo]]:
    if settings.prompt is not None:
        outcomes: list[Prompt | str] = [Prompt(settings.prompt)] * len(photos)
    else:
        with display.activity("captioning"):
            sources = [photo.path if photo.decoded is None else photo.decoded.photo for photo in photos]
            outcomes = captions_or_errors(captioner, sources, settings.max_pixels)
    captioned: list[Done[Photo, Photo]] = []
    for index, (photo, prompt) in enumerate(zip(photos, outcomes, strict=True)):
        if isinstance(prompt, str):
            captioned.append(Done(index, photo, error=prompt))
            continue
        if settings.prompt is None and prompt.text:
            display.caption(photo, prompt)
        captioned.append(Done(index, photo, result=replace(photo, prompt=prompt)))
    return captioned


@dataclass(frozen=True)
class _Worker:
    """Refines one photo after the other."""

    pipeline: Pipeline
    settings: Settings
    display: Display
    shared: Mapping[str, str]

    def __call__(self, photo: Photo) -> Refined:
        hashed = photo if photo.hashes else photo.with_hashes()
        named = components.named_files(self.settings.preset, photo.path)
        check_kept(photo.folder, [file for files in named.values() for file in files])
        identity = identity_of(hashed, self.settings, named, self.shared)
        decoded = photo.decoded or decode_inputs(photo, self.settings.max_pixels)
        height, width = decoded.photo.size
        io.require_room(photo.folder, exports.room(self.settings.preset.output, height, width))
        with self.display.steps(photo) as on_step:
            result = self.pipeline.refine(
                decoded.photo,
                prompt=photo.prompt,
                seed=self.settings.seed,
                on_step=on_step,
                ground_truth=photo.ground_truth,
                max_pixels=self.settings.max_pixels,
                camera=decoded.inputs.camera,
                data=decoded.inputs.data,
            )
        result = replace(result, identity=identity.model_dump())
        unwritten: tuple[str, ...] = ()
        try:
            result.save(photo.folder)
        except PartlyWrittenError as error:
            unwritten = tuple(f"{name} is not written: {why}" for name, why in error.failures.items())
        return replace(Refined.of(result), unwritten=unwritten)


def make_worker(
    settings: Settings, preset: Preset | Components, display: Display = SILENT
) -> Callable[[Photo], Refined]:
    """Load a preset and return the function that refines a photo, writes its folder and sums it up."""
    # Before they are loaded: weights in a folder, for example.
    shared = Identity.of(components.named_files(settings.preset), {}).inputs
    with display.activity(f"loading preset {settings.preset.name}"):
        pipeline = Pipeline(preset, device=settings.device)
    if pipeline.device.type == "cpu":
        keep_freed_memory()
    return _Worker(pipeline, settings, display, shared)
