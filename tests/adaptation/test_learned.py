"""What is learned: which weights, through adapters that merge, saved in the format of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redepth.adaptation.learned import Learned, Trainee, adaptable_models, check_adaptable, chosen_precision
from redepth.config.adaptation import Adapt
from redepth.contracts import Adaptable
from redepth.depth_models import REGISTRY
from redepth.errors import ConfigError
from tests.depth_models.test_backbones import marked
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import CPU, photo, relative_error, seeded, tiny_depth_model
from tests.support.tiny_depth_models import FAMILIES, ONE_STEP
from tests.support.trainings import same, weights

ALL = marked([name for name in FAMILIES if name not in ONE_STEP])


def made(name: str, folder: Path) -> Any:
    """Save a family's tiny checkpoint, and load it."""
    tiny.save(FAMILIES[name].build(), folder)
    return reloaded(name, folder)


def reloaded(name: str, folder: Path) -> Any:
    return tiny.load(FAMILIES[name].component, checkpoint=str(folder), **FAMILIES[name].options)


def predicted(model: Any, name: str) -> Tensor:
    with torch.no_grad():
        raw: Tensor = model.decode(model.encode(model.prepare(photo(*FAMILIES[name].wide))))
    return raw


def disturb(learned: Learned, spread: float = 0.05) -> None:
    """Change all learned weights at random."""
    draw = seeded(5)
    with torch.no_grad():
        for parameter in learned.parameters.values():
            parameter += spread * torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize("learns", ["all", "low-rank"])
@pytest.mark.parametrize("name", ALL)
def test_a_trained_model_is_saved_and_loaded_with_the_same_predictions(
    name: str, learns: Any, tmp_path: Path
) -> None:
    model = made(name, tmp_path / "start")
    before = predicted(model, name)
    learned = Learned(model, Adapt(learns=learns, rank=2), 0)
    disturb(learned, 0.02)
    learned.finish(learned.values())
    after = predicted(model, name)
    assert relative_error(after, before) > 1e-4
    model.save_checkpoint(tmp_path / "saved")
    assert torch.equal(predicted(reloaded(name, tmp_path / "saved"), name), after)
    # It is the library's own checkpoint: nothing but the weights has changed.
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "saved" / file).is_file()


@pytest.mark.parametrize("name", ALL)
def test_merged_adapters_give_the_output_of_the_adapters(name: str, tmp_path: Path) -> None:
    model = made(name, tmp_path)
    before, names = predicted(model, name), list(weights(model))
    learned = Learned(model, Adapt(learns="low-rank", rank=2), 0)
    # A fresh adapter changes nothing; frozen, because a weight with a gradient takes other kernels.
    model.network().requires_grad_(False)
    assert relative_error(predicted(model, name), before) < 1e-6
    disturb(learned, 0.02)
    with_adapters = predicted(model, name)
    assert relative_error(with_adapters, before) > 1e-3
    learned.finish(learned.values())
    assert relative_error(predicted(model, name), with_adapters) < 1e-4
    assert list(weights(model)) == names


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_what_is_learned_and_nothing_else(name: str, tmp_path: Path) -> None:
    for learns in ("decoder", "low-rank", "all"):
        model = made(name, tmp_path)
        own = {id(p) for p in model.network().parameters()}
        decoder = {id(p) for p in model.decoder_parameters().values()}
        learned = Learned(model, Adapt(learns=learns, rank=2), 0)
        trainee = Trainee(model, learned, "float32", CPU)
        trainee(model.prepare(photo(*FAMILIES[name].wide))).mean().backward()
        touched = {id(p) for p in model.network().parameters() if p.grad is not None}
        assert touched
        if learns == "decoder":
            assert touched <= decoder
            assert {id(p) for p in learned.parameters.values()} == decoder
        elif learns == "low-rank":
            assert not touched & own
            # Most adapters are used: both the encoder's and the decoder's.
            used = [n for n, p in learned.parameters.items() if p.grad is not None]
            assert {n.split(".")[0] for n in used} == {"encoder", "decoder"}
            assert len(used) > 0.4 * len(learned.parameters)
        else:
            assert touched & decoder
            assert touched - decoder
        count, whole = learned.count
        assert count == sum(p.numel() for p in learned.parameters.values())
        assert whole == sum(p.numel() for p in made(name, tmp_path).network().parameters())


def test_the_seed_alone_decides_the_adapters() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (
        Learned(tiny_depth_model(), Adapt(learns="low-rank", rank=2), seed).values() for seed in (0, 0, 1)
    )
    assert same(first, second)
    assert not same(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_replaced_weights_come_back_also_after_an_error() -> None:
    model = tiny_depth_model()
    learned = Learned(model, Adapt(learns="decoder"), 0)
    own = learned.values()
    doubled = {k: 2 * v for k, v in own.items()}
    with learned.replaced(doubled):
        assert same(learned.values(), doubled)
    assert same(learned.values(), own)
    with pytest.raises(ZeroDivisionError), learned.replaced(doubled):
        _ = 1 / 0
    assert same(learned.values(), own)


def test_models_without_weights_to_train_name_those_that_have_some(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", tiny.relief())
    for name, options in (
        ("precomputed", {"path": str(tmp_path / "map.npy")}),
        ("marigold", {}),
        ("lotus", {}),
    ):
        model = REGISTRY.build(name, options)
        assert not isinstance(model, Adaptable)
        with pytest.raises(
            ConfigError, match=r"cannot be adapted: .*choose another .*depth-anything, .*zoedepth"
        ):
            check_adaptable(model)
    names = adaptable_models()
    components = {name: family.component for name, family in FAMILIES.items()}
    assert {component for name, component in components.items() if name not in ONE_STEP} <= set(names)
    assert not {"marigold", "marigold-lcm", "precomputed", *ONE_STEP} & set(names)


def test_auto_is_float32_on_a_cpu() -> None:
    assert chosen_precision("auto", CPU) == "float32"
    assert chosen_precision("bfloat16", CPU) == "bfloat16"


def test_the_preprocessors_settings_are_saved_too(tmp_path: Path) -> None:
    from redepth import io

    tiny.save(FAMILIES["dpt"].build(), tmp_path / "start")
    io.save_json(tmp_path / "start" / "preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]})
    reloaded("dpt", tmp_path / "start").save_checkpoint(tmp_path / "saved")
    assert reloaded("dpt", tmp_path / "saved").preprocessing.mean == (0.1, 0.2, 0.3)
