from __future__ import annotations

from pathlib import Path

import pytest

from redepth.components import resolve
from redepth.config import load_preset
from redepth.experiments.generic import GUIDANCE, NOISE, RULES, generic_arms
from redepth.experiments.planning import plan
from redepth.experiments.run import run_study
from redepth.runtime.executors import Resources

EMBEDDED = resolve(load_preset("embedded-relief"))


def test_every_rule_guidance_and_noise_has_an_arm() -> None:
    presets = {
        arm.name: resolve(load_preset(EMBEDDED.model_dump(), arm.overrides)) for arm in generic_arms(EMBEDDED)
    }
    options = {name: preset.prior.options for name, preset in presets.items()}
    assert [options[f"guidance {g:g}"]["guidance_scale"] for g in GUIDANCE] == list(GUIDANCE)
    assert [options[rule]["score"] for rule in RULES] == list(RULES)
    assert [(options[name]["t_min"], options[name]["t_max"]) for name in NOISE] == list(NOISE.values())
    assert options["told the light"]["condition_on"] == "prompt+light"
    assert options["told nothing"]["condition_on"] == "nothing"
    assert options["of posters"]["checkpoint"] == "embedded:captioned-poster-prior"
    assert options["random weights"]["weights"] == "random"
    assert presets["re-lighting"].prior == EMBEDDED.prior


def test_another_kind_of_prior_has_only_its_own_arm_and_the_controls() -> None:
    arms = generic_arms(resolve(load_preset("re-depth-anything")))
    free = [arm.name for arm in arms if not arm.obstacle]
    assert free == ["re-lighting", "smoothness only", "oracle"]


@pytest.mark.slow
def test_the_prior_is_told_the_caption_of_the_scene(tmp_path: Path) -> None:
    study = plan(
        "generic",
        "embedded-relief",
        ["optim.steps=1", "optim.members=1"],
        images=1,
        arms=["guidance 50", "nfsd"],
        splits=["relief", "unseen-rooms"],
        size=32,
    )
    rows, failures = run_study(study, tmp_path, Resources())
    assert not failures
    prompts = {(row.arm, row.split): row.prompt for row in rows}
    assert set(prompts) == {(arm, split) for arm in study.arms for split in ("relief", "unseen-rooms")}
    assert {prompt for (_, split), prompt in prompts.items() if split == "relief"} == {"relief"}
    assert all(prompts.values())
