"""Loading from a folder: models are complete or refused, and every error is one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth import checkpoints
from redepth.checkpoints import loading
from redepth.errors import WeightsError
from tests.support.checkpoints import copy_of
from tests.support.loopback import UNET


@pytest.mark.parametrize("accelerate", [False, True])
def test_with_and_without_accelerate_a_model_is_whole_or_refused(
    accelerate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    if accelerate and importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object() if accelerate else None)
    folder = copy_of("sd15", tmp_path)
    weights = load_file(folder / UNET)
    model = loading.load_model(UNet2DConditionModel, folder, name="owner/name", subfolder="unet")
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    for changed in ({"conv_in.bias": None}, {"conv_in.weight": torch.zeros(16, 9, 3, 3)}):
        kept = {k: v for k, v in (weights | changed).items() if v is not None}
        save_file(kept, folder / UNET, {"format": "pt"})
        with pytest.raises(WeightsError, match=r"cannot load UNet2DConditionModel from .*conv_in") as error:
            loading.load_model(UNet2DConditionModel, folder, name="owner/name", subfolder="unet")
        assert "\n" not in str(error.value)


def test_the_cause_of_a_librarys_error_is_named_where_it_is_known(tmp_path: Path) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    class Model:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            try:
                raise OfflineModeIsEnabled("cannot reach")
            except OfflineModeIsEnabled as error:
                raise OSError("We couldn't connect\nand more") from error

    with pytest.raises(
        WeightsError, match=r"^cannot load Model .*: it is not in the cache and HF_HUB_OFFLINE"
    ):
        loading.from_pretrained(Model, tmp_path, name="owner/name")


def test_what_a_library_raises_becomes_one_line_that_names_class_and_place(tmp_path: Path) -> None:
    class Model:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            raise RuntimeError("size mismatch\nand a long tale")

    with pytest.raises(WeightsError, match=r"^cannot load Model from 'owner/name/unet': size mismatch$"):
        loading.from_pretrained(Model, tmp_path, name="owner/name", subfolder="unet")


def test_a_repository_that_is_not_there_is_explained(tmp_path: Path) -> None:
    class RepositoryNotFoundError(Exception):
        pass

    class Model:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            raise RepositoryNotFoundError("404 Client Error. (Request ID: Root=1-2)\n\nRepository Not Found")

    with pytest.raises(
        WeightsError, match=r"^cannot load Model from 'owner/nmae': the hub has no such repository"
    ):
        loading.from_pretrained(Model, tmp_path, name="owner/nmae")


def test_one_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("{")
    assert loading.require_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert loading.read_json(tmp_path, "config.json") == {"a": 1}
    for name, words in (
        ("gone.json", "has no file gone.json: the checkpoint is incomplete"),
        ("list.json", "must hold a JSON object"),
        ("bad.json", "is not JSON"),
    ):
        with pytest.raises(WeightsError, match=words):
            loading.read_json(tmp_path, name)


def test_a_module_is_filled_from_the_names_it_has_in_a_file(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    source, module = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    path = tmp_path / "model.safetensors"
    save_file({f"model.head.{k}": v.clone() for k, v in source.state_dict().items()}, path)

    def fill() -> None:
        checkpoints.fill(module, path, loading.read_tensors(path), prefixes=("model.head.", "head."))

    fill()
    assert torch.equal(module.weight, source.weight)
    save_file({"head.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 weights, such as model\.head\.bias$"):
        fill()
    save_file({"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="cannot load the weights in"):
        fill()
