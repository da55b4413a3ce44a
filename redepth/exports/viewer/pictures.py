"""The pictures of the page as JPEG data URLs: the photo, and maps as colours. It draws normals itself."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redepth import viz
from redepth.exports.source import Array, Source, frame_of_normals, inverted

LONGEST = 1500
"""The longer side of the pictures, at most."""

PHOTO_BYTES = 800_000
MAP_BYTES = 220_000
"""What a picture takes at most, before it becomes text."""


@dataclass(frozen=True)
class Picture:
    """A picture of the comparison.

    Attributes:
        name: a word for it.
        label: what it is called on the page.
        note: what its colours mean.
        src: its data URL; empty for the normals.
    """

    name: str
    label: str
    note: str
    src: str


def size_of(source: Source) -> tuple[int, int]:
    """Return height and width of the pictures: those of the photo, reduced to `LONGEST`."""
    height, width = source.photo.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def pictures_of(source: Source, *, members: int) -> list[dict[str, Any]]:
    """Return the pictures of a result as plain data: the photo first."""
    height, width = size_of(source)
    pictures = [Picture("photo", "photo", "the photo that was refined", _photo(source, height, width))]
    pictures += _disparities(source)
    note = f"unit normals as colours, {frame_of_normals(source)}; grey is unknown"
    pictures += [Picture(f"normals-{when}", f"normals {when}", note, "") for when in ("before", "after")]
    if members > 1:
        pictures.append(_uncertainty(source))
    return [asdict(picture) for picture in pictures]


def sampled(values: Array, height: int, width: int) -> Array:
    """Return the pixels of a map (H, W) that lie nearest to those of a smaller size; the map if it has it."""
    if values.shape == (height, width):
        return values
    rows, columns = nearest(values.shape[0], height), nearest(values.shape[1], width)
    return values[np.ix_(rows, columns)]


def nearest(side: int, count: int) -> NDArray[np.intp]:
    """Return the pixels of a side that lie nearest to the centres of ``count`` larger ones."""
    return ((np.arange(count) + 0.5) * side / count).astype(np.intp)


def _photo(source: Source, height: int, width: int) -> str:
    """Return the photo as a JPEG.

    It is reduced by a whole factor first: an intermediate of all of 100 megapixels would take gigabytes.
    """
    factor = viz.reduction(source.photo.shape[0], source.photo.shape[1], 2 * LONGEST)
    image = Image.fromarray(viz.reduced_photo(source.photo, factor))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return _url(image, PHOTO_BYTES)


def _disparities(source: Source) -> list[Picture]:
    """Return disparity before and after, in one range of colours: near is bright for every kind of model."""
    height, width = size_of(source)
    names: tuple[Literal["initial", "refined"], ...] = ("initial", "refined")
    maps = []
    for name in names:
        values = sampled(source.map_of(name), height, width)
        maps.append(values if source.predicts == "disparity" else inverted(values))
    low, high = viz.display_range(*maps)
    note = "disparity, bright is near; initial and refined share one range of colours; grey is unknown"
    return [
        Picture(name, name, note, _map_url(viz.colorize(values, lo=low, hi=high)))
        for name, values in zip(names, maps, strict=True)
    ]


def _uncertainty(source: Source) -> Picture:
    values = sampled(source.map_of("uncertainty"), *size_of(source))
    high = viz.display_range(values)[1]
    note = (
        f"standard deviation over the members, from 0 (dark) to {high:.2g} (bright), in the unit of the "
        f"{source.predicts}; grey is unknown"
    )
    colours = viz.colorize(values, viz.UNCERTAINTY_CMAP, 0.0, high)
    return Picture("uncertainty", "uncertainty", note, _map_url(colours))


def _map_url(colours: NDArray[np.uint8]) -> str:
    return _url(Image.fromarray(colours), MAP_BYTES)


def _url(image: Image.Image, limit: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(viz.jpeg_within(image, limit)).decode("ascii")
