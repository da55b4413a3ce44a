"""The videos of a clip: the disparity in colours, and photo, before and after side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from redepth import exports, io, viz
from redepth.clips.frames import ClipFrames
from redepth.photo_inputs import DecodedPhoto

LONGEST_SIDE = 1920
"""Of the video of the disparity, in pixels."""
_SAMPLES = 2_000_000
"""Values of all maps together from which the colours' range is taken, at most about that many."""

_BYTES_PER_PIXEL = 0.25
"""Of the videos; an assumption on the safe side, not a limit of H.264."""

Shown = Callable[[int], Mapping[str, NDArray[np.float32]]]


def room_of_videos(height: int, width: int) -> int:
    """Return how many bytes a frame takes at most, about, in both videos."""
    factor = viz.reduction(height, width)
    # The comparison has three pictures, with margins and words about a fourth.
    return round(_BYTES_PER_PIXEL * height * width * (1 + 4 / factor**2))


def colours_of(shown: Shown, frames: int) -> tuple[float, float]:
    """Return one range of colours for all frames of a clip, before and after.

    Args:
        shown: the maps ``initial`` and ``refined`` of a frame, (h, w).
        frames: their number.
    """
    sampled = []
    for index in range(frames):
        for values in shown(index).values():
            flat = values.ravel()
            sampled.append(flat[:: max(1, 2 * frames * flat.size // _SAMPLES)])
    return viz.display_range(np.concatenate(sampled))


def write_disparity(path: Path, frames: ClipFrames, shown: Shown, colours: tuple[float, float]) -> None:
    """Write the refined disparity in colours, near is bright, at the size of the frames or smaller.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = frames.size
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    target = np.empty((max(1, round(factor * height)), max(1, round(factor * width))), np.float32)
    with io.video_writer(path, frames.rate) as writer:
        for index, seconds in enumerate(_times(frames)):
            exports.enlarge(target, torch.from_numpy(shown(index)["refined"])[None, None])
            writer.add(viz.colorize(target, lo=colours[0], hi=colours[1]), seconds)


def write_comparison(
    path: Path, frames: ClipFrames, shown: Shown, colours: tuple[float, float], subtitle: str
) -> None:
    """Write photo, disparity before and disparity after side by side, in colours of one range.

    Raises:
        InputError: a frame can no longer be read.
        OutputError: the file cannot be written.
    """
    title = io.displayed(frames.path.resolve().name)
    factor = viz.reduction(*frames.size)
    with io.video_writer(path, frames.rate) as writer:
        for index, (photo, seconds) in enumerate(zip(frames.read(), _times(frames), strict=True)):
            maps = shown(index)
            place = f"frame {index + 1} of {len(frames)} · {frames.seconds[index]:.2f} s"
            sheet = viz.clip_frame(
                _reduced(photo, factor),
                maps["initial"],
                maps["refined"],
                colours,
                title=title,
                subtitle=f"{place} · {subtitle}",
            )
            writer.add(np.asarray(sheet), seconds)


def _times(frames: ClipFrames) -> list[float]:
    """Return when each frame is shown, the first one at once."""
    return [seconds - frames.seconds[0] for seconds in frames.seconds]


def _reduced(photo: DecodedPhoto, factor: int) -> NDArray[np.uint8]:
    return viz.reduced_photo(photo.values, factor)
