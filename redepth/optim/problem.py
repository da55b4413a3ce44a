"""The optimisation problem of one photo, and what the loop that solves it needs from a refiner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from redepth.config import Optim
from redepth.contracts import Condition, DepthModel, Features, Objective, Prior, Renderer, StepDraws, Surface
from redepth.guidance import UNGUIDED, Guidance, Previous, SkyMask
from redepth.ops.camera import Camera
from redepth.optim.parameterizations import Parameterization
from redepth.optim.step_graph import Advance, Eager, StepGraph


@dataclass(frozen=True)
class Problem:
    """What all members share: the photo, the frozen model's prediction and the prior's condition.

    Attributes:
        image: (1,3,H,W) the photo at network size, sRGB.
        linear: (1,3,H,W) the same in linear colours.
        features: of the frozen encoder.
        prediction: (1,1,H,W) raw output of the frozen model, likewise.
        initial: the prediction divided by ``unit``; of a frame of a clip in the scale of the clip.
        unit: what raw outputs are divided by; 1 unless the depth model's scale is ``auto``.
        condition: of the prior, for this photo and its prompt.
        camera: of the photo: the renderer, the normals and the exports use it.
        guidance: what is known of the photo besides its pixels; always with a `SkyMask`.
        albedo: (1,3,H,W) linear, what the renderer lights in place of the photo's colours; None: these.
    """

    image: Tensor
    linear: Tensor
    features: Features
    prediction: Tensor
    initial: Tensor
    unit: float
    condition: Condition
    camera: Camera
    guidance: Guidance
    albedo: Tensor | None = None

    @property
    def previous(self) -> Previous | None:
        """What the last frame of a clip says; None for a photo and where a chain of frames starts."""
        return self.guidance.get(Previous)

    @property
    def sky(self) -> SkyMask:
        """Where the photo shows sky, given or detected."""
        sky = self.guidance.get(SkyMask)
        assert sky is not None
        return sky


class State(Protocol):
    """What `Solver.step` reads of the members' learnable state; row i of both belongs to member i."""

    @property
    def members(self) -> int:
        """Number of members."""
        ...

    @property
    def offset(self) -> Tensor:
        """(members,1,1,1) the offset o of `ops.geometry.relative_depth`."""
        ...

    def raw(self) -> Tensor:
        """Return the raw outputs in the photo's unit, (members,1,H,W)."""
        ...


class Solver(Protocol):
    """What groups and the loop need from a refiner: its components, and the functions of one step."""

    depth_model: DepthModel
    renderer: Renderer
    prior: Prior
    optim: Optim
    objectives: dict[str, tuple[float, Objective]]
    device: torch.device
    execution: dict[str, Any]

    def step(
        self,
        state: State,
        image: Tensor,
        linear: Tensor,
        condition: Condition,
        draws: StepDraws,
        guidance: Guidance = UNGUIDED,
    ) -> tuple[dict[str, Tensor], Surface, Tensor]:
        """Return the losses per member, the surface and the re-lit pictures of one forward pass."""
        ...

    def relative_depth(self, raw: Tensor, offset: Tensor | float) -> Tensor:
        """Return the relative depth of a raw output in its unit."""
        ...

    def rate_factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rates at a 0-based step of a run of so many steps."""
        ...

    def make_optimizer(self, state: Parameterization) -> torch.optim.Optimizer:
        """Return the optimizer of a group; each of its parameter groups has its rate under ``base``."""
        ...

    def stepper(self, advance: Advance) -> StepGraph | Eager:
        """Return a callable that takes the steps of a group."""
        ...

    def release_memory(self) -> None:
        """Free the device memory that is kept for batches of another size."""
        ...
