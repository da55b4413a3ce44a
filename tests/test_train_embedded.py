from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from redepth.depth_models.depth_anything import DepthAnything
from redepth.doctor import embedded_weights
from redepth.priors.pixel_diffusion import PixelDiffusion
from tests.helpers import CPU, photo, seeded
from tools import train_embedded as training


def run(*arguments: str) -> None:
    result = CliRunner().invoke(training.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_training_lowers_the_loss_resumes_exactly_and_exports(tmp_path: Path) -> None:
    for what, batch in (("depth", 16), ("prior", 32)):
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        run(what, "--samples", str(batch * 4), "--runs", str(whole))
        interrupted_at(2, what, batch * 4, parts)
        run(what, "--samples", str(batch * 4), "--runs", str(parts))
        name = training.DEPTH_NAME if what == "depth" else training.PRIOR_NAME
        one, other = (training.averaged(runs / f"{name}-0") for runs in (whole, parts))
        assert all(torch.equal(one[k], other[k]) for k in one)
    out = tmp_path / "weights"
    run("export", "--runs", str(tmp_path / "whole"), "--out", str(out))
    assert all(check.ok for check in embedded_weights(out))
    model = DepthAnything(checkpoint=str(out / training.DEPTH_NAME), longer_side=96).load(CPU)
    with torch.no_grad():
        assert torch.isfinite(model.decode(model.encode(photo(96, 96)))).all()
    prior = PixelDiffusion(checkpoint=str(out / training.PRIOR_NAME)).load(CPU)
    assert prior._model.layout.relighting
    stored = load_file(out / training.DEPTH_NAME / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}


def interrupted_at(step: int, what: str, samples: int, runs: Path) -> None:
    """Train with a checkpoint after some steps and an interrupt right after it."""
    saved: Any = training.Training._update_average

    def stop(self: training.Training) -> None:
        saved(self)
        if self.step == step:
            self.save()
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "_update_average", stop)
        CliRunner().invoke(training.app, [what, "--samples", str(samples), "--runs", str(runs)])


def test_the_log_falls_within_the_first_steps(tmp_path: Path) -> None:
    model = training.build_prior(0)
    step = training.prior_steps(model, seeded(), 8, CPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = step()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_checksums_find_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps({}))
    training.write_checksums(tmp_path)
    assert [c.ok for c in embedded_weights(tmp_path)] == [True]
    (tmp_path / "a" / "config.json").write_text("changed")
    assert [c.ok for c in embedded_weights(tmp_path)] == [False]


def test_timesteps_are_mostly_high() -> None:
    drawn = training.draw_timesteps(4000, seeded())
    assert drawn.min() >= 20
    assert drawn.max() <= 999
    assert 0.83 < (drawn >= 500).float().mean() < 0.87
