"""Training of the pair for photos: the mixture, the losses, composites, resuming, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from typer.testing import CliRunner

from redepth.cli.checks import embedded_weights
from redepth.data.scenes.rooms.layouts import TRAINING
from redepth.data.scenes.rooms.scene import mean_disparity
from redepth.data.scenes.synthetic import Scenes, scenes
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import InputError
from redepth.ops.geometry import normals_from_depth, relative_depth
from redepth.priors.pixel_diffusion import PixelDiffusion
from tests.support.helpers import CPU, photo, seeded
from training import photo_depth, photo_prior, train_photo
from training.ahead import drawn_ahead
from training.depth_losses import away_from_edges, photo_depth_loss
from training.loop import Training, averaged
from training.mixture import CAMERA, mixture
from training.networks import SIZE
from training.relighting import Composites
from training.stored_scenes import StoredScenes, recoloured, stored_scenes


def run(*arguments: str) -> None:
    result = CliRunner().invoke(train_photo.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_stored_scenes_are_the_same_again_and_stay(folder: Path, tmp_path: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["rooms-0000", "rooms-0001"]
    written = (folder / "rooms-0001" / "image.npy").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.stored_scenes.PER_FILE", 4)
        for target in (folder, tmp_path):
            run("scenes", "--out", str(target), "--files", "2")
    assert (folder / "rooms-0001" / "image.npy").stat().st_mtime_ns == written
    for name in ("image", "depth", "family"):
        parts = [np.load(where / "rooms-0001" / f"{name}.npy") for where in (folder, tmp_path)]
        assert np.array_equal(*parts, equal_nan=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_drawn_ahead_are_those_of_their_steps(workers: int) -> None:
    batches = list(drawn_ahead(draw_numbers, seed=3, first=5, end=9, workers=workers))
    assert [step for step, _ in batches] == [5, 6, 7, 8]
    expected = [draw_numbers(step, seeded(3 * 2**32 + step)) for step in range(5, 9)]
    assert all(torch.equal(found, wanted) for (_, found), (_, wanted) in zip(batches, expected, strict=True))
    assert not torch.equal(batches[0][1], batches[1][1])


def draw_numbers(step: int, generator: Generator) -> tuple[int, Tensor]:
    return step, torch.rand(3, generator=generator)


def test_a_missing_folder_of_scenes_says_how_to_draw_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train_photo scenes"):
        stored_scenes(tmp_path)


def test_views_of_rooms_keep_the_scene_and_a_mean_disparity_of_one(rooms: StoredScenes) -> None:
    image, depth, family = rooms.views(32, seeded(1), height=96, width=128)
    assert image.shape == (32, 3, 96, 128)
    assert depth.shape == (32, 1, 96, 128)
    assert 0 <= image.min() < image.max() <= 1
    assert set(family.tolist()) <= set(range(len(TRAINING)))
    assert len({tuple(f.tolist()) for f in rooms.family}) == 2
    assert torch.allclose(mean_disparity(depth.flatten(1)), torch.ones(32), atol=1e-3)
    assert not torch.equal(image[0], image[1])


def test_colours_change_within_their_bounds() -> None:
    grey = torch.full((64, 3, 2, 2), 0.5)
    found = recoloured(grey, seeded())
    assert 0.5**1.23 * 0.8 * 0.9 <= found.min() < 0.4
    assert 0.6 < found.max() <= 0.5**0.81 * 1.2 * 1.1


def test_half_of_the_mixture_is_relief_and_it_keeps_its_slopes(rooms: StoredScenes) -> None:
    drawn = mixture(8, seeded(2), rooms, height=48, width=64)
    assert drawn.image.shape == (8, 3, 48, 64)
    relief = scenes(4, "broad", seeded(2), height=48, width=64)
    assert torch.equal(drawn.image[:4], relief.image)
    # In the middle both cameras look straight at the surface; to a pinhole a pixel is z as wide.
    middle = (slice(None), slice(None), slice(22, 26), slice(30, 34))
    found = slopes(normals_from_depth(drawn.depth[:4], CAMERA)[middle]) * drawn.depth[:4][middle]
    expected = slopes(relief.normals[middle])
    assert expected.abs().mean() > 0.1
    assert torch.allclose(found, expected, rtol=0.1, atol=0.03)
    assert (drawn.depth[4:] > 0).all()
    assert drawn.sky is not None
    assert torch.equal(drawn.sky, torch.isinf(drawn.depth))


def slopes(normals: Tensor) -> Tensor:
    return normals[:, :2] / normals[:, 2:]


@pytest.fixture
def drawn(rooms: StoredScenes) -> Scenes:
    return mixture(8, seeded(4), rooms, height=48, width=48)


def test_the_loss_is_least_at_the_truth(drawn: Scenes) -> None:
    target = drawn.disparity
    best = photo_depth_loss(target, drawn, CAMERA)
    assert best < 0.01
    noise = torch.randn(target.shape, generator=seeded())
    for wrong in (target + 0.1 * noise, 0.5 * target + 4, target.mean() + 0 * target, target.flip(-1)):
        assert photo_depth_loss(wrong, drawn, CAMERA) > best + 0.1


def test_every_part_of_the_loss_has_a_finite_gradient_everywhere(drawn: Scenes) -> None:
    raw = torch.zeros_like(drawn.disparity).requires_grad_(True)
    photo_depth_loss(raw, drawn, CAMERA).backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad.abs().max() > 0


def test_edges_and_sky_have_no_normals() -> None:
    depth = torch.ones(1, 1, 8, 8)
    depth[..., 4:] = 2.0
    sky = torch.zeros_like(depth, dtype=torch.bool)
    sky[..., 0, :] = True
    expected = torch.ones(8, 8)
    expected[:, 3:5] = 0
    expected[:2] = 0
    assert torch.equal(away_from_edges(depth, sky)[0, 0], expected)


def test_the_network_is_small_enough_to_ship() -> None:
    parameters = sum(p.numel() for p in photo_depth.build_photo_depth(0).parameters())
    assert 3e6 < parameters <= 4e6


def test_a_picture_is_relit_from_its_true_surface(rooms: StoredScenes) -> None:
    whole = mixture(4, seeded(5), rooms, height=32, width=32)
    seen = photo_prior.relit(whole, seeded(6))
    lights = photo_prior.renderer().draw(4, seeded(6))
    expected = photo_prior.renderer()(relative_depth(whole.disparity), whole.image**2.2, lights)[:, 0]
    assert torch.allclose((seen.relit + 1) / 2, expected, atol=1e-5)
    assert torch.equal(seen.photo, whole.image * 2 - 1)
    assert seen.light.shape == (4, 7)


def test_windows_are_the_same_of_photo_and_composite() -> None:
    picture = torch.rand(2, 3, 128, 128, generator=seeded())
    cut = photo_prior.windows(Composites(picture, -picture, torch.rand(2, 7)), 4, seeded())
    assert cut.relit.shape == (8, 3, SIZE, SIZE)
    assert torch.equal(cut.relit, -cut.photo)
    assert torch.equal(cut.light[0], cut.light[3])
    assert not torch.equal(cut.light[3], cut.light[4])
    # The first window of each picture is the whole of it.
    assert float(cut.relit[0].mean()) == pytest.approx(float(picture[0].mean()), abs=1e-3)
    assert len({float(row.mean()) for row in cut.relit}) == 8


@pytest.mark.slow
def test_composites_of_all_scales_have_the_size_of_the_prior(rooms: StoredScenes) -> None:
    for seed in range(6):
        seen = photo_prior.photo_composites(16, seeded(seed), rooms)
        assert seen.relit.shape == seen.photo.shape == (16, 3, SIZE, SIZE)
        assert seen.light.shape == (16, 7)
        assert -1 <= seen.relit.min() < seen.relit.max() <= 1


def test_a_checkpoint_is_written_after_some_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.loop.CHECKPOINT_SECONDS", -1.0)
    one = Training(torch.nn.Linear(1, 1), tmp_path, rate=1.0, cycles=(64,), batch=8, validate=lambda _: {})
    steps: list[int] = []
    monkeypatch.setattr(one, "save", lambda: steps.append(one.step))
    one.run(lambda _: lambda: one.model(torch.ones(1, 1)).square().sum(), seed=0, until=3)
    assert steps == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["depth", "prior"])
def test_training_resumes_exactly(
    what: str, folder: Path, rooms: StoredScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("validate_photo_depth", "validate_photo_prior"):
        monkeypatch.setattr(train_photo, name, lambda *_: {})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for until, runs in ((3, whole), (1, parts), (3, parts)):
        run(what, "--until", str(until), "--runs", str(runs), "--scenes", str(folder))
    (one, other) = (averaged(next(runs.iterdir())) for runs in (whole, parts))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_what_is_trained_is_measured_exported_and_loaded(
    folder: Path, rooms: StoredScenes, tmp_path: Path
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "weights"
    for what in ("depth", "prior"):
        run(what, "--until", "1", "--cycles", "1", "--runs", str(runs), "--scenes", str(folder))
    found = last_row(runs / "photo-depth-0")["validation"]
    assert {"rooms", "unseen rooms", "relief", "shapes", "path-traced"} <= set(found)
    assert all(value > 0 for value in found.values())
    scores = last_row(runs / "photo-relighting-prior-0")["validation"]
    assert {"unseen rooms", "relief"} == set(scores)
    run("export", "--out", str(out), "--runs", str(runs))
    for name, limit in ((photo_depth.DEPTH_NAME, 8e6), (photo_prior.PRIOR_NAME, 12e6)):
        assert sum(p.stat().st_size for p in (out / name).rglob("*")) <= limit
    assert all(check.ok for check in embedded_weights(out))
    model = DepthAnything(checkpoint=str(out / photo_depth.DEPTH_NAME), longer_side=96).load(CPU)
    with torch.no_grad():
        assert torch.isfinite(model.decode(model.encode(photo(96, 96)))).all()
    prior = PixelDiffusion(checkpoint=str(out / photo_prior.PRIOR_NAME)).load(CPU)
    assert prior.describe()["kind"] == "re-lighting prior"


def last_row(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
