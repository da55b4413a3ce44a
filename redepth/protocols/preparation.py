"""The crop that a protocol applies to photo and ground truth before a model sees the photo."""

from __future__ import annotations

from dataclasses import replace

from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.ops.geometry import Camera
from redepth.protocols.schema import Crop, EvaluationProtocol


def sample_label(protocol: EvaluationProtocol, sample: Sample) -> str:
    """Return how error messages name an image and its protocol."""
    return f"{sample.name} (protocol {protocol.name})"


def prepare(protocol: EvaluationProtocol, sample: Sample) -> Sample:
    """Return the sample that a model is given: photo and ground truth cropped as the protocol says.

    Raises:
        InputError: naming image and protocol: the crop does not fit, or the protocol crops and the sizes of
            photo and ground truth differ.
    """
    if protocol.crop is None:
        return sample
    photo = sample.pixels()
    height, width = sample.truth.shape
    if photo.shape[:2] != (height, width):
        problem = f"the photo is {photo.shape[:2]} and its ground truth {(height, width)}"
        raise InputError(f"{sample_label(protocol, sample)}: {problem}: they cannot be cropped alike")
    window = _window(protocol.crop, height, width)
    if window is None:
        wanted = f"{protocol.crop.height} x {protocol.crop.width}"
        problem = f"{height} x {width} is smaller than the crop of {wanted}"
        raise InputError(f"{sample_label(protocol, sample)}: {problem}")
    return replace(
        sample,
        photo=photo[window],
        truth=sample.truth[window],
        mask=None if sample.mask is None else sample.mask[window],
        normals=None if sample.normals is None else sample.normals[window],
        sky=None if sample.sky is None else sample.sky[window],
        camera=None if sample.camera is None else _cropped_camera(sample.camera, window, height, width),
    )


def _window(crop: Crop, height: int, width: int) -> tuple[slice, slice] | None:
    """Return the rows and columns that are kept; None if the picture is smaller than the crop."""
    spare_rows, spare_columns = height - crop.height, width - crop.width
    if min(spare_rows, spare_columns) < 0:
        return None
    # Centres are rounded down, as in KITTI's own crop.
    top = {"top": 0, "centre": spare_rows // 2, "bottom": spare_rows}[crop.vertical]
    left = {"left": 0, "centre": spare_columns // 2, "right": spare_columns}[crop.horizontal]
    return slice(top, top + crop.height), slice(left, left + crop.width)


def _cropped_camera(camera: Camera, window: tuple[slice, slice], height: int, width: int) -> Camera | None:
    if not camera.pinhole:
        # An orthographic camera's unit depends on the picture's height, so the crop has no known camera.
        return None
    fx, fy, cx, cy = camera.normalized_intrinsics(height, width)
    (top, bottom), (left, right) = ((part.start, part.stop) for part in window)
    rows, columns = bottom - top, right - left
    return Camera(
        intrinsics=(
            fx * width / columns,
            fy * height / rows,
            (cx * width - left) / columns,
            (cy * height - top) / rows,
        )
    )
