"""Rasterization by nvdiffrast: CUDA only, fast; NVIDIA Source Code License, for non-commercial use."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from redepth.errors import MissingDependencyError
from redepth.registry import require


def ensure_available() -> None:
    """Raise MissingDependencyError if nvdiffrast or a CUDA GPU is missing."""
    _load()
    if not torch.cuda.is_available():
        raise MissingDependencyError("nvdiffrast needs a CUDA GPU; use rasterizer=pytorch3d")


@dataclass(frozen=True)
class NvdiffrastFragments:
    """The visible triangles of N pictures.

    Attributes:
        raster: (N, H, W, 4), nvdiffrast's output: weights of two corners, depth, triangle.
        vertices: (N * V, 4) clip coordinates, packed, the input of nvdiffrast.
        triangles: (sum of F, 3) int32 indices into them.
    """

    raster: Tensor
    vertices: Tensor
    triangles: Tensor

    @property
    def covered(self) -> Tensor:
        """Whether a pixel has a triangle, (N, 1, H, W) bool."""
        return (self.raster[..., 3] > 0)[:, None]

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Return attributes (N, V, A) of the vertices as pictures (N, A, H, W), 0 in uncovered pixels."""
        packed = attributes.flatten(0, 1).float().contiguous()
        interpolated, _ = _load().interpolate(packed, self.raster, self.triangles)
        return interpolated.movedim(-1, 1)

    def antialias(self, image: Tensor) -> Tensor:
        """Blend (N, C, H, W) across silhouettes, which gives their positions a gradient."""
        pixels = image.float().movedim(1, -1).contiguous()
        blended = _load().antialias(pixels, self.raster, self.vertices, self.triangles)
        return blended.movedim(-1, 1)


def rasterize(clip: Tensor, faces: Sequence[Tensor], height: int, width: int) -> NvdiffrastFragments:
    """Find the nearest triangle through the centre of each pixel.

    A centre exactly on an edge belongs to one of its two triangles: along one side of a cut the pixels stay
    uncovered.

    Args:
        clip: (N, V, 4) clip coordinates (`ops.mesh.clip_space`) on a CUDA device; converted to float32.
        faces: N times (F, 3), with F > 0.
        height: of the pictures, in pixels.
        width: of the pictures.

    Raises:
        MissingDependencyError: if nvdiffrast is not installed, or the device is not CUDA.
    """
    operators = _load()
    if not clip.is_cuda:
        raise MissingDependencyError(
            f"nvdiffrast needs a CUDA device, and this runs on {clip.device}; use rasterizer=pytorch3d"
        )
    # Row 0 of nvdiffrast's pictures is at y = -1, of ours at the top.
    vertices = (clip.float() * clip.new_tensor([1.0, -1.0, 1.0, 1.0]).float()).flatten(0, 1).contiguous()
    triangles = torch.cat([f + i * clip.shape[1] for i, f in enumerate(faces)]).int().contiguous()
    counts = torch.tensor([len(f) for f in faces], dtype=torch.int32)
    # nvdiffrast reads the ranges on the CPU.
    ranges = torch.stack([counts.cumsum(0, dtype=torch.int32) - counts, counts], dim=1).contiguous()
    raster, _ = operators.rasterize(
        _context(clip.device), vertices, triangles, (height, width), ranges=ranges, grad_db=False
    )
    return NvdiffrastFragments(raster, vertices, triangles)


def _load() -> Any:
    try:
        return require("nvdiffrast.torch", "nvdiffrast")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error}; its licence is non-commercial (NVIDIA Source Code License), and it needs a CUDA GPU"
        ) from error


@cache
def _context(device: torch.device) -> Any:
    """Return nvdiffrast's state on a device. Making one is slow; the first on a machine takes minutes."""
    module = _load()
    with _found_once_compiled():
        return module.RasterizeCudaContext(device=device)


@contextmanager
def _found_once_compiled() -> Iterator[None]:
    """Let nvdiffrast find the extension that it compiles.

    It imports by name the extension that torch has just loaded. With a recent pybind11 that is not among
    Python's modules: "No module named 'nvdiffrast_plugin_...'", seen with torch 2.11 and nvdiffrast 0.3.3.1.
    """
    from torch.utils import cpp_extension

    # torch calls this for extensions compiled before and just now.
    loaded = cpp_extension._import_module_from_library

    def registered(name: str, *args: Any, **options: Any) -> Any:
        module = loaded(name, *args, **options)
        sys.modules.setdefault(name, module)
        return module

    with mock.patch.object(cpp_extension, "_import_module_from_library", registered):
        yield
