"""Read arrays of numbers from numpy, PFM and OpenEXR files, in the units of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError, MissingDependencyError
from redepth.io.files import damaged, open_regular, reason

_EXR_DEPTH_CHANNELS = ("depth", "disparity", "z", "y", "v")
"""Names of the channel that holds the map, in lower case, the preferred one first."""


def read_numpy(path: Path, keys: Sequence[str] = ()) -> NDArray[Any]:
    """Read an ``.npy`` file, or one array of an ``.npz`` file.

    Args:
        path: the file.
        keys: names of the array in an ``.npz`` file that holds several, the preferred one first.

    Raises:
        InputError: the file is missing or damaged, or holds several arrays and none has such a name.
    """
    with open_regular(path) as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return np.asarray(loaded)
            names = list(loaded.files)
            preferred = [key for key in keys if key in names]
            if preferred:
                return np.asarray(loaded[preferred[0]])
            if len(names) == 1:
                return np.asarray(loaded[names[0]])
        except Exception as error:  # zipfile, zlib and numpy each raise their own on damaged bytes
            raise InputError(f"{path}: not numbers saved by numpy ({reason(error)}); save again") from None
    expected = " or ".join(map(repr, keys))
    raise InputError(f"{path}: holds the arrays {sorted(names)}; name the map {expected}")


def read_pfm(path: Path) -> NDArray[np.float32]:
    """Read a PFM file of one channel; its scale gives the byte order only.

    Raises:
        InputError: the file is missing or truncated, has colour channels, or is no PFM file.
    """
    with open_regular(path) as file:
        content = file.read()
    header = re.match(rb"P([fF])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content)
    if header is None:
        raise InputError(f"{path}: not a PFM file; it must start with Pf, width, height and scale")
    if header[1] == b"F":
        raise InputError(f"{path}: a colour PFM; give a map of one channel (Pf)")
    width, height = int(header[2]), int(header[3])
    expected, size = 4 * width * height, len(content) - header.end()
    if size < expected:
        raise InputError(f"{path}: truncated, {size} of {expected} bytes; copy it again")
    order = "<" if header[4].startswith(b"-") else ">"
    values = np.frombuffer(content, f"{order}f4", width * height, header.end())
    # PFM stores the bottom row first.
    return values.reshape(height, width)[::-1].astype(np.float32)


def read_exr(path: Path) -> NDArray[Any]:
    """Read an OpenEXR file's only channel, or the one that is named depth, disparity, Z, Y or V.

    Raises:
        InputError: the file is missing or damaged, or has several channels and none has such a name.
        MissingDependencyError: the package OpenEXR is not installed.
    """
    with open_regular(path):
        pass  # The OpenEXR package does not say why it cannot open a path.
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            f'{path}: reading OpenEXR needs the package OpenEXR; run: pip install "redepth[exr]"'
        ) from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except Exception as error:  # it raises RuntimeError, ValueError and TypeError on damaged bytes
        raise damaged(path, error) from None
    if len(channels) == 1:
        return next(iter(channels.values()))
    by_name = {name.lower(): channel for name, channel in channels.items()}
    for name in _EXR_DEPTH_CHANNELS:
        if name in by_name:
            return by_name[name]
    raise InputError(f"{path}: holds the channels {sorted(channels)}; name the map's depth, Z or Y")


def as_map(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Drop axes of length 1 around (H, W).

    Raises:
        InputError: the array has another shape, or holds no numbers.
    """
    shape = values.shape
    if values.size == 1 and values.ndim > 2:
        values = values.reshape(1, 1)
    elif values.ndim > 2:
        values = values.reshape([n for n in shape if n != 1])
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: has shape {shape}, type {values.dtype}; give numbers (H, W)")
    return values
