"""The prompts of an adaptation's photos: those of the preset's captioner."""

from __future__ import annotations

from collections.abc import Sequence

from redepth import components, io
from redepth.adaptation.photos import PhotoFile
from redepth.captions import captions_or_errors
from redepth.config import Preset
from redepth.priors.prompts import Prompt
from redepth.runtime.device import choose_device


def prompts_of(
    photos: Sequence[PhotoFile], preset: Preset, device: str, max_pixels: int = io.MAX_PIXELS
) -> tuple[dict[str, Prompt], dict[str, str]]:
    """Return the prompts of photos, and why some have none, by name; the captioner is loaded once.

    Raises:
        WeightsError: the captioner's weights cannot be loaded.
    """
    captioner = components.captioner_of(preset, choose_device(device)) if photos else None
    outcomes = captions_or_errors(captioner, [photo.path for photo in photos], max_pixels)
    pairs = [(photo.name, outcome) for photo, outcome in zip(photos, outcomes, strict=True)]
    prompts = {name: outcome for name, outcome in pairs if isinstance(outcome, Prompt)}
    return prompts, {name: outcome for name, outcome in pairs if isinstance(outcome, str)}
