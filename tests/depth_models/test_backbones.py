"""What holds for every depth model, on tiny checkpoints of the real library classes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redepth.config import Optim
from redepth.contracts import Execution
from redepth.depth_models import REGISTRY
from redepth.depth_models.backbone import OUTPUT_MAP, SPLIT
from redepth.errors import ConfigError, MissingDependencyError, WeightsError
from redepth.optim.outcome import Outcome
from redepth.optim.parameterizations import PARAMETERIZATIONS, Parameterization
from redepth.optim.refiner import Refiner
from redepth.renderers.blinn_phong import BlinnPhong
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import CPU, TargetPrior, photo, relative_error, seeded
from tests.support.tiny_depth_models import FAMILIES, ONE_STEP, Family

DA3_PACKAGES = ("depth_anything_3", "einops", "omegaconf", "addict")
needs_da3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in DA3_PACKAGES),
    reason='needs pip install "redepth[da3]" && pip install --no-deps depth-anything-3',
)
MOGE_PACKAGES = ("moge", "utils3d", "cv2", "scipy")
needs_moge = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in MOGE_PACKAGES),
    reason='needs pip install "redepth[moge]" && pip install --no-deps dlr-moge dlr-utils3d',
)
NEEDS = {"depth-anything-3": needs_da3, "moge": needs_moge}


def marked(names: list[str]) -> list[Any]:
    needs = {n: mark for n in names for start, mark in NEEDS.items() if n.startswith(start)}
    return [pytest.param(n, marks=needs[n]) if n in needs else n for n in names]


SPLIT_FAMILIES = marked(list(FAMILIES))
SAFETENSORS = marked([n for n in FAMILIES if not n.startswith("moge-") and n not in ONE_STEP])
"""MoGe is published as a pickle, see test_moge.py; the models of one step as a pipeline."""
LOOPS = ("glpn", "zoedepth-two-heads", "depth-anything-3-any-view", "moge-1", "moge-2", *ONE_STEP)
OTHERS = {
    "depth-anything-3": ("da3-small", "is da3-small, not a monocular one (DA3MONO)"),
    "depth-anything-3-metric": ("da3mono-large", "is da3mono-large, not a metric one (DA3METRIC)"),
    "depth-anything-3-any-view": ("da3mono-large", "choose depth_model.name=depth-anything-3-mono"),
}
"""Network of the package depth-anything-3 -> another one, and how it is refused."""
WHOLE = ["marigold", "precomputed"]
ALL = marked([*FAMILIES, *WHOLE])

RATES = {"embeddings": 1e-2, "decoder": 1e-3, "encoder": 1e-3, "depth": 1e-2, "correction": 1e-2}


@dataclass(frozen=True)
class Made:
    """A family's tiny checkpoint, and the library's own model that it was saved from."""

    family: Family
    model: nn.Module
    folder: Path

    def load(self) -> Any:
        return tiny.load(self.family.component, checkpoint=str(self.folder), **self.family.options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """From a family's name to its checkpoint, made on first use."""
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in known:
            model = FAMILIES[name].build()
            known[name] = Made(FAMILIES[name], model, tiny.save(model, tmp_path_factory.mktemp(name)))
        return known[name]

    return make


