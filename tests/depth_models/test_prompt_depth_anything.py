from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redepth.errors import InputError
from redepth.ops import panorama
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.prompt_depth_anything(), tmp_path_factory.mktemp("prompt"))


def load(folder: Path, prompt: Path, **options: Any) -> Any:
    return tiny.load(
        "prompt-depth-anything",
        checkpoint=str(folder),
        longer_side=70,
        resize_rule="upper_bound",
        prompt_depth=str(prompt),
        **options,
    )


def test_a_prompt_gives_metres_as_in_the_librarys_own_forward(folder: Path, tmp_path: Path) -> None:
    prompt = tiny.relief(12, 16)
    np.save(tmp_path / "lidar.npy", 1000 * prompt)
    model = load(folder, tmp_path / "lidar.npy", prompt_factor=0.001)
    assert (model.predicts, model.invariance) == ("depth", "metric")
    image = photo(70, 70)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in tiny.IMAGENET)
    with torch.no_grad():
        features = model.encode(image)
        found = model.decode(features)
        library = tiny.prompt_depth_anything()
        told = library((image - mean) / std, prompt_depth=torch.from_numpy(prompt)[None, None])
        untold = library((image - mean) / std)
    assert relative_error(found, told.predicted_depth[:, None]) < 1e-5
    assert relative_error(found, untold.predicted_depth[:, None]) > 0.1
    assert prompt.min() - 1e-4 < float(found.min()) < float(found.max()) < prompt.max() + 1e-4
    # Members carry the prompt along.
    rows = model.decode(features.with_maps([w.expand(3, -1, -1) for w in features.maps]))
    assert relative_error(rows, found.expand(3, -1, -1, -1)) < 1e-5


def test_each_photo_has_its_own_prompt(folder: Path, tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 2.0)):
        np.save(tmp_path / f"{name}.npy", factor * tiny.relief(12, 16))
    model = load(folder, tmp_path)
    found = []
    for name in ("a", "b"):
        model.next_photo(Path(f"{name}.jpg"))
        with torch.no_grad():
            found.append(model.decode(model.encode(photo(70, 70))))
    assert relative_error(found[1], 2 * found[0]) < 1e-4
    with pytest.raises(InputError, match=r"must hold one prompt depth of its name, there is no c\."):
        model.next_photo(Path("c.jpg"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 4), 2.0), "constant"),
        (np.array([[1.0, -1.0]]), "not negative"),
        (np.array([[1.0, np.nan]]), "finite"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_line(
    values: np.ndarray[Any, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=words) as error:
        load(folder, tmp_path / "x.npy").encode(photo(70, 70))
    assert str(tmp_path / "x.npy") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_prompt_is_found_before_the_weights(folder: Path, tmp_path: Path) -> None:
    from redepth.depth_models.prompt_depth_anything import PromptDepthAnything

    model = PromptDepthAnything(prompt_depth=str(tmp_path / "nowhere.npy"))
    with pytest.raises(InputError, match="no such file or folder of prompt depth"):
        model.ensure_available()


def test_the_prompt_of_a_panorama_goes_on_as_its_photo_does(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "lidar.npy", tiny.relief(16, 32))
    model = load(folder, tmp_path / "lidar.npy")
    extended = panorama.extend(torch.from_numpy(tiny.relief(16, 32))[None, None], 4)[0, 0]
    np.save(tmp_path / "extended.npy", extended.numpy())
    model.go_around(4 / 32)
    expected = load(folder, tmp_path / "extended.npy")
    image = photo(28, 70)
    assert torch.allclose(model.encode(image).constants[-2], expected.encode(image).constants[-2], atol=1e-6)
