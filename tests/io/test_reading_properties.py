"""Pictures of every kind: photo, mask and map are what a plain reference makes of the numbers written."""

from __future__ import annotations

import io as io_bytes
import struct
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import png_of, tiff_of

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """The numbers of a picture as they are stored, and what is done to them in its file."""

    colour: np.ndarray  # (H, W) or (H, W, 3), 0 to `most`
    alpha: np.ndarray | None  # (H, W), 0 to `most`
    most: int
    orientation: int
    bits: int
    lossy: bool = False

    # --- the reference: what the readers have to return -------------------------------------------

    def upright(self, values: np.ndarray) -> np.ndarray:
        """The EXIF standard: where row 0 and column 0 of the stored values belong."""
        mirrored = {
            1: values,
            2: values[:, ::-1],
            3: values[::-1, ::-1],
            4: values[::-1],
            5: values.swapaxes(0, 1),
            6: values[::-1].swapaxes(0, 1),
            7: values[::-1, ::-1].swapaxes(0, 1),
            8: values[:, ::-1].swapaxes(0, 1),
        }
        return mirrored[self.orientation]

    def photo(self) -> np.ndarray:
        unit = self.colour.astype(float) / self.most
        rgb = unit if unit.ndim == 3 else np.stack([unit] * 3, -1)
        if self.alpha is not None:
            share = (self.alpha.astype(float) / self.most)[..., None]
            rgb = rgb * share + 1 - share
        return self.upright(rgb)

    def mask(self) -> np.ndarray:
        # Lossy pictures are black and white.
        seen = self.colour > (self.most // 2 if self.lossy else 0)
        seen = seen if seen.ndim == 2 else seen.any(axis=-1)
        return self.upright(seen if self.alpha is None else seen & (self.alpha > 0))

    def map(self) -> np.ndarray | None:
        """None for a picture that is no map: of colours, or of too few bits."""
        grey = self.colour if self.colour.ndim == 2 else self.colour[..., 0]
        if self.bits < 8 or (self.colour.ndim == 3 and (self.colour != grey[..., None]).any()):
            return None
        return self.upright(grey if self.alpha is None else np.where(self.alpha > 0, grey, np.nan))


def exif(orientation: int) -> bytes:
    return b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0) + bytes(4)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, bytes, Picture]:
    """Draw a picture and a file of it: its suffix and content."""
    write = draw(
        st.sampled_from([by_hand_png, by_hand_tiff, by_pillow, by_pillow, palette, transparent, lossy])
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    height, width = 2 * draw(st.integers(8, 12)), 2 * draw(st.integers(8, 12))
    orientation = draw(st.integers(1, 8))
    return write(draw, rng, (height, width), orientation)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Random numbers of which a quarter is 0 and another quarter the largest."""
    values = rng.integers(0, most + 1, shape)
    kind = rng.integers(0, 4, shape)
    return np.where(kind == 0, 0, np.where(kind == 1, most, values))


def random_picture(
    draw: st.DrawFn,
    rng: np.random.Generator,
    size: tuple[int, int],
    orientation: int,
    bits: int,
    channels: int,
) -> Picture:
    most = 2**bits - 1
    colour = numbers(rng, size, most)
    if channels >= 3:
        equal = draw(st.booleans())
        colour = np.stack([colour] * 3, -1) if equal else numbers(rng, (*size, 3), most)
    alpha = numbers(rng, size, most) if channels in (2, 4) else None
    return Picture(colour, alpha, most, orientation, bits)


def stacked(picture: Picture) -> np.ndarray:
    parts = [picture.colour if picture.colour.ndim == 3 else picture.colour[..., None]]
    parts += [] if picture.alpha is None else [picture.alpha[..., None]]
    both = np.concatenate(parts, axis=-1).astype(np.uint16 if picture.bits > 8 else np.uint8)
    return both[..., 0] if both.shape[-1] == 1 else both


def by_hand_png(draw, rng, size, orientation):
    channels = draw(st.integers(1, 4))
    bits = draw(st.sampled_from([1, 2, 4, 8, 16] if channels == 1 else [8, 16]))
    picture = random_picture(draw, rng, size, orientation, bits, channels)
    return ".png", png_of(stacked(picture), bits, {b"eXIf": exif(orientation)}), picture


def by_hand_tiff(draw, rng, size, orientation):
    channels = draw(st.sampled_from([1, 3, 4]))
    bits = draw(st.sampled_from([8, 12, 16] if channels == 1 else [8, 16]))
    picture = random_picture(draw, rng, size, orientation, bits, channels)
    white_is_zero = channels == 1 and bits != 12 and draw(st.booleans())
    stored = picture.most - stacked(picture) if white_is_zero else stacked(picture)
    tags = {"bits": bits} | ({"extra": 2} if channels == 4 else {})
    photometric = 2 if channels > 1 else int(not white_is_zero)
    content = tiff_of(stored, photometric=photometric, orientation=orientation, **tags)
    return ".tif", content, picture


FORMATS = {
    ".png": (("1", "L", "LA", "RGB", "RGBA", "I;16"), {}, True),
    ".tif": (("1", "L", "LA", "RGB", "RGBA", "I;16"), {"compression": "tiff_lzw"}, True),
    ".tiff": (("L", "RGB", "I;16"), {"compression": "tiff_adobe_deflate"}, True),
    ".webp": (("RGB", "RGBA"), {"lossless": True, "exact": True}, True),
    ".bmp": (("1", "L", "RGB"), {}, False),
    ".ppm": (("1", "L", "RGB", "I;16"), {}, False),
    ".tga": (("L", "LA", "RGB", "RGBA"), {}, False),
    ".gif": (("L",), {}, False),
}


def by_pillow(draw, rng, size, orientation):
    suffix = draw(st.sampled_from(sorted(FORMATS)))
    modes, options, has_exif = FORMATS[suffix]
    mode = draw(st.sampled_from(modes))
    bits = {"1": 1, "I;16": 16}.get(mode, 8)
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1)
    picture = random_picture(draw, rng, size, orientation if has_exif else 1, bits, channels)
    values = stacked(picture)
    image = Image.fromarray(values.astype(bool) if mode == "1" else values)
    about = Image.Exif()
    about[ORIENTATION] = orientation
    stream = io_bytes.BytesIO()
    image.save(
        stream, Image.registered_extensions()[suffix], **options, **({"exif": about} if has_exif else {})
    )
    return suffix, stream.getvalue(), picture


def palette(draw, rng, size, orientation):
    """A palette whose entry 0 is black and whose others are not, some of them transparent."""
    entries = rng.integers(1, 256, (8, 3))
    if draw(st.booleans()):
        entries[:] = entries[:, :1]
    entries[0] = 0
    indices = rng.integers(0, 8, size).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(entries.astype(np.uint8).tobytes())
    alpha, options = None, {}
    suffix = draw(st.sampled_from([".png", ".gif", ".bmp", ".tif"]))
    if suffix == ".png" and draw(st.booleans()):
        opacity = rng.choice([0, 255], 8).astype(np.uint8)
        alpha, options = opacity[indices], {"transparency": opacity.tobytes()}
    has_exif = suffix in (".png", ".tif")
    if has_exif:
        about = Image.Exif()
        about[ORIENTATION] = orientation
        options["exif"] = about
    stream = io_bytes.BytesIO()
    image.save(stream, Image.registered_extensions()[suffix], **options)
    return suffix, stream.getvalue(), Picture(entries[indices], alpha, 255, orientation if has_exif else 1, 8)


def transparent(draw, rng, size, orientation):
    """A PNG in which one grey or one colour means transparent."""
    channels = draw(st.sampled_from([1, 3]))
    bits = draw(st.sampled_from([1, 2, 4, 8, 16] if channels == 1 else [8, 16]))
    picture = random_picture(draw, rng, size, orientation, bits, channels)
    key = picture.colour[3, 4]
    same = picture.colour == key
    alpha = np.where(same if channels == 1 else same.all(axis=-1), 0, picture.most)
    chunks = {b"eXIf": exif(orientation), b"tRNS": np.asarray(key).astype(">u2").tobytes()}
    return ".png", png_of(stacked(picture), bits, chunks), replace(picture, alpha=alpha)


def lossy(draw, rng, size, orientation):
    suffix = draw(st.sampled_from([".jpg", ".webp", ".avif", ".jp2"]))
    blocks = rng.integers(0, 2, (2, 3)) * 255
    blocks[0, 0] = 255  # a mask has to select something
    grey = np.repeat(np.repeat(blocks, 16, 0), 16, 1).astype(np.uint8)
    image = Image.fromarray(grey).convert(draw(st.sampled_from(["L", "RGB"])))
    has_exif = suffix != ".jp2"
    about = Image.Exif()
    about[ORIENTATION] = orientation
    stream = io_bytes.BytesIO()
    options = {"exif": about, "quality": 95} if has_exif else {}
    image.save(stream, Image.registered_extensions()[suffix], **options)
    picture = Picture(grey, None, 255, orientation if has_exif else 1, 8, lossy=True)
    return suffix, stream.getvalue(), picture


def check(file: tuple[str, bytes, Picture]) -> None:
    suffix, content, picture = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        expected = picture.photo()
        assert io.image_size(path) == expected.shape[:2]
        # Pillow reduces 16-bit colour to its high byte, and composites in 8 bits.
        exact = (
            picture.alpha is None and (picture.bits <= 8 or picture.colour.ndim == 2) and not picture.lossy
        )
        tolerance = 0.1 if picture.lossy else 1e-6 if exact else 2.1 / 255
        np.testing.assert_allclose(io.load_photo(path), expected, atol=tolerance)
        np.testing.assert_array_equal(io.load_mask(path, may_be_empty=True), picture.mask())
        if suffix in (".png", ".tif", ".tiff"):
            check_map(path, picture.map())


def check_map(path: Path, expected: np.ndarray | None) -> None:
    if expected is None:
        with pytest.raises(InputError, match=r"different channels|bits a pixel, too few"):
            io.load_depth_map(path)
    elif np.isnan(expected).all():
        with pytest.raises(InputError, match="no finite value"):
            io.load_depth_map(path)
    else:
        np.testing.assert_array_equal(io.load_depth_map(path), expected)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(written())
def test_photo_mask_and_map_are_those_of_the_reference(file: tuple[str, bytes, Picture]) -> None:
    check(file)


@pytest.mark.slow
@settings(max_examples=3000, derandomize=True, deadline=None, database=None)
@given(written())
def test_photo_mask_and_map_are_those_of_the_reference_in_thousands(file: tuple[str, bytes, Picture]) -> None:
    check(file)
