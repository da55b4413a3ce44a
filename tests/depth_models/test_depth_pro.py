from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redepth.ops.camera import ORTHOGRAPHIC, Camera
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error


def test_the_focal_length_turns_canonical_inverse_depth_to_one_over_metres(tmp_path: Path) -> None:
    folder = tiny.save(tiny.depth_pro(), tmp_path / "focal")
    model = tiny.load("depth-pro", checkpoint=str(folder), longer_side=64)
    library = tiny.depth_pro()
    with torch.no_grad():
        pixels = 2 * photo(128, 128) - 1
        degrees = float(library(pixels).field_of_view)
        features = model.encode(photo(128, 128))
    assert 5 < degrees < 175
    expected = 2 * torch.tan(torch.deg2rad(torch.tensor(degrees)) / 2)
    assert relative_error(features.constants[0], expected) < 1e-5
    assert (model.predicts, model.invariance) == ("disparity", "metric")


def test_without_the_focal_length_the_scale_is_unknown(tmp_path: Path) -> None:
    folder = tiny.save(tiny.depth_pro(focal=False), tmp_path / "plain")
    model = tiny.load("depth-pro", checkpoint=str(folder), longer_side=128)
    assert (model.predicts, model.invariance) == ("disparity", "affine")
    image = photo(128, 128)
    with torch.no_grad():
        found = model.decode(model.encode(image))
        expected = tiny.depth_pro(focal=False)(2 * image - 1).predicted_depth[:, None]
    assert relative_error(found, expected) < 1e-5


def test_the_network_has_one_size_and_the_image_any(tmp_path: Path) -> None:
    folder = tiny.save(tiny.depth_pro(), tmp_path / "focal")
    model = tiny.load("depth-pro", checkpoint=str(folder), longer_side=60)
    image = model.prepare(photo(200, 300))
    assert image.shape == (1, 3, 40, 60)
    assert model.pixels(image).shape == (1, 3, 128, 128)
    # The neck belongs to the decoder alone: when the encoder leaves the device it stays.
    assert not {id(p) for p in model._encoder.parameters()} & {id(p) for p in model._decoder.parameters()}


def test_it_estimates_a_camera_and_follows_one_that_is_given(tmp_path: Path) -> None:
    model = tiny.load("depth-pro", checkpoint=str(tiny.save(tiny.depth_pro(), tmp_path / "focal")))
    image = photo(96, 128)
    with torch.no_grad():
        estimated = model.encode(image)
        degrees = float(tiny.depth_pro()(model.pixels(image)).field_of_view)
        camera = model.predicted_camera
        assert camera is not None
        assert camera.field_of_view == pytest.approx(degrees, rel=1e-4)
        model.next_camera(Camera(field_of_view=90.0))
        given = model.encode(image)
    # At 90 degrees the focal length is half a width, so that W / f = 2.
    assert given.constants[0].flatten().tolist() == pytest.approx([2.0])
    assert model.predicted_camera == camera, "the estimate stays what it is"
    model.next_camera(ORTHOGRAPHIC)
    with torch.no_grad():
        again = model.encode(image)
    assert torch.equal(again.constants[0], estimated.constants[0])


def test_a_camera_gives_metres_to_a_checkpoint_that_estimates_none(tmp_path: Path) -> None:
    model = tiny.load("depth-pro", checkpoint=str(tiny.save(tiny.depth_pro(focal=False), tmp_path / "plain")))
    model.next_camera(Camera(intrinsics=(0.8, 1.1, 0.5, 0.5)))
    with torch.no_grad():
        features = model.encode(photo(96, 128))
    assert features.constants[0].flatten().tolist() == pytest.approx([1.25])
    assert model.invariance == "metric"
    assert model.predicted_camera is None
    model.next_camera(None)
    assert model.invariance == "affine"
