"""Every number that the schema accepts, at its bounds: a step gives a finite answer, or one line says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from redepth.checkpoints import Source
from redepth.components import FAMILIES, resolve
from redepth.config import Optim, load_preset
from redepth.config.schema import EarlyStop, LearningRates, Output, Performance, Term
from redepth.errors import ConfigError, RedepthError, WeightsError
from redepth.exports import enlarge_guided, mesh_of, points_of
from redepth.exports.surface import Surface
from redepth.ops.camera import ORTHOGRAPHIC
from redepth.optim.refiner import Refiner
from redepth.priors.pixel_diffusion import PixelDiffusion
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.registry import _constraints, options_schema
from tests.support.checkpoints import SD
from tests.support.helpers import CPU, TargetPrior, make_refiner, photo, tiny_prior

RENDERERS = FAMILIES["renderers"]
TORCH_RENDERERS = sorted(set(RENDERERS.entries()) - {"mesh"})


def numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(numbers, get_args(annotation)))


def bounds(schema: type[BaseModel]) -> Iterator[tuple[str, float | int]]:
    """Yield each number of a schema at its least and its largest value."""
    for name, field in schema.model_fields.items():
        if not numbers(field.annotation):
            continue
        whole = not any(kind is float for kind in (field.annotation, *get_args(field.annotation)))
        whole = whole and "float" not in str(field.annotation)
        for constraint in _constraints(field.metadata, field.annotation):
            for sign, inwards in (("ge", 0), ("gt", 1), ("le", 0), ("lt", -1)):
                bound = getattr(constraint, sign, None)
                if bound is not None:
                    nudge = inwards * (1 if whole else 1e-6 * max(1.0, abs(bound)))
                    yield name, bound + nudge


def families() -> Iterator[tuple[str, type[BaseModel]]]:
    for family, registry in FAMILIES.items():
        for name, entry in registry.entries().items():
            # Other tests may have registered components of their own.
            if str(entry.target).startswith("redepth.") and not entry.missing():
                yield f"{family}: {name}", options_schema(entry.load())
    for schema in (Optim, EarlyStop, LearningRates, Output, Performance, Term):
        yield schema.__name__, schema


def test_every_number_has_two_bounds() -> None:
    missing = []
    for where, schema in families():
        for name, field in schema.model_fields.items():
            if numbers(field.annotation):
                signs = {
                    sign
                    for constraint in _constraints(field.metadata, field.annotation)
                    for sign in ("ge", "gt", "le", "lt")
                    if getattr(constraint, sign, None) is not None
                }
                lists = "list[" in str(field.annotation)
                if not (lists or (signs & {"ge", "gt"} and signs & {"le", "lt"})):
                    missing.append(f"{where}: {name}")
    assert not missing


def step(refiner: Refiner) -> None:
    """Take two steps: the answer is finite, or one line says what is not."""
    try:
        outcome = refiner.run(photo(32, 40), plan=None)
    except RedepthError:
        return
    for values in (outcome.refined, outcome.refined_depth, outcome.uncertainty):
        assert bool(torch.isfinite(values).all())


def tried(schema: type[BaseModel], *, most: float = 1e18) -> list[Any]:
    return [pytest.param(n, v, id=f"{n}={v:g}") for n, v in bounds(schema) if abs(v) < most]


TOO_LONG = {"steps": 100_000, "members": 1000, "members_per_batch": 1000}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [p for p in tried(Optim) if TOO_LONG.get(p.values[0]) != p.values[1]]
)
@pytest.mark.parametrize("blend", ["agreement", "detail"])
def test_the_optimisation_at_its_bounds(name: str, value: float, blend: str) -> None:
    rates = {"embeddings": 1e-4, "decoder": 1e-4, "offset": 1e-4}
    settings = {"steps": 2, "members": 2, "blend": blend, "learning_rates": rates, name: value}
    step(make_refiner(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("parameterization", ["embeddings+decoder", "full", "depth", "low-rank"])
def test_learning_rates_at_their_bounds(parameterization: str, rate: float) -> None:
    rates = dict.fromkeys(LearningRates.model_fields, rate)
    step(make_refiner(steps=3, members=1, parameterization=parameterization, learning_rates=rates))


def renderer_cases() -> Iterator[Any]:
    for name in TORCH_RENDERERS:
        for option, value in bounds(options_schema(RENDERERS.get(name))):
            if option not in ("lights", "shadow_samples"):
                yield pytest.param(name, option, value, id=f"{name}.{option}={value:g}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option", "value"), renderer_cases())
def test_renderers_at_their_bounds(name: str, option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    if option == "field_of_view":
        options["camera"] = "pinhole"
    if option.startswith("shadow"):
        options["shadows"] = "soft"
    if option == "grey":
        options["albedo"] = "grey"
    try:
        renderer = RENDERERS.build(name, options)
    except RedepthError:  # a least value above its largest one
        return
    refiner = make_refiner(steps=2, members=1)
    step(Refiner(refiner.depth_model, renderer, TargetPrior(), refiner.optim, device=CPU))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), tried(options_schema(PixelDiffusion)))
@pytest.mark.parametrize("score", ["sds", "csd", "ism"])
def test_priors_at_their_bounds(name: str, value: float, score: Any) -> None:
    options: dict[str, Any] = {"score": score, "inversion_steps": 1, name: value}
    if name == "inversion_steps" and value > 1:
        options["inversion_steps"] = 3
    if name in ("t_min", "t_max"):
        options |= {"t_min": value, "t_max": value}
    if name == "negative_scale":
        options["score"] = "sds"
    step(make_refiner(tiny_prior(**options), steps=2, members=1))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("depth_model.name=precomputed", "depth_model.path=x"), "cannot be refined through"),
        (("prior.score=vsd", "optim.performance.cuda_graphs=step"), "cuda_graphs=step"),
        (("prior.score=vsd", "optim.performance.compile=all"), "compile=off"),
        (("prior.score=vsd", "optim.performance.fused_kernels=on"), "fused_kernels=off"),
        (("prior.score=csd", "prior.condition_on=nothing"), "condition_on is nothing"),
        (("prior.t_min=0.9", "prior.t_max=0.1"), "t_min 0.9 is above t_max 0.1"),
        (("renderer.backend=triton", "renderer.camera=pinhole"), "triton"),
        (("renderer.field_of_view=60",), "camera: pinhole"),
        (("renderer.min_log2_shininess=9",), "shininess"),
        (("optim.weight_decay=1000", "optim.learning_rates.depth=1"), "learning rate"),
        (("optim.prior_weight=0", "optim.objectives=null"), "nothing is left to optimise"),
    ],
)
def test_choices_that_do_not_work_together_are_found_before_weights_are_read(
    overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(load_preset("smoke", overrides))
    assert words in str(error.value)


def test_a_rule_that_does_not_fit_the_schedule_is_found_before_weights_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Source, "model", lambda *_, **__: pytest.fail("read weights"))
    with pytest.raises(WeightsError, match="flow-matching"):
        StableDiffusion(checkpoint=str(SD), size=64, score="rfds").load(CPU)


@pytest.mark.parametrize(("name", "value"), tried(Output))
def test_points_meshes_and_upsampling_at_their_bounds(name: str, value: float) -> None:
    output = Output(**{"upsample": "guided", name: value})
    values, pixels = 1 + 0.1 * photo(16, 20)[:, :1], photo(32, 40)[0].permute(1, 2, 0).numpy()
    depth = np.empty((32, 40), np.float32)
    enlarge_guided(depth, values, pixels, radius=output.guided_radius, eps=output.guided_eps)
    assert np.isfinite(depth).all()
    surface = Surface(depth, ORTHOGRAPHIC)
    cloud = points_of(surface, pixels, max_points=output.max_points)
    assert 0 < len(cloud.vertices) <= output.max_points
    mesh = mesh_of(surface, pixels, faces=output.mesh_faces, texture_side=output.texture_side)
    assert 0 < len(mesh.faces) <= output.mesh_faces
