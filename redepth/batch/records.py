"""What a batch is made of: its photos, its settings, the summary of each result, and its display."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from redepth import components, io
from redepth.config import Preset
from redepth.ground_truth import GroundTruth
from redepth.optim.outcome import OnStep
from redepth.photo_inputs import NO_INPUTS, NOTHING_LOADED, DecodedPhoto, LoadedInputs, PhotoInputs
from redepth.priors.prompts import Prompt
from redepth.refinement import Refinement


@dataclass(frozen=True, eq=False)
class Decoded:
    """The arrays of a photo: its pixels, and what is given with it."""

    photo: DecodedPhoto
    inputs: LoadedInputs = NOTHING_LOADED

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.photo.pixels.nbytes + self.inputs.nbytes


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of a batch.

    Attributes:
        path: its file.
        folder: where its results are written.
        inputs: what is given with it: its camera, files of masks and of other data.
        ground_truth: to measure against.
        decoded: its arrays, where they are kept in memory.
        prompt: conditions the prior.
        hashes: of the photo, of its inputs and of its ground truth, taken before they were read.
    """

    path: Path
    folder: Path
    inputs: PhotoInputs = NO_INPUTS
    ground_truth: GroundTruth | None = None
    decoded: Decoded | None = None
    prompt: Prompt | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def with_hashes(self) -> Photo:
        """Return the photo with its hashes."""
        hashes = {"the photo": io.sha256_of(self.path), **self.inputs.hashes()}
        if self.ground_truth is not None:
            hashes |= self.ground_truth.hashes
            hashes["the kind of the ground truth"] = self.ground_truth.kind
            if not self.ground_truth.at_photo_size:
                hashes["the protocol"] = self.ground_truth.protocol.sha256
        return replace(self, hashes=hashes)


@dataclass(frozen=True)
class Settings:
    """The settings that all photos of a batch share.

    Attributes:
        preset: resolved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: of all random streams.
        prompt: of all photos; None: the preset's captioner writes one for each.
        max_pixels: photos, masks and maps with more pixels are refused.
    """

    preset: Preset
    device: str = "auto"
    seed: int = 0
    prompt: str | None = None
    max_pixels: int = io.MAX_PIXELS

    @cached_property
    def versions(self) -> dict[str, str]:
        """The versions that a result depends on."""
        return components.component_versions(self.preset)


@dataclass(frozen=True)
class Refined:
    """The summary of one refinement.

    Attributes:
        size: height and width of the photo.
        members: of the ensemble.
        steps: that the longest member took.
        change: mean absolute change over the range of the initial output.
        silog: before and after, with ground truth.
        protocol: that measured it.
        seconds: of the optimisation.
        reason: why it is partial, if it is.
        warnings: a line for each failure signature that was flagged, and for what was not measured.
        unwritten: a line for each file that could not be written.
    """

    size: tuple[int, int]
    members: int
    steps: int
    change: float
    silog: tuple[float, float] | None
    seconds: float
    reason: str = ""
    protocol: str = ""
    warnings: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it after at least one step."""
        return self.reason == "interrupted"

    @property
    def problems(self) -> list[str]:
        """Why the result is not whole: a line for each file that is missing, and for an early end."""
        early = [f"{self.reason}; the finished steps are kept, marked partial"] if self.reason else []
        return [*self.unwritten, *early]

    @classmethod
    def of(cls, result: Refinement) -> Refined:
        """Sum up a refinement."""
        scores = [e.metrics["silog"] for e in result.evaluations.values()]
        return cls(
            size=(result.photo.shape[0], result.photo.shape[1]),
            members=len(result.outcome.members),
            steps=max(result.outcome.steps_done),
            change=result.change,
            silog=(scores[0], scores[1]) if scores else None,
            seconds=result.outcome.seconds,
            reason=result.outcome.reason if result.partial else "",
            protocol=next((e.protocol for e in result.evaluations.values()), ""),
            warnings=tuple(result.warnings),
        )


class Display(Protocol):
    """Shows the progress of a batch."""

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Return a context that shows an activity, such as loading a preset."""

    def steps(self, photo: Photo) -> AbstractContextManager[OnStep | None]:
        """Return a context with the function that shows a step. Only work in this process calls it."""

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Show a caption."""


class Silent:
    """A display that shows nothing."""

    def activity(self, what: str) -> AbstractContextManager[None]:
        """Show nothing."""
        return nullcontext()

    def steps(self, photo: Photo) -> AbstractContextManager[OnStep | None]:
        """Show nothing."""
        return nullcontext()

    def caption(self, photo: Photo, prompt: Prompt) -> None:
        """Show nothing."""


SILENT = Silent()
