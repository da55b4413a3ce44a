"""The frames of a clip: of a video, or of a folder of numbered photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import get_args

from redepth import io
from redepth.components import lit_albedo
from redepth.config import Preset
from redepth.errors import ConfigError, InputError
from redepth.literals import AlbedoName
from redepth.photo_inputs import DecodedPhoto, decode

DEFAULT_RATE = 25.0
"""Frames per second of a folder of photos."""


@dataclass(frozen=True)
class ClipFrames:
    """The chosen frames of a clip, all of them decoded once and of one size.

    Attributes:
        path: of the video, or of the folder.
        size: height and width.
        rate: frames per second, for the videos that are written.
        labels: of each frame: its name in the folder, or ``frame 12`` of a video, counted from 0.
        indices: of each frame in the clip.
        seconds: of each frame, since the first frame of the clip.
        chosen: which frames were asked for.
        max_pixels: of a frame.
        photos: of a folder, chosen; empty for a video.
    """

    path: Path
    size: tuple[int, int]
    rate: float
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    seconds: tuple[float, ...]
    chosen: io.FrameRange = io.ALL_FRAMES
    max_pixels: int = io.MAX_PIXELS
    photos: tuple[Path, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_video(self) -> bool:
        """Whether they are from a video."""
        return not self.photos

    def read(self, start: int = 0) -> Iterator[DecodedPhoto]:
        """Yield the frames, one at a time.

        Args:
            start: place of the first one among the chosen frames.

        Raises:
            InputError: a frame can no longer be read, or has another size now.
        """
        frames = self._read_photos(start) if self.photos else self._read_video(start)
        for index, frame in enumerate(frames, start):
            if frame.size != self.size:
                raise InputError(f"{self.path}: {self.labels[index]} was changed meanwhile; run again")
            yield frame

    def _read_video(self, start: int) -> Iterator[DecodedPhoto]:
        frames = io.read_video(self.path, self.chosen, max_pixels=self.max_pixels)
        for frame in islice(frames, start, len(self)):
            yield DecodedPhoto(frame.pixels)

    def _read_photos(self, start: int) -> Iterator[DecodedPhoto]:
        for path in self.photos[start:]:
            yield decode(path, self.max_pixels)

    def hashes(self) -> dict[str, str]:
        """Return the content that a result depends on."""
        content = io.sha256_of_files(self.photos) if self.photos else io.sha256_of(self.path)
        return {"the clip": content}


def open_clip(
    path: Path,
    chosen: io.FrameRange = io.ALL_FRAMES,
    *,
    max_frames: int = io.MAX_FRAMES,
    max_pixels: int = io.MAX_PIXELS,
    rate: float = DEFAULT_RATE,
    warn: Callable[[str], object] = lambda line: None,
) -> ClipFrames:
    """Decode a clip once, and return its frames.

    Args:
        path: a video, or a folder of numbered photos.
        chosen: frames.
        max_frames: a clip with more chosen frames is refused.
        max_pixels: of a frame.
        rate: frames per second of a folder; a video has its own.
        warn: is called with a line about photos that are missing in a folder.

    Raises:
        InputError: it cannot be read in full, is too large, or its frames have several sizes.
        MissingDependencyError: it is a video, and PyAV is not installed.
    """
    if path.is_dir():
        return _open_folder(path, chosen, max_frames, max_pixels, rate, warn)
    facts = io.check_video(path, chosen, max_frames=max_frames, max_pixels=max_pixels)
    labels = tuple(f"frame {index}" for index in facts.indices)
    return ClipFrames(path, facts.size, facts.rate, labels, facts.indices, facts.seconds, chosen, max_pixels)


def _open_folder(
    path: Path,
    chosen: io.FrameRange,
    max_frames: int,
    max_pixels: int,
    rate: float,
    warn: Callable[[str], object],
) -> ClipFrames:
    found = io.find_sequence(path, warn=warn)
    indices = [index for index in range(len(found)) if index in chosen]
    if not indices:
        raise InputError(f"{path}: has {len(found)} frames and no frame {chosen.start}; see --frames")
    if len(indices) > max_frames:
        raise InputError(
            f"{path}: has more than {max_frames} frames; take some of them with "
            f"--frames {chosen.until(indices[max_frames])}, or raise the limit with --max-frames"
        )
    photos = tuple(found[index] for index in indices)
    return ClipFrames(
        path,
        _one_size(photos, max_pixels),
        rate,
        tuple(io.displayed(photo.name) for photo in photos),
        tuple(indices),
        tuple(index / rate for index in indices),
        chosen,
        max_pixels,
        photos,
    )


def _one_size(photos: Sequence[Path], max_pixels: int) -> tuple[int, int]:
    """Decode photos, one at a time, and return their size.

    Raises:
        InputError: one cannot be read, or has another size than the first.
    """
    size: tuple[int, int] | None = None
    for photo in photos:
        found = decode(photo, max_pixels).size
        size = size or found
        if found != size:
            raise InputError(
                f"{photo}: has {found[1]} x {found[0]} pixels, and {photos[0].name} has {size[1]} x "
                f"{size[0]}; the frames of a clip have one size"
            )
    assert size is not None
    return size


def check_albedo_of_frames(preset: Preset) -> None:
    """Raise ConfigError if the renderer lights an albedo from files: each belongs to one photo."""
    albedo = lit_albedo(preset)
    if albedo not in get_args(AlbedoName):
        raise ConfigError(
            f"renderer.albedo={albedo}: the frames of a clip have no albedo of their own; choose one of "
            f"{', '.join(get_args(AlbedoName))}, or refine the frames as photos"
        )
