"""How a run's networks are executed: what `optim.performance` leaves to be decided, decided for a device."""

from __future__ import annotations

from typing import Any, Literal

import torch

from redepth.config import Optim, Performance
from redepth.contracts import DepthModel, Execution, Prior, Renderer, Tunable
from redepth.errors import ConfigError
from redepth.ops.triton.kernels import TRITON_PROBLEM

GRAPH_PAYS_AFTER = 100
"""Steps of a run after which capturing one has surely cost less time than it saved: ten members of the
paper's preset on an H100 need 66 (0.63 s, at 9.5 ms a step; docs/performance.md)."""

Graphs = Literal["off", "denoiser", "step"]


def tune(
    optim: Optim,
    device: torch.device,
    depth_model: DepthModel,
    prior: Prior,
    renderer: Renderer | None = None,
) -> dict[str, Any]:
    """Let both networks be executed as the settings say; return what was decided, as plain data.

    A renderer whose ``waits`` is true reads numbers from the device in each step.

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
    # Draws that are read as numbers make each step another one.
    eager = changes or bool(getattr(prior, "on_cpu", None)) or bool(getattr(renderer, "waits", False))
    graphs = "off" if eager and fast.cuda_graphs == "auto" else graphed(optim, device)
    chosen = {
        "cuda_graphs": graphs,
        "fused_kernels": "off" if changes and fast.fused_kernels == "auto" else _fuses(fast, device),
        "vae_attention": _attention(fast, device),
        "decoders": _decoders(fast, device, graphs),
    }
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
        fast.compile == "all" or (fast.compile == "prior" and prior),
        chosen["cuda_graphs"] == "denoiser",
        fast.checkpointing,
        decoders="batched" if chosen["decoders"] == "batched" else "loop",
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


def _decoders(fast: Performance, device: torch.device, graphs: str) -> str:
    """Return how members' decoders run; streams pay where their kernels are not launched one by one."""
    if fast.decoders != "auto":
        return fast.decoders
    if device.type != "cuda":
        return "loop"
    return "streams" if graphs == "step" else "batched"


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
