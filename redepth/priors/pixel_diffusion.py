"""Pixel-space diffusion models as the prior: unconditional, told the photo and the light, or a caption."""

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
from redepth.priors.prompts import branch_prompts
from redepth.priors.scores import RULES, Branch, GuidanceBase, Weighting
from redepth.priors.words import BLURRED, caption_vector, light_rows

FOLDERS = (("unet", "scheduler"), ("", ""))
"""Folders of UNet and schedule in a repository; the first DDPM ones have both at the root."""
WHOLE = 1 - 2**-24
"""The scale of a window that is the whole picture: the largest float32 below 1."""

PHOTO, PROMPT = ("photo+light", "photo"), ("prompt+light", "prompt")
"""What a re-lighting model can be conditioned on, and what one that knows captions."""


@dataclass(kw_only=True, eq=False)
class PixelDiffusion(DiffusionPrior):
    """A pixel-space diffusion model that scores square windows of the picture.

    A model with a relighting layout (`pixel_unet.Layout`) is conditioned on the photo and the light: it is a
    learned re-lighting, stronger than a generic prior. Guidance is then between the predictions with and
    without these conditions.

    A model whose layout lists words is conditioned on a prompt: it is told which of its words the prompt has
    (`words.caption_vector`) and never sees the photo. It is a generic prior as the paper's, in miniature.
    Where a score rule has a negative prompt, or flaws of the unrefined picture, that is `words.BLURRED`.

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
        condition_on: the inputs of a relighting model (``photo+light``, ``photo``) or of one of captions
            (``prompt+light`` with `words.light_rows`, ``prompt``); ``nothing`` for any.
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
    condition_on: Literal["photo+light", "photo", "prompt+light", "prompt", "nothing"] = "photo+light"
    weights: Literal["trained", "random"] = "trained"
    random_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0

    renamed_options: ClassVar[Mapping[str, str]] = RENAMED_OPTIONS["prior"]
    supported_branches: ClassVar[frozenset[Branch]] = frozenset(
        {"text", "uncond", "source", "negative", "artefacts"}
    )
    on_cpu: ClassVar[frozenset[str]] = frozenset({"window"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition_on not in PROMPT:
            self.check_branches(self.supported_branches - {"negative", "artefacts"})
        if RULES[self.score].contrast and self.condition_on == "nothing":
            raise ValueError(
                f"score: {self.score} compares predictions with and without conditions, and condition_on is "
                "nothing: take another one, or another score"
            )
        self._source = checkpoints.Source(
            self.checkpoint, self.revision, local_files_only=self.local_files_only
        )

    @property
    def reads_prompt(self) -> bool:
        """Whether a prompt says anything to the prior."""
        return self.condition_on in PROMPT

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
        reads, needed = config["in_channels"], layout.channels
        if reads != needed or ("cross_attention_dim" in config) != bool(layout.conditions):
            raise WeightsError(
                f"'{self.checkpoint}': a {config['_class_name']} of {reads} channels is no {layout.kind} of "
                f"pixels, which has {needed} channels; {LAYOUT_FILE}, if present, has its layout"
            )
        numbers = config.get("projection_class_embeddings_input_dim")
        if layout.words and numbers != layout.conditions:
            raise WeightsError(
                f"'{self.checkpoint}': the network reads {brief(numbers)} numbers of a caption, and "
                f"{LAYOUT_FILE} has {len(layout.words)} words, which with their flag are {layout.conditions}"
            )
        return layout

    def use(self, model: PixelUNet, device: torch.device) -> None:
        """Use a model that is already in memory."""
        layout, contrast = model.layout, RULES[self.score].contrast
        told = (*PROMPT, "nothing") if layout.words else (*PHOTO, "nothing")
        if self.condition_on not in told:
            raise WeightsError(
                f"prior.condition_on={self.condition_on}: '{self.checkpoint}' holds a {layout.kind}, which "
                f"takes {', '.join(told)}; take one of these, or another checkpoint"
            )
        if contrast and not layout.conditions:
            raise WeightsError(
                f"score: {self.score} compares predictions with and without conditions, and "
                f"'{self.checkpoint}' has no conditions; take a conditional model, or another score"
            )
        self._dtype = self.precision(device)
        self._model = model.eval().requires_grad_(False).to(device, self._dtype)
        self.set_up()

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Keep the photo, (1,3,H,W) sRGB, and of the prompts the vectors that a model of captions reads.

        Raises:
            InputError: if a prompt has none of the words that the model knows.
        """
        tensors = {"photo": image}
        if self.condition_on in PROMPT:
            for branch, text in branch_prompts(prompt, self.needed_branches, artefacts=BLURRED).items():
                tensors[branch] = self._caption(branch, text).to(image)[None]
        return Condition(tensors)

    def _caption(self, branch: Branch, text: str) -> Tensor:
        """Return the vector of a prompt; that of no prompt, which guidance starts from, is 0."""
        if branch == "uncond" and not text:
            return torch.zeros(self._model.layout.conditions)
        return caption_vector(self._model.layout.words, text)

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
        """Predict under each branch's condition, in one batch; equal for an unconditional model."""
        if not self._model.layout.conditions or self.condition_on == "nothing":
            return dict.fromkeys(branches, self._run(noisy, timestep))
        count, copies = len(noisy), len(branches)
        if self._model.layout.words:
            photo, vector = None, torch.cat([self._told(branch, count, inputs) for branch in branches])
        else:
            photo, vector = self._shown(noisy, inputs, branches)
        out = self._run(torch.cat([noisy] * copies), torch.cat([timestep] * copies), photo, vector)
        return dict(zip(branches, out.chunk(copies), strict=True))

    def _told(self, branch: Branch, count: int, inputs: StepInputs) -> Tensor:
        """Return the vectors (count, C) of a branch's caption, with the light in words where it has it."""
        rows = inputs.condition.tensors[branch].expand(count, -1)
        if self.condition_on == "prompt+light" and branch in ("text", "artefacts"):
            light = light_rows(self._model.layout.words, inputs.illumination)
            rows = torch.cat([torch.maximum(rows[:, :-1], light), rows[:, -1:]], dim=1)
        return rows

    def _shown(self, noisy: Tensor, inputs: StepInputs, branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
        """Return photo and light of all branches: with conditions (``text``, ``source``) and without."""
        count, copies = len(noisy), len(branches)
        photo = inputs.condition.tensors["photo"].expand(count, -1, -1, -1)
        photo = self._windows(photo, inputs.noise) * 2 - 1
        light = noisy.new_zeros(count, LIGHT_CHANNELS - 1)
        if self.condition_on == "photo+light":
            light = light_vector(inputs.illumination)
        flags = torch.cat([noisy.new_full((count,), float(name != "uncond")) for name in branches])
        return condition_rows(torch.cat([photo] * copies), torch.cat([light] * copies), flags, flags)

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, kind, precision and rule for the run record."""
        return {
            **self._source.describe(),
            "kind": self._model.layout.kind,
            "weights": self.weights,
            "dtype": str(self._dtype).removeprefix("torch."),
            "score": self.score,
        }

    def _run(
        self,
        noisy: Tensor,
        timestep: Tensor,
        photo: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        cast = [None if x is None else x.to(self._dtype) for x in (noisy, photo, vector)]
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
