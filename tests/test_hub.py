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
