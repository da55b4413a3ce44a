"""OpenEXR: read the map of one channel, of equal colour channels, or of several layers, or colours; write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redepth.errors import InputError, MissingDependencyError
from redepth.io.arrays import grey_of_colour, other_kind
from redepth.io.files import StrPath, damaged, open_regular, shortened
from redepth.io.limits import check_pixels
from redepth.io.write import atomic_path

_DEPTH_CHANNELS = ("depth", "disparity", "z", "y", "v")
"""Names of the channel that holds the map, in lower case, the preferred one first."""
_VECTORS = {"z": "xy", "y": "x", "v": "u"}
"""Channels that stand beside one of such a name if it is a part of a vector, as in normals."""
_KINDS = ("depth", "disparity")
_DEPTH_LAYERS = ("depth", "disparity", "zdepth", "z")
_ALBEDO_LAYERS = ("albedo", "diffcol", "diffuse", "basecolor", "base_color")
"""Names of the layer that holds an albedo, in lower case; ``diffcol`` is Blender's."""
_NUMBERS_A_PIXEL = 64
"""All channels are decoded at once: they may hold so many numbers for each pixel of the limit."""


@dataclass(frozen=True)
class _Window:
    """A rectangle of pixels; the sides at ``right`` and ``bottom`` are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, box: Sequence[Any]) -> _Window:
        (left, top), (right, bottom) = ((int(x), int(y)) for x, y in box)
        return cls(left, top, right + 1, bottom + 1)

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class _Channel:
    """A channel, by its header.

    Attributes:
        part: index of its part.
        key: its name in the part.
        layer: the name of its layer in lower case; empty for a channel outside all layers.
        name: its name in the layer, in lower case.
        data: pixels that are stored.
        display: pixels of the picture.
    """

    part: int
    key: str
    layer: str
    name: str
    data: _Window
    display: _Window


def read_exr(path: Path, kind: str | None = None, *, max_pixels: int | None = None) -> NDArray[Any]:
    """Read a map, at the size of the display window.

    It is the only channel; the one named depth, disparity, Z, Y or V; that of a layer named depth, such as
    Blender's ``ViewLayer.Depth.Z``; the Z of any other layer without X and Y; or the colour, if its channels
    are equal.

    Args:
        path: the file.
        kind: ``depth`` or ``disparity``: the channel or layer of this name is taken, and disparity never for
            depth.
        max_pixels: as for `redepth.io.load_photo`.

    Returns:
        (H, W), NaN where an alpha channel beside it is 0, and outside the data window.

    Raises:
        InputError: the file is missing, damaged or too large, or it has several channels and none, or more
            than one, fits.
        MissingDependencyError: the package OpenEXR is not installed.
    """
    channels, parts = _opened(path, max_pixels)
    group, alpha = _choose(path, _of_kind(path, channels, kind))
    *arrays, opacity = _pixels(path, parts, [*group, alpha or group[0]])
    values = grey_of_colour(path, f"the channels {sorted(c.key for c in group)}", arrays)
    if alpha is not None and opacity.shape == values.shape:
        values = np.where(opacity == 0, np.nan, values.astype(np.float32))
    return _displayed(path, group[0], values)


def read_exr_colours(path: Path, *, max_pixels: int | None = None) -> NDArray[np.float32]:
    """Read the red, green and blue of an albedo, at the size of the display window.

    It is that of the layer named albedo, DiffCol (Blender's), diffuse or base colour; else the only colour of
    the file. Alpha is ignored.

    Args:
        path: the file.
        max_pixels: as for `redepth.io.load_photo`.

    Returns:
        (H, W, 3), NaN outside the data window.

    Raises:
        InputError: the file is missing, damaged or too large, or it has no colour, or several.
        MissingDependencyError: the package OpenEXR is not installed.
    """
    channels, parts = _opened(path, max_pixels)
    layers = {
        key: [layer[name] for name in "rgb"]
        for key, layer in _layers(channels).items()
        if set("rgb") <= set(layer)
    }
    named = {key: group for key, group in layers.items() if key[1].rpartition(".")[2] in _ALBEDO_LAYERS}
    groups = list((named or layers).values())
    if len(groups) != 1:
        names = shortened(str(sorted(channel.key for channel in channels)))
        problem = "several are colours" if groups else "none are red, green and blue"
        raise InputError(
            f"{path}: holds the channels {names}, {problem}; name the layer of the albedo albedo"
        )
    arrays = _pixels(path, parts, groups[0])
    shown = [_displayed(path, *both) for both in zip(groups[0], arrays, strict=True)]
    return np.stack(shown, axis=-1).astype(np.float32)


def _opened(path: Path, max_pixels: int | None) -> tuple[list[_Channel], int]:
    """Return the channels of a file and the number of its parts. Raises as `read_exr`."""
    with open_regular(path):
        pass  # The OpenEXR package does not say why it cannot open a path.
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            f'{path}: reading OpenEXR needs the package OpenEXR; run: pip install "redepth[exr]"'
        ) from None
    return _headers(path, OpenEXR.File, max_pixels)


def _pixels(path: Path, parts: int, channels: Sequence[_Channel]) -> list[NDArray[Any]]:
    """Return the pixels of channels. Raises InputError: the file is damaged."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            if len(file.parts) != parts:  # a part that cannot be decoded is left out, with no exception
                raise ValueError("a part cannot be decoded")
            return [np.array(file.parts[c.part].channels[c.key].pixels) for c in channels]
    except Exception as error:  # it raises RuntimeError, ValueError and TypeError on damaged bytes
        raise damaged(path, error) from None


def save_exr(path: StrPath, channels: Mapping[str, NDArray[np.float32]], header: Mapping[str, Any]) -> None:
    """Write float32 channels (H, W) by name, compressed without loss, atomically.

    Args:
        path: the file to write.
        channels: such as ``Z``.
        header: more attributes of the header, such as ``comments``.

    Raises:
        MissingDependencyError: the package OpenEXR is not installed.
    """
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            f'{path}: writing OpenEXR needs the package OpenEXR; run: pip install "redepth[exr]"'
        ) from None
    general = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    pixels = {name: np.ascontiguousarray(values, np.float32) for name, values in channels.items()}
    with atomic_path(path) as temporary:
        OpenEXR.File({**general, **header}, pixels).write(str(temporary))


