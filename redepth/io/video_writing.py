"""Write videos: H.264 in an mp4 file, which browsers and players show."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from redepth.errors import MissingDependencyError, OutputError
from redepth.io.files import StrPath, reason
from redepth.io.video import import_av
from redepth.io.write import atomic_path

if TYPE_CHECKING:
    import av.container
    import av.video.stream

_TICKS = 90_000
"""Units of time per second."""
_BT709, _LIMITED, _FULL = 1, 1, 2
_QUALITY = "18"
"""x264's constant rate factor: hardly a difference is visible."""


class VideoWriter:
    """Takes the frames of a video one after the other.

    Args:
        stream: of the file, whose size is not set yet.
        container: of the file.
    """

    def __init__(self, stream: av.video.stream.VideoStream, container: av.container.OutputContainer) -> None:
        self._stream, self._container = stream, container
        self._last = -1
        self._size: tuple[int, ...] = ()

    def add(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            pixels: (H, W, 3) sRGB, of the size of the first frame. An odd side gets its last row or column
                twice, because colours are stored at half the size.
            seconds: when it is shown, from the start of the video. Not later than the last frame counts as
                just after it.

        Raises:
            ValueError: the frame has another size than the first one.
        """
        from av.video.frame import VideoFrame

        height, width = pixels.shape[:2]
        if not self._size:
            self._size = pixels.shape
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
        if pixels.shape != self._size:
            raise ValueError(f"all frames must be {self._size}, got {pixels.shape}")
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, src_color_range=_FULL, dst_color_range=_LIMITED
        )
        self._last = max(self._last + 1, round(seconds * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if self._size:
            self._container.mux(self._stream.encode(None))


def check_video_writer(path: StrPath) -> str:
    """Return FFmpeg's name of the encoder that videos are written with.

    Args:
        path: of the video, for the error.

    Raises:
        MissingDependencyError: PyAV is not installed, or has no encoder of H.264.
    """
    path = Path(path)
    import_av(path)
    codec = next((name for name in ("libx264", "libopenh264", "h264") if _encodes(name)), None)
    if codec is None:
        raise MissingDependencyError(
            f"{path}: this PyAV has no encoder of H.264; run: pip install --force-reinstall av"
        )
    return codec


@contextmanager
def video_writer(path: StrPath, rate: float) -> Iterator[VideoWriter]:
    """Write a video: H.264, yuv420p, BT.709, its index at the front, so that it plays while it is loaded.

    The file appears whole when the block ends, or not at all.

    Args:
        path: of the mp4 file.
        rate: frames per second that the file names; each frame has its own time.

    Raises:
        MissingDependencyError: as by `check_video_writer`.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    av = import_av(path)
    codec = check_video_writer(path)
    with atomic_path(path) as temporary, _opened(temporary) as file:
        try:
            with av.open(
                file,
                "w",
                format="mp4",
                options={"movflags": "+faststart"},
                # To move the index to the front, it reads what it has written.
                io_open=lambda url, flags, options: temporary.open("rb", buffering=0),
            ) as container:
                writer = VideoWriter(_stream(container, codec, rate), container)
                yield writer
                writer.finish()
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) and (error.errno or 0) in errno.errorcode:
                raise
            raise OutputError(f"{path}: cannot be encoded ({reason(error)})") from error


def _opened(path: Path) -> BinaryIO:
    """Open a new file by its descriptor: FFmpeg takes no name that is not UTF-8.

    Without a buffer, because it is read while it is written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return cast(BinaryIO, open(os.open(path, flags, 0o666), "w+b", buffering=0))


def _encodes(name: str) -> bool:
    import av

    try:
        return bool(av.Codec(name, "w").is_encoder)
    except av.error.FFmpegError:
        return False


def _stream(container: av.container.OutputContainer, codec: str, rate: float) -> av.video.stream.VideoStream:
    from av.video.stream import VideoStream

    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, _TICKS)
    context.color_range, context.colorspace = _LIMITED, _BT709
    context.color_primaries, context.color_trc = _BT709, _BT709
    if codec == "libx264":
        context.options = {"crf": _QUALITY}
    return stream
