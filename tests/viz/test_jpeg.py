"""Pictures keep within a number of bytes: first at the cost of quality, then of size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from redepth.viz import jpeg_within


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("limit", [2_000_000, 30_000, 2000])
def test_a_picture_keeps_within_its_limit(limit: int) -> None:
    data = jpeg_within(noise(300, 400), limit)
    assert len(data) <= limit
    size = Image.open(io.BytesIO(data)).size
    assert size == (400, 300) if limit >= 30_000 else size[0] < 400


def test_noise_of_many_pixels_is_written() -> None:
    """At the best quality its file is larger than the buffers that Pillow sets aside."""
    assert len(jpeg_within(noise(1200, 1200), 10_000_000)) > 1_000_000
