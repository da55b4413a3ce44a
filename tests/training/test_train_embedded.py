from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks.accuracy import compare_supervised
from redepth.cli.checks import embedded_weights
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import ConfigError, RedepthError
from redepth.priors.pixel_diffusion import PixelDiffusion
from tests.support.helpers import CPU, photo, seeded
from training import train_embedded as training
from training.exporting import write_checksums
from training.loop import Training, averaged, cosine
from training.networks import SIZE, Kind, build_normals_model, build_prior
from training.relief_prior import composites, prior_steps, windows
from training.relighting import draw_timesteps


def run(*arguments: str) -> None:
    result = CliRunner().invoke(training.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_the_first_200_steps_of_the_one_command_learn_and_export(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "weights"
    run("all", "--until", "200", "--runs", str(runs), "--out", str(out))
    names = [training.DEPTH_NAME, *training.PRIOR_NAMES.values()]
    for name in names:
        first, last = rows(runs / f"{name}-0")
        assert (first["step"], last["step"]) == (100, 200)
        assert last["loss"] < 0.93 * first["loss"]
        assert "validation" in last
        assert sum(p.stat().st_size for p in (out / name).rglob("*")) <= 12e6
    assert all(check.ok for check in embedded_weights(out))
    model = DepthAnything(checkpoint=str(out / training.DEPTH_NAME), longer_side=96).load(CPU)
    with torch.no_grad():
        assert torch.isfinite(model.decode(model.encode(photo(96, 96)))).all()
    for kind, name in training.PRIOR_NAMES.items():
        prior = PixelDiffusion(checkpoint=str(out / name)).load(CPU)
        assert prior.describe()["kind"].startswith("uncond" if kind == "unconditional" else "re-lighting")
    stored = load_file(out / training.DEPTH_NAME / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["depth", "prior", "normals"])
def test_training_resumes_exactly(what: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(what, "--until", "4", "--runs", str(whole))
    run(what, "--until", "2", "--runs", str(parts))
    run(what, "--until", "4", "--runs", str(parts))
    (one, other) = (averaged(next(runs.iterdir())) for runs in (whole, parts))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_what_labels_bought_is_measured_from_the_runs(tmp_path: Path) -> None:
    for what in ("depth", "finetune", "normals"):
        run(what, "--until", "2", "--runs", str(tmp_path))
    out = tmp_path / "found.json"
    compare_supervised.main(images=2, split=["relief", "broad"], seed=0, runs=tmp_path, out=out)
    found = json.loads(out.read_text(encoding="utf-8"))["splits"]
    assert list(found) == ["relief", "broad"]
    for split in found.values():
        assert len(split["rows"]) == 2
        initial, tuned = (split["summary"][n] for n in (training.DEPTH_NAME, training.FINETUNED_NAME))
        assert initial != tuned
        assert 0 < split["summary"]["photo to normals"]["normals"] < 180


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_training_of_another_length_is_refused(tmp_path: Path) -> None:
    command = ["depth", "--runs", str(tmp_path), "--until", "1", "--samples"]
    run(*command, "64")
    with pytest.raises(ConfigError, match=r"holds a training of \[4\] steps, and \[8\] are requested"):
        run(*command, "128")


def test_the_learning_rate_starts_again_lower_in_each_cycle(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    one = Training(model, tmp_path, rate=1.0, cycles=(6400, 3200), batch=8, validate=lambda _: {})
    factors = [one.rate_factor(step) for step in range(one.total)]
    assert one.cycles == [800, 400]
    assert factors[0] == pytest.approx(1 / 200)
    assert factors[199] == pytest.approx(0.02 + 0.98 * cosine(199 / 800))
    assert factors[799] == pytest.approx(0.02, abs=1e-4)
    assert factors[800] == pytest.approx(0.7)
    assert factors[1199] == pytest.approx(0.014, abs=1e-4)


def test_a_training_stops_before_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    one = Training(model, tmp_path, rate=1.0, cycles=(64,), batch=8, validate=lambda _: {})
    factors = iter([1.0, 1.0, float("inf")])
    with pytest.raises(RedepthError, match=r"the gradient of step 3 is not finite \(loss inf\)"):
        one.run(lambda _: lambda: next(factors) * model(torch.ones(1, 1)).square().sum(), seed=0)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_every_attention_of_the_networks_reads_normalised_features() -> None:
    kinds: tuple[Kind, ...] = ("relighting", "unconditional")
    for network in (build_normals_model(0), *(build_prior(0, kind) for kind in kinds)):
        attentions = [m for m in network.modules() if isinstance(m, Attention)]
        assert attentions
        assert all(attention.group_norm is not None for attention in attentions)


@pytest.mark.slow
def test_fine_tuning_starts_from_the_trained_model(tmp_path: Path) -> None:
    run("depth", "--until", "1", "--runs", str(tmp_path))
    run("finetune", "--until", "1", "--runs", str(tmp_path))
    before, after = (averaged(tmp_path / f"{n}-0") for n in (training.DEPTH_NAME, training.FINETUNED_NAME))
    change = sum(float((before[k] - after[k]).abs().sum()) for k in before)
    size = sum(float(v.abs().sum()) for v in before.values())
    assert 0 < change < 1e-3 * size


def test_quarters_of_large_scenes_are_windows_in_order() -> None:
    picture = torch.arange(4.0).repeat_interleave(SIZE).view(1, 1, 1, -1)[..., : 2 * SIZE]
    picture = picture.expand(1, 3, 2 * SIZE, -1)
    cut = windows(picture)
    assert cut.shape == (4, 3, SIZE, SIZE)
    assert cut.mean(dim=(1, 2, 3)).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_composites_of_both_sizes_go_with_their_lights() -> None:
    sizes = set()
    for seed in range(6):
        seen = composites(8, "mid", seeded(seed))
        assert seen.relit.shape == seen.photo.shape == (8, 3, SIZE, SIZE)
        assert seen.light.shape == (8, 7)
        sizes.add(len(seen.light.unique(dim=0)))
    assert sizes == {2, 8}


@pytest.mark.slow
def test_the_loss_of_other_pictures_falls_within_the_first_steps() -> None:
    model = build_prior(0)
    step = prior_steps(model, seeded(), 8, CPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    @torch.no_grad()
    def held_out() -> float:
        return float(prior_steps(model, seeded(1), 16, CPU)())

    before = held_out()
    for _ in range(12):
        optimizer.zero_grad()
        step().backward()
        optimizer.step()
    assert held_out() < 0.8 * before


def test_checksums_find_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps({}))
    write_checksums(tmp_path)
    assert [c.ok for c in embedded_weights(tmp_path)] == [True]
    (tmp_path / "a" / "config.json").write_text("changed")
    assert [c.ok for c in embedded_weights(tmp_path)] == [False]


def test_timesteps_are_mostly_high() -> None:
    drawn = draw_timesteps(4000, seeded())
    assert drawn.min() >= 20
    assert drawn.max() <= 999
    assert 0.83 < (drawn >= 500).float().mean() < 0.87