def _headers(path: Path, open_file: Any, max_pixels: int | None) -> tuple[list[_Channel], int]:
    """Return all channels and the number of parts, and check number and size of the channels."""
    channels = []
    try:
        with open_file(str(path), separate_channels=True, header_only=True) as file:
            parts = len(file.parts)
            for index, part in enumerate(file.parts):
                header = part.header
                data, display = (_Window.of(header[f"{kind}Window"]) for kind in ("data", "display"))
                for channel in header["channels"]:
                    inside = part.name() if parts > 1 else ""
                    full = channel.name if "." in channel.name or not inside else f"{inside}.{channel.name}"
                    layer, _, name = full.lower().rpartition(".")
                    channels.append(_Channel(index, channel.name, layer, name, data, display))
    except Exception as error:
        raise damaged(path, error) from None
    for channel in channels:
        for window in (channel.data, channel.display):
            if window.width < 1 or window.height < 1:
                raise InputError(f"{path}: declares {window.width} x {window.height} pixels; copy it again")
            check_pixels(path, window.width, window.height, max_pixels)
    numbers = sum(channel.data.width * channel.data.height for channel in channels)
    check_pixels(path, math.ceil(numbers / _NUMBERS_A_PIXEL), 1, max_pixels)
    return channels, parts


def _of_kind(path: Path, channels: Sequence[_Channel], kind: str | None) -> Sequence[_Channel]:
    """Return the channels without those that are named as the other kind, where there are both.

    Raises:
        InputError: depth is asked for, and there is only disparity.
    """
    other = {"depth": "disparity", "disparity": "depth"}.get(kind or "")
    named = {name: [c for c in channels if name in (c.name, c.layer.rpartition(".")[2])] for name in _KINDS}
    if other is None or not named[other]:
        return channels
    if named[str(kind)]:
        return [channel for channel in channels if channel not in named[other]]
    if other == "disparity":
        raise other_kind(path, other, str(kind))
    return channels


