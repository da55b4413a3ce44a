"""How a run's networks are executed: what `optim.performance` leaves to be decided, decided for a device."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any, Literal

import torch

from redepth.config import Optim, Performance
from redepth.contracts import DepthModel, Execution, Prior, Tunable
from redepth.errors import ConfigError
from redepth.ops.group_norm import TRITON_PROBLEM

COMPILE_PAYS_AFTER = 4000
"""Member-steps on a GPU after which compiling the prior has cost less time than it saved."""

GRAPH_PAYS_AFTER = 20
"""Steps of a run after which capturing one has cost less time than it saved."""

Graphs = Literal["off", "denoiser", "step"]
Compiled = Literal["off", "prior", "all"]


def compiled(optim: Optim, device: torch.device) -> Compiled:
    """Return what is compiled: what was asked for, or where that is ``auto`` what pays.

    ``auto`` compiles the prior on CUDA, for runs of at least `COMPILE_PAYS_AFTER` member-steps that have no
    time limit, where triton and a C compiler are installed.
    """
    asked = optim.performance.compile
    if asked != "auto":
        return asked
    long = optim.members * optim.steps >= COMPILE_PAYS_AFTER and optim.budget is None
    return "prior" if device.type == "cuda" and long and can_compile() else "off"


def can_compile() -> bool:
    """Return whether torch.compile finds what it needs for a GPU: triton, and a C compiler."""
    compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return compiler and importlib.util.find_spec("triton") is not None


def tune(optim: Optim, device: torch.device, depth_model: DepthModel, prior: Prior) -> dict[str, Any]:
    """Let both components execute their networks as the settings say; return what was decided, as plain data.

    Raises:
        ConfigError: if the prior cannot be executed so.
    """
    fast = optim.performance
    # The networks of a rule such as ``vsd`` change during a run.
    changes = bool(getattr(prior, "learns", False))
    if changes and fast.cuda_graphs == "step":
        raise ConfigError(
            "optim.performance.cuda_graphs=step needs a prior whose networks stay as they are: set it to "
            "off, or take another prior.score"
        )
    chosen: dict[str, str] = {
        "compile": "off" if changes and fast.compile == "auto" else compiled(optim, device),
        "cuda_graphs": "off" if changes and fast.cuda_graphs == "auto" else graphed(optim, device),
    }
    chosen |= {"fused_kernels": _fuses(fast, device), "vae_attention": _attention(fast, device)}
    for component in (depth_model, prior):
        if isinstance(component, Tunable):
            component.tune(_execution(fast, chosen, prior=component is prior))
    decided = fast.model_dump(exclude={"read_losses_every"}) | chosen
    # What means nothing on a device is not said of a run on it.
    return decided if device.type == "cuda" else {k: v for k, v in decided.items() if k not in FOR_CUDA}


def _execution(fast: Performance, chosen: dict[str, str], *, prior: bool) -> Execution:
    """Return how a component's networks are executed; kernels have no gradient for a decoder's weights."""
    return Execution(
        fast.channels_last,
        chosen["compile"] == "all" or (chosen["compile"] == "prior" and prior),
        chosen["cuda_graphs"] == "denoiser",
        fast.checkpointing,
        decoders="loop" if fast.decoders == "streams" else fast.decoders,
        fused_kernels=prior and chosen["fused_kernels"] == "on",
        explicit_attention=prior and chosen["vae_attention"] == "explicit",
        shared_prefix=prior and fast.shared_prefix,
    )


def _fuses(fast: Performance, device: torch.device) -> str:
    """Return whether normalisations are kernels. Raises ConfigError: Triton, asked for, is missing."""
    if fast.fused_kernels == "on" and TRITON_PROBLEM:
        raise ConfigError(f"optim.performance.fused_kernels=on: {TRITON_PROBLEM}, or take auto")
    if fast.fused_kernels != "auto":
        return fast.fused_kernels
    return "on" if device.type == "cuda" and fast.channels_last and not TRITON_PROBLEM else "off"


def _attention(fast: Performance, device: torch.device) -> str:
    if fast.vae_attention != "auto":
        return fast.vae_attention
    return "explicit" if device.type == "cuda" else "sdpa"


FOR_CUDA = ("tf32", "cudnn_benchmark")
"""Settings that have no effect on other devices."""


def graphed(optim: Optim, device: torch.device) -> Graphs:
    """Return what becomes a CUDA graph; ``auto`` is the whole step, of runs that are not too short."""
    asked = optim.performance.cuda_graphs
    if device.type != "cuda":
        return "off"
    if asked != "auto":
        return asked
    return "step" if optim.steps >= GRAPH_PAYS_AFTER else "off"
