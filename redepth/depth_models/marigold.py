"""Marigold through diffusers: depth by latent diffusion, refined through its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import Self

from redepth import checkpoints
from redepth.checkpoints.marigold import FILES, freeze, load_marigold
from redepth.depth_models.catalog import hub_id
from redepth.depth_models.whole import WholeModel
from redepth.literals import MAX_SEED

PIPELINE = "MarigoldDepthPipeline"


@dataclass(kw_only=True, eq=False)
class Marigold(WholeModel):
    """Marigold: depth in [0, 1] up to scale and shift, 0 at the nearest point (or disparity, if so trained).

    The prediction is made once per photo; its noise is drawn from ``seed`` alone. The other options are
    those of `WholeModel`.

    Args:
        checkpoint: hub id, short name or local folder of a diffusers ``MarigoldDepthPipeline``.
        revision: commit, tag or branch of the hub repository.
        steps: number of diffusion steps; None is the checkpoint's default.
        ensemble: number of predictions that are aligned and merged.
        seed: seed of the noise.
        near: is added to depth, whose shift is unknown: without it the nearest point would have depth 0.

    Source: Ke et al., arXiv 2312.02145, 2505.09358.
    """

    checkpoint: str = "prs-eth/marigold-depth-v1-1"
    revision: str | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    near: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1

    def __post_init__(self) -> None:
        self.checkpoint = hub_id(self.checkpoint)
        self._commit: str | None = None

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable."""
        checkpoints.ensure_available(self.checkpoint, self.revision, FILES)

    def load(self, device: torch.device) -> Self:
        """Load the pipeline in float32.

        Raises:
            WeightsError: missing, unreachable, corrupted or of another class.
        """
        pipeline, self._commit = load_marigold(self.checkpoint, self.revision, PIPELINE)
        self.use(pipeline, device)
        return self

    def use(self, pipeline: Any, device: torch.device) -> None:
        """Use a ``MarigoldDepthPipeline`` that is already in memory."""
        freeze(pipeline)
        self._pipeline, self._device = pipeline, device
        self.predicts = "disparity" if pipeline.config.prediction_type == "disparity" else "depth"

    def predict(self, image: Tensor) -> Tensor:
        """Run the diffusion on an image (B,3,H,W)."""
        self._pipeline.to(self._device)
        raw: Tensor = self._pipeline(
            image,
            num_inference_steps=self.steps,
            ensemble_size=self.ensemble,
            processing_resolution=0,
            generator=torch.Generator().manual_seed(self.seed),
            output_type="pt",
        ).prediction
        return raw + self.near if self.predicts == "depth" else raw

    def release_encoder(self) -> None:
        """Move the pipeline to the CPU; `predict` moves it back for the next photo."""
        self._pipeline.to("cpu")

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and settings for the run record."""
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "commit": self._commit,
            "steps": self.steps or self._pipeline.config.default_denoising_steps,
            "ensemble": self.ensemble,
            "seed": self.seed,
        }
