"""What the app does, apart from its page: it checks settings, and refines photos one after the other."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from redepth import io
from redepth.app.offers import Offer, runnable
from redepth.app.offers import shown_name as preset_name
from redepth.app.pipelines import Pipelines
from redepth.app.running import Run, Say
from redepth.app.sessions import Sessions
from redepth.app.settings import RunSettings, settings_of_form
from redepth.errors import InputError, RedepthError, brief, one_line
from redepth.optim.outcome import OnStep
from redepth.photo_inputs import DecodedPhoto, decode
from redepth.refinement import Refinement

log = logging.getLogger(__name__)


class Service:
    """The state of a running app.

    Args:
        folder: for all files of the app: uploads, results, pictures.
        offers: the presets.
        device: of the refinements.
        max_pixels: photos with more are refused.
        concurrent: refinements at the same time.
    """

    def __init__(
        self,
        folder: Path,
        offers: Sequence[Offer],
        *,
        device: str = "auto",
        max_pixels: int = io.MAX_PIXELS,
        concurrent: int = 1,
    ) -> None:
        self.folder, self.offers = folder, list(offers)
        self.device, self.max_pixels, self.concurrent = device, max_pixels, concurrent
        self.sessions = Sessions(folder / "results")
        self.pipelines = Pipelines(device)
        self._slots = threading.Semaphore(concurrent)

    def offer(self, name: str) -> Offer:
        """Return the offer of a preset."""
        return next(offer for offer in self.offers if offer.name == name)

    def settings(
        self,
        preset: str | None,
        members: float | None = None,
        steps: float | None = None,
        budget: str | None = None,
        seed: float | None = None,
        prompt: str | None = None,
    ) -> RunSettings:
        """Return the checked settings of a form. Raises ConfigError."""
        offered = {offer.name: offer.source for offer in runnable(self.offers)}
        settings = settings_of_form(preset, members, steps, budget, seed, prompt, offered=offered)
        offer = next(offer for offer in self.offers if offer.source == settings.preset)
        return replace(
            settings,
            # What is the preset's own need not be said.
            members=None if settings.members == offer.members else settings.members,
            steps=None if settings.steps == offer.steps else settings.steps,
            prompt=settings.prompt if offer.reads_prompt else "",
            device=self.device,
            max_pixels=self.max_pixels,
        )

    def run(self, photo: Path, settings: RunSettings, stop: threading.Event) -> Run:
        """Return the run of a photo; it has not started yet.

        Args:
            photo: an uploaded file.
            settings: checked.
            stop: ends the run once it is set.
        """

        def work(on_step: OnStep, say: Say) -> Refinement:
            say("reading the photo")
            # Without its file: what is computed must not depend on where the upload lies.
            decoded = DecodedPhoto(decode(photo, self.max_pixels).pixels)
            if not self.pipelines.is_loaded(settings.preset):
                say(f"loading the models of the preset {preset_name(settings.preset)}")
            with self.pipelines.lent(settings.preset, settings.resolved()) as pipeline:
                if stop.is_set():
                    raise KeyboardInterrupt
                say("predicting the first depth")
                result = pipeline.refine(
                    decoded,
                    prompt=settings.prompt or None,
                    seed=settings.seed,
                    on_step=on_step,
                    max_pixels=self.max_pixels,
                )
            return replace(result, source=shown_name(photo))

        return Run(work, self._slots, stop)

    def size_of(self, photo: Path) -> tuple[int, int]:
        """Return height and width of an uploaded photo, from its header. Raises InputError."""
        return io.image_size(photo, max_pixels=self.max_pixels)

    def explain(self, error: BaseException) -> str:
        """Return what an error says, for a browser: without the folders of this machine.

        An error that is not a user's is logged, with its traceback.
        """
        if not isinstance(error, RedepthError | MemoryError):
            log.error("a run of the app failed", exc_info=error)
            return f"the run failed ({type(error).__name__}); the terminal of the app has the details"
        text = one_line(error)
        for offer in self.offers:
            if offer.file:
                # Messages quote a path, cut where it is long, or begin with it.
                text = text.replace(brief(offer.file), repr(offer.name)).replace(offer.file, offer.name)
        return re.sub(re.escape(str(self.folder)) + r"[/\\](?:[^/\\:'\"]+[/\\])*", "", text)

    def close(self) -> None:
        """End all runs, and free the memory of the models."""
        self.sessions.close()
        self.pipelines.release()


def shown_name(photo: Path) -> str:
    """Return the name of an uploaded photo for people and records."""
    return io.displayed(photo.name)


def required_photo(photo: str | None) -> Path:
    """Return the path of the chosen photo. Raises InputError if there is none."""
    if not photo:
        raise InputError("no photo: upload one, or pick an example")
    return Path(photo)