def _choose(path: Path, channels: Sequence[_Channel]) -> tuple[list[_Channel], _Channel | None]:
    """Return the channel that holds the map, or three of a grey picture, and the alpha beside them."""
    layers = _layers(channels)
    for rule in (_only, _named, _of_depth_layer, _scalar_z):
        groups = [found for layer in layers.values() if (found := rule(layer, len(layers)))]
        if groups:
            break
    if len(groups) != 1:
        names = shortened(str(sorted(channel.key for channel in channels)))
        problem = "several could be the map" if groups else "none is named as a map"
        raise InputError(f"{path}: holds the channels {names}, {problem}; name the map's depth, Z or Y")
    group = groups[0]
    return group, layers[group[0].part, group[0].layer].get("a")


def _layers(channels: Sequence[_Channel]) -> dict[tuple[int, str], dict[str, _Channel]]:
    """Return the channels by part and layer, and in each by name."""
    layers: dict[tuple[int, str], dict[str, _Channel]] = {}
    for channel in channels:
        layers.setdefault((channel.part, channel.layer), {})[channel.name] = channel
    return layers


def _only(layer: dict[str, _Channel], layers: int) -> list[_Channel]:
    """Return the only channel of a file, or its only colour."""
    names = set(layer) - {"a"} or set(layer)
    single = layers == 1 and (len(names) == 1 or names == {"r", "g", "b"})
    return [layer[name] for name in sorted(names)] if single else []


def _named(layer: dict[str, _Channel], layers: int) -> list[_Channel]:
    """Return the channel outside all layers that has a name of depth."""
    if next(iter(layer.values())).layer:
        return []
    return _scalar(layer, _DEPTH_CHANNELS)


def _of_depth_layer(layer: dict[str, _Channel], layers: int) -> list[_Channel]:
    """Return what a layer named depth holds, or a channel named depth of any layer."""
    name = next(iter(layer.values())).layer.rpartition(".")[2]
    if name in _DEPTH_LAYERS:
        return _only(layer, 1) or _scalar(layer, _DEPTH_CHANNELS)
    return _scalar(layer, ("depth", "disparity"))


def _scalar_z(layer: dict[str, _Channel], layers: int) -> list[_Channel]:
    """Return the Z of a layer that is no vector; Blender's mist is not depth."""
    mist = next(iter(layer.values())).layer.endswith("mist")
    return [] if mist else _scalar(layer, ("z",))


def _scalar(layer: dict[str, _Channel], names: Sequence[str]) -> list[_Channel]:
    """Return the channel of the first of these names that is not a part of a vector."""
    for name in names:
        vector = name in _VECTORS and all(other in layer for other in _VECTORS[name])
        if name in layer and not vector:
            return [layer[name]]
    return []


def _displayed(path: Path, channel: _Channel, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the data window at the display window, NaN where there are none."""
    data, display = channel.data, channel.display
    if values.shape != (data.height, data.width):
        raise InputError(
            f"{path}: the channel {channel.key} has fewer pixels than the picture; save it again"
        )
    if data == display:
        return values
    shown = np.full((display.height, display.width), np.nan, np.float32)
    top, bottom = max(data.top, display.top), min(data.bottom, display.bottom)
    left, right = max(data.left, display.left), min(data.right, display.right)
    if top < bottom and left < right:
        part = values[top - data.top : bottom - data.top, left - data.left : right - data.left]
        shown[top - display.top : bottom - display.top, left - display.left : right - display.left] = part
    return shown
