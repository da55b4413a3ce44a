"""The base class of the priors that are conditioned on a text: the denoiser, its loading, prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import Self

from redepth import checkpoints
from redepth.contracts import Condition, Execution
from redepth.errors import WeightsError
from redepth.literals import MAX_SEED
from redepth.priors import cache, quantize
from redepth.priors.distillation import DiffusionPrior, StepInputs
from redepth.priors.prompts import branch_prompts
from redepth.priors.quantize import Quantize
from redepth.priors.scores import Branch
from redepth.priors.text import TextEmbeddings, TextEncoders, TextPart, joined, misfit
from redepth.runtime.fusion import Branches
from redepth.runtime.networks import execute

NEGATIVE = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)
"""Negative prompt of the scores that need one (arXiv 2310.17590, section 5)."""

ARTEFACTS = "oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
"""Typical flaws of distilled pictures (arXiv 2406.09417, section 5)."""

PIPELINES = {
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusion3Pipeline": "stable-diffusion-3",
    "PixArtSigmaPipeline": "pixart-sigma",
    "PixArtAlphaPipeline": "pixart-sigma",
    "PRXPixelPipeline": "prx-pixel",
    "Flux2KleinPipeline": "flux2-klein",
    "ZImagePipeline": "z-image",
    "QwenImagePipeline": "qwen-image",
    "QwenImageEditPipeline": "qwen-image-edit",
}
"""Pipelines of diffusers, and the prior that reads their checkpoints."""

UNREAD = frozenset(
    {
        "FluxPipeline",
        "Flux2Pipeline",
        "QwenImageEditPlusPipeline",
        "QwenImageLayeredPipeline",
        "PRXPipeline",
    }
)
"""Pipelines of the same model classes, which guide or prompt them in another way."""


@dataclass(kw_only=True, eq=False)
class TextDiffusion(DiffusionPrior):
    """A diffusion model of diffusers that is conditioned on a text.

    Text encoders are loaded for prompts whose embeddings are not in the cache (`priors.cache`), and leave
    the device after use.

    Args:
        checkpoint: hub id or local folder of a diffusers pipeline.
        revision: commit, tag or branch of the hub repository.
        variant: weights of another kind in the same repository, such as ``fp16`` (half the download).
        local_files_only: whether the hub is never asked.
        size: side of the square picture, in pixels.
        weights: ``trained``, or ``random`` for the ablation. The denoiser is the same with random weights;
            everything else stays trained.
        random_seed: seed of the random weights.
        quantize: form of the denoiser's weights. ``none``: all in ``dtype``. ``fp8-storage``: large layers
            in float8, scaled by row; they compute in ``dtype``. ``int8``, ``nf4``: linear layers in 8 or 4
            bits by bitsandbytes, on an NVIDIA GPU; the inputs of ``int8`` pass float16 in any ``dtype``.
        negative_prompt: prompt of the unconditional prediction. For the scores that have a negative prompt
            beside the empty one (``nfsd``, ``csd`` with ``negative_scale``) it is the negative prompt, and
            empty means `NEGATIVE`.
        source_prompt: description of the photo, for ``dds`` (empty: the prompt).
        artefacts: flaws of the unrefined picture, appended to the prompt, for ``sds-bridge``.
    """

    checkpoint: str
    revision: str | None = None
    variant: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    local_files_only: bool = False
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    weights: Literal["trained", "random"] = "trained"
    random_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    quantize: Quantize = "none"
    negative_prompt: str = ""
    source_prompt: str = ""
    artefacts: str = ARTEFACTS

    supported_branches: ClassVar[frozenset[Branch]] = frozenset(
        {"text", "uncond", "negative", "source", "artefacts"}
    )
    family: ClassVar[str]
    """The registered name whose pipelines it reads."""
    denoiser: ClassVar[tuple[str, str]] = ("UNet2DConditionModel", "unet")
    """The class of the denoiser in diffusers, and its folder."""
    half: ClassVar[torch.dtype] = torch.float16
    """The precision of ``dtype: auto`` on CUDA: that of the published weights."""
    text_widths: ClassVar[tuple[str, ...]] = ("joint_attention_dim", "cross_attention_dim")
    """Entries of the denoiser's configuration; the first one that is there is the embedding's width."""
    more_files: ClassVar[tuple[str, ...]] = ()
    """Files of the checkpoint that are read besides the models, tokenizers and the scheduler."""
    changes: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Changes to the checkpoint's configuration for a denoiser of random weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._branches = Branches()
        if not quantize.by_library(self.quantize):
            return
        if self.weights == "random":
            raise ValueError(f"quantize: {self.quantize} reads trained weights: take fp8-storage or none")
        if self.learns:
            raise ValueError(
                f"quantize: {self.quantize} has no adapters, which score: {self.score} trains: take "
                "fp8-storage or none"
            )

    @property
    @abstractmethod
    def text_parts(self) -> tuple[TextPart, ...]:
        """The text encoders."""

    @abstractmethod
    def embed(self, outputs: list[Any]) -> TextEmbeddings:
        """Join the text encoders' outputs to the denoiser's text condition, one row."""

    @abstractmethod
    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the denoiser on rows (N, C, H, W) under the text conditions of these rows."""

    def load_encoder(self, device: torch.device) -> None:
        """Load what pictures are encoded by, if anything."""

    @abstractmethod
    def check_denoiser(self) -> None:
        """Raise WeightsError unless the denoiser fits what it is to denoise."""

    # --- loading ------------------------------------------------------------------------------

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable, MissingDependencyError for a package."""
        self.check_packages()
        self.check_source(self._locate()[0])

    def load(self, device: torch.device) -> Self:
        """Load denoiser and schedule, frozen and in eval mode; text encoders when they are needed.

        Raises:
            ConfigError: the device cannot run the quantised weights.
            MissingDependencyError: a package is missing or too old.
            WeightsError: missing, unreachable, corrupted, pickled or of another class.
        """
        with checkpoints.one_line(self.checkpoint):
            self._load(device)
        return self

    def _load(self, device: torch.device) -> None:
        import diffusers

        self.check_packages()
        self.check_device(device)
        self._device, self._dtype = device, self.precision(device)
        self._text_dtype = self._dtype
        self._encoders: TextEncoders | None = None
        self._sources = self._locate()
        self._source = self._sources[0]
        self.check_source(self._source)
        self._pipeline = self._read_pipeline()
        # The schedule comes first: it is small, and not every rule works with every one.
        self.use_schedule(self._source.load(self._scheduler_class(), "scheduler").config, device)
        self.load_encoder(device)
        self._denoiser = self.load_denoiser(getattr(diffusers, self.denoiser[0]), self._dtype)
        self.check_denoiser()
        self._denoiser = self._placed(self._denoiser)
        self.set_up()

    def _placed(self, denoiser: Any) -> Any:
        """Return the denoiser frozen, on the device, in its precision."""
        if quantize.by_library(self.quantize):
            return denoiser.eval().requires_grad_(False)
        if self.quantize == "none":
            return frozen(denoiser, self._device, self._dtype)
        # On the CPU first: the device has room for the stored weights alone.
        frozen(denoiser, torch.device("cpu"), self._dtype)
        quantize.store_in_fp8(denoiser)
        return torch.nn.Module.to(denoiser, self._device)

    def check_packages(self) -> None:
        """Raise MissingDependencyError now if the rule or the quantised weights need a missing package."""
        super().check_packages()
        quantize.check_packages(self.quantize)

    def check_source(self, source: checkpoints.Source) -> None:
        """Raise MissingDependencyError if the checkpoint is in a form that needs a missing package."""

    def check_device(self, device: torch.device) -> None:
        """Raise ConfigError if the device cannot run the quantised weights."""
        quantize.check_device(self.quantize, device)

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the denoiser on the CPU, or quantised on the device; one of random weights is in float32."""
        if self.weights == "random":
            return self.denoiser_source.random_model(cls, self.denoiser[1], self.random_seed, self.changes)
        options = quantize.loading_options(self.quantize, dtype, self._device)
        return self._model(cls, self.denoiser[1], self.denoiser_source, torch_dtype=dtype, **options)

    @property
    def denoiser_source(self) -> checkpoints.Source:
        """The source of the denoiser."""
        return self._source

    def _scheduler_class(self) -> Any:
        from diffusers import DDIMScheduler

        return DDIMScheduler

    def files(self) -> list[str]:
        """Return the names of the checkpoint's files."""
        text = [name for part in self.text_parts for name in part.files]
        small = f"{self.denoiser[1]}/config.json", "scheduler/scheduler_config.json"
        names = [*small, *text, *self.more_files]
        if self.weights == "trained":
            names.append(f"{self.denoiser[1]}/diffusion_pytorch_model.safetensors")
        return names

    def _locate(self) -> tuple[checkpoints.Source, ...]:
        """Return the source of the checkpoint, and those of other parts."""
        files = [self._variant_of(name) for name in self.files()]
        offline = self.local_files_only
        optional = ["model_index.json"]
        found = checkpoints.locate(
            self.checkpoint, self.revision, files, optional=optional, local_files_only=offline
        )
        return (found,)

    def _variant_of(self, name: str) -> str:
        return name.replace(".safetensors", f".{self.variant}.safetensors") if self.variant else name

    def _read_pipeline(self) -> Mapping[str, Any]:
        """Return ``model_index.json``, empty without one, once it is of this family."""
        if not self._source.holds("model_index.json"):
            return {}
        found = self._source.json("model_index.json")
        name = str(found.get("_class_name"))
        if name in UNREAD:
            own = next(pipeline for pipeline, family in PIPELINES.items() if family == self.family)
            raise WeightsError(f"'{self.checkpoint}' is a {name}, which no prior reads: take a {own}")
        if (family := PIPELINES.get(name, self.family)) != self.family:
            raise WeightsError(f"'{self.checkpoint}' is a {name}: take prior.name={family}")
        return found

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the frozen model on a device."""
        if self.dtype == "auto" and device.type == "cuda":
            return self.half
        return super().precision(device)

    def _model(self, cls: Any, folder: str, source: checkpoints.Source | None = None, **options: Any) -> Any:
        """Load a model of the pipeline, or of another source, in the chosen variant."""
        if self.variant:
            options["variant"] = self.variant
        return (source or self._source).model(cls, folder, **options)

    # --- once per photo -----------------------------------------------------------------------

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Embed the texts that the rule needs; the text encoders leave the device afterwards.

        Raises:
            InputError: if a prompt is longer than a text encoder reads, or holds a token of its chats.
        """
        tensors = {"photo": image}
        try:
            for branch, texts in self.texts(prompt).items():
                for name, values in joined(self._embeddings(texts)).items():
                    tensors[branch if name == "embedding" else f"{branch}.{name}"] = values
        finally:
            if self._encoders is not None:
                self._encoders.release()
        return Condition(tensors)

    def prompts(self, prompt: str) -> dict[Branch, str]:
        """Return the prompt of each branch that the rule needs."""
        return branch_prompts(
            prompt,
            self.needed_branches,
            negative_prompt=self.negative_prompt,
            negative=NEGATIVE,
            source_prompt=self.source_prompt,
            artefacts=self.artefacts,
        )

    def texts(self, prompt: str) -> dict[Branch, tuple[str, ...]]:
        """Return the texts of each branch: one, or several from which `branch_embeddings` chooses by row."""
        return {name: (text,) for name, text in self.prompts(prompt).items()}

    def _embeddings(self, texts: Iterable[str]) -> list[TextEmbeddings]:
        """Return the embeddings of each text, from the cache if it has them."""
        rows = []
        for text in texts:
            made_from = (*self.text_origin(), text)
            row = cache.load_tensors("embeddings", made_from, self._misfit)
            if row is None:
                row = self.embed_text(text)
                if problem := self._misfit(row):
                    raise WeightsError(
                        f"the text encoders of '{self.checkpoint}' give no embedding for a prompt: "
                        f"{problem}; set prior.dtype=float32, or choose another checkpoint"
                    )
                cache.save_tensors("embeddings", made_from, row)
            rows.append({k: v.to(self._device) for k, v in row.items()})
        return rows

    def _misfit(self, row: TextEmbeddings) -> str:
        """Return why an embedding is none for this denoiser, or an empty string."""
        config = self._denoiser.config
        width = next((w for name in self.text_widths if isinstance(w := config.get(name), int)), None)
        return misfit(row, self.text_conditions, width, self._text_dtype)

    @property
    def text_conditions(self) -> dict[str, int]:
        """The names of the text conditions, each with its number of dimensions."""
        pooled = any(part.encoder == "CLIPTextModelWithProjection" for part in self.text_parts)
        return {"embedding": 3, "pooled": 2} if pooled else {"embedding": 3}

    def text_origin(self) -> tuple[str, ...]:
        """Return everything that an embedding depends on except its text."""
        from transformers import __version__

        files = [self._variant_of(name) for part in self.text_parts for name in part.files]
        source = self._source.identity(files)
        kinds = [part.identity for part in self.text_parts]
        # The weights of all variants are in one commit.
        if self.variant:
            kinds.append(f"variant={self.variant}")
        return (self.family, *kinds, source, str(self._text_dtype), self._device.type, __version__)

    def embed_text(self, text: str) -> TextEmbeddings:
        """Embed a text by the text encoders, one row."""
        return self.embed(self.text_encoders().read(text, self._device))

    def text_encoders(self) -> TextEncoders:
        """Return the text encoders, loaded when they are first needed."""
        if self._encoders is None:

            def model(cls: Any, subfolder: str) -> Any:
                return self._model(cls, subfolder, dtype=self._text_dtype).eval().requires_grad_(False)

            self._encoders = TextEncoders(self.text_parts, self._source.load, model)
        return self._encoders

    # --- each step ----------------------------------------------------------------------------

    def execution(self) -> Execution:
        """Return how the networks are executed on the device."""
        # On the CPU, group normalisation of large channels-last pictures is exact to 4 digits only.
        return replace(self._how, channels_last=False) if self._device.type == "cpu" else self._how

    def set_up(self) -> None:
        """Set up the denoiser."""
        execute(self._denoiser, self.execution(), graph=True, branches=self._branches)

    @property
    def waits(self) -> bool:
        """Whether the denoiser reads numbers from the device, so that it cannot become a CUDA graph."""
        return quantize.by_library(self.quantize)

    @property
    def _can_upcast(self) -> bool:
        return super()._can_upcast and not quantize.by_library(self.quantize)

    def cast(self) -> None:
        """Take the denoiser to float32, without weights that are stored in float8."""
        quantize.widen(self._denoiser)

    def network(self) -> torch.nn.Module:
        """Return the denoiser."""
        return self._denoiser

    def predict(
        self, noisy: Tensor, timestep: Tensor, inputs: StepInputs, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict under the prompt of each branch, in one batch."""
        texts = self.joined_texts([self.branch_embeddings(b, inputs, len(noisy)) for b in branches])
        count = len(branches)
        with self._branches.of(count):
            out = self.denoise(
                torch.cat([noisy] * count).to(self._dtype), torch.cat([timestep] * count), texts, inputs
            )
        return dict(zip(branches, out.float().chunk(count), strict=True))

    def branch_embeddings(self, branch: Branch, inputs: StepInputs, rows: int) -> TextEmbeddings:
        """Return the text conditions of each row in a branch."""
        tensors = inputs.condition.tensors
        names = {"embedding": branch} | {name: f"{branch}.{name}" for name in ("pooled", "mask")}
        shared = {k: tensors[name] for k, name in names.items() if name in tensors}
        return {k: v.expand(rows, *v.shape[1:]) for k, v in shared.items()}

    def joined_texts(self, parts: list[TextEmbeddings]) -> TextEmbeddings:
        """Join the text conditions of all branches, in the denoiser's precision."""
        return {k: v if k == "mask" else v.to(self._dtype) for k, v in joined(parts).items()}

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision, commit, precision, weights and rule for the run record."""
        return {
            **self._source.describe(),
            "variant": self.variant,
            "weights": self.weights,
            "dtype": str(self._dtype).removeprefix("torch."),
            "quantize": self.quantize,
            "score": self.score,
        }


def frozen(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a model in eval mode, on the device, without gradients for its weights."""
    # diffusers' own `to` warns of modules that have to stay in float32 even where, as here, there are none.
    return torch.nn.Module.to(model.eval().requires_grad_(False), device, dtype)
