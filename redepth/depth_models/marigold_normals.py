"""Marigold's normals through diffusers: a model's estimate in place of a file of normals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redepth import checkpoints
from redepth.checkpoints.marigold import FILES, load_marigold
from redepth.errors import ConfigError, InputError
from redepth.guidance import NormalMap
from redepth.literals import NormalsFrame
from redepth.ops.camera import Camera
from redepth.runtime.estimates import estimate_once

PIPELINE = "MarigoldNormalsPipeline"

MARIGOLD = "marigold"
"""In place of a file of normals: the model estimates them."""


@dataclass
class MarigoldNormals:
    """Estimates the normals of photos by a ``MarigoldNormalsPipeline``.

    The pipeline's frame is that of redepth: x right, y up, z to the viewer (diffusers' guide "Marigold
    Pipelines for Computer Vision Tasks"). It is on the CPU but for the time of an estimate.

    Args:
        checkpoint: hub id or local folder.
        revision: commit, tag or branch of the hub repository.
        steps: number of diffusion steps; None is the checkpoint's default.
        ensemble: number of estimates, of which each pixel takes the one closest to their mean.

    Source: Ke et al., arXiv 2505.09358.
    """

    checkpoint: str
    revision: str | None = None
    steps: int | None = None
    ensemble: int = 1

    def __post_init__(self) -> None:
        self._pipeline: Any = None
        self._commit: str | None = None

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable."""
        checkpoints.ensure_available(self.checkpoint, self.revision, FILES)

    def load(self) -> None:
        """Load the pipeline in float32.

        Raises:
            WeightsError: missing, unreachable, corrupted or of another class.
        """
        advice = "set optim.objectives.normals.checkpoint to another one"
        self._pipeline, self._commit = load_marigold(self.checkpoint, self.revision, PIPELINE, advice)

    def check_camera(self, camera: Camera | str | None) -> None:
        """Raise InputError for a panorama: the estimate is one of a flat picture."""
        if isinstance(camera, Camera) and camera.spherical:
            raise InputError(
                "panorama: the normals of marigold are those of a flat picture; give a map, or leave out the "
                "objective normals"
            )

    def estimate(self, photo: Tensor, seed: int, device: torch.device) -> NormalMap:
        """Return the normals of a photo (1,3,H,W) sRGB [0,1], at the size of the estimate, on the CPU.

        Args:
            photo: any size; the pipeline resizes it to the size that it was trained with.
            seed: of the noise; the same one gives the same normals.
            device: where it is computed.
        """
        normals = estimate_once(
            self._pipeline, photo, device, seed=seed, steps=self.steps, ensemble=self.ensemble
        )
        return NormalMap(normals.cpu())

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and settings for the run record."""
        return {
            "source": MARIGOLD,
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "commit": self._commit,
            "steps": self.steps or self._pipeline.config.default_denoising_steps,
            "ensemble": self.ensemble,
        }


def check_frame(frame: NormalsFrame) -> None:
    """Raise ConfigError if a frame is given with normals that the model estimates: it is known."""
    if frame != "redepth":
        raise ConfigError(f"the normals of {MARIGOLD} are in redepth's frame: leave out the frame {frame}")
