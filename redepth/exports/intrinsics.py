"""The camera of the photo: as a file that ``--intrinsics`` reads, and in the run record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redepth import io
from redepth.exports.source import NotWrittenError, Source, Written
from redepth.ops.camera import Camera


def write_intrinsics(source: Source, folder: Path) -> Written:
    """Write the pinhole's focal lengths and principal point in pixels of the photo."""
    camera = source.camera
    if not camera.pinhole:
        raise NotWrittenError(f"the camera is {camera.kind}: only a pinhole has intrinsics; give --fov")
    height, width = source.photo.shape[:2]
    values = camera.intrinsics_in_pixels(height, width)
    angles = camera.field_of_view_degrees(height, width) or (None, None)
    content = {
        "kind": camera.kind,
        "width": width,
        "height": height,
        **dict(zip(("fx", "fy", "cx", "cy"), values, strict=True)),
        "pixel_centres": "half",
        "field_of_view_degrees": dict(zip(("horizontal", "vertical"), angles, strict=True)),
        "convention": "in pixels of the photo; x right, y down; the centre of the top left pixel is "
        "(0.5, 0.5); no lens distortion",
        "from": source.camera_origin,
    }
    io.save_json(folder / "intrinsics.json", content)
    return Written("intrinsics.json", "the pinhole camera of the photo, in pixels")


def camera_record(camera: Camera, origin: str, height: int, width: int) -> dict[str, Any]:
    """Return a camera for the run record, in degrees and in pixels of the photo.

    Args:
        camera: of the photo.
        origin: where the camera is from.
        height: of the photo, whose top left pixel has its centre at (0.5, 0.5).
        width: of the photo.
    """
    angles = camera.field_of_view_degrees(height, width)
    record: dict[str, Any] = {"kind": camera.kind, "fov": None, "intrinsics": None, "from": origin}
    if angles is not None:
        record["fov"] = dict(zip(("horizontal", "vertical"), angles, strict=True))
    if camera.pinhole:
        values = camera.intrinsics_in_pixels(height, width)
        record["intrinsics"] = dict(zip(("fx", "fy", "cx", "cy"), values, strict=True))
    return record
