"""What is known of the orientation of surfaces: a map of normals, and regions that are planes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from redepth.errors import InputError
from redepth.guidance.channel import Frame
from redepth.literals import NormalsFrame
from redepth.ops import panorama
from redepth.ops.camera import ORTHOGRAPHIC, Camera

LEAST_PIXELS = 6
"""A region of fewer pixels at network size is left out: three of them are a plane in any case."""

TO_REDEPTH = {"redepth": (1.0, 1.0, 1.0), "opengl": (1.0, 1.0, 1.0), "opencv": (1.0, -1.0, -1.0)}
"""Frame of normals -> the signs that turn its axes to x right, y up, z to the viewer."""


@dataclass(frozen=True, eq=False)
class NormalMap:
    """Unit normals of a photo, from a file or another model.

    Attributes:
        normals: (1, 3, h, w), any size and length; 0 or not finite where unknown.
        frame: ``redepth`` and ``opengl``: x right, y up, z to the viewer; ``opencv``: x right, y down, z away
            from the viewer, so that visible surfaces have z < 0. Those of a panorama are in the frame of each
            ray, as `ops.geometry.normals_from_depth` gives them.
        camera: of the photo, which `prepared` sets.
    """

    normals: Tensor
    frame: NormalsFrame = "redepth"
    camera: Camera = ORTHOGRAPHIC

    @property
    def known(self) -> Tensor:
        """(1, 1, h, w) bool."""
        return torch.isfinite(self.normals).all(1, keepdim=True) & (self.normals != 0).any(1, keepdim=True)

    def prepared(self, frame: Frame) -> Self:
        """Return unit normals at network size in redepth's frame, 0 where half a pixel is unknown.

        Raises:
            InputError: other shapes, no known normal, or most normals turned away from the viewer.
        """
        if self.normals.dim() != 4 or self.normals.shape[:2] != (1, 3):
            raise InputError(f"normals must be (1, 3, H, W), got {tuple(self.normals.shape)}")
        height, width = frame.initial.shape[-2:]
        known = self.known
        signs = torch.tensor(TO_REDEPTH[self.frame]).view(1, 3, 1, 1)
        turned = torch.where(known, self.normals.float() * signs, 0.0)
        turned = F.normalize(turned, dim=1)
        away = (turned[:, 2:] < 0) & known
        if not bool(known.any()):
            raise InputError("the normals are unknown everywhere; give another map")
        if int(away.sum()) > 0.5 * int(known.sum()):
            raise InputError(
                f"most normals point away from the viewer in the frame '{self.frame}'; give the right one of "
                "--normals-frame redepth|opengl|opencv"
            )
        share, small = (panorama.fit(x, height, width, frame.camera.margin) for x in (known.float(), turned))
        small = F.normalize(small, dim=1)
        small = torch.where(share >= 0.5, small, 0.0).to(frame.initial)
        return replace(self, normals=small, frame="redepth", camera=frame.camera)


@dataclass(frozen=True)
class Region:
    """The pixels of a plane at network size.

    Attributes:
        pixels: (n,) their indices in the flattened map.
        basis: (n, 3) an orthonormal basis of the affine functions of the picture coordinates.
    """

    pixels: Tensor
    basis: Tensor


@dataclass(frozen=True, eq=False)
class Planes:
    """Regions of a photo each of which is a plane.

    Attributes:
        labels: (h, w) integers: 0 for no plane, every other value is one plane.
        regions: at network size, which `prepared` finds.
        pinhole: whether the photo's camera is one.
    """

    labels: Tensor
    regions: tuple[Region, ...] = ()
    pinhole: bool = False

    def prepared(self, frame: Frame) -> Self:
        """Return the regions at network size.

        Raises:
            InputError: another shape, no region that is large enough, or a spherical camera.
        """
        if self.labels.dim() != 2 or self.labels.is_floating_point():
            raise InputError("planes must be (H, W) integers, 0 for no plane")
        if frame.camera.spherical:
            raise InputError("planes need an orthographic or a pinhole camera, not a panorama")
        height, width = frame.initial.shape[-2:]
        labels = F.interpolate(self.labels[None, None].double(), size=(height, width), mode="nearest-exact")
        labels = labels.flatten().to(frame.initial.device)
        rows = torch.linspace(-1, 1, height, dtype=torch.float64, device=labels.device)
        columns = torch.linspace(-1, 1, width, dtype=torch.float64, device=labels.device)
        y, x = (grid.flatten() for grid in torch.meshgrid(rows, columns, indexing="ij"))
        regions = []
        for label in labels.unique().tolist():
            pixels = (labels == label).nonzero().flatten()
            if label == 0 or len(pixels) < LEAST_PIXELS:
                continue
            affine = torch.stack([torch.ones_like(x[pixels]), x[pixels], y[pixels]], 1)
            basis = torch.linalg.svd(affine, full_matrices=False).U
            regions.append(Region(pixels, basis.to(frame.initial)))
        if not regions:
            raise InputError(f"no plane has {LEAST_PIXELS} pixels at the network's size; mark larger regions")
        return replace(self, regions=tuple(regions), pinhole=frame.camera.pinhole)
