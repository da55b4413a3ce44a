"""The schema of presets."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from redepth.config.adaptation import Adapt
from redepth.config.clip import Clip
from redepth.config.section import Section
from redepth.config.units import memory, seconds
from redepth.errors import brief, nearest
from redepth.io.markup import dump_yaml
from redepth.literals import CaptionerChoice, Export, Upsampling
from redepth.registry import Checked

Rate = Annotated[float, Field(ge=0, le=1)]

Threshold = Annotated[float, Field(ge=0, le=10)]

Parameterization = Literal["embeddings+decoder", "embeddings", "decoder", "full", "depth", "low-rank"]
"""The parameters that are optimized; see `optim.parameterizations`."""

Blend = Literal["none", "agreement", "detail"]
"""How the output is computed from the members' mean and the initial output: the mean itself, the blend by
`agreement_weight`, or the mean's `ops.filters.detail` added to the initial output."""

LearningRateSchedule = Literal["constant", "cosine"]
CompiledNetworks = Literal["off", "prior", "all"]
CudaGraphs = Literal["auto", "off", "denoiser", "step"]
FusedKernels = Literal["auto", "on", "off"]
VaeAttention = Literal["auto", "explicit", "sdpa"]
DecoderExecution = Literal["auto", "loop", "streams", "batched"]

CaptionPrecision = Literal["auto", "int8", "float16", "bfloat16", "float32"]
CaptionFallback = Literal["error", "none"]
"""What happens if the captioner's weights are not available: an error, or an empty prompt."""


def _with_unit(read: Callable[[str], float]) -> BeforeValidator:
    """Check an amount with its unit and keep its text; YAML reads an amount without a unit as a number."""

    def check(value: Any) -> str:
        text = str(value)
        read(text)
        return text

    return BeforeValidator(check)


def _undo_yaml_boolean(value: Any) -> Any:
    """Return the word ``on`` or ``off``, which YAML reads as true or false."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


_OnOff = BeforeValidator(_undo_yaml_boolean)


class Component(BaseModel):
    """A component by name; all other keys of its section are options of its constructor.

    Attributes:
        name: which component it is.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options as written; the registry checks them and fills in defaults."""
        return dict(self.model_extra or {})


class Term(Checked):
    """An objective's weight and options.

    Attributes:
        weight: factor of this objective in the total loss.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.model_extra or {})


class LearningRates(Section):
    """AdamW learning rates per group of parameters; rates of groups that are not optimized are ignored.

    Attributes:
        embeddings: of the tokens that the encoder computed.
        decoder: of the decoder's weights.
        encoder: of the encoder's weights (parameterization full).
        depth: of the output map itself (parameterization depth).
        correction: of the low-rank correction of the output map (parameterization low-rank).
        offset: of the learned offset of the scale.
    """

    embeddings: Rate = 1e-3
    decoder: Rate = 2e-6
    encoder: Rate = 2e-6
    depth: Rate = 1e-3
    correction: Rate = 1e-3
    offset: Rate = 1e-3


class EarlyStop(Section):
    """Stop a member when the mean of its total loss over a window stops falling.

    A member stops at the first step at which the mean over the last ``window`` steps is not below
    (1 - ``min_improvement``) times the mean over the ``window`` steps before.

    Attributes:
        enabled: whether members stop at a plateau of their loss.
        window: number of steps whose mean losses are compared.
        min_improvement: share by which the mean loss has to fall from one window to the next.
    """

    enabled: bool = False
    window: Annotated[int, Field(ge=2, le=10_000)] = 50
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.001


