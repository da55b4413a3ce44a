"""The schema of presets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from redepth.config.units import memory, seconds
from redepth.errors import brief
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


class _Section(Checked):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(BaseModel):
    """A component by name; all other keys of its section are options of its constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options as written; the registry checks them and fills in defaults."""
        return dict(self.model_extra or {})


class Term(Checked):
    """An objective's weight and options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.model_extra or {})


class LearningRates(_Section):
    """AdamW learning rates per group of parameters; rates of groups that are not optimized are ignored."""

    embeddings: Rate = 1e-3
    decoder: Rate = 2e-6
    encoder: Rate = 2e-6
    depth: Rate = 1e-3
    correction: Rate = 1e-3
    offset: Rate = 1e-3


class EarlyStop(_Section):
    """Stop a member when the mean of its total loss over a window stops falling.

    A member stops at the first step at which the mean over the last ``window`` steps is not below
    (1 - ``min_improvement``) times the mean over the ``window`` steps before.
    """

    enabled: bool = False
    window: Annotated[int, Field(ge=2, le=10_000)] = 50
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.001


class Performance(_Section):
    """How the same mathematics is executed: results differ by rounding alone (docs/performance.md).

    - ``channels_last``: convolutions get tensors whose channels are innermost in memory. Latent priors ignore
      it on a CPU, where it costs torch precision.
    - ``compile``: torch.compile with static shapes for no network (``off``), for the ``prior``'s networks, or
      for ``all``, the depth decoder included. Compilation takes place before the first step; it saved no
      time in the measurements.
    - ``cuda_graphs``: what is launched as one CUDA graph: nothing, the frozen denoiser, or the whole ``step``
      of forward, backward and update (`optim.step_graph`). ``auto``: the step, in runs of 100 steps or more.
      No effect on other devices.
    - ``checkpointing``: the backward pass computes the VAE's encoder again instead of storing its
      activations: less memory for one more forward pass.
    - ``fused_kernels``: operations of the prior's networks that take several passes over memory run as one
      Triton kernel each (`runtime.fusion`): group normalization with SiLU and biases, residual sums, gated
      units. ``auto``: on CUDA, with Triton and ``channels_last``. ``on`` computes the same in torch if there
      is no GPU.
    - ``vae_attention``: the attention of the VAE's encoder, whose one head is too wide for flash attention,
      as ``explicit`` products and a softmax or as torch's fused ``sdpa``. ``auto``: explicit on CUDA, which
      keeps the attention weights for the backward pass.
    - ``shared_prefix``: the layers of a UNet before the first one that reads the text run once for all
      branches of guidance (Stable Diffusion 1.5 and 2.1, IC-Light).
    - ``read_losses_every``: the number of steps between two reads of the losses; each read waits for the GPU.
    - ``tf32``: matrix products and convolutions in float32 (the depth decoder's, and the prior's with
      ``prior.dtype: float32``) round their factors to the 10 bits of TF32, which tensor cores compute fast.
      The paper's implementation runs with it. No effect on other devices than CUDA.
    - ``cudnn_benchmark``: cuDNN times its algorithms for each new shape and keeps the fastest. CUDA only.
    - ``decoders``: how members with decoders of their own run them: one after the other (``loop``), in
      several ``streams`` of a GPU, or as one network whose layers are batched over the members (``batched``;
      a decoder with layers other than convolutions and linear ones stays a loop). ``auto``: on CUDA
      ``streams`` if the step is a graph, else ``batched``; ``loop`` elsewhere.

    Half precision is an option of the prior, ``prior.dtype``; the depth model always runs in float32.
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


class Optim(_Section):
    """The test-time optimization: which parameters, how many steps, how many members.

    ``members_per_batch`` is the largest number of members that advance together; ``auto`` is all. If their
    memory does not suffice, it is halved. ``budget`` limits the time for one photo (``60s``, ``2m``) and
    ``vram`` the memory of a GPU (``8GB``): members, members per batch and steps are lowered until both hold
    (`optim.planning`).
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
    early_stop: EarlyStop = EarlyStop()
    budget: Annotated[str, _with_unit(seconds)] | None = None
    vram: Annotated[str, _with_unit(memory)] | None = None
    performance: Performance = Performance()

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


class Prompting(_Section):
    """Where the prompt comes from if the user gives none.

    ``captioner`` writes it: ``blip2`` (the paper's), ``blip``, or ``none`` for an empty prompt;
    ``checkpoint`` and ``revision`` replace the captioner's weights by others of its kind. ``fallback`` says
    what happens if the captioner is not available: an ``error``, or an empty prompt (``none``).
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
        raise ValueError(f"unknown file {brief(unknown[0])} (valid: {', '.join(EXPORTS)}, all)")
    return [name for name in EXPORTS if name in names or "all" in names]


class Output(_Section):
    """What is written of a result, and how its maps get the photo's size. ``run.json`` is always written.

    ``write`` is a list of names, or a text with commas; ``all`` stands for all of them. A name whose file
    needs what is not known, such as ``depth`` without metres, is left out, which ``run.json`` says.

    ``upsample``: ``bilinear`` as in the paper's code, or ``guided``: a guided filter on top of it follows the
    edges of the photo (`exports.enlarge_guided`). ``guided_radius`` is the radius of its window in pixels of
    the network, ``guided_eps`` its smallest variance of a colour in [0, 1] that counts as an edge.

    ``max_points`` limits the points of ``points.ply``, ``mesh_faces`` the triangles of ``mesh.glb`` and
    ``texture_side`` the longer side of the photo inside it.
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


class Thresholds(_Section):
    """Above these values a failure signature is flagged (`metrics.diagnostics`).

    ``collapse_range``, ``collapse_entropy`` and ``collapse_order`` are those of the parts of the geometry
    collapse: the lost shares of the initial depth's range, entropy and order.
    """

    hallucinated_edges: Threshold = 0.046
    over_smoothing: Threshold = 0.11
    collapse_range: Threshold = 0.71
    collapse_entropy: Threshold = 0.43
    collapse_order: Threshold = 0.54
    sky_geometry: Threshold = 0.25


class Diagnostics(_Section):
    """How the failure signatures of a result are judged; it changes no map (docs/diagnostics.md).

    ``calibrated_for`` names the preset whose runs the thresholds were chosen on. It is empty where they were
    not chosen on runs of this preset or of one that it extends: warnings then say so.
    """

    thresholds: Thresholds = Thresholds()
    calibrated_for: str = ""


class Preset(_Section):
    """Everything that defines a refinement except the photo, a prompt by hand and the seed."""

    name: str = "unnamed"
    description: str = ""
    depth_model: Component
    renderer: Component
    prior: Component
    prompt: Prompting = Prompting()
    optim: Optim = Optim()
    output: Output = Output()
    diagnostics: Diagnostics = Diagnostics()

    def to_yaml(self) -> str:
        """Return the resolved preset as YAML that `load_preset` reads back to an equal one."""
        return dump_yaml(self.model_dump())
