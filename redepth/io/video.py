"""Read videos frame by frame, with PyAV (FFmpeg's decoders).

A video is a foreign file: FFmpeg sees an open file and no path, so no playlist makes it open another file or
an address. Only common containers and decoders are allowed, and sizes and lengths have limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError, MissingDependencyError
from redepth.io.files import StrPath, open_regular, reason, shortened
from redepth.io.frame_range import ALL_FRAMES, FrameRange
from redepth.io.limits import MAX_PIXELS, check_pixels
from redepth.io.photo import check_shape
from redepth.io.video_colour import to_srgb

if TYPE_CHECKING:
    import av.video.frame

VIDEO_SUFFIXES = frozenset(
    [
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v"),
        *(".ts", ".mts", ".m2ts", ".ogv", ".wmv", ".asf", ".flv"),
    ]
)
"""Endings of files that are taken for videos."""

MAX_FRAMES = 10_000
"""The most frames that are taken of a clip unless another limit is given."""
MAX_DECODED = 1_000_000
"""The most frames that are decoded to find those that are taken: nine hours at 30 frames per second."""
DEFAULT_RATE = 25.0
"""Frames per second where the file names none."""

PYAV = ((17, 1), (19, 0))
"""The first version of PyAV that works, and the first one that does not any more."""

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,ogg,asf,flv"
_DECODERS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video"),
    *("mpeg1video", "mjpeg", "prores", "dnxhd", "ffv1", "theora", "h263", "flv", "wmv1", "wmv2", "wmv3"),
    *("vc1", "msmpeg4v2", "msmpeg4", "rawvideo", "huffyuv", "ffvhuff", "png"),
)
_ATTACHED_PICTURE = 0x400
"""FFmpeg's mark of a stream that is the cover of a piece of music."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a video.

    Attributes:
        index: of the frame in the file, from 0.
        seconds: its time since the first frame of the file.
        pixels: (H, W, 3) sRGB, upright, with square pixels: uint8, or float32 in [0, 1] of a video with more
            than 8 bits, or in the colours of HDR or BT.2020.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video after all chosen frames were decoded once.

    Attributes:
        size: height and width of the upright frames.
        rate: mean frames per second of the file.
        indices: of the chosen frames in the file.
        seconds: of the chosen frames, since the first frame of the file; the rate may vary.
    """

    size: tuple[int, int]
    rate: float
    indices: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A frame as the decoder gives it, with its upright size."""

    index: int
    seconds: float
    frame: av.video.frame.VideoFrame
    width: int
    height: int
    turns: int
    rate: float

    @property
    def size(self) -> tuple[int, int]:
        """Upright height and width."""
        return (self.width, self.height) if self.turns % 2 else (self.height, self.width)


def is_video(path: StrPath) -> bool:
    """Return whether a name ends like that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def check_video(
    path: StrPath,
    chosen: FrameRange = ALL_FRAMES,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
) -> VideoFacts:
    """Decode a video once up to its last chosen frame, and return what is known of it.

    Damage shows only as a frame is decoded: so it is found before any other work.

    Args:
        path: the file; its content decides the format, not its suffix.
        chosen: frames.
        max_frames: more chosen frames are refused.
        max_pixels: of a frame.

    Raises:
        InputError: the file is missing, damaged, truncated or too large, holds no video or none of the chosen
            frames, or its frames have several sizes.
        MissingDependencyError: PyAV is not installed.
    """
    path = Path(path)
    first: _Decoded | None = None
    indices: list[int] = []
    seconds: list[float] = []
    for decoded in _decoded(path, chosen, max_pixels):
        if decoded.index not in chosen:
            continue
        if len(indices) == max_frames:
            raise InputError(
                f"{path}: has more than {max_frames} frames; take some of them with "
                f"--frames {chosen.until(decoded.index)}, or raise the limit with --max-frames"
            )
        first = first or decoded
        indices.append(decoded.index)
        seconds.append(decoded.seconds)
    if first is None:
        raise InputError(f"{path}: has no frame {chosen.start}; give a smaller START in --frames")
    return VideoFacts(first.size, first.rate, tuple(indices), tuple(seconds))


def read_video(
    path: StrPath, chosen: FrameRange = ALL_FRAMES, *, max_pixels: int = MAX_PIXELS
) -> Iterator[VideoFrame]:
    """Yield the chosen frames of a video, one at a time.

    The rotation that the file names is applied, and pixels that are not square become so. Frames have the
    times that the file gives them.

    Raises:
        InputError: as by `check_video`, when the frame is reached.
        MissingDependencyError: PyAV is not installed.
    """
    for decoded in _decoded(Path(path), chosen, max_pixels):
        if decoded.index in chosen:
            pixels = to_srgb(decoded.frame, decoded.width, decoded.height)
            upright: NDArray[Any] = np.ascontiguousarray(np.rot90(pixels, decoded.turns))
            yield VideoFrame(decoded.index, decoded.seconds, upright)


def import_av(path: Path) -> Any:
    """Return PyAV.

    Raises:
        MissingDependencyError: it is not installed, or has a version with other names.
    """
    try:
        import av
    except ImportError:
        raise MissingDependencyError(
            f'{path}: videos need the package av (PyAV); run: pip install "redepth[video]"'
        ) from None
    version = tuple(int(part) for part in av.__version__.split(".")[:2])
    if not PYAV[0] <= version < PYAV[1]:
        (first, minor), (end, _) = PYAV
        raise MissingDependencyError(
            f"{path}: videos need PyAV {first}.{minor} or later, below {end}, and {av.__version__} is "
            'installed; run: pip install "redepth[video]"'
        )
    return av


def _decoded(path: Path, chosen: FrameRange, max_pixels: int) -> Iterator[_Decoded]:
    """Yield all frames before the end of the chosen ones, checked."""
    index, first = 0, None
    with _opened(path) as (container, stream):
        _check_stream(path, stream, max_pixels)
        errors = _errors()
        try:
            for frame in _frames(container, stream):
                decoded = _measured(index, frame, stream, first)
                first = first or decoded
                _check_frame(path, decoded, first, max_pixels)
                yield decoded
                index += 1
                if chosen.ended(index):
                    return
        except errors as error:
            raise _broken(path, index, chosen, error) from None
    if index == 0:
        raise InputError(f"{path}: the video holds no frame; record or download it again")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and its first stream of pictures; any of their attributes may be missing or None."""
    av = import_av(path)
    limits = {
        "format_whitelist": _CONTAINERS,
        "protocol_whitelist": "",
        "codec_whitelist": ",".join(_DECODERS),
    }
    with open_regular(path) as file:
        try:
            container = av.open(file, "r", container_options=limits, metadata_errors="replace")
        except av.error.ArgumentError:
            known = ", ".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
            raise InputError(f"{path}: is no video of a known format ({known}); convert it to mp4") from None
        except _errors() as error:
            raise InputError(
                f"{path}: cannot be read as a video ({_why(error)}): it is damaged, truncated or something "
                "else; copy or download it again"
            ) from None
        with container:
            pictures = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
            if not pictures:
                what = "sound alone" if container.streams.audio else "no video"
                raise InputError(f"{path}: holds {what}; give a file with a video stream")
            yield container, pictures[0]