class Performance(Section):
    """How the same mathematics is executed: results differ by rounding alone (docs/performance.md).

    Half precision is an option of the prior, ``prior.dtype``; the depth model always runs in float32.

    Attributes:
        channels_last: whether convolutions get tensors whose channels are innermost in memory. Latent priors
            ignore it on a CPU, where it costs torch precision.
        compile: torch.compile with static shapes for no network (``off``), for the ``prior``'s networks, or
            for ``all``, the depth decoder included. Compilation takes place before the first step; it saved
            no time in the measurements.
        cuda_graphs: what is launched as one CUDA graph: nothing, the frozen denoiser, or the whole ``step``
            of forward, backward and update (`optim.step_graph`). ``auto``: the step, in runs of 100 steps or
            more. No effect on other devices.
        checkpointing: whether the backward pass computes the VAE's encoder again instead of storing its
            activations: less memory for one more forward pass.
        fused_kernels: whether operations of the prior's networks that take several passes over memory run as
            one Triton kernel each. They are group normalization with SiLU and biases, residual sums and gated
            units (`runtime.fusion`). ``auto``: on CUDA, with Triton and ``channels_last``. ``on`` computes
            the same in torch if there is no GPU.
        vae_attention: the attention of the VAE's encoder, as ``explicit`` products and a softmax or as
            torch's fused ``sdpa``. Its one head is too wide for flash attention. ``auto``: explicit on CUDA,
            which keeps the attention weights for the backward pass.
        shared_prefix: whether the layers of a UNet before the first one that reads the text run once for all
            branches of guidance (Stable Diffusion 1.5 and 2.1, IC-Light).
        read_losses_every: the number of steps between two reads of the losses; each read waits for the GPU.
        tf32: whether matrix products and convolutions in float32 round their factors to the 10 bits of TF32.
            Tensor cores compute it fast. It is for the depth decoder, and for the prior with ``prior.dtype:
            float32``. The paper's implementation runs with it. No effect on other devices than CUDA.
        cudnn_benchmark: whether cuDNN times its algorithms for each new shape and keeps the fastest. CUDA
            only.
        decoders: how members with decoders of their own run them: one by one (``loop``), in ``streams`` of a
            GPU, ``batched`` as one network, or ``auto``. A decoder with layers other than convolutions and
            linear ones stays a loop. ``auto``: on CUDA ``streams`` if the step is a graph, else ``batched``;
            ``loop`` elsewhere.
    """

    channels_last: bool = True
    compile: Annotated[CompiledNetworks, _OnOff] = "off"
    cuda_graphs: Annotated[CudaGraphs, _OnOff] = "auto"
    checkpointing: bool = False
    fused_kernels: Annotated[FusedKernels, _OnOff] = "auto"
    vae_attention: VaeAttention = "auto"
    shared_prefix: bool = True
    read_losses_every: Annotated[int, Field(ge=1, le=1000)] = 10
    tf32: bool = True
    cudnn_benchmark: bool = True
    decoders: DecoderExecution = "auto"


