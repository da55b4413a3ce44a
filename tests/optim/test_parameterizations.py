from __future__ import annotations

from typing import Any

import pytest
import torch

from redepth.contracts import Execution
from redepth.optim.parameterizations import Parameterization, corrected, correction_grids
from tests.support.helpers import photo, relative_error, seeded, tiny_depth_model


def test_correction_grids_go_from_coarse_to_fine_with_square_cells() -> None:
    assert correction_grids(96, 128) == [(3, 4), (6, 8), (12, 16), (24, 32), (48, 64)]
    assert correction_grids(128, 96) == [(4, 3), (8, 6), (16, 12), (32, 24), (64, 48)]
    # A narrow map has at least two cells across, a small one at most one cell per pixel, and no grid twice.
    assert correction_grids(20, 320) == [(2, 4), (2, 8), (2, 16), (2, 32), (4, 64)]
    assert correction_grids(8, 8) == [(4, 4), (8, 8)]


def test_a_correction_is_a_smooth_factor_that_starts_at_one() -> None:
    initial = torch.rand(1, 1, 12, 16, generator=seeded())
    grids = [torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 6, 8)]
    assert torch.equal(corrected(initial, grids), initial.expand(2, 1, 12, 16))
    grids[0][1] = 0.25
    grids[1][1] = 0.5
    rows = corrected(initial, grids)
    assert torch.equal(rows[0], initial[0])
    assert torch.allclose(rows[1], initial[0] * torch.exp(torch.tensor(0.75)))
    # One corner of the coarse grid moves this corner fully, and pixels a cell away not at all.
    grids = [torch.zeros(1, 1, 3, 4)]
    grids[0][0, 0, 0, 0] = 1.0
    factor = corrected(torch.ones(1, 1, 13, 19), grids)[0, 0]
    assert factor[0, 0].item() == pytest.approx(2.718282)
    assert factor[0, 3].item() == pytest.approx(1.648721)  # half a cell: exp(1/2)
    assert bool((factor[6:] == 1).all())
    assert bool((factor[:, 6:] == 1).all())


def test_a_factor_on_disparity_is_its_reciprocal_on_depth() -> None:
    depth = torch.rand(1, 1, 12, 16, generator=seeded()) + 0.5
    grid = torch.randn(1, 1, 3, 4, generator=seeded(1))
    assert torch.allclose(corrected(1 / depth, [grid]), 1 / corrected(depth, [-grid]))
    assert float(corrected(torch.zeros(1, 1, 12, 16), [grid]).abs().max()) == 0


def test_the_gradient_of_a_correction() -> None:
    initial = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=seeded())
    grids = [
        torch.randn(2, 1, *size, dtype=torch.float64, generator=seeded(2)).requires_grad_()
        for size in ((2, 3), (4, 5))
    ]
    assert torch.autograd.gradcheck(lambda *g: corrected(initial, g), grids)


def test_low_rank_learns_its_grids_and_the_offset_alone_and_has_its_own_rate() -> None:
    model, image = tiny_depth_model(), photo(56, 70)
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
    state = Parameterization("low-rank", model, image, features, initial, members=3)
    assert torch.equal(state.raw(), initial.expand(3, 1, 56, 70))
    groups = state.groups()
    assert set(groups) == {"offset", "correction"}
    assert [tuple(p.shape) for p in groups["correction"]] == [
        (3, 1, 3, 4),
        (3, 1, 6, 8),
        (3, 1, 13, 16),
        (3, 1, 26, 32),
        (3, 1, 51, 64),
    ]


def test_raw_outputs_are_in_the_unit(device: torch.device) -> None:
    model, image = tiny_depth_model(device), photo(56, 70).to(device)
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
        for name in ("embeddings", "decoder", "full", "depth", "low-rank"):
            state = Parameterization(name, model, image, features, initial / 4, members=2, unit=4.0)
            assert torch.allclose(state.raw(), initial.expand(2, -1, -1, -1) / 4, rtol=1e-5), name


@pytest.mark.parametrize("decoders", ["loop", "batched"])
def test_batched_weights_have_the_gradients_of_separate_weights(decoders: Any, device: torch.device) -> None:
    model, image = tiny_depth_model(device), photo(56, 70).to(device)
    model.tune(Execution(decoders=decoders))
    assert model.batches_decoders == (decoders == "batched")
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
    factors = torch.linspace(0.9, 1.1, 3, device=device)
    state = Parameterization("decoder", model, image, features, initial, 3)
    with torch.no_grad():
        for weight in state.groups()["decoder"]:
            weight *= factors.view(-1, *[1] * (weight.dim() - 1))
    raw = state.raw()
    raw.square().sum().backward()
    for i, factor in enumerate(factors):
        weights = {k: (factor * v.detach()).requires_grad_() for k, v in model.decoder_parameters().items()}
        alone = model.decode(features, weights)
        assert relative_error(raw[i : i + 1], alone) < (1e-6 if device.type == "cpu" else 1e-5)
        alone.square().sum().backward()
        for stacked, weight in zip(state.groups()["decoder"], weights.values(), strict=True):
            assert (stacked.grad is None) == (weight.grad is None)
            assert weight.grad is None or relative_error(stacked.grad[i], weight.grad) < 1e-5


@pytest.mark.parametrize("parameterization", ["embeddings+decoder", "decoder", "full"])
def test_members_of_batched_decoders_never_influence_each_other(parameterization: str) -> None:
    model, image = tiny_depth_model(), photo(56, 70)
    model.tune(Execution(decoders="batched"))
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
    results = []
    for factor in (1.0, 1.5):
        state = Parameterization(parameterization, model, image, features, initial, 3)
        parameters = [p for group in state.groups().values() for p in group]
        with torch.no_grad():
            for p in parameters:
                p[1] *= factor
        raw = state.raw()
        (raw.square().sum(dim=(1, 2, 3)) * torch.tensor([1.0, factor, 1.0])).sum().backward()
        results.append((raw.detach(), [p.grad for p in parameters]))
    (raw, gradients), (other, others) = results
    assert not torch.equal(raw[1], other[1])
    for i in (0, 2):
        assert torch.equal(raw[i], other[i])
        assert all(g is None or torch.equal(g[i], o[i]) for g, o in zip(gradients, others, strict=True))


def test_a_copy_of_a_weight_keeps_the_memory_layout(device: torch.device) -> None:
    model, image = tiny_depth_model(device), photo(56, 70).to(device)
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)
    state = Parameterization("decoder", model, image, features, initial, 3)
    weights = model.decoder_parameters()
    assert any(w.dim() == 4 and not w.is_contiguous() for w in weights.values())
    for copies, weight in zip(state.groups()["decoder"], weights.values(), strict=True):
        assert copies[1].stride() == torch.empty_like(weight).stride()
        assert torch.equal(copies[2], weight)
