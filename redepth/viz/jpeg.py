"""Pictures as JPEG of a limited size, for pages and notebooks."""

from __future__ import annotations

import io

from PIL import Image

_QUALITIES = (88, 80, 70, 55, 40, 25)


def jpeg_within(picture: Image.Image, limit: int) -> bytes:
    """Return a picture as JPEG of at most that many bytes, at the best of some qualities.

    If no quality suffices, the picture is halved until one does. Colours keep all of their pixels at the best
    quality alone.
    """
    picture = picture.convert("RGB")
    while True:
        for quality in _QUALITIES:
            stream = io.BytesIO()
            sampling = "4:4:4" if quality == _QUALITIES[0] else "4:2:0"
            # Not optimized: libjpeg then needs a buffer for the whole file, and noise overflows Pillow's.
            picture.save(stream, "JPEG", quality=quality, subsampling=sampling)
            if stream.tell() <= limit or picture.size == (1, 1):
                return stream.getvalue()
        picture = picture.reduce(2)
