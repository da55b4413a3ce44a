"""What a protocol does to a prediction: crop, resize, align, measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from redepth.contracts import Invariance, Predicts
from redepth.data.datasets import Sample
from redepth.errors import ConfigError, InputError
from redepth.metrics import (
    align,
    boundary_metrics,
    depth_means,
    has_edges,
    metrics_of,
    normal_metrics,
    pooled,
)
from redepth.ops.geometry import Camera, normals_from_depth, resize

if TYPE_CHECKING:
    from redepth.protocols.record import Crop, Protocol, Region

# What a prediction that is known up to scale and shift allows.
_AFFINE = {
    "disparity": ("affine-disparity", "affine-disparity-then-depth"),
    "depth": ("affine-depth", "affine-disparity-then-depth"),
}


@dataclass(frozen=True)
class ImageMetrics:
    """The result of one image, as plain numbers.

    Attributes:
        image: its name.
        protocol: name of the protocol.
        protocol_sha256: its `Protocol.sha256`; rows of two hashes are not comparable.
        metrics: name -> value.
        means: what `redepth.metrics.metrics_of` makes metrics of, so that images can be pooled by pixel.
        pixels: how many were measured.
        clipped: share of them whose aligned depth had to be clipped.
        alignment: scales and shifts that were fitted.
        height: of the picture that was measured.
        width: likewise.
        unit: of ``rmse`` and ``sq_rel``.
    """

    image: str
    protocol: str
    protocol_sha256: str
    metrics: dict[str, float]
    means: dict[str, float]
    pixels: int
    clipped: float
    alignment: dict[str, float]
    height: int
    width: int
    unit: str

    def record(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ImageMetrics:
        """Read a row back.

        Raises:
            InputError: if a field is missing.
        """
        names = [field.name for field in fields(cls)]
        lacking = [name for name in names if name not in record]
        if lacking:
            raise InputError(f"not a result row: it has no {', '.join(lacking)}")
        return cls(**{name: record[name] for name in names})


@dataclass(frozen=True)
class Measurement:
    """A row with the arrays that it was measured on, for pictures; float64, the row's height and width.

    Attributes:
        row: the numbers.
        depth: (H, W) aligned and clipped.
        truth: (H, W) true depth, 0 where unknown.
        mask: (H, W) bool, what was measured.
    """

    row: ImageMetrics
    depth: Tensor
    truth: Tensor
    mask: Tensor


def _about(protocol: Protocol, sample: Sample) -> str:
    return f"{sample.name} (protocol {protocol.name})"


# --- before the prediction ------------------------------------------------------------------------


def prepare(protocol: Protocol, sample: Sample) -> Sample:
    """Crop a sample; see `Protocol.prepare`."""
    if protocol.crop is None:
        return sample
    photo = sample.pixels()
    height, width = sample.truth.shape
    if photo.shape[:2] != (height, width):
        problem = f"the photo is {photo.shape[:2]} and its ground truth {(height, width)}"
        raise InputError(f"{_about(protocol, sample)}: {problem}: they cannot be cropped alike")
    window = _window(protocol.crop, height, width)
    if window is None:
        wanted = f"{protocol.crop.height} x {protocol.crop.width}"
        problem = f"{height} x {width} is smaller than the crop of {wanted}"
        raise InputError(f"{_about(protocol, sample)}: {problem}")
    return replace(
        sample,
        photo=photo[window],
        truth=sample.truth[window],
        mask=None if sample.mask is None else sample.mask[window],
        normals=None if sample.normals is None else sample.normals[window],
        sky=None if sample.sky is None else sample.sky[window],
        camera=sample.camera and _cropped_camera(sample.camera, window, height, width),
    )


def _window(crop: Crop, height: int, width: int) -> tuple[slice, slice] | None:
    spare = height - crop.height, width - crop.width
    if min(spare) < 0:
        return None
    # Rounded down, as KITTI's own crop is.
    starts = {"top": 0, "left": 0, "bottom": spare[0], "right": spare[1]}
    top = starts.get(crop.vertical, spare[0] // 2)
    left = starts.get(crop.horizontal, spare[1] // 2)
    return slice(top, top + crop.height), slice(left, left + crop.width)


def _cropped_camera(camera: Camera, window: tuple[slice, slice], height: int, width: int) -> Camera | None:
    if not camera.pinhole:
        # What an orthographic camera's unit is depends on the picture's height: it is another camera now.
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


# --- after the prediction -------------------------------------------------------------------------


def measure(
    protocol: Protocol, raw: ArrayLike | Tensor, sample: Sample, predicts: Predicts, invariance: Invariance
) -> Measurement:
    """Measure a prediction; see `Protocol.measure`."""
    name = _about(protocol, sample)
    method = protocol.alignment.disparity if predicts == "disparity" else protocol.alignment.depth
    if invariance == "affine" and method not in _AFFINE[predicts]:
        raise InputError(
            f"{name}: the prediction is {predicts} up to scale and shift, which the alignment '{method}' "
            f"cannot find; use {' or '.join(_AFFINE[predicts])}, or a metric model"
        )
    _check_sample(protocol, sample, name)
    values = _as_map(raw, name)
    prediction, truth = _at_one_size(protocol, values, sample.depth())
    mask = _measured(protocol, truth)
    limited = protocol.alignment.clip == "range"
    aligned = align(
        prediction,
        truth,
        mask,
        method,
        predicts=predicts,
        near=protocol.range.near if limited else None,
        far=protocol.range.far if limited else None,
        trim=protocol.alignment.trim,
        names=[name],
    )
    means = depth_means(aligned.depth, truth, mask, names=[name])
    metrics = metrics_of(means, silog_lambda=protocol.silog_lambda)
    metrics |= _extras(protocol, sample, aligned.depth, truth, mask, name)
    row = ImageMetrics(
        image=sample.name,
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        metrics=_numbers(metrics),
        means=_numbers(means),
        pixels=int(means["pixels"]),
        clipped=float(aligned.clipped),
        alignment=_numbers(aligned.parameters),
        height=truth.shape[0],
        width=truth.shape[1],
        unit=sample.unit,
    )
    return Measurement(row, aligned.depth, truth, mask)


def _check_sample(protocol: Protocol, sample: Sample, name: str) -> None:
    size = sample.truth.shape
    if sample.mask is not None and sample.mask.shape != size:
        raise InputError(f"{name}: the mask is {sample.mask.shape} and the ground truth {size}")
    crop = protocol.crop
    if crop is not None and size != (crop.height, crop.width):
        raise InputError(
            f"{name}: the ground truth is {size[0]} x {size[1]} and the crop {crop.height} x {crop.width}; "
            "give the sample that Protocol.prepare returns, and a prediction for its photo"
        )


def _as_map(raw: ArrayLike | Tensor, name: str) -> Tensor:
    values = raw.detach().cpu() if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw))
    if values.dim() != 2 or values.numel() == 0:
        raise InputError(f"{name}: a prediction must be (H, W), got {tuple(values.shape)}")
    return values.double()


def _at_one_size(protocol: Protocol, raw: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    resolution = protocol.resolution
    if resolution == "truth":
        height, width = truth.shape
    elif resolution == "prediction":
        height, width = raw.shape
    else:
        height, width = resolution.height, resolution.width
    corners = protocol.interpolation == "bilinear-corners"
    prediction = resize(raw[None, None], height, width, align_corners=corners)[0, 0]
    return prediction, _nearest(truth, height, width)


def _nearest(values: Tensor, height: int, width: int) -> Tensor:
    """Sample (H, W) at another size; between known and unknown depth there is nothing to interpolate."""
    if values.shape == (height, width):
        return values
    return F.interpolate(values[None, None], size=(height, width), mode="nearest")[0, 0]


def _measured(protocol: Protocol, truth: Tensor) -> Tensor:
    """Return where the truth is known, in range and in the region."""
    near, far = protocol.range.near, protocol.range.far
    mask = truth > (near or 0.0)
    if far is not None:
        mask &= truth < far
    if protocol.region is not None:
        mask &= _inside(protocol.region, *truth.shape)
    return mask


def _inside(region: Region, height: int, width: int) -> Tensor:
    rows, columns = (height, width) if region.unit == "fraction" else (1, 1)
    top, bottom = int(region.top * rows), int(region.bottom * rows)
    left, right = int(region.left * columns), int(region.right * columns)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


def _extras(
    protocol: Protocol, sample: Sample, depth: Tensor, truth: Tensor, mask: Tensor, name: str
) -> dict[str, Tensor]:
    """Measure boundaries and normals where the protocol asks for them and the image has them."""
    found: dict[str, Tensor] = {}
    if "boundaries" in protocol.measures and has_edges(truth, mask):
        found |= boundary_metrics(depth, truth, mask, names=[name])
    if "normals" in protocol.measures and sample.normals is not None and sample.camera is not None:
        predicted = normals_from_depth(depth[None, None], sample.camera)[0]
        true = torch.from_numpy(np.ascontiguousarray(sample.normals)).permute(2, 0, 1).double()
        true = torch.stack([_nearest(part, *depth.shape) for part in true])
        if bool((mask & torch.isfinite(true).all(0) & (true != 0).any(0)).any()):
            found |= normal_metrics(predicted, true, mask, names=[name])
    return found


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


# --- over a data set ------------------------------------------------------------------------------


def average(protocol: Protocol, rows: Sequence[ImageMetrics]) -> dict[str, float]:
    """Average rows; see `Protocol.average`."""
    if not rows:
        raise InputError(f"no result under protocol {protocol.name} to average")
    others = sorted({row.protocol for row in rows if row.protocol_sha256 != protocol.sha256})
    if others:
        raise ConfigError(
            f"rows of another protocol ({', '.join(others)}) cannot be averaged under {protocol.name} "
            f"{protocol.sha256[:12]}"
        )
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    values = {name: [row.metrics[name] for row in rows if name in row.metrics] for name in names}
    result = {name: math.fsum(found) / len(found) for name, found in values.items()}
    if protocol.averaging == "pixel":
        means = {name: torch.tensor([row.means[name] for row in rows]).double() for name in rows[0].means}
        result |= _numbers(metrics_of(pooled(means), silog_lambda=protocol.silog_lambda))
    return result
