"""The base class of the shading renderers: light, camera, shadows, exposure and albedo."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Generator, Tensor
from typing_extensions import Self

from redepth.contracts import Illumination, Material
from redepth.errors import ConfigError
from redepth.literals import RENAMED_OPTIONS, AlbedoName
from redepth.ops import geometry, shading
from redepth.ops.camera import Camera
from redepth.ops.shadows import soft_shadows
from redepth.renderers.albedo import AlbedoSource
from redepth.renderers.intrinsics import APPEARANCE, MarigoldIntrinsics

LightDistribution = Literal["paper", "cosine", "uniform"]

DEFAULT_FIELD_OF_VIEW = 55.0
"""Degrees, of an unknown pinhole: a phone's main camera has about 65, a 50 mm lens on full frame 40."""

SHORTEST_FOCAL = 1e-3
"""Least focal length, in units of the picture's side."""


@dataclass(kw_only=True, eq=False)
class ShadedRenderer(ABC):
    r"""Relight the surface of a depth map with a shading model.

    .. math:: I = \mathrm{develop}\big(2^{e} (V \, c \, R(n, l, v, a) + k_a a)\big)

    with the model's reflected light R, the visibility V of the light (shadows), its colour c, the ambient
    share k_a, exposure e and the albedo a. The paper takes the photo's linear colours for a, so the photo's
    own light stays in the picture. An estimate or a file has only what the surface reflects; it is taken in
    its own scale: light of strength 1 gives the picture of that surface. A folder has one file per photo, of
    the photo's name.

    Args:
        lights: L, the number of lights per image and step; their losses are averaged, which lowers the
            variance of the gradient.
        light_distribution: how the light's direction is drawn. ``paper``: normalize(x, y, 1) with x, y
            uniform in [-1, 1]. ``cosine``: density proportional to the cosine to the viewing direction.
            ``uniform``: uniform on the hemisphere above ``min_elevation``.
        min_elevation: least angle of the light above the image plane, in degrees, for ``uniform``.
        light_saturation: s, how colourful lights are; 0: white. Each channel of the colour c is
            1 - s * uniform(0, 1), then the brightest one is scaled to 1.
        ambient: k_a, the share of the albedo that is added unshaded.
        exposure: e, the exposure in stops: the picture is 2^e times as bright.
        shadows: whether the surface casts shadows: ``soft`` ones (`ops.shadows.soft_shadows`), at their
            cost, or ``none``.
        shadow_samples: number of positions that are tested for shadow along the way to the light.
        shadow_reach: how far along the way to the light shadow is looked for, in half picture heights
            (orthographic) or in parts of the point's depth (pinhole).
        shadow_softness: width of a shadow's soft edge.
        camera: the camera that sees the surface: ``orthographic`` (the paper's) or ``pinhole``.
        field_of_view: horizontal, of the pinhole, in degrees; 55 if neither it nor intrinsics are given.
        intrinsics: fx, fy, cx, cy of the pinhole, in units of the picture's width (x) and height (y).
        albedo: a, what is lit: ``photo`` (the paper's), ``grey``, ``marigold-intrinsics`` (an estimate), or a
            file or folder of albedos: pictures (sRGB), or npy, pfm, exr (linear).
        grey: albedo of the grey surface, linear.
        albedo_checkpoint: hub id or local folder of a diffusers ``MarigoldIntrinsicsPipeline``.
        albedo_revision: commit, tag or branch of its hub repository.
        albedo_steps: number of its diffusion steps; None is the checkpoint's default.
        albedo_ensemble: number of its estimates, of which the median is taken; of an even number, the lower
            one of the two in the middle.
    """

    renamed_options: ClassVar[Mapping[str, str]] = RENAMED_OPTIONS["renderer"]
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {
        "relight": {"composite": "photo", "shading-only": "grey"}
    }

    lights: Annotated[int, Field(ge=1, le=64)] = 1
    light_distribution: LightDistribution = "paper"
    min_elevation: Annotated[float, Field(ge=0, lt=90)] = 10.0
    light_saturation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ambient: Annotated[float, Field(ge=0, le=1)] = 0.0
    exposure: Annotated[float, Field(ge=-8, le=8)] = 0.0
    shadows: Literal["none", "soft"] = "none"
    shadow_samples: Annotated[int, Field(ge=1, le=256)] = 24
    shadow_reach: Annotated[float, Field(ge=1e-6, le=4)] = 0.5
    shadow_softness: Annotated[float, Field(ge=1e-6, le=2)] = 0.1
    camera: Literal["orthographic", "pinhole"] = "orthographic"
    field_of_view: Annotated[float, Field(ge=1e-3, le=179)] | None = None
    intrinsics: (
        Annotated[list[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(min_length=4, max_length=4)] | None
    ) = None
    albedo: AlbedoName | str = "photo"
    grey: Annotated[float, Field(ge=1e-6, le=1)] = 0.5
    albedo_checkpoint: str = APPEARANCE
    albedo_revision: str | None = None
    albedo_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    albedo_ensemble: Annotated[int, Field(ge=1, le=100)] = 1

    def __post_init__(self) -> None:
        if not self.albedo:
            raise ValueError("albedo is empty: give a name, a file or a folder")
        known = self.field_of_view is not None or self.intrinsics is not None
        if known and self.camera == "orthographic":
            raise ValueError("field_of_view and intrinsics need camera: pinhole; it is orthographic")
        if self.intrinsics is not None and min(self.intrinsics[:2]) < SHORTEST_FOCAL:
            raise ValueError(
                f"intrinsics must start with focal lengths fx and fy of {SHORTEST_FOCAL} or more"
            )
        field_of_view = self.field_of_view
        if self.camera == "pinhole" and not known:
            field_of_view = DEFAULT_FIELD_OF_VIEW
        intrinsics = None if self.intrinsics is None else tuple(self.intrinsics)
        self._own_camera = self._camera = Camera(field_of_view, intrinsics)
        estimate = MarigoldIntrinsics(
            self.albedo_checkpoint, self.albedo_revision, self.albedo_steps, self.albedo_ensemble
        )
        self._albedo = AlbedoSource(self.albedo, self.grey, estimate)

    def ensure_available(self) -> None:
        """Raise InputError if the albedo's file is missing, WeightsError if its weights are unavailable."""
        self._albedo.ensure_available()

    def load(self, device: torch.device) -> Self:
        """Load what estimates the albedo, if anything does, on the CPU: it is on the device while it works.

        Raises:
            WeightsError: missing, unreachable, corrupted or of another class.
        """
        self._albedo.load()
        return self

    def next_photo(self, source: Path | None) -> None:
        """Set the file of the next photo; None if it has none. Raises InputError: it has no albedo."""
        self._albedo.next_photo(source)

    def check_albedo(self, source: Path | None, height: int, width: int, photos: int = 1) -> None:
        """Check the file of a photo's albedo; see `redepth.contracts.LightsAlbedo`. Raises InputError."""
        self._albedo.check(source, height, width, photos)

    def take_albedo(self, values: NDArray[Any] | None) -> None:
        """Set the next photo's albedo, (h, w, 3) or (h, w): floats are linear, uint8 is sRGB.

        Raises:
            InputError: it is neither in a file nor given, or both, or no albedo.
        """
        self._albedo.take(values)

    def find_albedo(self, photo: Tensor, image: Tensor, margin: float, seed: int) -> Tensor | None:
        """Find a photo's albedo and light it from now on; see `redepth.contracts.LightsAlbedo`."""
        return self._albedo.find(photo, image, margin, seed)

    def describe(self) -> dict[str, Any]:
        """Return where the last photo's albedo is from, for the run record."""
        return self._albedo.describe()

    @property
    def own_camera(self) -> Camera:
        """The camera of the options."""
        return self._own_camera

    def look_through(self, camera: Camera) -> None:
        """Use this camera for the next photo, in place of that of the options.

        Raises:
            ConfigError: for a spherical camera and shadows.
        """
        if camera.spherical and self.shadows != "none":
            raise ConfigError("a panorama cannot be refined with shadows: set renderer.shadows=none")
        self._camera = camera

    def draw(self, batch: int, generator: Generator) -> Illumination:
        """Draw direction and material of ``batch`` members, and ``color`` (batch, L, 3) of coloured light."""
        size = (batch, self.lights)
        direction = draw_directions(self.light_distribution, self.min_elevation, size, generator)
        material = self.draw_material(size, generator)
        if not self.light_saturation:
            return Illumination.of(direction, material)
        return Illumination.of(direction, material, color=draw_colors(self.light_saturation, size, generator))

    def draw_material(self, size: tuple[int, int], generator: Generator) -> Material | None:
        """Draw the material under each light, tensors of this size; by default none: a matte surface."""
        return None

    @abstractmethod
    def reflect(self, normals: Tensor, view: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Return the model's reflected light, (B, L, 3, H, W) linear, under white light."""

    def __call__(self, depth: Tensor, image_linear: Tensor, illumination: Illumination) -> Tensor:
        """Re-light: (B,1,H,W) relative depth, (B|1,3,H,W) linear image -> sRGB (B,L,3,H,W)."""
        normals = geometry.normals_from_depth(depth, self._camera)
        view = self._camera.view(*depth.shape[-2:], like=depth)
        albedo = self.albedo_of(image_linear)
        reflected = self.reflect(normals, view, albedo, illumination)
        if self.shadows == "soft":
            reflected = reflected * self.visibility(depth, illumination)[:, :, None]
        return self.expose(reflected, albedo, illumination)

    def albedo_of(self, image_linear: Tensor) -> Tensor:
        """Return what is lit in place of the photo's linear colours, (B or 1, 3, H, W).

        Raises:
            InputError: it is a file's or an estimate, and `find_albedo` did not find it for this photo.
        """
        return self._albedo.of(image_linear)

    def visibility(self, depth: Tensor, illumination: Illumination) -> Tensor:
        """Return the share of each light that reaches each pixel, (B, L, H, W)."""
        return soft_shadows(
            depth,
            illumination.direction,
            camera=self._camera,
            samples=self.shadow_samples,
            reach=self.shadow_reach,
            softness=self.shadow_softness,
        )

    def expose(self, reflected: Tensor, albedo: Tensor, illumination: Illumination) -> Tensor:
        """Colour the reflected light, add the ambient share, expose and develop to sRGB."""
        if "color" in illumination.tensors:
            reflected = reflected * illumination["color"][..., None, None]
        if self.ambient:
            reflected = reflected + self.ambient * albedo[:, None]
        return shading.develop(reflected * self.gain if self.exposure else reflected)

    @property
    def gain(self) -> float:
        """The exposure as a factor."""
        return float(2.0**self.exposure)


def draw_directions(
    distribution: LightDistribution, min_elevation: float, size: tuple[int, int], generator: Generator
) -> Tensor:
    """Draw unit vectors towards lights in front of the surface, (*size, 3)."""
    pair = torch.rand(*size, 2, generator=generator)
    # Both distributions are symmetric. The signs of x and y are chosen so that a seed gives the light that
    # earlier versions, whose frame had x to the left and y down, gave for it.
    if distribution == "paper":
        return shading.normalize(torch.cat([1 - pair * 2, torch.ones(*size, 1)], dim=-1))
    if distribution == "cosine":
        height = pair[..., 0].sqrt()
    else:
        lowest = math.sin(math.radians(min_elevation))
        height = lowest + (1 - lowest) * pair[..., 0]
    radius, azimuth = (1 - height**2).clamp(min=0).sqrt(), 2 * math.pi * pair[..., 1]
    return torch.stack([-radius * azimuth.cos(), -radius * azimuth.sin(), height], dim=-1)


def draw_colors(saturation: float, size: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw colours of light whose brightest channel is 1, (*size, 3)."""
    color = 1 - saturation * torch.rand(*size, 3, generator=generator)
    return color / color.amax(dim=-1, keepdim=True)


def draw_uniform(low: float, high: float, size: tuple[int, int], generator: Generator) -> Tensor:
    """Draw uniform numbers in [low, high]."""
    return low + (high - low) * torch.rand(size, generator=generator)


def check_order(**bounds: tuple[float, float]) -> None:
    """Check pairs of options ``min_NAME`` and ``max_NAME``.

    Raises:
        ValueError: if one is the wrong way round.
    """
    for name, (low, high) in bounds.items():
        if low > high:
            raise ValueError(f"min_{name} {low} is above max_{name} {high}")