@pytest.fixture(scope="module")
def loaded(made: Callable[[str], Made], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """From any name to the loaded depth model; tests leave it as it is."""
    known: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in known:
            folder = tmp_path_factory.mktemp(f"loaded-{name}")
            if name == "marigold":
                known[name] = tiny.load(name, checkpoint=str(tiny.marigold(folder)), longer_side=64)
            elif name == "precomputed":
                np.save(folder / "map.npy", tiny.relief())
                known[name] = tiny.load(name, path=str(folder / "map.npy"), longer_side=64)
            else:
                known[name] = made(name).load()
        return known[name]

    return load


def refine(model: Any, picture: Tensor, **optim: Any) -> Outcome:
    settings: dict[str, Any] = {"steps": 2, "members": 2, "learning_rates": RATES}
    refiner = Refiner(model, BlinnPhong(), TargetPrior(), Optim.model_validate(settings | optim))
    return refiner.run(picture)


def picture_for(name: str) -> Tensor:
    """A picture that is not square, of a size that the network takes."""
    return photo(*FAMILIES[name].wide) if name in FAMILIES else photo(48, 64)


# --- the network is the library's ---------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_encoder_and_decoder_together_are_the_librarys_own_forward(
    name: str, made: Callable[[str], Made], loaded: Callable[[str], Any]
) -> None:
    family, model = made(name).family, loaded(name)
    sizes = [(family.square, family.square)] + ([] if family.square_only else [family.wide])
    for size in sizes:
        image = photo(*size)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in family.normal)
        with torch.no_grad():
            expected = family.reference(made(name).model, (image - mean) / std)
            found = model.decode(model.encode(image))
        assert found.shape == (1, 1, *size)
        assert float(expected.std()) > 1e-2 * float(expected.mean())
        assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_what_it_predicts_is_that_of_the_checkpoint(name: str, loaded: Callable[[str], Any]) -> None:
    model = loaded(name)
    assert (model.predicts, model.invariance) == (FAMILIES[name].predicts, FAMILIES[name].invariance)
    assert model.scale == "auto"


@pytest.mark.parametrize("name", ALL)
def test_photos_of_any_shape_give_finite_positive_maps_of_their_shape(
    name: str, loaded: Callable[[str], Any]
) -> None:
    model = loaded(name)
    for size in ((97, 131), (131, 97)) if name != "precomputed" else ((96, 128),):
        image = model.prepare(photo(*size))
        height, width = image.shape[-2:]
        # So small a picture keeps little more of its shape than which side is the longer one.
        assert (width > height) == (size[1] > size[0])
        with torch.no_grad():
            raw = model.decode(model.encode(image))
        assert raw.shape == (1, 1, height, width)
        assert torch.isfinite(raw).all()
        assert float(raw.min()) >= 0
        assert float(raw.std()) > 0


# --- the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_rows_of_a_batch_do_not_see_each_other(name: str, loaded: Callable[[str], Any]) -> None:
    model = loaded(name)
    with torch.no_grad():
        features = model.encode(picture_for(name))
        draw = seeded(1)
        noisy = [w + w.std() * torch.randn(w.shape, generator=draw) for w in features.maps]
        both = [torch.cat([w, n]) for w, n in zip(features.maps, noisy, strict=True)]
        together = model.decode(features.with_maps(both))
        alone = [model.decode(features), model.decode(features.with_maps(noisy))]
    assert relative_error(alone[0], alone[1]) > 1e-3
    for row, expected in zip(together.split(1), alone, strict=True):
        assert relative_error(row, expected) < 1e-4


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_given_parameters_replace_the_models_own(name: str, loaded: Callable[[str], Any]) -> None:
    model, image = loaded(name), picture_for(name)
    with torch.no_grad():
        features = model.encode(image)
        own = model.decode(features)
        assert torch.equal(model.decode(features, model.decoder_parameters()), own)
        halved = {k: 0.5 * v for k, v in model.decoder_parameters().items()}
        assert relative_error(model.decode(features, halved), own) > 1e-3
        assert torch.equal(model.decode(features), own)
        same = model.encode(image, model.encoder_parameters())
        for found, expected in zip(same.maps, features.maps, strict=True):
            assert torch.equal(found, expected)
        halved = {k: 0.5 * v for k, v in model.encoder_parameters().items()}
        other = model.encode(image, halved)
        assert relative_error(other.maps[-1], features.maps[-1]) > 1e-3


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_the_two_halves_are_frozen_and_share_nothing(name: str, loaded: Callable[[str], Any]) -> None:
    model = loaded(name)
    encoder, decoder = model.encoder_parameters(), model.decoder_parameters()
    assert not any(p.requires_grad for p in [*encoder.values(), *decoder.values()])
    assert not {id(p) for p in encoder.values()} & {id(p) for p in decoder.values()}
    described = model.describe()
    assert described["encoder_parameters"] == sum(p.numel() for p in encoder.values()) > 0
    assert described["decoder_parameters"] == sum(p.numel() for p in decoder.values()) > 0


