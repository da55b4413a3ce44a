"""Captions of photos, which condition a prior where the user gives no prompt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from redepth import io
from redepth.errors import MissingDependencyError, WeightsError, one_line
from redepth.photo_inputs import DecodedPhoto, decode
from redepth.priors.prompts import Captioner, Prompt

log = logging.getLogger(__name__)


def write_captions(
    captioner: Captioner | None,
    photos: Sequence[str | Path | ArrayLike | DecodedPhoto],
    max_pixels: int = io.MAX_PIXELS,
) -> list[Prompt]:
    """Return a caption of each photo, one decoded at a time; empty prompts without a captioner.

    Raises:
        InputError: if a photo cannot be read or used.
        WeightsError: if the captioner's weights cannot be loaded.
    """
    if captioner is None:
        return [Prompt("", {"from": "none"}) for _ in photos]
    return captioner.captions(decode(photo, max_pixels).values for photo in photos)


def captions_or_errors(
    captioner: Captioner | None,
    photos: Sequence[str | Path | DecodedPhoto],
    max_pixels: int = io.MAX_PIXELS,
) -> list[Prompt | str]:
    """Return a caption of each photo, or why it has none; the arguments are those of `write_captions`.

    Raises:
        WeightsError: if the captioner's weights cannot be loaded.
    """
    try:
        return [*write_captions(captioner, photos, max_pixels)]
    except (WeightsError, MissingDependencyError):
        raise
    except Exception as error:  # of one photo
        log.debug("captioning failed", exc_info=True)
        if len(photos) == 1:
            return [one_line(error)]
    return [caption for photo in photos for caption in captions_or_errors(captioner, [photo], max_pixels)]
