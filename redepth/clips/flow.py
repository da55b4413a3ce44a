"""Where a frame's pixels were in the frame before: by optical flow, a given flow, or known camera motion."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redepth.clips.lengths import Lengths, fit_length
from redepth.errors import ConfigError, InputError
from redepth.io.poses import check_pose
from redepth.ops.camera import Camera
from redepth.ops.filters import gaussian_blur, resample
from redepth.ops.warp import consistent, reproject, warp, within
from redepth.registry import require

TOLERANCE, TOLERANCE_SHARE = 0.5, 0.002
"""Flow and flow back may miss each other by so many pixels, or by this share of the longer side."""

SMOOTHNESS, ITERATIONS = 60.0, 20
"""Of the flow's variational refinement: three times and four times OpenCV's, against the noise of frames."""

MISMATCH, BLUR = 0.7, 0.02
"""A frame does not follow the last one if their blurred difference is this share of its own contrast."""

SMALLEST = 32
"""The flow needs a side of so many pixels at least."""

STILL_SEEN = 0.5
"""Share of a frame that an earlier one shows, below which a length is no longer looked for from there."""

log = logging.getLogger(__name__)

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class GivenFlow:
    """A flow that the caller computed.

    Attributes:
        back: one (H, W, 2) array per frame but the first, x and y in pixels: what is at pixel p of a frame
            was at ``p + back[p]`` of the frame before. Not finite where that is not known.
    """

    back: Sequence[ArrayLike]


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """Known camera poses of a scene that does not move.

    The camera itself, pinhole or orthographic, is that of the clip.

    Attributes:
        poses: one (4, 4) matrix per frame, camera to world, OpenCV's axes (x right, y down, z forward). In
            metres for a metric depth model.
        scale: length of one unit of relative depth in units of the poses; None: it is found in the pictures.
            Not for metric models.

    Raises:
        InputError: a pose is no rotation and translation.
        ConfigError: the scale is not above 0.
    """

    poses: Sequence[ArrayLike]
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"the scale of camera motion must be a number above 0, got {self.scale}")
        for index, pose in enumerate(self.poses):
            check_pose(f"pose {index}", np.asarray(pose, np.float64))


Motion = Literal["flow", "still"] | GivenFlow | CameraMotion


@dataclass(frozen=True, eq=False)
class Earlier:
    """A frame from which the length of relative depth is looked for.

    Attributes:
        index: in the clip.
        image: (1,3,h,w) its picture.
        answer: (1,1,h,w) its refined raw output.
    """

    index: int
    image: Tensor
    answer: Tensor


@dataclass(frozen=True, eq=False)
class KnownMotion:
    """What is known of a chain whose camera's poses are given.

    Attributes:
        camera: of the clip.
        lengths: from raw outputs to the units of the poses.
        fitted: whether the length of a unit of relative depth is given, or was found already.
        earlier: the frame from which it is looked for; None if it is not, or from the last one.
        warned: whether a warning said already that it is not found.
    """

    camera: Camera
    lengths: Lengths
    fitted: bool
    earlier: Earlier | None = None
    warned: bool = False


@dataclass(frozen=True)
class Track:
    """The way of a frame's pixels to the frame before.

    Attributes:
        back: (1, 2, H, W) x and y in pixels of the map: what is at pixel p was at ``p + back(p)``.
        valid: (1, 1, H, W) bool, where the last frame shows the same.
        change: (1, 1, H, W) what the camera's motion adds to the depth; None: nothing.
        lengths: of that depth; None without a change.
    """

    back: Tensor
    valid: Tensor
    change: Tensor | None = None
    lengths: Lengths | None = None

    def carry(self, raw: Tensor) -> Tensor:
        """Return the last frame's raw output, (1, 1, H, W), as this frame should have it."""
        carried = warp(raw, self.back)
        if self.change is None or self.lengths is None:
            return carried
        return self.lengths.raw(self.lengths.depth(carried) + self.change)


class Tracker(Protocol):
    """Finds the last frame's pixels again."""

    def track(self, index: int, last: Tensor, image: Tensor, answer: Tensor) -> Track:
        """Return the track of a frame.

        Args:
            index: of the frame, at least 1.
            last: (1, 3, H, W) the frame before, sRGB, at the size of the maps.
            image: (1, 3, H, W) the frame.
            answer: (1, 1, H, W) the last frame's answer, raw output.
        """
        ...


class OpticalFlow:
    """Dense inverse search of OpenCV, forth and back; a pixel counts where both agree.

    Raises:
        MissingDependencyError: without OpenCV.

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search, arXiv 1603.03590.
    """

    def __init__(self) -> None:
        self._cv2 = require("cv2", "video")

    def track(self, index: int, last: Tensor, image: Tensor, answer: Tensor) -> Track:
        """Estimate the flow. Raises InputError for pictures that are too small."""
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise InputError(
                f"optical flow needs {SMALLEST} pixels along each side, the maps have {width} x {height}: "
                "set depth_model.longer_side higher, or give the motion"
            )
        now, before = (_grey(picture) for picture in (image, last))
        back, forth = self._flow(now, before), self._flow(before, now)
        tolerance = max(TOLERANCE, TOLERANCE_SHARE * max(height, width))
        return Track(back, consistent(back, forth, tolerance))

    def _flow(self, start: NDArray[np.uint8], end: NDArray[np.uint8]) -> Tensor:
        search: Any = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setVariationalRefinementAlpha(SMOOTHNESS)
        search.setVariationalRefinementIterations(ITERATIONS)
        return torch.from_numpy(search.calc(start, end, None)).permute(2, 0, 1)[None].contiguous()


