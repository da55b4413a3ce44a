"""Marigold's intrinsic image decomposition through diffusers: the albedo of a photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redepth import checkpoints
from redepth.checkpoints.marigold import FILES, load_marigold
from redepth.errors import WeightsError
from redepth.ops import color
from redepth.runtime.estimates import estimate_once

PIPELINE = "MarigoldIntrinsicsPipeline"

APPEARANCE, LIGHTING = "prs-eth/marigold-iid-appearance-v1-1", "prs-eth/marigold-iid-lighting-v1-1"
"""The published checkpoints: albedo and material (sRGB albedo), and albedo, shading and residual (linear)."""

LICENCES = dict.fromkeys((APPEARANCE, LIGHTING), "CreativeML OpenRAIL++-M")
"""Licences of their weights."""

TARGET = "albedo"


@dataclass
class MarigoldIntrinsics:
    """The albedo that a ``MarigoldIntrinsicsPipeline`` estimates.

    The pipeline's own configuration says in which colours it predicts the albedo: sRGB, which is decoded
    here, or linear. An albedo that it declares as known up to scale gets the mean luminance of the photo;
    else its scale is kept. It is always in [0, 1].

    The pipeline waits on the CPU and is on the device while it estimates. Its noise is drawn from the seed
    alone. The last estimate is kept, because a run with a limit of time prepares its photo several times.

    Attributes:
        checkpoint: hub id or local folder.
        revision: commit, tag or branch of the hub repository.
        steps: number of diffusion steps; None is the checkpoint's default.
        ensemble: number of estimates, of which the median is taken; of an even number, the lower one of the
            two in the middle.

    Source: Ke et al., "Marigold: Affordable Adaptation of Diffusion-Based Image Generators for Image
    Analysis", arXiv 2505.09358.
    """

    checkpoint: str = APPEARANCE
    revision: str | None = None
    steps: int | None = None
    ensemble: int = 1
    _pipeline: Any = field(default=None, init=False, repr=False)
    _commit: str | None = field(default=None, init=False, repr=False)
    _last: tuple[int, Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable."""
        checkpoints.ensure_available(self.checkpoint, self.revision, FILES)

    def load(self) -> None:
        """Load the pipeline in float32; a loaded one stays.

        Raises:
            WeightsError: missing, unreachable, corrupted, of another class or without an albedo.
        """
        if self._pipeline is not None:
            return
        advice = "set renderer.albedo_checkpoint to another one"
        pipeline, commit = load_marigold(self.checkpoint, self.revision, PIPELINE, advice)
        properties = pipeline.config.target_properties or {}
        space = properties.get(TARGET, {}).get("prediction_space", "srgb")
        if TARGET not in properties.get("target_names", ()) or space not in ("srgb", "linear"):
            raise WeightsError(
                f"'{self.checkpoint}' predicts no albedo in sRGB or linear colours: choose another one, such "
                f"as renderer.albedo_checkpoint={APPEARANCE}"
            )
        self._pipeline, self._commit = pipeline, commit

    def albedo(self, photo: Tensor, image: Tensor, seed: int) -> Tensor:
        """Return the albedo of a photo, (1, 3, h, w) linear in [0, 1], at the size of the estimate.

        Args:
            photo: (1, 3, H, W) sRGB in [0, 1], any size; the pipeline shrinks it.
            image: the same at network size, by which an estimate is found again; its device computes.
            seed: of the noise.
        """
        if self._last is not None:
            known_seed, known_image, known = self._last
            if known_seed == seed and known_image.shape == image.shape and torch.equal(known_image, image):
                return known
        self.load()
        found = self._estimate(photo, image.device, seed)
        self._last = seed, image, found
        return found

    def _estimate(self, photo: Tensor, device: torch.device, seed: int) -> Tensor:
        predicted = estimate_once(
            self._pipeline, photo, device, seed=seed, steps=self.steps, ensemble=self.ensemble
        )
        index = self._pipeline.config.target_properties["target_names"].index(TARGET)
        albedo = predicted[index : index + 1].clamp(0, 1)
        if self.space == "srgb":
            albedo = color.srgb_to_linear(albedo)
        if self._properties.get("up_to_scale", False):
            albedo = _with_luminance_of(albedo, color.srgb_to_linear(photo.to(albedo)))
        return albedo

    @property
    def _properties(self) -> dict[str, Any]:
        known: dict[str, Any] = self._pipeline.config.target_properties.get(TARGET, {})
        return known

    @property
    def space(self) -> str:
        """``srgb`` or ``linear``: the colours in which the loaded pipeline predicts albedo."""
        return str(self._properties.get("prediction_space", "srgb"))

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision, licence and settings for the run record."""
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "commit": self._commit,
            "licence": LICENCES.get(self.checkpoint),
            "steps": self.steps or self._pipeline.config.default_denoising_steps,
            "ensemble": self.ensemble,
            "predicted_in": self.space,
            "scaled": "to the photo's mean luminance" if self._properties.get("up_to_scale") else None,
        }


def _with_luminance_of(albedo: Tensor, linear: Tensor) -> Tensor:
    """Scale an albedo to the mean luminance of linear colours; what is then above 1 is cut off."""
    wanted, found = color.luma(linear).mean(), color.luma(albedo).mean()
    return (albedo * (wanted / found.clamp(min=1e-6))).clamp(0, 1)
