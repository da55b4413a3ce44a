"""Small videos, made by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

TICKS = 12_800


def pictures(count: int = 6, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Pictures of two colours whose border moves by four pixels a frame, (H, W, 3) uint8."""
    frames = []
    for index in range(count):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = (10, 220, 130)
        frame[:, : 16 + 4 * index] = (200, 30, 90)
        frames.append(frame)
    return frames


def write_video(
    path: Path,
    frames: Iterable[np.ndarray] | None = None,
    *,
    codec: str = "libx264",
    layout: str = "yuv420p",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    shape: Fraction | None = None,
    rate: int = 25,
) -> Path:
    """Write pictures as a video.

    Args:
        path: of the file; its suffix gives the container.
        frames: (H, W, 3) uint8; by default `pictures`.
        codec: FFmpeg's name of the encoder.
        layout: of the pixels.
        times: of the frames, in ``1 / TICKS`` seconds; by default evenly spaced.
        options: of the encoder.
        container: options of the container.
        shape: width of a pixel over its height.
        rate: frames per second.
    """
    import av

    listed = list(pictures() if frames is None else frames)
    with av.open(str(path), "w", options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.height, stream.width = listed[0].shape[:2] if listed else (48, 64)
        stream.pix_fmt = layout
        stream.options = {"crf": "1", **(options or {})} if codec == "libx264" else (options or {})
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        if times is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
        for index, picture in enumerate(listed):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, TICKS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def turned(path: Path, matrix: Sequence[int]) -> Path:
    """Write a display matrix (a, b, c, d as whole numbers) to the header of an mp4 file's track."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value * 0x10000 for value in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 0x40000000)
    content[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in numbers)
    path.write_bytes(content)
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound alone."""
    import av

    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("aac", rate=44_100)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
