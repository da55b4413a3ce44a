"""Low-rank adapters (LoRA, arXiv 2106.09685) in a frozen network, through peft."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, nn

from redepth.registry import require


def add_adapter(network: nn.Module, name: str, layers: Sequence[str], rank: int, extra: str) -> None:
    """Put an adapter beside each of these layers; `start_adapter` gives it its first weights.

    Args:
        network: frozen; its layers are replaced in place.
        name: of the adapter; a network can have several.
        layers: names of linear layers and convolutions.
        rank: of the adapters; their factor is 1.
        extra: of redepth, which installs peft.

    Raises:
        MissingDependencyError: if peft is not installed.
    """
    peft = require("peft", extra)
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers), init_lora_weights=False)
    # Its own initialisation reads the global generator; `start_adapter` replaces it.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Several adapters in one model are intended.
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
        peft.inject_adapter_in_model(config, network, adapter_name=name)


def start_adapter(network: nn.Module, name: str, generator: Generator) -> list[nn.Parameter]:
    """Draw A and set B to 0, so that the network is the frozen one; return both of all layers, learnable."""
    found: list[nn.Parameter] = []
    for layer in adapted_layers(network):
        a, b = layer.lora_A[name].float().weight, layer.lora_B[name].float().weight
        bound = a[0].numel() ** -0.5
        drawn = (torch.rand(a.shape, generator=generator) * 2 - 1) * bound
        with torch.no_grad():
            a.copy_(drawn)
            b.zero_()
        found += [a.requires_grad_(), b.requires_grad_()]
    return found


def adapted_layers(network: nn.Module) -> list[Any]:
    """Return the layers of a network that have adapters."""
    return [module for module in network.modules() if _has_adapters(module)]


def merge_adapters(network: nn.Module) -> None:
    """Add the active adapters to the weights of their layers, and put the plain layers back."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _has_adapters(child):
                layer: Any = child
                layer.merge()
                setattr(parent, name, layer.get_base_layer())


def _has_adapters(module: nn.Module) -> bool:
    # Of peft alone: a network without adapters needs no peft.
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
