"""The paper's renderer, Blinn-Phong shading under random lights, and the Phong model it came from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from redepth.contracts import Illumination, Material
from redepth.errors import ConfigError, MissingDependencyError
from redepth.ops import shading
from redepth.ops.camera import Camera
from redepth.ops.triton import kernels
from redepth.renderers.shaded import ShadedRenderer, check_order

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Glossy(ShadedRenderer):
    """A matte part and a highlight, blended at random.

    Each light: weights (k_d, k_s) two uniforms divided by their sum; exponent 2^k with k a uniform integer in
    {min_log2_shininess, ..., max_log2_shininess}. The other options are `ShadedRenderer`'s.

    Args:
        min_log2_shininess: least k; the highlight's exponent is 2^k, higher is sharper.
        max_log2_shininess: largest k of the highlight's exponent 2^k.
    """

    min_log2_shininess: Annotated[int, Field(ge=0, le=12)] = 2
    max_log2_shininess: Annotated[int, Field(ge=0, le=12)] = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(log2_shininess=(self.min_log2_shininess, self.max_log2_shininess))

    def draw_material(self, size: tuple[int, int], generator: Generator) -> Material:
        """Draw weights and exponent."""
        low, high = self.min_log2_shininess, self.max_log2_shininess
        exponent = torch.randint(low, high + 1, size, generator=generator)
        weights = torch.rand(*size, 2, generator=generator)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-8)
        return Material(diffuse=weights[..., 0], specular=weights[..., 1], shininess=2.0**exponent)

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light reflected by the Blinn-Phong model (`ops.shading.blinn_phong`)."""
        material = illumination.material
        return shading.blinn_phong(
            normals,
            albedo,
            illumination.direction,
            material.diffuse,
            material.specular,
            material.shininess,
            view,
        )


@dataclass(kw_only=True, eq=False)
class Phong(Glossy):
    """Phong shading (`ops.shading.phong`): a highlight around the mirrored light.

    Light is drawn as for `BlinnPhong`, whose highlight is about twice as wide at the same exponent.
    Options: those of `Glossy` and `ShadedRenderer`.
    """

    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the light reflected by the Phong model."""
        material = illumination.material
        return shading.phong(
            normals,
            albedo,
            illumination.direction,
            material.diffuse,
            material.specular,
            material.shininess,
            view,
        )


@dataclass(kw_only=True, eq=False)
class BlinnPhong(Glossy):
    """Blinn-Phong shading (`ops.shading.blinn_phong`), the paper's.

    Each light by default: direction l = normalize(a, b, 1) with a, b uniform in [-1, 1]; weights and exponent
    as `Glossy` draws them. The other options are those of `Glossy` and `ShadedRenderer`.

    Args:
        backend: what computes the shading: ``torch``, ``triton``, or ``auto``, which is triton where it
            can. ``triton``: one fused kernel from depth to relit picture (CUDA; orthographic camera, no
            shadows; the same values within float rounding).

    Source: arXiv 2512.17908 (L = 1, k in {2, ..., 7}).
    """

    backend: Literal["auto", "torch", "triton"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend == "triton" and not self._fusable:
            raise ValueError("backend: triton has neither a pinhole camera nor shadows; use auto or torch")
        self._backend_logged = False

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each backend and why it cannot run here; empty if it can."""
        problem = kernels.TRITON_PROBLEM
        if not problem and not torch.cuda.is_available():
            problem = "needs a CUDA GPU (or TRITON_INTERPRET=1, to test it slowly on the CPU)"
        return {"torch": "", "triton": problem}

    def ensure_available(self) -> None:
        """Raise MissingDependencyError if the chosen backend is not installed, or as the base class."""
        super().ensure_available()
        if self.backend == "triton" and (problem := kernels.TRITON_PROBLEM):
            raise MissingDependencyError(f"renderer.backend=triton: {problem}, or take backend=auto")

    def look_through(self, camera: Camera) -> None:
        """Use this camera for the next photo.

        Raises:
            ConfigError: for a camera that ``backend: triton`` does not have, or as the base class.
        """
        if self.backend == "triton" and camera.kind != "orthographic":
            raise ConfigError(
                f"renderer.backend=triton has no {camera.kind} camera: set renderer.backend=auto or torch"
            )
        super().look_through(camera)

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """Re-light: (B,1,H,W) relative depth, (B|1,3,H,W) linear image -> sRGB (B,L,3,H,W)."""
        if not self._use_triton(depth):
            return super().__call__(depth, image_linear, illumination)
        from redepth.ops.triton.blinn_phong import relight_blinn_phong

        light = self.gain * illumination.tensors.get("color", torch.ones_like(illumination.direction))
        material = illumination.material
        return relight_blinn_phong(
            depth,
            self.albedo_of(image_linear),
            illumination.direction,
            material.diffuse[..., None] * light,
            material.specular[..., None] * light,
            material.shininess,
            self.gain * self.ambient,
        )

    @property
    def _fusable(self) -> bool:
        return self._camera.kind == "orthographic" and self.shadows == "none"

    def _use_triton(self, depth: Tensor) -> bool:
        chosen = self.backend
        if chosen == "auto":
            fusable = depth.is_cuda and self._fusable and not kernels.TRITON_PROBLEM
            chosen = "triton" if fusable else "torch"
            if not self._backend_logged:
                self._backend_logged = True
                log.info("blinn-phong: backend auto takes %s for %s", chosen, depth.device)
        return chosen == "triton"