class Optim(Section):
    """The test-time optimization: which parameters, how many steps, how many members.

    Attributes:
        parameterization: what is learned: ``embeddings+decoder``, ``embeddings``, ``decoder``, ``full`` (all
            weights), ``depth`` (the output map) or ``low-rank`` (a smooth correction of it).
        steps: number of optimization steps of each member.
        members: number of independent runs, whose results are averaged.
        members_per_batch: the largest number of members that advance together; ``auto`` is all. If their
            memory does not suffice, it is halved.
        learning_rates: learning rates of AdamW, for each group of parameters.
        schedule: the learning rates over the steps: ``constant``, or falling as a ``cosine``.
        final_rate: share of the learning rates that is left at the end of the cosine schedule.
        weight_decay: weight decay of AdamW.
        prior_weight: factor of the prior's loss in the total loss.
        objectives: the other losses, each with its weight and options.
        blend: how the members' mean joins the initial map: ``none`` (the mean itself), by their
            ``agreement``, or by its ``detail``.
        blend_tolerance: deviation of the members at which agreement gives half weight, as a share of the
            map's spread.
        blend_scale: sigma of the filter that separates detail, as a share of the shorter side.
        blend_pixels: largest sigma of that filter, in pixels of the network; null: no limit.
        early_stop: whether and when members stop early.
        budget: limit of the time for one photo, such as ``60s`` or ``2m``. Members and steps are lowered
            until it holds (`optim.planning`).
        vram: limit of the GPU memory, such as ``8GB``. Fewer members advance together until it holds.
        performance: how the computation is executed; results differ by rounding alone.
    """

    parameterization: Parameterization = "embeddings+decoder"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    members: Annotated[int, Field(ge=1, le=1000)] = 10
    members_per_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = "auto"
    learning_rates: LearningRates = LearningRates()
    schedule: LearningRateSchedule = "constant"
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    prior_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    objectives: dict[str, Term] = Field(default_factory=dict)
    blend: Blend = "none"
    blend_tolerance: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    blend_scale: Annotated[float, Field(ge=1e-4, le=1)] = 0.125
    blend_pixels: Annotated[float, Field(ge=0.25, le=16_384)] | None = None
    early_stop: EarlyStop = EarlyStop()
    budget: Annotated[str, _with_unit(seconds)] | None = None
    vram: Annotated[str, _with_unit(memory)] | None = None
    performance: Performance = Performance()

    def detail_scale(self, height: int, width: int) -> float:
        """Return `blend_scale` of a map of this size, lowered to `blend_pixels`."""
        limit = self.blend_pixels
        return self.blend_scale if limit is None else min(self.blend_scale, limit / min(height, width))

    @model_validator(mode="after")
    def _decays(self) -> Optim:
        rate = max(self.learning_rates.model_dump().values())
        if self.weight_decay * rate > 1:
            # AdamW multiplies weights by 1 - rate * decay in each step: beyond 2 they grow without end.
            raise ValueError(
                f"weight_decay {self.weight_decay:g} times the largest learning rate {rate:g} is above 1: "
                "lower one of them"
            )
        return self


class Prompting(Section):
    """Where the prompt comes from if the user gives none.

    Attributes:
        captioner: who writes the prompt: ``blip2`` (the paper's), ``blip``, or ``none`` for an empty prompt.
        checkpoint: other weights of the captioner's kind: a hub id or a folder.
        revision: commit, tag or branch of the captioner's weights on the hub.
        local_files_only: whether the hub is never asked for the captioner.
        dtype: precision of the captioner; ``auto`` suits the device.
        fallback: what happens if the captioner is not available: an ``error``, or an empty prompt (``none``).
    """

    captioner: CaptionerChoice = "none"
    checkpoint: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    dtype: CaptionPrecision = "auto"
    fallback: CaptionFallback = "error"


EXPORTS: tuple[Export, ...] = get_args(Export)
"""All that can be written, in the order in which it is written."""


DEFAULT_EXPORTS: tuple[Export, ...] = ("map", "preview", "depth", "comparison", "view")


