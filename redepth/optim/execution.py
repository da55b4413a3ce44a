"""How networks are executed: resolves each ``auto`` of `optim.performance` for a device."""

from __future__ import annotations

from typing import Any, Literal

import torch

from redepth.config import Optim, Performance
from redepth.contracts import DepthModel, Execution, Prior, Renderer, Tunable
from redepth.errors import ConfigError
from redepth.ops.triton.kernels import TRITON_PROBLEM

GRAPH_PAYS_AFTER = 100
"""Steps of a run from which capturing a step saves time. Ten members of the paper's preset on an H100 need
66 steps: 0.63 s for the capture, 9.5 ms saved per step (docs/performance.md)."""

FOR_CUDA = ("tf32", "cudnn_benchmark")
"""Settings that have an effect on CUDA alone."""

Graphs = Literal["off", "denoiser", "step"]


def tune(
    optim: Optim,
    device: torch.device,
    depth_model: DepthModel,
    prior: Prior,
    renderer: Renderer | None = None,
) -> dict[str, Any]:
    """Tune both networks for the settings and the device; return the decisions as plain data.

    Args:
        optim: settings; ``performance`` says how to execute, ``steps`` whether a graph pays.
        device: device of the networks.
        depth_model: tuned if it is `Tunable`.
        prior: tuned if it is `Tunable`.
        renderer: a renderer or prior whose ``waits`` is true reads numbers from the device in each step, so
            its steps cannot become graphs.

    Raises:
        ConfigError: if the prior cannot be executed as the settings require.
    """
    fast = optim.performance
    check_execution(optim, prior)
    learns = bool(getattr(prior, "learns", False))
    # Where draws are read as numbers on the host, each step launches other kernels.
    waits = any(getattr(component, "waits", False) for component in (prior, renderer))
    eager = learns or bool(getattr(prior, "on_cpu", None)) or waits
    graphs = "off" if eager and fast.cuda_graphs == "auto" else graphed(optim, device)
    chosen = {
        "cuda_graphs": graphs,
        "fused_kernels": "off" if learns and fast.fused_kernels == "auto" else _fuses(fast, device),
        "vae_attention": _attention(fast, device),
        "decoders": _decoders(fast, device, graphs),
    }
    for component in (depth_model, prior):
        if isinstance(component, Tunable):
            component.tune(_execution(fast, chosen, prior=component is prior))
    decided = fast.model_dump(exclude={"read_losses_every"}) | chosen
    if device.type == "cuda":
        return decided
    return {name: value for name, value in decided.items() if name not in FOR_CUDA}


def check_execution(optim: Optim, prior: object) -> None:
    """Raise ConfigError if a prior cannot be executed as the settings require; needs no weights."""
    fast = optim.performance
    if getattr(prior, "waits", False) and (fast.cuda_graphs in ("step", "denoiser") or fast.compile != "off"):
        raise ConfigError(
            "prior.quantize: int8 and nf4 can be neither compiled nor a CUDA graph: set "
            "optim.performance.compile=off and .cuda_graphs=off, or take prior.quantize=fp8-storage"
        )
    # A rule such as ``vsd`` trains a copy of the network during the run.
    if not getattr(prior, "learns", False):
        return
    if fast.cuda_graphs == "step":
        raise ConfigError(
            "optim.performance.cuda_graphs=step needs a prior whose networks do not change: set it to "
            "off, or take another prior.score"
        )
    if fast.compile != "off" or fast.fused_kernels == "on" or fast.cuda_graphs == "denoiser":
        raise ConfigError(
            "prior.score trains copies of the denoiser, which can be neither compiled nor fused nor a CUDA "
            "graph: set optim.performance.compile=off, .fused_kernels=off and .cuda_graphs=off, or take "
            "another score"
        )


def _execution(fast: Performance, chosen: dict[str, str], *, prior: bool) -> Execution:
    """Return how a component is executed. Only the prior is fused: the kernels give weights no gradient."""
    return Execution(
        channels_last=fast.channels_last,
        compile=fast.compile == "all" or (fast.compile == "prior" and prior),
        cuda_graphs=chosen["cuda_graphs"] == "denoiser",
        checkpointing=fast.checkpointing,
        decoders="batched" if chosen["decoders"] == "batched" else "loop",
        fused_kernels=prior and chosen["fused_kernels"] == "on",
        explicit_attention=prior and chosen["vae_attention"] == "explicit",
        shared_prefix=prior and fast.shared_prefix,
    )


def _fuses(fast: Performance, device: torch.device) -> str:
    """Return whether normalisations are fused. Raises ConfigError if ``on`` is set without Triton."""
    if fast.fused_kernels == "on" and TRITON_PROBLEM:
        raise ConfigError(f"optim.performance.fused_kernels=on: {TRITON_PROBLEM}, or take auto")
    if fast.fused_kernels != "auto":
        return fast.fused_kernels
    return "on" if device.type == "cuda" and fast.channels_last and not TRITON_PROBLEM else "off"


def _decoders(fast: Performance, device: torch.device, graphs: str) -> str:
    """Return how members' decoders run; streams are faster only inside a graph of the step."""
    if fast.decoders != "auto":
        return fast.decoders
    if device.type != "cuda":
        return "loop"
    return "streams" if graphs == "step" else "batched"


def _attention(fast: Performance, device: torch.device) -> str:
    if fast.vae_attention != "auto":
        return fast.vae_attention
    return "explicit" if device.type == "cuda" else "sdpa"


def graphed(optim: Optim, device: torch.device) -> Graphs:
    """Return what becomes a CUDA graph; ``auto`` is the whole step, in runs that are long enough."""
    setting = optim.performance.cuda_graphs
    if device.type != "cuda":
        return "off"
    if setting != "auto":
        return setting
    return "step" if optim.steps >= GRAPH_PAYS_AFTER else "off"


def captures_steps(decisions: dict[str, Any], device: torch.device) -> bool:
    """Return whether whole steps become CUDA graphs, from the decisions that `tune` returned."""
    return bool(decisions["cuda_graphs"] == "step" and device.type == "cuda")
