"""Preprocessing: what a checkpoint's own configuration says, what options change, and what libraries do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from redepth.depth_models import REGISTRY
from redepth.depth_models.backbone import Preprocessing
from redepth.errors import ConfigError
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error

DPT_LARGE = {
    "do_normalize": True,
    "ensure_multiple_of": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "size": 384,
}
"""What the published Intel/dpt-large says."""

DEPTH_ANYTHING = {
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "keep_aspect_ratio": True,
    "size": {"height": 518, "width": 518},
}
"""What the published Depth Anything checkpoints say."""


def test_a_checkpoint_says_how_it_wants_its_pictures() -> None:
    family = Preprocessing(multiple=32, target=(256, 256))
    dpt = family.updated(DPT_LARGE)
    assert dpt == Preprocessing((0.5,) * 3, (0.5,) * 3, (384, 384), 32, "stretch")
    assert dpt.image_size(480, 640) == (288, 384)
    other = Preprocessing().updated(DEPTH_ANYTHING)
    assert (other.target, other.multiple, other.rule) == ((518, 518), 14, "minimal")
    assert other.image_size(480, 640) == (518, 686)
    glpn = family.updated({"do_normalize": False, "size_divisor": 32})
    assert (glpn.mean, glpn.std) == ((0.0,) * 3, (1.0,) * 3)
    assert family.updated({}) == family


def stored_with(folder: Path, config: dict[str, Any], destination: Path) -> str:
    shutil.copytree(folder, destination)
    (destination / "preprocessor_config.json").write_text(json.dumps(config))
    return str(destination)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.dpt(), tmp_path_factory.mktemp("dpt"))


def test_a_network_of_one_size_gets_it_and_the_refined_image_keeps_its_shape(
    dpt: Path, tmp_path: Path
) -> None:
    squeezed = stored_with(dpt, DPT_LARGE | {"size": 64}, tmp_path / "squeezed")
    model = tiny.load("dpt", checkpoint=squeezed)
    image = model.prepare(photo(90, 120))
    assert image.shape == (1, 3, 48, 64)
    assert model.pixels(image).shape == (1, 3, 64, 64)
    with torch.no_grad():
        features = model.encode(image)
        assert features.maps[0].shape == (1, 16, 32)
        assert model.decode(features).shape == (1, 1, 48, 64)
    # An option beats the checkpoint, here and there.
    larger = tiny.load("dpt", checkpoint=squeezed, longer_side=100)
    assert larger.prepare(photo(90, 120)).shape == (1, 3, 75, 100)
    assert larger.pixels(larger.prepare(photo(90, 120))).shape == (1, 3, 64, 64)
    kept = tiny.load("dpt", checkpoint=squeezed, resize_rule="upper_bound", longer_side=96)
    image = kept.prepare(photo(90, 120))
    assert image.shape == kept.pixels(image).shape == (1, 3, 64, 96)


def test_without_a_preprocessor_file_the_familys_own_values_stand(dpt: Path) -> None:
    own = tiny.load("dpt", checkpoint=str(dpt)).preprocessing
    assert own == Preprocessing((0.5,) * 3, (0.5,) * 3, (384, 384), 32, "stretch")


def test_wrong_options_are_refused() -> None:
    for option, words in (
        ({"resize_rule": "crop"}, "resize_rule"),
        ({"longer_side": 5}, "longer_side"),
        ({"scale": 0.5}, "scale"),
        ({"scale": "automatic"}, "'auto'"),
        ({"pad": True}, "unknown key 'depth_model.pad'"),
    ):
        with pytest.raises(ConfigError, match=words):
            REGISTRY.check("dpt", option)


def picture(height: int = 120, width: int = 160) -> tuple[Image.Image, Tensor]:
    """One photo as Pillow's and as ours."""
    eight = np.rint(photo(height, width)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return Image.fromarray(eight), torch.from_numpy(eight / np.float32(255)).permute(2, 0, 1)[None]


def by_the_library(processor: Any, image: Image.Image) -> Tensor:
    return processor(images=image, return_tensors="pt")["pixel_values"]


def test_pixels_are_those_of_the_librarys_own_processors(tmp_path: Path) -> None:
    """But for the filter: theirs is Pillow's bicubic where ours is bilinear."""
    from transformers import DPTImageProcessorPil, ZoeDepthImageProcessorPil

    theirs, ours = picture()
    square = {"height": 64, "width": 64}
    for keep, multiple in ((False, 1), (True, 16)):
        processor = DPTImageProcessorPil(size=square, keep_aspect_ratio=keep, ensure_multiple_of=multiple)
        model = REGISTRY.build("dpt", {})
        model.preprocessing = model.preprocessing.updated(processor.to_dict())
        found = model.pixels(model.prepare(ours))
        expected = by_the_library(processor, theirs)
        assert found.shape == expected.shape
        assert relative_error(found, expected) < 0.02

    theirs, ours = picture(64, 96)
    processor = ZoeDepthImageProcessorPil(size={"height": 64, "width": 96}, ensure_multiple_of=32)
    model = REGISTRY.build("zoedepth", {})
    model.preprocessing = model.preprocessing.updated(processor.to_dict())
    assert torch.equal(model.prepare(ours), ours)
    assert relative_error(model.pixels(ours), by_the_library(processor, theirs)) < 1e-5