def _chosen(value: Any) -> Any:
    """Return a choice of files as a list without repetition: from a list, or from text with commas."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise ValueError("must be a list of names, or names with commas between them")
    names = [name.strip() for name in listed if name.strip()]
    unknown = [name for name in names if name not in (*EXPORTS, "all")]
    if unknown:
        hint = nearest(unknown[0], EXPORTS)
        raise ValueError(f"unknown file {brief(unknown[0])}{hint} (valid: {', '.join(EXPORTS)}, all)")
    return [name for name in EXPORTS if name in names or "all" in names]


class Output(Section):
    """What is written of a result, and how its maps get the photo's size. ``run.json`` is always written.

    Attributes:
        write: the files to write, as a list or with commas; ``all`` stands for all of them. One that needs
            what is not known, such as ``depth`` without metres, is left out, which ``run.json`` says.
        upsample: how maps get the photo's size: ``bilinear`` as in the paper's code, or ``guided``, which
            follows the edges of the photo (`exports.enlarge_guided`).
        guided_radius: radius of the guided filter's window, in pixels of the network.
        guided_eps: smallest variance of a colour in [0, 1] that the guided filter takes for an edge.
        max_points: most points of ``points.ply``.
        mesh_faces: most triangles of ``mesh.glb``.
        texture_side: longer side of the photo inside ``mesh.glb``, in pixels.
    """

    write: Annotated[list[Export], BeforeValidator(_chosen)] = Field(
        default_factory=lambda: list(DEFAULT_EXPORTS)
    )
    upsample: Upsampling = "bilinear"
    guided_radius: Annotated[float, Field(ge=0.25, le=64)] = 2.0
    guided_eps: Annotated[float, Field(ge=1e-8, le=1)] = 1e-3
    max_points: Annotated[int, Field(ge=1, le=100_000_000)] = 500_000
    mesh_faces: Annotated[int, Field(ge=100, le=10_000_000)] = 200_000
    texture_side: Annotated[int, Field(ge=16, le=16_384)] = 2048


class Thresholds(Section):
    """Above these values a failure signature is flagged (`metrics.diagnostics`).

    Attributes:
        hallucinated_edges: threshold of edges that the photo does not have.
        over_smoothing: threshold of lost detail.
        collapse_range: threshold of the geometry collapse: the lost share of the initial depth's range.
        collapse_entropy: threshold of the geometry collapse: the lost share of the initial depth's entropy.
        collapse_order: threshold of the geometry collapse: the lost share of the initial depth's order.
        sky_geometry: threshold of the nearness of the sky.
    """

    hallucinated_edges: Threshold = 0.046
    over_smoothing: Threshold = 0.11
    collapse_range: Threshold = 0.71
    collapse_entropy: Threshold = 0.43
    collapse_order: Threshold = 0.54
    sky_geometry: Threshold = 0.25


class Diagnostics(Section):
    """How the failure signatures of a result are judged; it changes no map (docs/diagnostics.md).

    Attributes:
        thresholds: the values above which a failure signature is flagged.
        calibrated_for: the preset, by its name or YAML file, whose runs the thresholds were chosen on. It
            counts where the depth model, renderer, prior and optimization are those of that preset: else it
            is emptied, and warnings say that they are not calibrated.
    """

    thresholds: Thresholds = Thresholds()
    calibrated_for: str = ""


class Preset(Section):
    """Everything that defines a refinement except the photo, a prompt by hand and the seed.

    Attributes:
        name: name of the preset.
        description: what the preset is for.
        depth_model: the model that predicts the map, and its options.
        renderer: re-lights the photo on the surface of the map; its options.
        prior: the diffusion model that scores the re-lit pictures, and its options.
        prompt: where the prompt comes from if none is given.
        optim: what is learned, for how long, by which losses.
        output: the files that are written.
        diagnostics: how the failure signatures of a result are judged.
        adapt: how the depth model is adapted to many photos (`redepth adapt`).
        clip: how the frames of a clip are refined.
    """

    name: str = "unnamed"
    description: str = ""
    depth_model: Component
    renderer: Component
    prior: Component
    prompt: Prompting = Prompting()
    optim: Optim = Optim()
    output: Output = Output()
    diagnostics: Diagnostics = Diagnostics()
    adapt: Adapt = Adapt()
    clip: Clip = Clip()

    def to_yaml(self) -> str:
        """Return the resolved preset as YAML that `load_preset` reads back to an equal one."""
        return dump_yaml(self.model_dump())

    def __repr__(self) -> str:
        """Return one line; `to_yaml` has all settings."""
        optim = self.optim
        parts = ", ".join(component.name for component in (self.depth_model, self.renderer, self.prior))
        return f"Preset({self.name!r}: {parts}; {optim.members} members x {optim.steps} steps)"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """Return the settings for a notebook, folded below one line."""
        return (
            f"<details><summary>{escape(repr(self))}</summary><pre>{escape(self.to_yaml())}</pre></details>"
        )
