"""Low-rank copies of a frozen network, one per member, trained on the fly: for variational distillation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from redepth.registry import require

NEEDED = ("peft", "vsd")
"""The package, and the extra that installs it."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class LearnedCopies:
    """One low-rank adapter (LoRA, arXiv 2106.09685) of a frozen network per member, each with its AdamW.

    Outside `turns` the network is the frozen one. A copy starts as the frozen network. Members have separate
    copies, so running them together or one by one gives the same results.

    Args:
        network: frozen; its attention projections get adapters, or all its layers where it has none.
        rank: of the adapters.
        rate: learning rate.

    Raises:
        MissingDependencyError: if peft is not installed.
    """

    def __init__(self, network: nn.Module, rank: int, rate: float) -> None:
        self._peft = require(*NEEDED)
        self._network, self._rank, self._rate = network, rank, rate
        layers = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self._targets = [n for n in layers if n.endswith(ATTENTION)] or layers
        self._names: list[str] = []
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._turn = ""

    def begin(self, members: Sequence[int]) -> None:
        """Start again from the frozen network, for these members."""
        while len(self._names) < len(members):
            self._add(f"row{len(self._names)}")
        self._active = self._names[: len(members)]
        for name, member in zip(self._active, members, strict=True):
            parameters = self._reset(name, member)
            self._optimizers[name] = torch.optim.AdamW(parameters, lr=self._rate)
        self._enable(False)

    def turns(self, rows: int) -> Iterator[slice]:
        """Yield each member's rows of a batch while its copy takes the frozen network's place."""
        share = rows // len(self._active)
        self._enable(True)
        try:
            for i, name in enumerate(self._active):
                self._turn = name
                for layer in self._layers():
                    layer.set_adapter(name)
                yield slice(i * share, (i + 1) * share)
        finally:
            self._enable(False)

    def learn(self, loss: Tensor) -> None:
        """Take an optimisation step of the current copy."""
        optimizer = self._optimizers[self._turn]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def _add(self, name: str) -> None:
        config = self._peft.LoraConfig(
            r=self._rank, lora_alpha=self._rank, target_modules=self._targets, init_lora_weights=False
        )
        # Its own initialisation reads the global generator; `_reset` replaces it.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Several adapters in one model are intended.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            self._peft.inject_adapter_in_model(config, self._network, adapter_name=name)
        self._names.append(name)

    def _reset(self, name: str, member: int) -> list[nn.Parameter]:
        """Draw A from the member's own stream and set B to 0; return both of all layers."""
        generator = torch.Generator().manual_seed(member)
        found: list[nn.Parameter] = []
        for layer in self._layers():
            a, b = layer.lora_A[name].float().weight, layer.lora_B[name].float().weight
            bound = a[0].numel() ** -0.5
            drawn = (torch.rand(a.shape, generator=generator) * 2 - 1) * bound
            with torch.no_grad():
                a.copy_(drawn)
                b.zero_()
            found += [a.requires_grad_(), b.requires_grad_()]
        return found

    def _enable(self, learned: bool) -> None:
        for layer in self._layers():
            layer.enable_adapters(learned)

    def _layers(self) -> list[Any]:
        layer_type = self._peft.tuners.tuners_utils.BaseTunerLayer
        return [module for module in self._network.modules() if isinstance(module, layer_type)]
