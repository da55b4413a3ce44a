"""Maps as numbers: npy, 16-bit PNG and OpenEXR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from redepth import io
from redepth.exports.source import (
    Array,
    NotWrittenError,
    Source,
    Written,
    frame_of_normals,
    metres_are_known,
)
from redepth.viz import normals_at_size


def write_map(source: Source, folder: Path) -> Written:
    """Write the refined output as the depth model gives it."""
    name = f"{_raw_name(source)}.npy"
    io.save_npy(folder / name, source.map_of("refined"))
    return Written(name, source.meaning, _raw_unit(source))


def write_preview(source: Source, folder: Path) -> Written:
    """Write the refined output as 16-bit grey."""
    name = f"{_raw_name(source)}.png"
    encoding = io.save_disparity_png(folder / name, source.map_of("refined"), kind=source.predicts)
    return Written(name, f"pixel * scale + offset: {source.meaning}", _raw_unit(source), encoding)


def write_initial(source: Source, folder: Path) -> Written:
    """Write the output before the refinement."""
    io.save_npy(folder / "initial.npy", source.map_of("initial"))
    return Written("initial.npy", f"before the refinement: {source.meaning}", _raw_unit(source))


def write_uncertainty(source: Source, folder: Path) -> Written:
    """Write the standard deviation over the members."""
    io.save_npy(folder / "uncertainty.npy", source.map_of("uncertainty"))
    holds = f"standard deviation over the members of the {source.predicts} that the depth model gives"
    return Written("uncertainty.npy", holds, _raw_unit(source))


def write_depth(source: Source, folder: Path) -> Written:
    """Write the depth in metres."""
    metres = _metres(source)
    if not (_raw_is_metres(source) and (folder / "depth.npy").exists()):  # else it is the map, written before
        io.save_npy(folder / "depth.npy", metres)
    return Written("depth.npy", _meaning_of_metres(source), "metres")


def write_depth_exr(source: Source, folder: Path) -> Written:
    """Write the depth in metres as the channel Z of an OpenEXR file."""
    holds = _meaning_of_metres(source)
    io.save_exr(folder / "depth.exr", {"Z": _metres(source)}, {"comments": f"Z: {holds}"})
    return Written("depth.exr", f"channel Z: {holds}", "metres")


def write_normals_exr(source: Source, folder: Path) -> Written:
    """Write the unit normals as the channels X, Y and Z of an OpenEXR file, at the photo's size."""
    height, width = source.photo.shape[:2]
    normals = normals_at_size(source.normals_after, height, width, closed=source.camera.closed)
    holds = f"unit normals of the refined surface, {frame_of_normals(source)}"
    channels = {name: np.ascontiguousarray(normals[..., k]) for k, name in enumerate("XYZ")}
    io.save_exr(folder / "normals.exr", channels, {"comments": holds})
    return Written("normals.exr", holds)


def _raw_name(source: Source) -> str:
    """Return the name of the raw map: ``depth.npy`` is in metres where they are known."""
    writes_metres = metres_are_known(source) and "depth" in source.preset.output.write
    if source.predicts == "depth" and writes_metres and not _raw_is_metres(source):
        return "raw_depth"
    return source.predicts


def _raw_is_metres(source: Source) -> bool:
    """Return whether the raw map is the depth in metres."""
    return source.predicts == "depth" and source.invariance == "metric" and source.metric_fit is None


def _raw_unit(source: Source) -> str:
    if source.invariance == "affine":
        return "affine"
    return "metres" if source.predicts == "depth" else "1 / metres"


def _metres(source: Source) -> Array:
    metres = source.depth_m
    if metres is None:
        raise NotWrittenError("no metres are known: take a metric depth model, or give known points")
    return metres


def _meaning_of_metres(source: Source) -> str:
    if source.camera.spherical:
        return "distance from the camera in metres; larger is farther"
    return "depth along the optical axis in metres; larger is farther"
