"""Check photos before any work: decode them in full, read what is given with them, look at their folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from redepth import io
from redepth.batch.records import Decoded, Photo
from redepth.components import check_albedo, check_albedos_apart
from redepth.config import Preset
from redepth.errors import InputError, one_line
from redepth.exports import RESULT_FILES
from redepth.photo_inputs import DecodedPhoto, decode
from redepth.runtime.executors import Done

log = logging.getLogger(__name__)

KEPT_BYTES = 256 * 2**20
"""Size of all decoded photos that are kept from their check on: seven of 12 megapixels. The first is kept at
any size."""


def check_photos(
    photos: Sequence[Photo], max_pixels: int, presets: Sequence[Preset] = ()
) -> Iterator[Done[Photo, Photo]]:
    """Decode each photo in full, read what is given with it, and check that all fits, before any work.

    Whatever is wrong with a photo, the next one is checked.

    Args:
        photos: to refine.
        max_pixels: refuse photos, and files that are given with them, with more pixels than this.
        presets: that refine them, resolved; the files of their albedos are read, too.

    Yields:
        The outcome of each check. The result is the photo, with its arrays as far as `KEPT_BYTES` allows.
    """
    room = KEPT_BYTES
    shared = _shared_albedo(photos, presets)
    for index, photo in enumerate(photos):
        try:
            # The hashes first: a file that changes meanwhile differs from its hash in the next call.
            checked = photo.with_hashes()
            check_folder(photo.folder)
            check_kept(photo.folder, [photo.path, *photo.inputs.files.values()])
            decoded = decode_inputs(photo, max_pixels)
            if shared is not None:
                raise shared
            with io.pixel_limit(max_pixels):
                for preset in presets:
                    check_albedo(preset, photo.path, *decoded.photo.size, len(photos))
            decoded = replace(decoded, photo=_as_uint8(decoded.photo))
        except Exception as error:  # such as MemoryError
            log.debug("%s failed", photo.path, exc_info=True)
            yield Done(index, photo, error=one_line(error))
            continue
        if index == 0 or decoded.nbytes <= room:
            room -= decoded.nbytes
            yield Done(index, photo, result=replace(checked, decoded=decoded))
        else:
            yield Done(index, photo, result=checked)


def _shared_albedo(photos: Sequence[Photo], presets: Sequence[Preset]) -> InputError | None:
    """Return what is wrong if several photos would have one file as their albedo."""
    try:
        for preset in presets:
            check_albedos_apart(preset, [photo.path for photo in photos])
    except InputError as error:
        return error
    return None


def check_folder(folder: Path) -> None:
    """Raise InputError now if the result could not be written to its folder later."""
    if os.path.lexists(folder) and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise InputError(
            f"{folder}: is not a folder that can be written to; move it away or choose another --out"
        )


def check_kept(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if the result would replace a file that it is made from."""
    for path in inputs:
        parent, name = os.path.split(os.path.realpath(path))
        if name in RESULT_FILES and parent == os.path.realpath(folder):
            raise InputError(f"{path}: the result would replace this file; choose another --out")


def decode_inputs(photo: Photo, max_pixels: int) -> Decoded:
    """Read a photo and what is given with it, and check that all fits its size.

    Raises:
        InputError: if one of them cannot be read or used.
    """
    decoded = decode(photo.path, max_pixels)
    if photo.ground_truth is not None:
        photo.ground_truth.check(*decoded.size)
    return Decoded(decoded, photo.inputs.load(decoded, max_pixels))


def _as_uint8(photo: DecodedPhoto) -> DecodedPhoto:
    """Return the photo as uint8 where that loses nothing: all but 16-bit and float files."""
    pixels = np.empty(photo.pixels.shape, np.uint8)
    # In blocks of rows: copies of a photo of 100 megapixels would take gigabytes.
    for start in range(0, len(pixels), 256):
        rows = DecodedPhoto(photo.pixels[start : start + 256])
        compact = DecodedPhoto(io.to_uint8(rows.values))
        if not np.array_equal(compact.values, rows.values):
            return photo
        pixels[start : start + 256] = compact.pixels
    return replace(photo, pixels=pixels)
