"""Presets: the schema, YAML loading with ``extends:``, and dotted overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from redepth.config.units import memory, seconds
from redepth.errors import ConfigError, nearest
from redepth.literals import CaptionerChoice
from redepth.registry import Location, explain

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "re-depth-anything"

Rate = Annotated[float, Field(ge=0, le=1)]

Blend = Literal["none", "agreement", "detail"]
"""How the members' mean and the initial output make the answer: the mean, `agreement_weight`'s blend, or the
mean's `ops.filters.detail` on the initial output."""


def _read_by(read: Callable[[str], float]) -> BeforeValidator:
    """Check an amount with its unit, which stays as it was written; YAML reads a bare one as a number."""

    def check(given: Any) -> str:
        read(str(given))
        return str(given)

    return BeforeValidator(check)


def _switch(given: Any) -> Any:
    """Return the word that was written: YAML reads a bare ``on`` and ``off`` as true and false."""
    return ("on" if given else "off") if isinstance(given, bool) else given


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(BaseModel):
    """A component by name; what else stands beside it are its constructor's options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Return the options as given (the registry checks them and fills in defaults)."""
        return dict(self.model_extra or {})


class Term(BaseModel):
    """An objective's weight and options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    weight: Annotated[float, Field(ge=0)] = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """Return the options as given."""
        return dict(self.model_extra or {})


class LearningRates(_Section):
    """AdamW learning rates per group of parameters; groups that are not learnable are ignored."""

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
    """How the same mathematics is computed: results differ by rounding alone (docs/performance.md).

    - ``channels_last``: convolutions see their pictures with the channels innermost; latent priors on a CPU
      do not, where torch loses precision by it.
    - ``compile``: torch.compile with static shapes for nothing, for the prior's networks, or for the depth
      decoder too. Compiling comes before the first step, and has not paid where it was measured.
    - ``cuda_graphs``: launched as one CUDA graph is nothing, the frozen denoiser, or the whole ``step``,
      forward, backward and update (`optim.step_graph`). ``auto``: the step, in runs of 100 steps and more. No
      effect on other devices.
    - ``checkpointing``: the VAE's encoder is computed again on the way back instead of being remembered: less
      memory, its forward pass once more.
    - ``fused_kernels``: what the prior's networks do in several passes over memory is one Triton kernel each
      (`fusion`): group normalisation with SiLU and biases, residual sums, gated units. ``auto``: on CUDA,
      with Triton and ``channels_last``. ``on`` without a GPU computes the same in torch.
    - ``vae_attention``: the attention of the VAE's encoder, whose one head is too wide for flash attention,
      as ``explicit`` products and a softmax or as torch's fused ``sdpa``; ``auto``: explicit on CUDA, which
      keeps the attention's weights for the way back.
    - ``shared_prefix``: what a UNet computes before it reads the text is computed once for all branches of
      guidance (Stable Diffusion 1.5 and 2.1, IC-Light).
    - ``read_losses_every``: steps between two looks at the losses, for each of which a GPU is waited for.
    - ``tf32``: products and convolutions in float32 (the depth decoder's, and the prior's where
      ``prior.dtype`` is float32) round their factors to TF32's 10 bits, which tensor cores are fast at. It is
      what the paper's implementation runs with. No effect on other devices than CUDA.
    - ``cudnn_benchmark``: cuDNN times its algorithms for each new shape and keeps the fastest. CUDA only.
    - ``decoders``: members that have decoders of their own run them one after the other (``loop``), in
      several ``streams`` of a GPU, or as one network whose layers are batched over the members (``batched``;
      a decoder with layers other than convolutions and linear ones stays a loop). ``auto``: on CUDA
      ``streams`` where the step is a graph, else ``batched``; ``loop`` elsewhere.

    Half precision is the prior's own option, ``prior.dtype``; the depth model is always in float32.
    """

    channels_last: bool = True
    compile: Annotated[Literal["off", "prior", "all"], BeforeValidator(_switch)] = "off"
    cuda_graphs: Annotated[Literal["auto", "off", "denoiser", "step"], BeforeValidator(_switch)] = "auto"
    checkpointing: bool = False
    fused_kernels: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    vae_attention: Literal["auto", "explicit", "sdpa"] = "auto"
    shared_prefix: bool = True
    read_losses_every: Annotated[int, Field(ge=1, le=1000)] = 10
    tf32: bool = True
    cudnn_benchmark: bool = True
    decoders: Literal["auto", "loop", "streams", "batched"] = "auto"


class Optim(_Section):
    """The test-time optimisation: what is learned, for how long, by how many members.

    ``members_per_batch`` is how many members advance together at most; ``auto`` is all. Where their memory
    does not suffice, half as many do. ``budget`` is the time that one photo may take (``60s``, ``2m``) and
    ``vram`` the memory of a GPU that may be used (``8GB``): members, members together and steps are lowered
    until both hold (`optim.planning`).
    """

    parameterization: Literal["embeddings+decoder", "embeddings", "decoder", "full", "depth", "low-rank"] = (
        "embeddings+decoder"
    )
    steps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    members: Annotated[int, Field(ge=1, le=1000)] = 10
    members_per_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    learning_rates: LearningRates = LearningRates()
    schedule: Literal["constant", "cosine"] = "constant"
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    objectives: dict[str, Term] = Field(default_factory=dict)
    blend: Blend = "none"
    blend_tolerance: Annotated[float, Field(gt=0)] = 0.1
    blend_scale: Annotated[float, Field(gt=0, le=1)] = 0.125
    early_stop: EarlyStop = EarlyStop()
    budget: Annotated[str, _read_by(seconds)] | None = None
    vram: Annotated[str, _read_by(memory)] | None = None
    performance: Performance = Performance()


class Prompting(_Section):
    """Where the prompt is from where none is given by hand.

    ``captioner`` writes one: ``blip2`` (the paper's), ``blip`` or ``none`` (an empty prompt); ``checkpoint``
    and ``revision`` are another one of that kind. ``fallback`` says what happens where it cannot be had: an
    ``error``, or on with ``none``.
    """

    captioner: CaptionerChoice = "none"
    checkpoint: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    dtype: Literal["auto", "int8", "float16", "bfloat16", "float32"] = "auto"
    fallback: Literal["error", "none"] = "error"


class Preset(_Section):
    """Everything that defines a refinement, apart from the photo, a prompt given by hand and the seed."""

    name: str = "unnamed"
    description: str = ""
    depth_model: Component
    renderer: Component
    prior: Component
    prompt: Prompting = Prompting()
    optim: Optim = Optim()

    def to_yaml(self) -> str:
        """Return the resolved preset as YAML that `load_preset` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(
    source: str | Path | Mapping[str, Any] = DEFAULT_PRESET, overrides: Sequence[str] = ()
) -> Preset:
    """Load a preset by name, from a YAML file or from a mapping, and apply ``key.path=value`` overrides.

    A preset may say ``extends: NAME`` and then only what differs; a section set to null is taken out.
    A component whose name changes starts from its own defaults: options of the former one are dropped.
    A file that it extends is looked for in its own folder first. The order of overrides matters only
    where two set the same key.

    Raises:
        ConfigError: unknown preset or key (with the nearest valid one), wrong type, value out of
            range, unreadable file.
    """
    if isinstance(source, Mapping):
        data = _extended(dict(source), Path(), seen=())
    else:
        data = _load(_find(source, Path()), seen=())
    change: dict[str, Any] = {}
    for override in overrides:
        # Joined before they are applied, so that an option may be given before the name it belongs to.
        change = _join(change, _parse_override(override))
    try:
        return Preset.model_validate(_merge(data, change))
    except ValidationError as error:
        raise ConfigError(f"preset: {explain(error, '', _valid_keys, Preset)}") from None


def _find(source: str | Path, folder: Path) -> Path:
    text = str(source)
    if text in preset_names():
        return PRESETS / f"{text}.yaml"
    path = Path(source).expanduser()
    for candidate in (folder / path, path):
        if candidate.is_file():
            return candidate
    if path.suffix in {".yaml", ".yml"}:
        raise ConfigError(f"preset file '{source}' does not exist")
    names = preset_names()
    hint = nearest(text, names)
    raise ConfigError(f"unknown preset '{source}'{hint} (valid: {', '.join(names)}, or a YAML file)")


@lru_cache(maxsize=64)
def _parse(path: Path, _changed: int) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = _parse(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read preset file '{path}': {reason}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"preset file '{path}' must hold a mapping of sections")
    return {"name": path.stem, **data}


def _load(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    chain = (*seen, path.resolve())
    if chain[-1] in seen:
        names = " -> ".join(str(p) for p in chain)
        raise ConfigError(f"presets extend each other in a circle: {names}")
    return _extended(_read(path), path.parent, chain)


def _extended(data: dict[str, Any], folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    parent = data.get("extends")
    rest = {k: v for k, v in data.items() if k != "extends"}
    if parent is None:
        return rest
    if not isinstance(parent, str):
        raise ConfigError(f"preset: extends: must be the name or the file of one preset, got {parent!r}")
    return _merge(_load(_find(parent, folder), seen), rest)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            merged[key] = dict(value) if renamed else _merge(old, value)
        elif isinstance(old, Mapping) and value is None:
            # What a parent or the schema has a section for can only be taken out, not be nothing.
            del merged[key]
        else:
            merged[key] = value
    return merged


def _join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(first)
    for key, value in second.items():
        old = joined.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _join(old, value)
        joined[key] = value
    return joined


def _parse_override(override: str) -> dict[str, Any]:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"override '{override}' is not of the form key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override '{override}': the value is not valid YAML") from None
    for key in reversed(keys):
        value = {key: value}
    return value


def _valid_keys(location: Location) -> list[str]:
    section: Any = Preset
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
