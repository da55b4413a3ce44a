"""Low-rank copies of a frozen network, one per member, trained on the fly: for variational distillation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from redepth.registry import require
from redepth.runtime.low_rank import adapted_layers, add_adapter, start_adapter

EXTRA = "vsd"
NEEDED = ("peft", EXTRA)
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
        require(*NEEDED)
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
            # From the member's own stream.
            generator = torch.Generator().manual_seed(member)
            parameters = start_adapter(self._network, name, generator)
            self._optimizers[name] = torch.optim.AdamW(parameters, lr=self._rate)
        self._enable(False)

    def turns(self, rows: int) -> Iterator[slice]:
        """Yield each member's rows of a batch while its copy takes the frozen network's place."""
        share = rows // len(self._active)
        self._enable(True)
        try:
            for i, name in enumerate(self._active):
                self._turn = name
                for layer in adapted_layers(self._network):
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
        add_adapter(self._network, name, self._targets, self._rank, EXTRA)
        self._names.append(name)

    def _enable(self, learned: bool) -> None:
        for layer in adapted_layers(self._network):
            layer.enable_adapters(learned)
