from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import WeightsError
from tests.support.helpers import CPU, GOLDEN, photo, relative_error, seeded, tiny_depth_model

CHECKPOINT = GOLDEN / "tiny-random-depth-anything"


def port() -> Any:
    """transformers' own model of the checkpoint, untouched."""
    from transformers import DepthAnythingForDepthEstimation

    return DepthAnythingForDepthEstimation.from_pretrained(CHECKPOINT).eval()


def normalised(image: torch.Tensor) -> torch.Tensor:
    """What that model wants to be given: ImageNet's mean and standard deviation taken out."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (image - mean) / std


def test_on_a_square_photo_the_whole_is_transformers_own_output() -> None:
    model = tiny_depth_model()
    image = photo(70, 70)
    with torch.no_grad():
        expected = port()(normalised(image)).predicted_depth
        found = model.decode(model.encode(image))
    assert found.shape == (1, 1, 70, 70)
    assert relative_error(found[:, 0], expected) < 1e-6


def test_on_a_wide_photo_it_departs_from_the_port_through_the_position_embeddings_alone() -> None:
    model = tiny_depth_model()
    image = photo(56, 70)
    with torch.no_grad():
        features = model.encode(image)
        theirs = port().backbone(normalised(image)).feature_maps
    assert features.grid == (4, 5)
    for i in range(4):
        tokens = torch.cat([features.constants[i], features.maps[i]], dim=1)
        assert tokens.shape == (1, 21, 48)
        assert 1e-4 < relative_error(tokens, theirs[i]) < 0.05


def test_features_of_the_recorded_trace_decode_to_its_disparity() -> None:
    import numpy as np

    from redepth.contracts import Features

    arrays = np.load(GOLDEN / "trace.npz")
    tokens = [torch.from_numpy(arrays[f"feature_{i}"]) for i in range(4)]
    features = Features(tuple(t[:, 1:] for t in tokens), tuple(t[:, :1] for t in tokens), (4, 5))
    with torch.no_grad():
        found = tiny_depth_model().decode(features)
    assert relative_error(found[:, 0], torch.from_numpy(arrays["hf_disparity"])) < 1e-5


def test_given_parameters_replace_the_models_own() -> None:
    model = tiny_depth_model()
    image = photo(70, 70)
    with torch.no_grad():
        features = model.encode(image)
        own = model.decode(features)
        same = model.decode(features, model.decoder_parameters())
        zeros = {k: torch.zeros_like(v) for k, v in model.decoder_parameters().items()}
        assert torch.equal(own, same)
        assert float(model.decode(features, zeros).abs().max()) == 0
        blank = {k: torch.zeros_like(v) for k, v in model.encoder_parameters().items()}
        assert float(model.encode(image, blank).maps[0].abs().max()) == 0


def test_weights_are_frozen_and_the_two_halves_cover_them_all() -> None:
    model = tiny_depth_model()
    parameters = [*model.encoder_parameters().values(), *model.decoder_parameters().values()]
    assert not any(p.requires_grad for p in parameters)
    stored = model.describe()
    assert stored["encoder_parameters"] + stored["decoder_parameters"] == sum(p.numel() for p in parameters)


def test_a_released_encoder_comes_back_for_the_next_photo() -> None:
    model = tiny_depth_model()
    with torch.no_grad():
        first = model.encode(photo(70, 70)).maps[0]
        model.release_encoder()
        assert torch.equal(model.encode(photo(70, 70)).maps[0], first)


def test_sides_that_are_no_multiples_of_the_patch_are_refused() -> None:
    with pytest.raises(ValueError, match="56 x 71 are not multiples of 14"):
        tiny_depth_model().encode(photo(56, 71))


def test_checkpoints_that_are_missing_corrupted_or_of_another_class_say_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        DepthAnything(checkpoint="./nowhere").load(CPU)
    with pytest.raises(WeightsError, match=r"no embedded checkpoint 'relif-depth'; .*relief-depth, "):
        DepthAnything(checkpoint="embedded:relif-depth").load(CPU)
    broken = tmp_path / "broken"
    shutil.copytree(CHECKPOINT, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(WeightsError, match="cannot load DepthAnythingForDepthEstimation"):
        DepthAnything(checkpoint=str(broken)).load(CPU)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="not DepthAnything"):
        DepthAnything(checkpoint=str(other)).load(CPU)


def test_a_metric_checkpoint_predicts_depth_in_metres_and_needs_no_scale(tmp_path: Path) -> None:
    metric = tmp_path / "metric"
    shutil.copytree(CHECKPOINT, metric)
    config = json.loads((metric / "config.json").read_text())
    (metric / "config.json").write_text(
        json.dumps(config | {"depth_estimation_type": "metric", "max_depth": 20})
    )
    relative, loaded = (DepthAnything(checkpoint=str(c)).load(CPU) for c in (CHECKPOINT, metric))
    assert (relative.predicts, relative.invariance) == ("disparity", "affine")
    assert (loaded.predicts, loaded.invariance, loaded.scale) == ("depth", "metric", "auto")
    with torch.no_grad():
        depth = loaded.decode(loaded.encode(photo(70, 70)))
    assert 0 < float(depth.min()) < float(depth.max()) < 20


def test_the_papers_scale_is_for_the_papers_checkpoint_alone() -> None:
    """transformers' own conversion records first values of one photo: V2 Small 2.7, V2 Large 162."""
    assert DepthAnything().scale == 7.0
    assert DepthAnything(checkpoint="depth-anything-v2-small").scale == 7.0
    for other in ("depth-anything-v2-large", "depth-anything-v1-small", str(CHECKPOINT)):
        assert DepthAnything(checkpoint=other).scale == "auto"
        assert DepthAnything(checkpoint=other, scale=2.0).scale == 2.0


def test_short_names_stand_for_hub_ids() -> None:
    assert DepthAnything(checkpoint="depth-anything-v2-large").checkpoint.endswith("V2-Large-hf")
    assert DepthAnything(checkpoint="owner/name").checkpoint == "owner/name"


def test_photos_are_resized_under_the_rule_and_filtered_when_asked() -> None:
    fine = torch.rand(1, 3, 400, 300, generator=seeded())
    plain, filtered = DepthAnything(longer_side=70), DepthAnything(longer_side=70, antialias=True)
    assert plain.prepare(fine).shape == (1, 3, 70, 56)
    assert filtered.prepare(fine).std() < 0.5 * plain.prepare(fine).std()


def test_a_hub_id_offline_says_at_once_what_to_do() -> None:
    with pytest.raises(WeightsError, match="--preset embedded"):
        DepthAnything().ensure_available()
