from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redepth import hub
from redepth.errors import WeightsError


def test_names_resolve_to_embedded_local_and_hub_sources(tmp_path: Path) -> None:
    assert Path(hub.resolve("embedded:relief-depth")) == hub.WEIGHTS / "relief-depth"
    assert hub.resolve(str(tmp_path)) == str(tmp_path)
    assert hub.resolve("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing/there", "justaname", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="no such folder, and not a hub id"):
        hub.resolve(name)


def fake_cache(folder: Path, repository: str, *files: str) -> None:
    """Lay files out as the hub's client leaves them after a download."""
    root = folder / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    for name in files:
        (root / "snapshots" / "abc" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "snapshots" / "abc" / name).write_text("{}")


def test_weights_count_as_cached_when_all_that_is_loaded_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    needed = ("unet/config.json", "unet/model.safetensors")
    fake_cache(tmp_path, "owner/whole", *needed)
    fake_cache(tmp_path, "owner/part", "model_index.json", "unet/config.json")
    hub.ensure_available("owner/whole", None, needed)
    with pytest.raises(WeightsError, match=r"run 'hf download owner/part unet/config\.json unet/model"):
        hub.ensure_available("owner/part", None, needed)


def test_local_folders_and_a_reachable_hub_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.ensure_available(str(tmp_path), None, ["config.json"])
    with pytest.raises(WeightsError, match=r"--preset embedded"):
        hub.ensure_available("owner/name", None, ["config.json"])
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    hub.ensure_available("owner/name", None, ["config.json"])


def test_offline_the_network_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(hub, "urlopen", refuse)
    hub.hub_reachable.cache_clear()
    assert not hub.hub_reachable()


def test_an_unreachable_endpoint_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("refused")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "urlopen", refuse)
    hub.hub_reachable.cache_clear()
    assert not hub.hub_reachable()
    hub.hub_reachable.cache_clear()


def test_what_a_library_raises_becomes_one_line_that_names_class_and_place() -> None:
    class Model:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            raise RuntimeError("size mismatch\nand a long tale")

    with pytest.raises(WeightsError, match=r"^cannot load Model from 'owner/name/unet': size mismatch$"):
        hub.from_pretrained(Model, "owner/name", subfolder="unet")


def test_a_repository_that_is_not_there_is_said_in_words() -> None:
    class RepositoryNotFoundError(Exception):
        pass

    class Model:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            raise RepositoryNotFoundError("404 Client Error. (Request ID: Root=1-2)\n\nRepository Not Found")

    with pytest.raises(
        WeightsError, match=r"^cannot load Model from 'owner/nmae': the hub has no such repository"
    ):
        hub.from_pretrained(Model, "owner/nmae")


def test_a_revision_is_part_of_the_command_that_downloads() -> None:
    with pytest.raises(WeightsError, match=r"'hf download owner/name config\.json --revision refs/pr/5'"):
        hub.ensure_available("owner/name", "refs/pr/5", ["config.json"])


def test_one_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("{")
    assert hub.fetch(str(tmp_path), "config.json") == tmp_path / "config.json"
    assert hub.read_json(str(tmp_path), "config.json") == {"a": 1}
    for name, words in (
        ("gone.json", "has no file gone.json: it is no whole checkpoint"),
        ("list.json", "must hold a JSON object"),
        ("bad.json", "is not JSON"),
    ):
        with pytest.raises(WeightsError, match=words):
            hub.read_json(str(tmp_path), name)
    with pytest.raises(WeightsError, match=r"^cannot get config\.json of 'owner/name': "):
        hub.fetch("owner/name", "config.json")


def test_a_module_is_filled_from_the_names_it_has_in_a_file(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    source, module = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    path = tmp_path / "model.safetensors"
    save_file({f"model.head.{k}": v.clone() for k, v in source.state_dict().items()}, path)
    hub.fill(module, path, prefixes=("model.head.", "head."))
    assert torch.equal(module.weight, source.weight)
    save_file({"head.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 weights, such as model\.head\.bias$"):
        hub.fill(module, path, prefixes=("model.head.", "head."))
    save_file({"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="cannot load the weights in"):
        hub.fill(module, path, prefixes=("model.head.", "head."))
