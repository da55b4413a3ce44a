"""Tiny real components and comparisons for several test files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from redepth.config import Optim, Term
from redepth.contracts import Condition, Illumination, Noise
from redepth.depth_models.depth_anything import DepthAnything
from redepth.optim.objectives import Smoothness
from redepth.optim.outcome import Outcome
from redepth.optim.refiner import Refiner
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.pixel_unet import Layout, PixelUNet
from redepth.renderers.blinn_phong import BlinnPhong

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")
RESULT_FILES = {"disparity.npy", "disparity.png", "comparison.png", "view.html", "run.json"}
"""By default, of a disparity without metres."""
ALL_FILES = RESULT_FILES | {
    *("initial.npy", "uncertainty.npy", "normals.png", "normals.exr", "points.ply", "mesh.glb")
}
"""With ``output.write=all``, likewise, by an orthographic camera."""


def golden(name: str, case: str) -> Callable[[str], Tensor]:
    """Return a function that maps a key of one recorded case to its tensor."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    return lambda key: torch.from_numpy(np.asarray(arrays[f"{case}_{key}"]))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return float((actual - expected).detach().norm() / expected.detach().norm().clamp(min=1e-30))


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def photo(height: int = 56, width: int = 70, seed: int = 0) -> Tensor:
    """A smooth random picture, (1, 3, height, width) in [0, 1]."""
    coarse = torch.rand(1, 3, 5, 6, generator=seeded(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def tiny_depth_model(device: torch.device = CPU) -> DepthAnything:
    """The recorded DepthAnything checkpoint of a few channels, patch 14, native size 70."""
    checkpoint = str(GOLDEN / "tiny-random-depth-anything")
    return DepthAnything(checkpoint=checkpoint, longer_side=70, scale=7.0).load(device)


def tiny_unet(relighting: bool = True, seed: int = 0, words: Sequence[str] = ()) -> PixelUNet:
    """A real diffusers UNet of a few channels in pixel space, 16 x 16 pictures; or captioned, with words."""
    from diffusers import UNet2DConditionModel, UNet2DModel

    blocks: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "out_channels": 12,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not relighting:
            return PixelUNet(UNet2DModel(in_channels=12, **blocks), Layout(size=16, patch=2)).eval()
        layout = Layout(size=16, patch=2, relighting=not words, words=words)
        unet = UNet2DConditionModel(
            in_channels=layout.channels,
            mid_block_type="UNetMidBlock2D",
            cross_attention_dim=8,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=layout.conditions,
            **blocks,
        )
    return PixelUNet(unet, layout).eval()


SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}


def tiny_prior(
    relighting: bool = True, device: torch.device = CPU, words: Sequence[str] = (), **options: Any
) -> PixelDiffusion:
    """A pixel-space prior over `tiny_unet`, already in memory."""
    prior = PixelDiffusion(**options)
    prior.use(tiny_unet(relighting, words=words), device)
    prior.use_schedule(SCHEDULE, device)
    return prior


class TargetPrior:
    """Half the mean squared distance to a fixed picture: a prior whose optimum is known."""

    def __init__(self, target: float = 0.5) -> None:
        self.target = target

    def load(self, device: torch.device) -> TargetPrior:
        return self

    def condition(self, image: Tensor, prompt: str) -> Condition:
        return Condition()

    def draw(self, batch: int, generator: Generator, progress: float = 0.0) -> Noise:
        return Noise({"jitter": torch.rand(batch, generator=generator)})

    def __call__(
        self, relit: Tensor, condition: Condition, illumination: Illumination, noise: Noise
    ) -> Tensor:
        target = self.target + 0.1 * noise["jitter"].view(-1, 1, 1, 1)
        return 0.5 * ((relit - target) ** 2).mean(dim=(1, 2, 3))

    def describe(self) -> dict[str, Any]:
        return {}


TAME = dict.fromkeys(("embeddings", "decoder", "encoder", "correction", "offset"), 1e-6) | {"depth": 1e-4}
"""Learning rates at which rounding changes a result in proportion.

AdamW's first steps follow the sign of a gradient. At the rates of `make_refiner`, a change of the photo by
1e-7 moves the result of 24 steps of the tiny models by more than a fifth of the whole change, also on a CPU;
at these rates by less than 2 % (`tests/optim/test_refiner.py` measures both).
"""


def change_error(actual: Outcome, expected: Outcome) -> float:
    """The relative error of one run's change against another's."""
    change = expected.members - expected.initial
    return relative_error(actual.members - actual.initial, change)


def make_refiner(prior: Any = None, lights: int = 1, device: torch.device = CPU, **optim: Any) -> Refiner:
    """A refiner on the tiny depth model; learning rates are high, so that a few steps have an effect."""
    settings: dict[str, Any] = {
        "steps": 3,
        "members": 3,
        "learning_rates": {
            "embeddings": 1e-2,
            "decoder": 1e-3,
            "encoder": 1e-3,
            "depth": 1e-2,
            "correction": 1e-2,
            "offset": 1e-2,
        },
        "objectives": {"smoothness": Term()},
        # On a GPU tests compare float32 with a CPU's, and are too short for cuDNN's search to save time.
        "performance": {"tf32": False, "cudnn_benchmark": False} | optim.pop("performance", {}),
    }
    return Refiner(
        tiny_depth_model(device),
        BlinnPhong(lights=lights),
        prior or TargetPrior(),
        Optim.model_validate(settings | optim),
        {"smoothness": (1.0, Smoothness())},
        device,
    )
