"""Low-rank adapters: they start as nothing, from a generator, and merge into their layers."""

from __future__ import annotations

import torch
from torch import nn

from redepth.runtime.low_rank import adapted_layers, add_adapter, merge_adapters, start_adapter
from tests.support.helpers import relative_error, seeded


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 2)).requires_grad_(
            False
        )


def test_an_adapter_adds_the_product_of_its_factors_and_merges() -> None:
    model, x = network(), torch.randn(5, 6, generator=seeded(1))
    before = model(x)
    add_adapter(model, "own", ["0", "2"], 3, "adapt")
    learned = start_adapter(model, "own", seeded())
    assert [tuple(p.shape) for p in learned] == [(3, 6), (8, 3), (3, 8), (4, 3)]
    assert all(p.requires_grad for p in learned)
    assert torch.equal(model(x), before)
    # A is uniform within one over the root of the inputs.
    assert 0.3 / 6**0.5 < float(learned[0].detach().abs().max()) <= 1 / 6**0.5

    with torch.no_grad():
        for b in learned[1::2]:
            b.copy_(torch.randn(b.shape, generator=seeded(2)))
    changed = model(x).detach()
    assert relative_error(changed, before) > 1e-2
    plain = network()
    with torch.no_grad():
        plain[0].weight += learned[1] @ learned[0]
        plain[2].weight += learned[3] @ learned[2]
    assert relative_error(changed, plain(x)) < 1e-6

    merge_adapters(model)
    assert adapted_layers(model) == []
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.Linear]
    assert relative_error(model(x), plain(x)) < 1e-6


def test_the_generator_alone_decides_the_first_weights() -> None:
    before = torch.random.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        model = network()
        add_adapter(model, "own", ["0"], 3, "adapt")
        drawn.append(start_adapter(model, "own", seeded(seed))[0].detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_adapters_nothing_is_merged() -> None:
    model = network()
    merge_adapters(model)
    assert len(model) == 4