@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_the_encoder_leaves_the_device_and_comes_back(
    name: str, loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(name)
    moved: list[Any] = []
    monkeypatch.setattr(model._encoder, "to", lambda device: moved.append(str(device)))
    monkeypatch.setattr(model, "_device", "somewhere")
    with torch.no_grad():
        model.encode(picture_for(name))
    model.release_encoder()
    assert moved == ["somewhere", "cpu"]


# --- refinement -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", ALL)
def test_a_supported_parameterization_refines_and_another_is_refused(
    name: str, parameterization: str, loaded: Callable[[str], Any]
) -> None:
    model = loaded(name)
    assert model.supports == (OUTPUT_MAP if name in WHOLE else SPLIT)
    if parameterization not in model.supports:
        refusal = re.escape(f"cannot be refined through '{parameterization}'; it supports: depth, low-rank")
        with pytest.raises(ConfigError, match=refusal):
            refine(model, picture_for(name), parameterization=parameterization)
        return
    outcome = refine(model, picture_for(name), parameterization=parameterization)
    assert outcome.steps_done == [2, 2]
    assert torch.isfinite(outcome.members).all()
    assert float(outcome.members.min()) >= 0
    for member in outcome.members:
        assert relative_error(member, outcome.initial[0]) > 1e-6
    if name in FAMILIES and parameterization != "full":
        assert all(p.grad is None for p in model.encoder_parameters().values())


@pytest.mark.slow
@pytest.mark.parametrize("layout", [True, False], ids=["channels last", "channels first"])
@pytest.mark.parametrize("name", SPLIT_FAMILIES)
def test_batched_decoders_are_the_decoders_one_by_one(
    name: str, layout: bool, made: Callable[[str], Made]
) -> None:
    """Outputs and all gradients; a decoder with normalisations or attention of its own stays a loop."""
    model = made(name).load()
    image = model.prepare(picture_for(name))
    with torch.no_grad():
        features = model.encode(image)
        initial = model.decode(features)

    def decoded(way: Any, parameterization: str) -> tuple[Tensor, dict[str, Tensor | None]]:
        model.tune(Execution(channels_last=layout, decoders=way))
        assert model.batches_decoders == (way == "batched" and name not in LOOPS)
        state = Parameterization(parameterization, model, image, features, initial, 3)
        groups = state.groups()
        # The members differ, and so does what each is asked.
        with torch.no_grad():
            for p in (p for params in groups.values() for p in params):
                p *= torch.linspace(0.95, 1.05, 3).view(-1, *[1] * (p.dim() - 1))
        raw = state.raw()
        raw.backward(torch.randn(raw.shape, generator=seeded()))
        return raw.detach(), {
            f"{k} {i}": p.grad for k, params in groups.items() for i, p in enumerate(params)
        }

    for parameterization in ("embeddings+decoder", "decoder", "full"):
        (raw, gradients), (expected, wanted) = (decoded(way, parameterization) for way in ("batched", "loop"))
        assert relative_error(raw, expected) < 1e-5
        for key, gradient in wanted.items():
            found = gradients[key]
            assert (found is None) == (gradient is None)
            if found is not None and gradient is not None:
                # Some are sums that cancel, such as those of the keys' biases: nothing but rounding.
                most = max(float(g.norm()) for g in wanted.values() if g is not None)
                assert float((found - gradient).norm()) < 3e-5 * float(gradient.norm()) + 1e-7 * most


@pytest.mark.parametrize("name", ALL)
def test_under_auto_the_nearest_quarter_begins_where_slopes_are_true(
    name: str, loaded: Callable[[str], Any]
) -> None:
    outcome = refine(loaded(name), picture_for(name), parameterization="depth", steps=1)
    depth = outcome.initial_depth[outcome.initial > 0]
    assert float(torch.quantile(depth, 0.25)) == pytest.approx(1.921, rel=0.05)


# --- what can be wrong with a checkpoint ---------------------------------------------------------------


def complaint(name: str, folder: Path | str, component: str | None = None) -> str:
    """The one line that a checkpoint is refused with."""
    with pytest.raises(WeightsError) as error:
        tiny.load(component or FAMILIES[name].component, checkpoint=str(folder))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SAFETENSORS)
