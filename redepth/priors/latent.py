"""The base class of the latent, text-conditioned priors: components, encoding to latents, prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from typing_extensions import Self

from redepth import checkpoints
from redepth.contracts import Condition, Noise
from redepth.errors import WeightsError
from redepth.literals import MAX_SEED
from redepth.priors import cache
from redepth.priors.distillation import DiffusionPrior, StepInputs
from redepth.priors.latent_spaces import LatentSpace, TinySpace
from redepth.priors.pictures import fit_square, scale_gradient
from redepth.priors.scores import Branch
from redepth.priors.text import TextEmbeddings, TextEncoders, TextPart, joined, misfit
from redepth.runtime.fusion import Branches, set_attention
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
    "Flux2KleinPipeline": "flux2-klein",
    "ZImagePipeline": "z-image",
    "QwenImagePipeline": "qwen-image",
    "QwenImageEditPipeline": "qwen-image-edit",
}
"""Pipelines of diffusers, and the prior that reads their checkpoints."""

UNREAD = frozenset({"FluxPipeline", "Flux2Pipeline", "QwenImageEditPlusPipeline", "QwenImageLayeredPipeline"})
"""Pipelines of the same model classes, which guide or prompt them in another way."""


@dataclass(kw_only=True, eq=False)
class LatentDiffusion(DiffusionPrior):
    """A latent diffusion model of diffusers that is conditioned on a text.

    The picture is scaled to fit ``size`` x ``size`` (bilinear, corners aligned), padded with 0 to the
    square, mapped to [-1, 1], and encoded by the VAE: a sample of the posterior, shifted and scaled as in the
    model's training. The tiny VAE (`AutoencoderTiny`) has no posterior; its latents are used directly. The
    same numbers are drawn for both, so that a seed gives the same noise.

    Text encoders are loaded for prompts whose embeddings are not in the cache (`priors.cache`), and leave
    the device after use.

    Args:
        checkpoint: hub id or local folder of a diffusers pipeline.
        revision: commit, tag or branch of the hub repository.
        variant: weights of another kind in the same repository, such as ``fp16`` (half the download).
        local_files_only: whether the hub is never asked.
        size: side of the square picture, in pixels.
        vae: encoder of the pictures: the pipeline's ``own``, or a ``tiny`` one, about nine times cheaper.
        vae_checkpoint: hub id or local folder of another VAE of that kind; by default the pipeline's own,
            or the family's tiny one.
        vae_revision: commit, tag or branch of the other VAE's repository.
        weights: ``trained``, or ``random`` for the ablation. The denoiser is the same with random weights;
            VAE and text encoders stay trained.
        random_seed: seed of the random weights.
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
    vae: Literal["own", "tiny"] = "own"
    vae_checkpoint: str | None = None
    vae_revision: str | None = None
    weights: Literal["trained", "random"] = "trained"
    random_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
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
    tiny_vae: ClassVar[str]
    """Hub id of the family's `AutoencoderTiny`."""
    space: ClassVar[type[LatentSpace]] = LatentSpace
    """The kind of latents of the family's own VAE."""
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

    @property
    @abstractmethod
    def text_parts(self) -> tuple[TextPart, ...]:
        """The text encoders."""

    @abstractmethod
    def embed(self, outputs: list[Any]) -> TextEmbeddings:
        """Join the text encoders' outputs to the denoiser's text condition, one row."""

    @abstractmethod
    def denoise(self, noisy: Tensor, timestep: Tensor, texts: TextEmbeddings, inputs: StepInputs) -> Tensor:
        """Run the denoiser on rows (N, C, size/8, size/8) under the text conditions of these rows."""

    # --- loading ------------------------------------------------------------------------------

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable, MissingDependencyError for a package."""
        self.check_packages()
        self._locate()

    def load(self, device: torch.device) -> Self:
        """Load VAE, denoiser and schedule, frozen and in eval mode; text encoders when they are needed.

        Raises:
            WeightsError: missing, unreachable, corrupted, pickled or of another class.
        """
        with checkpoints.one_line(self.checkpoint):
            self._load(device)
        return self

    def _load(self, device: torch.device) -> None:
        import diffusers

        self._device, self._dtype = device, self.precision(device)
        self._text_dtype = self._dtype
        self._encoders: TextEncoders | None = None
        self._source, self._vae_source = self._locate()
        self._pipeline = self._read_pipeline()
        # The schedule comes first: it is small, and not every rule works with every one.
        self.use_schedule(self._source.load(self._scheduler_class(), "scheduler").config, device)
        self._vae = self._load_vae(device)
        self._denoiser = self.load_denoiser(getattr(diffusers, self.denoiser[0]), self._dtype)
        self._check_channels()
        self._denoiser = _frozen(self._denoiser, device, self._dtype)
        self.set_up()

    def load_denoiser(self, cls: Any, dtype: torch.dtype) -> Any:
        """Return the denoiser on the CPU; one of random weights is in float32."""
        if self.weights == "random":
            return self._source.random_model(cls, self.denoiser[1], self.random_seed, self.changes)
        return self._model(cls, self.denoiser[1], torch_dtype=dtype)

    def _scheduler_class(self) -> Any:
        from diffusers import DDIMScheduler

        return DDIMScheduler

    def _locate(self) -> tuple[checkpoints.Source, checkpoints.Source]:
        """Return the sources of the checkpoint and of the VAE."""
        text = [name for part in self.text_parts for name in part.files]
        names = [
            f"{self.denoiser[1]}/config.json",
            "scheduler/scheduler_config.json",
            *text,
            *self.more_files,
        ]
        if self.weights == "trained":
            names.append(f"{self.denoiser[1]}/diffusion_pytorch_model.safetensors")
        vae = ("config.json", "diffusion_pytorch_model.safetensors")
        other = self._other_vae()
        if other is None:
            names += [f"vae/{name}" for name in vae]
        files = [self._variant_of(name) for name in names]
        offline = self.local_files_only
        source = checkpoints.locate(
            self.checkpoint, self.revision, files, optional=["model_index.json"], local_files_only=offline
        )
        if other is None:
            return source, source
        return source, checkpoints.locate(other, self.vae_revision, vae, local_files_only=offline)

    def _variant_of(self, name: str) -> str:
        return name.replace(".safetensors", f".{self.variant}.safetensors") if self.variant else name

    def _other_vae(self) -> str | None:
        return self.vae_checkpoint or (self.tiny_vae if self.vae == "tiny" else None)

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

    def _load_vae(self, device: torch.device) -> Any:
        import diffusers

        space = TinySpace if self.vae == "tiny" else self.space
        cls = getattr(diffusers, space.vae_class)
        own = self._vae_source is self._source
        vae = self._model(cls, "vae") if own else self._vae_source.model(cls, None)
        self._space = space(vae, self.checkpoint)
        self._vae_dtype = self.vae_precision(vae.config)
        # The score needs the VAE's encoder alone; some count the decoder's layers.
        vae.decoder = torch.nn.Identity()
        return _frozen(vae, device, self._vae_dtype)

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the frozen model on a device."""
        if self.dtype == "auto" and device.type == "cuda":
            return self.half
        return super().precision(device)

    def vae_precision(self, config: Mapping[str, Any]) -> torch.dtype:
        """Return the dtype that the VAE runs in."""
        return self._dtype

    def denoiser_channels(self) -> int:
        """Return how many channels of its input are the noisy latents."""
        return int(self._denoiser.config.in_channels)

    def _check_channels(self) -> None:
        reads, makes = self.denoiser_channels(), self._space.channels
        if reads != makes:
            raise WeightsError(
                f"'{self.checkpoint}': its denoiser reads {reads} channels and the VAE makes {makes}: take a "
                f"text-to-image checkpoint of {self.family}, and a VAE made for it"
            )

    def _model(self, cls: Any, folder: str, **options: Any) -> Any:
        """Load a model of the pipeline, in the chosen variant."""
        if self.variant:
            options["variant"] = self.variant
        return self._source.model(cls, folder, **options)

    # --- once per photo -----------------------------------------------------------------------

    def condition(self, image: Tensor, prompt: str) -> Condition:
        """Embed the texts that the rule needs; the text encoders leave the device afterwards.

        Raises:
            InputError: if a prompt is longer than a text encoder reads.
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
        contrasted = "negative" in self.needed_branches
        prompts = {
            "text": prompt,
            "uncond": "" if contrasted else self.negative_prompt,
            "negative": self.negative_prompt or NEGATIVE,
            "source": self.source_prompt or prompt,
            "artefacts": ", ".join(part for part in (prompt, self.artefacts) if part),
        }
        return {name: text for name, text in prompts.items() if name in self.needed_branches}

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

    def draw_model(self, batch: int, generator: Generator) -> dict[str, Tensor]:
        """Draw the posterior's and the diffusion's noise, (batch, C, H, W) of `LatentSpace`."""
        shapes = {"posterior": self._space.posterior_shape(self.size), "noise": self._space.shape(self.size)}
        return {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}

    def network(self) -> torch.nn.Module:
        """Return the denoiser."""
        return self._denoiser

    def set_up(self) -> None:
        """Set up denoiser and VAE encoder. Gradients pass the encoder, so it cannot be a CUDA graph."""
        how = self._how
        if self._device.type == "cpu":
            # On the CPU, group normalisation of large channels-last pictures is exact to 4 digits only.
            how = replace(how, channels_last=False)
        set_attention(self._vae.encoder, how.explicit_attention)
        execute(self._denoiser, how, graph=True, branches=self._branches)
        if any(weights.dim() == 5 for weights in self._vae.encoder.parameters()):
            # The layout is one of pictures, not of videos.
            how = replace(how, channels_last=False)
        execute(self._vae.encoder, how)
        if not self._vae._supports_gradient_checkpointing:
            return
        if self._how.checkpointing:
            self._vae.enable_gradient_checkpointing()
        else:
            self._vae.disable_gradient_checkpointing()

    def cast(self) -> None:
        """Take denoiser and VAE to float32."""
        super().cast()
        self._vae.float()
        self._vae_dtype = torch.float32

    def to_model_space(self, relit: Tensor, noise: Noise) -> Tensor:
        """Fit, pad and encode (N,3,H,W) sRGB to latents (N,C,H,W) of `LatentSpace`, float32."""
        # In half precision the gradient of a mean over the latents underflows inside the VAE, so it passes
        # through it multiplied by their number, and is divided again on the way out.
        scaled = self._vae_dtype == torch.float16 and self.reduction == "mean"
        factor = float(noise["noise"][0].numel()) if scaled else 1.0
        latents = self.encode(scale_gradient(relit, 1.0 / factor), noise["posterior"])
        return scale_gradient(latents, factor)

    def encode(self, pictures: Tensor, posterior_noise: Tensor | None) -> Tensor:
        """Fit, pad and encode pictures; without noise to the posterior's mode."""
        square = fit_square(pictures, self.size) * 2 - 1
        return self._space.encode(square.to(self._vae_dtype), posterior_noise)

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
        """Return checkpoint, revision, commit, VAE, precision, weights and rule for the run record."""
        found = {
            **self._source.describe(),
            "variant": self.variant,
            "vae": self.vae,
            "weights": self.weights,
            "dtype": str(self._dtype).removeprefix("torch."),
            "score": self.score,
        }
        if self._vae_source is not self._source:
            found |= {f"vae_{name}": value for name, value in self._vae_source.describe().items()}
        return found


def _frozen(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    # diffusers' own `to` warns of modules that have to stay in float32 even where, as here, there are none.
    return torch.nn.Module.to(model.eval().requires_grad_(False), device, dtype)
