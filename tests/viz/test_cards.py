"""The card of a result: small, whole, and without markup from outside."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redepth.viz import card, colorize, display_range
from redepth.viz.cards import PICTURE_LIMIT, strip

EVIL = '<script>alert("1")</script>&\'"'


def arrays(height: int, width: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], ...]:
    """Photo, initial and refined disparity and normals, all noise: what compresses worst."""
    generator = np.random.default_rng(seed)
    normals = generator.normal(size=(height, width, 3))
    return (
        generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        generator.uniform(size=(height, width)).astype(np.float32),
        generator.uniform(size=(height, width)).astype(np.float32),
        (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32),
    )


def picture(text: str) -> Image.Image:
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return Image.open(io.BytesIO(base64.b64decode(data)))


class Tags(HTMLParser):
    """Collects tags and text; fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_texts_are_escaped_and_complete() -> None:
    facts = {f"fact {EVIL}": f"value {EVIL}"}
    text = card(
        *arrays(20, 30),
        title=f"title {EVIL}",
        subtitle=f"subtitle {EVIL}",
        facts=facts,
        remark=f"remark {EVIL}",
        notes=[f"note {EVIL}"],
    )
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert set(tags.seen) == {"div", "strong", "img", "span"}
    for word in ("title", "subtitle", "fact", "value", "remark", "note"):
        assert f"{word} {EVIL}" in tags.text


def test_a_card_has_no_colours_of_its_own_for_text_or_background() -> None:
    text = card(*arrays(20, 30), title="a", subtitle="", facts={"b": "c"}, notes=["d"])
    assert not re.search(r"(?<![-\w])(color|background)", text)


@pytest.mark.parametrize("size", [(800, 1200), (1200, 700), (40, 50), (500, 1000)])
def test_a_card_is_small_for_any_photo(size: tuple[int, int]) -> None:
    text = card(*arrays(*size), title="a", subtitle="", facts={})
    assert len(text) < 300_000
    assert picture(text).size[0] <= 4 * 320 + 12


def test_the_pictures_are_the_maps_in_one_range() -> None:
    photo, _, _, normals = arrays(200, 200)
    rise = np.linspace(0, 1, 200, dtype=np.float32)[None].repeat(200, axis=0)
    flat = np.full_like(rise, 0.5)
    shown = np.asarray(picture(card(photo // 255, rise, flat, normals, title="", subtitle="", facts={})))
    low, high = display_range(rise, flat)
    for values, left in ((rise, 204), (flat, 408)):
        expected = colorize(values, lo=low, hi=high).astype(float)
        assert np.abs(shown[:200, left : left + 200] - expected).mean() < 6


def test_a_strip_has_the_proportions_of_the_photo() -> None:
    wide, small = np.zeros((100, 640, 3), np.uint8), np.full((7, 9, 3), 255, np.uint8)
    made = strip([wide, small])
    assert made.size == (2 * 320 + 4, 50)
    assert made.getpixel((330, 25)) == (255, 255, 255)
    assert made.getpixel((322, 25)) == (128, 128, 128)
    assert len(card(*arrays(20, 30), title="", subtitle="", facts={})) < PICTURE_LIMIT
