"""A sample made ready for a protocol: its arrays fit together, and photo and ground truth are cropped."""

from __future__ import annotations

from dataclasses import replace

from redepth.data.datasets import Sample
from redepth.errors import InputError
from redepth.ops.camera import Camera
from redepth.protocols.schema import Crop, EvaluationProtocol
from redepth.protocols.truth import known_truth, sample_label


def prepare(protocol: EvaluationProtocol, sample: Sample) -> Sample:
    """Return the sample that a model is given: photo and ground truth cropped as the protocol says.

    The photo is decoded. Its ground truth may be smaller or larger, but must have its shape.

    Raises:
        InputError: naming image and protocol: photo, ground truth, mask, normals or sky do not fit together,
            the crop does not fit, or the protocol's range is in metres and the truth's unit is unknown.
    """
    if not hasattr(sample.photo, "shape"):
        sample = replace(sample, photo=sample.pixels())
    _check_shapes(protocol, sample)
    if protocol.crop is not None:
        sample = _cropped(protocol.crop, protocol, sample)
    known_truth(protocol, sample)
    return sample


def _check_shapes(protocol: EvaluationProtocol, sample: Sample) -> None:
    photo, truth = sample.pixels().shape[:2], sample.truth.shape
    label = sample_label(protocol, sample)
    if protocol.crop is not None and photo != truth:
        problem = f"the photo is {_shown(photo)} and its ground truth {_shown(truth)}"
        raise InputError(f"{label}: {problem} pixels: they cannot be cropped alike")
    if not _same_shape(photo, truth):
        raise InputError(
            f"{label}: the ground truth is {_shown(truth)} pixels and the photo, as it is shown, "
            f"{_shown(photo)}: they must have one shape; turn or crop the ground truth like the photo"
        )
    arrays = {"mask": sample.mask, "normals": sample.normals, "sky": sample.sky, "albedo": sample.albedo}
    for what, array in arrays.items():
        if array is not None and array.shape[:2] != truth:
            problem = f"the {what} is {_shown(array.shape)} pixels and the ground truth {_shown(truth)}"
            raise InputError(f"{label}: {problem}: they must be one size")


def _same_shape(photo: tuple[int, ...], truth: tuple[int, ...]) -> bool:
    """Return whether a truth (H, W) is the photo at some scale, its sides rounded to pixels."""
    if len(truth) != 2:
        return False
    (height, width), (rows, columns) = photo, truth
    return abs(rows - columns * height / width) < 1 or abs(columns - rows * width / height) < 1


def _shown(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]}" if len(size) >= 2 else str(tuple(size))


def _cropped(crop: Crop, protocol: EvaluationProtocol, sample: Sample) -> Sample:
    photo = sample.pixels()
    height, width = sample.truth.shape
    window = _window(crop, height, width)
    if window is None:
        problem = f"{height} x {width} is smaller than the crop of {crop.height} x {crop.width}"
        raise InputError(f"{sample_label(protocol, sample)}: {problem}")
    return replace(
        sample,
        photo=photo[window],
        truth=sample.truth[window],
        mask=None if sample.mask is None else sample.mask[window],
        normals=None if sample.normals is None else sample.normals[window],
        sky=None if sample.sky is None else sample.sky[window],
        no_hit=None if sample.no_hit is None else sample.no_hit[window],
        albedo=None if sample.albedo is None else sample.albedo[window],
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
