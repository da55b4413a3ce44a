from __future__ import annotations

from typing import Any

import pytest

from redepth.components import resolve
from redepth.config import LearningRates, Preset, load_preset
from redepth.errors import ConfigError
from redepth.experiments.grids import EXPERIMENTS, FACTORS, experiment, preset_values
from redepth.experiments.planning import plan

EMBEDDED = resolve(load_preset("embedded-relief"))
PAPER = resolve(load_preset("re-depth-anything"))


def changed(before: Any, after: Any, path: str = "") -> set[str]:
    """Dotted keys in which two presets differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(set(before) | set(after))
        return set().union(*(changed(before.get(k), after.get(k), f"{path}.{k}".strip(".")) for k in keys))
    return set() if before == after else {path}


def resolved(name: str, base: Preset) -> dict[str, Preset]:
    arms = experiment(name).arms(base)
    return {a.name: resolve(load_preset(base.model_dump(), a.overrides)) for a in arms if not a.obstacle}


@pytest.mark.parametrize("base", [EMBEDDED, PAPER], ids=["embedded-relief", "paper"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_arm_is_a_valid_preset_and_the_reference_is_one(name: str, base: Preset) -> None:
    grid = experiment(name)
    arms = {arm.name: arm for arm in grid.arms(base)}
    assert len(arms) == len(grid.arms(base)), "two arms of one name would share rows"
    valid = {**arms, **{f"N = {size}": None for arm in arms.values() for size in arm.parts}}
    assert grid.reference in {"", *valid}
    assert resolved(name, base)
    if grid.reference in arms:
        assert not arms[grid.reference].extra


@pytest.mark.slow
def test_a_target_that_the_preset_gives_no_rate_keeps_the_papers_ratio() -> None:
    named = EMBEDDED.optim.model_copy(update={"learning_rates": LearningRates(embeddings=2e-2)})
    silent = EMBEDDED.model_copy(update={"optim": named})
    rates = {name: arm.optim.learning_rates for name, arm in resolved("targets", silent).items()}
    assert rates["embeddings"].embeddings == 2e-2
    assert rates["decoder"].decoder == pytest.approx(4e-5), "the paper's 2e-6 to 1e-3"
    assert rates["full"].encoder == pytest.approx(4e-5)
    assert rates["depth"].depth == pytest.approx(2e-2)
    assert rates["decoder, rates x 10"].decoder == pytest.approx(4e-4)
    paper = resolved("targets", PAPER)["decoder"].optim.learning_rates
    assert paper.decoder == PAPER.optim.learning_rates.decoder
    own = resolve(load_preset("embedded-relief", ["optim.learning_rates.decoder=3e-4"]))
    assert resolved("targets", own)["decoder"].optim.learning_rates.decoder == 3e-4


def test_cost_changes_one_setting_at_a_time() -> None:
    arms = {arm.name: arm for arm in experiment("cost").arms(EMBEDDED)}
    presets = resolved("cost", EMBEDDED)
    base = presets.pop("preset")
    assert changed(base.model_dump(), EMBEDDED.model_dump()) == set()
    for name, preset in presets.items():
        factor = arms[name].factor
        others = [f for f in FACTORS if preset_values(preset, f) != preset_values(base, f)]
        assert others == [factor], name
        keys = {key.rpartition(".")[2] for key in changed(base.model_dump(), preset.model_dump())}
        keys -= {"calibrated_for"}  # it follows from any change
        assert len(keys) == 1 or keys <= {"t_min", "t_max"}, name
    assert {arm.factor for arm in arms.values()} == {"", *FACTORS}


def test_all_renderers_share_lights_and_the_condition_of_the_prior() -> None:
    base = resolve(load_preset("embedded-relief", ["renderer.lights=3", "renderer.min_elevation=20"]))
    presets = resolved("renderer", base)
    reference = presets.pop(experiment("renderer").reference)
    assert reference.prior.options["condition_on"] == "photo+light"
    assert {"lambert", "ggx", "spherical-harmonics", "blinn-phong"} <= set(presets)
    for preset in presets.values():
        assert preset.renderer.options["lights"] == 3
        assert preset.renderer.options["min_elevation"] == 20
        assert preset.prior.options["condition_on"] == "photo"


def test_an_arm_that_a_preset_cannot_have_has_an_obstacle() -> None:
    arms = {arm.name: arm.obstacle for arm in experiment("prior").arms(PAPER)}
    assert "checkpoint for the prior 'pixel-diffusion'" in arms["unconditional"]
    assert "checkpoint for the prior 'pixel-diffusion'" in arms["of another domain"]
    assert arms["random weights"] == arms["smoothness only"] == ""


def test_an_unknown_experiment_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown experiment 'priors'; did you mean 'prior'"):
        experiment("priors")


def test_missing_checkpoints_and_packages_are_skipped_with_the_reason() -> None:
    study = plan("prior", "embedded-relief", images=1)
    missing = {name: why for name, why in study.skipped.items() if "no embedded checkpoint" in why}
    assert set(study.arms) | set(study.skipped) == {
        arm.name for arm in experiment("prior").arms(EMBEDDED) if not arm.extra
    }
    assert set(missing) == set(study.skipped)
    teachers = {name: arm.teacher for name, arm in study.arms.items() if arm.teacher is not None}
    assert teachers == {"oracle": 1.0, "imperfect teacher": 0.5}
