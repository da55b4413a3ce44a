"""What the commands that refine photos read from their options alike: photos, prompts, ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from redepth.cli import console
from redepth.errors import ConfigError, RedepthError
from redepth.literals import CaptionerChoice, Predicts

# Imports of torch, for types alone.
if TYPE_CHECKING:
    from redepth.ground_truth import GroundTruth
    from redepth.protocols import EvaluationProtocol


def find_photos(inputs: Sequence[str]) -> tuple[list[Path], int]:
    """Return the photos, and how many inputs hold none; the other inputs still run."""
    from redepth import io

    paths: list[Path] = []
    rejected = 0
    for name in inputs:
        try:
            paths += io.find_photos([name], warn=console.warn)
        except RedepthError as error:
            console.complain(str(error))
            rejected += 1
    if not paths:
        raise typer.Exit(console.EXIT_ERROR)
    # All together, so that a photo that two inputs name runs once.
    return io.find_photos(paths), rejected


def prompt_overrides(prompt: str | None, caption: CaptionerChoice | None = None) -> list[str]:
    """Return the overrides of the captioner. A prompt by hand needs none, nor its weights.

    Raises:
        ConfigError: both are given.
    """
    if prompt is not None and caption is not None:
        raise ConfigError("give either --prompt or --caption, not both")
    if prompt is not None:
        return ["prompt.captioner=none"]
    return [] if caption is None else [f"prompt.captioner={caption}"]


@dataclass(frozen=True)
class TruthReader:
    """Reads ground truth as the options describe it.

    Attributes:
        kind: of the values of a map.
        offset: added to a disparity.
        protocol: how to measure.
        max_pixels: maps and masks with more pixels are refused.
    """

    kind: Predicts
    offset: float
    protocol: EvaluationProtocol
    max_pixels: int

    @classmethod
    def of(cls, kind: Predicts, offset: float, protocol: str, max_pixels: int) -> TruthReader:
        """Check the options, which are the same for all photos.

        Raises:
            ConfigError: they contradict each other, or the protocol cannot measure a photo.
        """
        if offset and kind != "disparity":
            raise ConfigError("--gt-offset is added to disparity: give --gt-kind disparity too")
        from redepth.ground_truth import check_protocol
        from redepth.protocols import load_protocol

        chosen = load_protocol(protocol)
        check_protocol(chosen)
        return cls(kind, offset, chosen, max_pixels)

    def read(self, path: Path, mask: Path | None = None) -> GroundTruth:
        """Read the ground truth of one photo. Raises InputError if a file cannot be used."""
        from redepth import io
        from redepth.ground_truth import GroundTruth, with_offset

        # The hashes first: a file that changes meanwhile differs from its hash in the next call.
        files = {"the ground truth": path, "the mask": mask}
        hashes = {name: io.sha256_of(file) for name, file in files.items() if file is not None}
        if self.offset:
            hashes["the offset of the ground truth"] = f"{self.offset:g}"
        with io.pixel_limit(self.max_pixels):
            values = with_offset(io.load_map(path, self.kind), self.offset)
            where = None if mask is None else io.load_mask(mask)
        return GroundTruth(values, self.kind, where, hashes, self.protocol)
