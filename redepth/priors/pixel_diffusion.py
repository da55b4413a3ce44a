"""Pixel-space diffusion models as the prior, unconditional or conditioned on the photo and the light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor
from typing_extensions import Self

from redepth import checkpoints
from redepth.contracts import Condition, Noise
from redepth.errors import WeightsError, brief, cut
from redepth.literals import MAX_SEED, RENAMED_OPTIONS
from redepth.priors.distillation import DiffusionPrior, Fraction, StepInputs
from redepth.priors.pixel_unet import (
    LAYOUT_FILE,
    LIGHT_CHANNELS,
    Layout,
    PixelUNet,
    condition_rows,
    light_vector,
)
from redepth.priors.scores import RULES, Branch, GuidanceBase, Weighting

FOLDERS = (("unet", "scheduler"), ("", ""))
"""Folders of UNet and schedule in a repository; the first DDPM ones have both at the root."""
WHOLE = 1 - 2**-24
"""The scale of a window that is the whole picture: the largest float32 below 1."""


@dataclass(kw_only=True, eq=False)
class PixelDiffusion(DiffusionPrior):
    """A pixel-space diffusion model that scores square windows of the picture.

    A model with a relighting layout (`pixel_unet.Layout`) is conditioned on the photo and the light: it is a
    learned re-lighting, stronger than a generic prior. Guidance is then between the predictions with and
    without these conditions.

    The defaults differ from the paper's prior: high noise, weighted for the distance to the reconstruction,
    mild guidance. They were measured to suit a small model.

    Args:
        checkpoint: hub id, local folder or ``embedded:NAME``; with ``unet/`` and ``scheduler/``, or both at
            the root.
        revision: commit, tag or branch of the hub repository.
        local_files_only: whether the hub is never asked.
        view: size of the scored window, which is at a random place. ``own-scale``: the model's own size in
            pixels of the picture. ``whole``: the picture's shorter side, resampled to the model's size.
            ``multiscale``: uniform between the two. ``pyramid``: the whole picture under the first of a
            step's lights, ``multiscale`` under the others. All are the same where the picture's shorter side
            is the model's size.
        condition_on: the inputs that a relighting model is conditioned on.
        weights: ``trained``, or ``random`` for the ablation (same architecture, seeded by ``random_seed``).
        random_seed: seed of the random weights.
    """

    guidance_scale: Annotated[float, Field(ge=0, le=10_000)] = 2.0
    guidance_base: GuidanceBase = "uncond"
    weighting: Weighting = "x0"
    t_min: Fraction = 0.55
    t_max: Fraction = 0.95
    checkpoint: str = "embedded:relief-relighting-prior"
    revision: str | None = None
    local_files_only: bool = False
    view: Literal["own-scale", "whole", "multiscale", "pyramid"] = "own-scale"
    condition_on: Literal["photo+light", "photo", "nothing"] = "photo+light"
    weights: Literal["trained", "random"] = "trained"
    random_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0

    renamed_options: ClassVar[Mapping[str, str]] = RENAMED_OPTIONS["prior"]
    supported_branches: ClassVar[frozenset[Branch]] = frozenset({"text", "uncond", "source"})
    on_cpu: ClassVar[frozenset[str]] = frozenset({"window"})
    reads_prompt: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if RULES[self.score].contrast and self.condition_on == "nothing":
            raise ValueError(
                f"score: {self.score} compares predictions with and without conditions, and condition_on is "
                "nothing: take another one, or another score"
            )
        self._source = checkpoints.Source(
            self.checkpoint, self.revision, local_files_only=self.local_files_only
        )

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable, MissingDependencyError for a package."""
        self.check_packages()
        self._locate()

    def load(self, device: torch.device) -> Self:
        """Load the UNet, frozen and in eval mode.

        Raises:
            WeightsError: missing, unreachable, corrupted, pickled or of another class.
        """
        with checkpoints.one_line(self.checkpoint):
            self._load(device)
        return self

    def _load(self, device: torch.device) -> None:
        from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel

        self._source, (folder, schedule) = self._locate()
        name = _path(folder, "config.json")
        class_name = str(self._source.json(name).get("_class_name"))
        known = {"UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}
        if class_name not in known:
            found = brief(class_name)
            raise WeightsError(f"'{self.checkpoint}/{name}' is of a {found}, not {' or '.join(known)}")
        self.use_schedule(self._source.load(DDIMScheduler, schedule).config, device)
        if self.weights == "random":
            unet = self._source.random_model(known[class_name], folder, self.random_seed)
        else:
            unet = self._source.model(known[class_name], folder)
        self.use(PixelUNet(unet, self._layout(unet.config)), device)

    def _locate(self) -> tuple[checkpoints.Source, tuple[str, str]]:
        """Return the source, and the folders of UNet and schedule."""
        present = (f for f in FOLDERS if self._source.holds(_path(f[0], "config.json")))
        unet, schedule = next(present, FOLDERS[0])
        files = [_path(unet, "config.json"), _path(schedule, "scheduler_config.json")]
        if self.weights == "trained":
            files.append(_path(unet, "diffusion_pytorch_model.safetensors"))
        offline = self.local_files_only
        source = checkpoints.locate(
            self.checkpoint, self.revision, files, optional=[LAYOUT_FILE], local_files_only=offline
        )
        return source, (unet, schedule)

    def _layout(self, config: Mapping[str, Any]) -> Layout:
        """Return how pictures enter the UNet, after a check of its input channels."""
        if self._source.holds(LAYOUT_FILE):
            stored = self._source.json(LAYOUT_FILE)
        elif not isinstance(size := config["sample_size"], int):
            raise WeightsError(
                f"'{self.checkpoint}': sample_size {brief(size)}; only square models are supported"
            )
        else:
            stored = {"size": size}
        try:
            layout = Layout(**stored)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"'{self.checkpoint}/{LAYOUT_FILE}': {cut(str(error))}") from None
        reads, needed = config["in_channels"], 3 * layout.patch**2 * (2 if layout.relighting else 1)
        if reads != needed or ("cross_attention_dim" in config) != layout.relighting:
            kind = "a re-lighting" if layout.relighting else "an unconditional"
            raise WeightsError(
                f"'{self.checkpoint}': a {config['_class_name']} of {reads} channels does not make {kind} "
                f"prior of pixels, which has {needed} channels; {LAYOUT_FILE}, if present, has its layout"
            )
        return layout

    def use(self, model: PixelUNet, device: torch.device) -> None:
        """Use a model that is already in memory."""
        rule = RULES[self.score]
        conditional = model.layout.relighting and self.condition_on != "nothing"
        if rule.contrast and not conditional:
            raise WeightsError(
                f"score: {self.score} compares predictions with and without conditions, and "
                f"'{self.checkpoint}' has no conditions; take a conditional model, or another score"
            )
        self._dtype = self.precision(device)
        self._model = model.eval().requires_grad_(False).to(device, self._dtype)
        self.set_up()

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Keep the photo, (1,3,H,W) sRGB; the prompt is not used."""
        return Condition({"photo": image})

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw the window (batch,3) in [0, 1) and diffusion noise (batch,3,S,S)."""
        size = self._model.layout.size
        window = torch.rand(batch, 3, generator=generator)
        if self.view == "pyramid":
            window[0, 0] = WHOLE
        return {"window": window, "noise": torch.randn(batch, 3, size, size, generator=generator)}

    def network(self) -> torch.nn.Module:
        """Return the UNet."""
        return self._model.unet

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Cut each picture's window at the model's size and map it to [-1, 1]."""
        return self._windows(relit, noise) * 2 - 1

    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict with conditions (``text``, ``source``) and without; equal for an unconditional model."""
        if not self._model.layout.relighting or self.condition_on == "nothing":
            return dict.fromkeys(branches, self._run(noisy, timestep))
        count = len(noisy)
        photo = inputs.condition.tensors["photo"].expand(count, -1, -1, -1)
        photo = self._windows(photo, inputs.noise) * 2 - 1
        light = noisy.new_zeros(count, LIGHT_CHANNELS - 1)
        if self.condition_on == "photo+light":
            light = light_vector(inputs.illumination)
        # All predictions in one batch.
        flags = torch.cat([noisy.new_full((count,), float(name != "uncond")) for name in branches])
        copies = len(branches)
        photo, vector = condition_rows(torch.cat([photo] * copies), torch.cat([light] * copies), flags, flags)
        out = self._run(torch.cat([noisy] * copies), torch.cat([timestep] * copies), photo, vector)
        return dict(zip(branches, out.chunk(copies), strict=True))

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, kind, precision and rule for the run record."""
        layout = self._model.layout
        return {
            **self._source.describe(),
            "kind": "re-lighting prior" if layout.relighting else "unconditional prior",
            "weights": self.weights,
            "dtype": str(self._dtype).removeprefix("torch."),
            "score": self.score,
        }

    def _run(
        self,
        noisy: Tensor,
        timestep: Tensor,
        photo: Tensor | None = None,
        light: Tensor | None = None,
    ) -> Tensor:
        cast = [None if x is None else x.to(self._dtype) for x in (noisy, photo, light)]
        return self._model(cast[0], timestep, cast[1], cast[2]).float()

    def _windows(self, pictures: Tensor, noise: Noise) -> Tensor:
        size = self._model.layout.size
        rows = zip(pictures, noise["window"].tolist(), strict=True)
        return torch.stack([cut_window(p, size, self.view, *u) for p, u in rows])


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def cut_window(picture: Tensor, size: int, view: str, scale: float, top: float, left: float) -> Tensor:
    """Cut a square window of (3,H,W) and resample it to (3,size,size).

    ``scale``, ``top`` and ``left`` are numbers in [0, 1) that choose side and place. A picture whose
    shorter side is below ``size`` gives a window of that side.
    """
    height, width = picture.shape[-2:]
    short = min(height, width)
    smallest = min(size, short)
    side = {"own-scale": smallest, "whole": short}.get(view, smallest + int(scale * (short - smallest + 1)))
    y, x = int(top * (height - side + 1)), int(left * (width - side + 1))
    window = picture[:, y : y + side, x : x + side]
    if side == size:
        return window
    resampled = F.interpolate(window[None], size=(size, size), mode="bilinear", antialias=side > size)
    return resampled[0]