def _check_stream(path: Path, stream: Any, max_pixels: int) -> None:
    """Refuse a stream by what its header says, and set the decoder's own limit."""
    context = stream.codec_context
    name = None if context is None else context.codec.name
    if name not in _DECODERS:
        known = "an unknown codec" if name is None else f"the codec {name}"
        raise InputError(f"{path}: {known} is not supported; convert it to H.264 in an mp4 file")
    if context.width <= 0 or context.height <= 0:
        raise InputError(f"{path}: the header names no size of the frames; copy or download it again")
    check_pixels(path, context.width, context.height, max_pixels)
    # One thread: each further one holds frames of its own.
    context.thread_count = 1
    # Decoders count whole blocks of pixels, beyond the frame's edge.
    context.options = {"max_pixels": str(2 * max_pixels + 2**16)}


def _frames(container: Any, stream: Any) -> Iterator[av.video.frame.VideoFrame]:
    """Decode all packets of a stream; a file that ends before its header says so is truncated."""
    packets, end = 0, 0.0
    for packet in container.demux(stream):
        packets += packet.size > 0
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.is_corrupt:
            raise ValueError("a packet is cut off")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("the decoder marks the frame as damaged")
            yield frame
    announced = _seconds_of(stream.metadata.get("DURATION", ""))
    if packets < stream.frames:
        raise ValueError(f"the file ends after {packets} of {stream.frames} packets")
    if packets and announced - end > 1.5 * announced / (packets + 1) and announced - end > 0.1:
        raise ValueError(f"the file ends after {end:.1f} of {announced:.1f} seconds")


def _seconds_of(text: str) -> float:
    """Return the seconds of Matroska's ``HH:MM:SS.fraction``; 0 for anything else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _measured(
    index: int,
    frame: Any,
    stream: Any,
    first: _Decoded | None,
) -> _Decoded:
    """Return a frame with its time and its upright size."""
    rate = float(stream.average_rate or stream.guessed_rate or 0) or DEFAULT_RATE
    rate = rate if 0 < rate <= 1000 else DEFAULT_RATE
    shape = stream.sample_aspect_ratio or Fraction(1)
    # A damaged header may name any ratio.
    shape = shape if Fraction(1, 4) <= shape <= 4 else Fraction(1)
    start = (frame if first is None else first.frame).time or 0.0
    seconds = index / rate if frame.time is None else float(frame.time - start)
    turns = round(frame.rotation / 90) % 4
    return _Decoded(index, seconds, frame, max(1, round(frame.width * shape)), frame.height, turns, rate)


def _check_frame(path: Path, decoded: _Decoded, first: _Decoded, max_pixels: int) -> None:
    if decoded.size != first.size:
        (height, width), (other_height, other_width) = first.size, decoded.size
        raise InputError(
            f"{path}: frame {decoded.index} has {other_width} x {other_height}, the first frame {width} x "
            f"{height}; take frames of one size with --frames"
        )
    if decoded.index >= MAX_DECODED:
        raise InputError(f"{path}: has more than {MAX_DECODED} frames; cut the video first")
    if decoded is first:
        check_pixels(path, decoded.width, decoded.height, max_pixels)
        check_shape(path, decoded.width, decoded.height)


def _errors() -> tuple[type[BaseException], ...]:
    """Return what PyAV raises on damaged bytes."""
    import av

    return (av.error.FFmpegError, ValueError, OverflowError, ZeroDivisionError, MemoryError, RuntimeError)


def _broken(path: Path, index: int, chosen: FrameRange, error: BaseException) -> InputError:
    """Return the error of a video that is damaged from a frame on."""
    if index <= chosen.start:
        return InputError(f"{path}: damaged or truncated ({_why(error)}); copy or download it again")
    return InputError(
        f"{path}: damaged or truncated at frame {index} ({_why(error)}); copy or download it again, or take "
        f"the frames before it with --frames {chosen.until(index)}"
    )


def _why(error: BaseException) -> str:
    """Return what FFmpeg says, without its numbers."""
    text = getattr(error, "strerror", None)
    return shortened(text) if isinstance(text, str) and text else reason(error)
