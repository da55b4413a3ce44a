"""The presets that ship, and the paper's constants in the default one."""

from __future__ import annotations

from typing import Any

import pytest

from redepth.components import resolve
from redepth.config import DEFAULT_PRESET, load_preset, preset_names
from redepth.ops import geometry

PAPER = {
    "depth_model.name": "depth-anything",
    "depth_model.checkpoint": "depth-anything/Depth-Anything-V2-Small-hf",
    "depth_model.longer_side": 518,
    "depth_model.resize_rule": "upper_bound",
    "depth_model.scale": 7.0,
    "depth_model.margin": 0.1,
    "renderer.name": "blinn-phong",
    "renderer.lights": 1,
    "renderer.min_log2_shininess": 2,
    "renderer.max_log2_shininess": 7,
    "prior.name": "stable-diffusion",
    "prior.checkpoint": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "prior.size": 512,
    "prior.score": "sds",
    "prior.guidance_scale": 50.0,
    "prior.guidance_base": "text",
    "prior.weighting": "uniform",
    "prior.t_min": 0.02,
    "prior.t_max": 0.60,
    "prior.reduction": "mean",
    "prior.dtype": "float16",
    "prior.negative_prompt": "",
    "optim.parameterization": "embeddings+decoder",
    "optim.steps": 1000,
    "optim.members": 10,
    "optim.learning_rates.embeddings": 1e-3,
    "optim.learning_rates.decoder": 2e-6,
    "optim.learning_rates.offset": 1e-3,
    "optim.schedule": "constant",
    "optim.weight_decay": 0.01,
    "optim.prior_weight": 1.0,
    "optim.objectives.smoothness.weight": 1.0,
    "optim.blend": "none",
    "optim.early_stop.enabled": False,
}


@pytest.mark.parametrize(("key", "value"), PAPER.items())
def test_the_default_preset_has_the_papers(key: str, value: Any) -> None:
    section: Any = resolve(load_preset()).model_dump()
    for part in key.split("."):
        section = section[part]
    assert section == value
    assert type(section) is type(value)


def test_the_default_preset_has_no_other_objective() -> None:
    assert DEFAULT_PRESET == "re-depth-anything"
    assert set(load_preset().optim.objectives) == {"smoothness"}


def test_the_papers_resize_rule_makes_the_longer_side_518() -> None:
    preset = load_preset().depth_model.options
    size = geometry.network_size(
        480, 640, target=preset["longer_side"], multiple=14, rule=preset["resize_rule"]
    )
    assert max(size) == 518


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_valid(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    resolve(preset)