def _grey(image: Tensor) -> NDArray[np.uint8]:
    luma = (image[0] * image.new_tensor(_LUMA).view(3, 1, 1)).sum(dim=0)
    return (255 * luma.clamp(0, 1)).round().to(torch.uint8).numpy()


class StandStill:
    """Nothing moves: every pixel stays where it was."""

    def track(self, index: int, last: Tensor, image: Tensor, answer: Tensor) -> Track:
        """Return no motion."""
        height, width = image.shape[-2:]
        return Track(image.new_zeros(1, 2, height, width), torch.ones(1, 1, height, width, dtype=torch.bool))


class KnownFlow:
    """The caller's flow, resized to the maps."""

    def __init__(self, given: GivenFlow) -> None:
        self._back = given.back

    def track(self, index: int, last: Tensor, image: Tensor, answer: Tensor) -> Track:
        """Return the flow of a frame. Raises InputError where it is missing or has another shape."""
        if index > len(self._back):
            raise InputError(
                f"frame {index} has no flow: {len(self._back)} were given; one per frame but the first"
            )
        flow = torch.as_tensor(self._back[index - 1], dtype=torch.float32)
        if flow.dim() != 3 or flow.shape[-1] != 2:
            raise InputError(f"the flow of frame {index} must be (H, W, 2), got {tuple(flow.shape)}")
        height, width = image.shape[-2:]
        factors = flow.new_tensor([width / flow.shape[1], height / flow.shape[0]]).view(1, 2, 1, 1)
        known = torch.isfinite(flow).all(dim=-1)[None, None]
        filled = torch.where(torch.isfinite(flow), flow, 0.0).permute(2, 0, 1)[None]
        back = resample(filled, height, width) * factors
        valid = resample(known.float(), height, width) > 0.99
        return Track(back, valid & within(back))


class KnownCamera:
    """The motion that the camera's poses give each point of the last frame's surface."""

    def __init__(self, given: CameraMotion, camera: Camera, lengths: Lengths) -> None:
        if camera.spherical:
            raise ConfigError("known camera motion needs a pinhole or an orthographic camera")
        self._poses = [torch.as_tensor(np.asarray(pose, np.float64)) for pose in given.poses]
        if lengths.metric and given.scale is not None:
            raise ConfigError("the scale of camera motion is for relative depth; this model's is metric")
        self._camera, self._lengths = camera, lengths
        self._known = lengths.metric or given.scale is not None
        self._earlier: Earlier | None = None
        self._warned = False
        if given.scale is not None:
            self._lengths = lengths.of(given.scale)

    @classmethod
    def resumed(cls, given: CameraMotion, known: KnownMotion) -> KnownCamera:
        """Return the tracker of a former run."""
        tracker = cls(given, known.camera, known.lengths)
        tracker._lengths, tracker._known = known.lengths, known.fitted
        tracker._earlier, tracker._warned = known.earlier, known.warned
        return tracker

    @property
    def known(self) -> KnownMotion:
        """What is known of the chain so far."""
        return KnownMotion(self._camera, self._lengths, self._known, self._earlier, self._warned)

    def track(self, index: int, last: Tensor, image: Tensor, answer: Tensor) -> Track:
        """Return the track of a frame. Raises InputError for a missing pose."""
        if index >= len(self._poses):
            raise InputError(f"frame {index} has no pose: {len(self._poses)} were given")
        motion = torch.linalg.inv(self._poses[index]) @ self._poses[index - 1]
        camera = self._camera.of_picture(*image.shape[-2:])
        if not self._known:
            self._fit(index, last, image, answer, camera)
        seen = reproject(self._lengths.depth(answer), camera, motion)
        return Track(seen.back, seen.valid, seen.change, self._lengths)

    def _fit(self, index: int, last: Tensor, image: Tensor, answer: Tensor, camera: Camera) -> None:
        """Look for the length of a unit of relative depth, until the way from an earlier frame is enough.

        Meanwhile the best length so far holds: it explains the pictures as well as any.
        """
        earlier = self._earlier or Earlier(index - 1, last, answer)
        motion = torch.linalg.inv(self._poses[index]) @ self._poses[earlier.index]
        fit = fit_length(self._lengths, earlier.image, image, earlier.answer, camera, motion)
        self._lengths, self._known = fit.lengths, fit.found
        lost = fit.ended or fit.seen < STILL_SEEN
        self._earlier = None if fit.found or lost else earlier
        if lost and not fit.found and not self._warned:
            self._warned = True
            log.warning(
                "frame %d: pictures and poses give no length of a unit of relative depth, so the motion may "
                "be wrong; check the poses, or give the length as scale",
                index,
            )


def mismatch(track: Track, last: Tensor, image: Tensor) -> float:
    """Return the mean difference of a frame and the carried last one, over the frame's mean contrast.

    Both of blurred pictures over the valid pixels; infinite if there are none, 0 for a picture without
    contrast that did not change.
    """
    if not bool(track.valid.any()):
        return float("inf")
    sigma = max(1.0, BLUR * min(image.shape[-2:]))
    now, before = gaussian_blur(image, sigma), warp(gaussian_blur(last, sigma), track.back)
    valid = track.valid.expand_as(now)
    middle = now.mean(dim=(2, 3), keepdim=True)
    contrast = float((now - middle).abs()[valid].mean())
    return float((now - before).abs()[valid].mean()) / max(contrast, 1 / 255)