def test_each_thing_that_is_wrong_with_a_checkpoint_is_one_line(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(made(name).folder, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    content, settings = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(content[: len(content) // 2])
    assert "damaged" in complaint(name, folder)
    weights.write_bytes(b"\0" * 64)
    assert "damaged" in complaint(name, folder)

    weights.write_bytes(content)
    tensors = load_file(weights)
    unused = ("residual_layer1", "_aux", "cam_enc")
    used = [k for k in tensors if not any(part in k for part in unused)]
    save_file({k: v for k, v in tensors.items() if k != used[-1]}, weights, metadata={"format": "pt"})
    assert used[-1] in complaint(name, folder)
    save_file(tensors | {used[-1]: torch.zeros(3, 3, 3)}, weights, metadata={"format": "pt"})
    assert used[-1].split(".")[-1] in complaint(name, folder)

    weights.unlink()
    assert "model.safetensors" in complaint(name, folder)
    weights.write_bytes(content)
    config.write_text("{")
    assert "is not JSON" in complaint(name, folder)
    other, refusal = OTHERS.get(name, ("da3-small", "is a 'bert' checkpoint, not "))
    config.write_text(json.dumps(settings | {"model_type": "bert", "model_name": other, "config": {}}))
    assert refusal in complaint(name, folder)
    config.unlink()
    assert "has no file config.json" in complaint(name, folder)
    assert "no such folder, and not a hub id" in complaint(name, "./nowhere")


@pytest.mark.parametrize("row", [pytest.param(e, id=n) for n, e in REGISTRY.entries().items() if e.licence])
def test_offline_every_published_model_says_what_to_download(row: Any) -> None:
    model = REGISTRY.build(row.name, {"checkpoint": "owner/no-such-thing"})
    with pytest.raises((WeightsError, MissingDependencyError)) as error:
        model.ensure_available()
    if isinstance(error.value, MissingDependencyError):
        assert row.name.startswith(("depth-anything-3", "moge-"))
        pytest.skip(str(error.value))
    assert "hf download owner/no-such-thing " in str(error.value)
    with pytest.raises(WeightsError) as error:
        REGISTRY.build(row.name, {}).ensure_available()
    assert f"hf download {row.defaults['checkpoint']} " in str(error.value)


def test_a_checkpoint_of_another_family_names_the_one_it_belongs_to(made: Callable[[str], Made]) -> None:
    assert "choose depth_model.name=glpn" in complaint("dpt", made("glpn").folder)
    assert "choose depth_model.name=dpt" in complaint("glpn", made("dpt").folder)
    assert "not a MarigoldDepthPipeline" in complaint("", tiny.GOLDEN / "tiny-random-sd", "marigold")


def test_weights_that_dpt_never_uses_may_be_missing(made: Callable[[str], Made], tmp_path: Path) -> None:
    """The published dpt-large goes without them."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(made("dpt").folder, folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "fusion_stage.layers.0.residual_layer1" not in k}
    assert len(kept) == len(tensors) - 4
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    image = photo(64, 64)
    models = [tiny.load("dpt", checkpoint=str(f), **tiny.SQUARED) for f in (folder, made("dpt").folder)]
    with torch.no_grad():
        first, second = (m.decode(m.encode(image)) for m in models)
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ALL)
def test_a_device_predicts_what_a_cpu_does_and_the_encoder_leaves_it(
    name: str, made: Callable[[str], Made], device: torch.device, tmp_path: Path
) -> None:
    picture = picture_for(name)
    if name in FAMILIES:
        family = made(name).family
        options = family.options | {"checkpoint": str(made(name).folder)}
        component = family.component
    else:
        component, options = name, {"longer_side": 64, "seed": 0, "checkpoint": str(tiny.marigold(tmp_path))}
        if name == "precomputed":
            np.save(tmp_path / "map.npy", tiny.relief())
            options = {"longer_side": 64, "path": str(tmp_path / "map.npy")}
    here, there = (tiny.load(component, device=where, **options) for where in (CPU, device))
    with torch.no_grad():
        expected = here.decode(here.encode(picture))
        features = there.encode(picture.to(device))
        there.release_encoder()
        found = there.decode(features)
    assert found.device.type == device.type
    assert relative_error(found.cpu(), expected) < 1e-3
    assert {p.device.type for p in there.encoder_parameters().values()} <= {"cpu"}
    assert {p.device.type for p in there.decoder_parameters().values()} <= {device.type}
