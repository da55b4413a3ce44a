"""What holds for the diffusion models of one step only; the rest is in test_backbones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.errors import WeightsError
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error
from tests.support.tiny_depth_models import ONE_STEP


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("one-step")
    return {name: tiny.save(family.build(), root / name) for name, family in ONE_STEP.items()}


def complaint(component: str, folder: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as error:
        tiny.load(component, checkpoint=str(folder), **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_e2e_is_minus_v_at_the_last_timestep(folders: dict[str, Path]) -> None:
    """The equation of the class, at a schedule that ends in noise alone: its z_0 is -v."""
    parts, image = ONE_STEP["e2e-ft"].build(), photo(48, 64)
    model = tiny.load("e2e-ft", checkpoint=str(folders["e2e-ft"]), longer_side=64)
    latent = parts.vae.encode(2 * image - 1).latent_dist.mode() * parts.vae.config.scaling_factor
    inputs = torch.cat([latent, torch.zeros_like(latent)], dim=1)
    with torch.no_grad():
        v = parts.unet(inputs, 999, encoder_hidden_states=tiny.empty_prompt(parts, False)).sample
        (found,) = model.encode(image).maps
    assert relative_error(found, -v) < 1e-5


@pytest.mark.parametrize("name", list(ONE_STEP))
def test_embeddings_are_the_latent_and_no_text_encoder_stays(name: str, folders: dict[str, Path]) -> None:
    model = tiny.load(name, checkpoint=str(folders[name]), **ONE_STEP[name].options)
    state = torch.get_rng_state()
    with torch.no_grad():
        features = model.encode(photo(48, 64))
        again = model.encode(photo(48, 64))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert torch.equal(features.maps[0], again.maps[0])
    assert len(features.maps) == 1
    assert features.maps[0].shape[1] == 4
    names = [*model.encoder_parameters(), *model.decoder_parameters()]
    assert not [n for n in names if "text" in n]
    # No weight is lost: the halves are the UNet and the VAE.
    whole = sum(p.numel() for part in model._model.values() for p in part.parameters())
    assert model.describe()["encoder_parameters"] + model.describe()["decoder_parameters"] == whole


def test_the_seed_decides_the_noise_of_the_generative_one_alone(folders: dict[str, Path]) -> None:
    for name, depends in (("lotus", True), ("lotus-d", False)):
        models = [
            tiny.load(name, checkpoint=str(folders[name]), longer_side=64, output="disparity", seed=seed)
            for seed in (0, 1)
        ]
        with torch.no_grad():
            first, second = (m.encode(photo(48, 64)).maps[0] for m in models)
            # Another size has noise of its own, and the first one comes back.
            models[0].encode(photo(64, 48))
            assert torch.equal(models[0].encode(photo(48, 64)).maps[0], first)
        assert torch.equal(first, second) != depends


@pytest.mark.parametrize(
    ("name", "predicts"),
    [
        ("lotus-depth-g-v2-1-disparity", "disparity"),
        ("lotus-depth-d-v2-0-disparity", "disparity"),
        ("lotus-depth-g-v1-0", "depth"),
        ("lotus-depth-d-v1-0", "depth"),
    ],
)
def test_what_lotus_predicts_follows_from_the_published_name(
    name: str, predicts: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(folders["lotus"], folder)
    model = tiny.load("lotus", checkpoint=str(folder), longer_side=64)
    assert model.predicts == predicts
    with torch.no_grad():
        raw = model.decode(model.encode(photo(48, 64)))
    # Depth is lifted off the camera; a disparity of 0 is infinitely far.
    assert (float(raw.min()) >= 0.1) == (predicts == "depth")


def test_the_end_of_a_path_does_not_change_what_lotus_predicts(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "lotus-depth-g-v1-0"
    shutil.copytree(folders["lotus"], folder)
    for path in (f"{folder}/", f"{folder}/."):
        assert tiny.load("lotus", checkpoint=path, longer_side=64).predicts == "depth"


def test_an_ordinary_marigold_is_not_run_in_one_step(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "marigold"
    shutil.copytree(folders["e2e-ft"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    for steps in (10, 4):
        (folder / "model_index.json").write_text(json.dumps(index | {"default_denoising_steps": steps}))
        assert f"asks for {steps} steps" in (said := complaint("e2e-ft", folder))
        assert "choose depth_model.name=marigold" in said
    (folder / "model_index.json").write_text(json.dumps(index | {"default_denoising_steps": 1}))
    tiny.load("e2e-ft", checkpoint=str(folder))


def test_a_lotus_of_another_name_asks_what_it_predicts(folders: dict[str, Path], tmp_path: Path) -> None:
    assert "set depth_model.output=disparity or depth" in complaint("lotus", folders["lotus"])
    folder = tmp_path / "lotus-normal-g-v1-1"
    shutil.copytree(folders["lotus"], folder)
    assert "set depth_model.output=" in complaint("lotus", folder)


def test_another_unet_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    assert "takes no task" in complaint("lotus", folders["e2e-ft"], output="depth")
    assert "is not Marigold's" in complaint("e2e-ft", folders["lotus"])
    assert "is not Marigold's" in complaint("e2e-ft", tiny.GOLDEN / "tiny-random-sd")
    folder = tmp_path / "marigold-e2e-ft-normals"
    shutil.copytree(folders["e2e-ft"], folder)
    assert "predicts normals" in complaint("e2e-ft", folder)


@pytest.mark.parametrize("name", list(ONE_STEP))
def test_each_thing_that_is_wrong_with_a_folder_is_one_line(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    options = ONE_STEP[name].options
    for part in ("unet", "vae"):
        copy = tmp_path / part
        shutil.copytree(folders[name], copy)
        weights = copy / part / "diffusion_pytorch_model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[: len(content) // 2])
        assert "damaged" in complaint(name, copy, **options)
        weights.write_bytes(content)
        tensors = load_file(weights)
        last = sorted(tensors)[-1]
        save_file({k: v for k, v in tensors.items() if k != last}, weights, metadata={"format": "pt"})
        assert last in complaint(name, copy, **options)
        weights.unlink()
        assert weights.name in complaint(name, copy, **options)
        weights.write_bytes(content)
        (copy / "unet" / "config.json").write_text("{")
        assert "is not JSON" in complaint(name, copy, **options)
        (copy / "unet" / "config.json").write_text(json.dumps({"_class_name": "Other"}))
        complaint(name, copy, **options)
        (copy / "model_index.json").unlink()
        assert "model_index.json" in complaint(name, copy, **options)
