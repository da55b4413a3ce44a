from __future__ import annotations

import fnmatch
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.checkpoints import downloads, embedded, hub
from redepth.errors import WeightsError
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.stable_diffusion_3 import StableDiffusion3
from tests.support.checkpoints import COMMIT, copy_of, tiny, to_cache, to_pickle, to_shards
from tests.support.helpers import CPU


def test_names_resolve_to_embedded_local_and_hub_sources(tmp_path: Path) -> None:
    assert Path(hub.source_of("embedded:relief-depth")) == embedded.WEIGHTS / "relief-depth"
    assert hub.source_of(str(tmp_path)) == str(tmp_path)
    assert hub.source_of("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing/there", "justaname", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="no such folder, and not a hub id"):
        hub.source_of(name)


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
    with pytest.raises(
        WeightsError, match=r"run 'hf download owner/part --include \"unet/config\.json\" --inc"
    ):
        hub.ensure_available("owner/part", None, needed)


def test_the_command_downloads_what_is_loaded_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given to the hub's own command line."""
    import huggingface_hub.cli.download
    from click.testing import CliRunner
    from huggingface_hub.cli.hf import app

    with pytest.raises(WeightsError) as error:
        StableDiffusion3(t5=True, revision="v1").ensure_available()
    command = re.findall("run '(hf download .*?)',", str(error.value))
    words = shlex.split(command[0])[1:]
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        huggingface_hub.cli.download, "snapshot_download", lambda **options: str(given.update(options))
    )
    CliRunner().invoke(app, words)
    assert (given["repo_id"], given["revision"]) == ("stabilityai/stable-diffusion-3-medium-diffusers", "v1")
    wanted = (
        "transformer/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "text_encoder_3/model.safetensors.index.json",
        "text_encoder_3/model-00001-of-00002.safetensors",
        "tokenizer_3/spiece.model",
        "tokenizer_2/merges.txt",
        "vae/config.json",
    )
    unwanted = (
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "sd3_medium.safetensors",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
    )

    def taken(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in given["allow_patterns"])

    assert all(map(taken, wanted))
    assert not any(map(taken, unwanted))


def test_local_folders_are_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub.ensure_available(str(tmp_path), None, ["config.json"])
    with pytest.raises(WeightsError, match=r"--preset embedded"):
        hub.ensure_available("owner/name", None, ["config.json"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the hub's client is asked for; it answers that nobody is there."""
    import huggingface_hub

    calls: list[str] = []

    class Session:
        def head(self, url: str, **_: Any) -> None:
            calls.append(url)
            raise OSError("refused")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    downloads._asked.cache_clear()
    yield calls
    downloads._asked.cache_clear()


def test_offline_the_network_is_not_even_tried(asked: list[str]) -> None:
    assert not hub.hub_reachable()
    assert asked == []


def test_an_unreachable_endpoint_is_no_crash(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not hub.hub_reachable()
    assert len(asked) == 1
    with pytest.raises(WeightsError, match=r"cannot be reached \(it did not answer: refused\): connect"):
        hub.ensure_available("owner/name", None, ["config.json"])


# --- what the hub says ----------------------------------------------------------------------------


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the hub reachable, and answer with a listing or an error of its own client's."""
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    monkeypatch.setattr(downloads, "unreachable", lambda: "")
    monkeypatch.setattr(downloads, "WAITS", ())
    downloads.listing.cache_clear()

    def answer(*names: str, error: str | None = None) -> None:
        def model_info(_api: Any, repository: str, **_: Any) -> ModelInfo:
            if error is not None:
                cls = getattr(huggingface_hub.errors, error)
                # Its constructor wants a response of the HTTP library of that version.
                raise cls.__new__(cls, "said the hub")
            return ModelInfo(id=repository, sha=COMMIT, siblings=[{"rfilename": name} for name in names])

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)

    return answer


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_before_a_download_the_listing_is_checked_and_its_commit_taken(listing: Callable[..., None]) -> None:
    listing("unet/config.json", f"{WEIGHTS}.index.json", "tokenizer/tokenizer.json")
    needed = ("unet/config.json", WEIGHTS, "tokenizer/vocab.json", "tokenizer/merges.txt")
    assert hub.locate("owner/listed", "v1", needed).describe() == {
        "checkpoint": "owner/listed",
        "revision": "v1",
        "commit": COMMIT,
    }
    with pytest.raises(WeightsError, match=r"'owner/listed' has no vae/config\.json"):
        hub.locate("owner/listed", None, [*needed, "vae/config.json"])


def test_a_repository_of_pickles_is_refused_before_the_download(listing: Callable[..., None]) -> None:
    listing("unet/config.json", "unet/diffusion_pytorch_model.bin", "vae/other.bin")
    with pytest.raises(WeightsError, match=r"has unet/diffusion_pytorch_model\.bin only, a pickle.*convert"):
        hub.locate("owner/pickled", None, ["unet/config.json", WEIGHTS])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RepositoryNotFoundError", "no such repository, or it is private: check the spelling"),
        ("GatedRepoError", "licence has to be accepted first"),
        ("RevisionNotFoundError", "at revision 'v2': the repository has no such revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line(listing: Callable[..., None], error: str, words: str) -> None:
    listing(error=error)
    with pytest.raises(WeightsError, match=words) as raised:
        hub.ensure_available("owner/refused", "v2", ["config.json"])
    assert "\n" not in str(raised.value)
    assert "owner/refused" in str(raised.value)


def test_local_files_only_never_asks(listing: Callable[..., None]) -> None:
    listing(error="RepositoryNotFoundError")
    with pytest.raises(WeightsError, match="not in the cache"):
        hub.locate("owner/name", None, ["config.json"], local_files_only=True)
    assert not hub.holds("owner/name", "config.json", local_files_only=True)


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("local_files_only", [False, True])
def test_a_cached_repository_loads_offline_and_names_its_commit(
    hub_cache: Path, local_files_only: bool
) -> None:
    to_cache(tiny("sd15"), hub_cache, "owner/sd")
    prior = StableDiffusion(checkpoint="owner/sd", size=64, local_files_only=local_files_only)
    prior.ensure_available()
    found = prior.load(CPU).describe()
    assert (found["revision"], found["commit"]) == (None, COMMIT)
    prior.condition(torch.zeros(1, 3, 64, 64), "nothing cached")
    other = StableDiffusion(checkpoint="owner/sd", size=64, revision="v2")
    with pytest.raises(WeightsError, match="not in the cache"):
        other.ensure_available()


def test_a_cached_repository_of_pickles_is_refused(hub_cache: Path, tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    to_pickle(folder / "unet" / "diffusion_pytorch_model.safetensors")
    to_cache(folder, hub_cache, "owner/old")
    with pytest.raises(WeightsError, match="is a pickle, which can run code"):
        StableDiffusion(checkpoint="owner/old").ensure_available()


# --- folders --------------------------------------------------------------------------------------


def test_shards_count_as_the_whole_and_a_missing_one_does_not(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    for name in (WEIGHTS, "text_encoder/model.safetensors"):
        to_shards(folder / name)
    prior = StableDiffusion(checkpoint=str(folder), size=64).load(CPU)
    prior.condition(torch.zeros(1, 3, 64, 64), "read by shards")
    next((folder / "unet").glob("*-00002-of-*")).unlink()
    with pytest.raises(
        WeightsError, match=r"has no unet/diffusion_pytorch_model-00002-of-00002\.safetensors"
    ):
        prior.ensure_available()


def test_a_pickle_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    pickle = to_pickle(folder / WEIGHTS)
    prior = StableDiffusion(checkpoint=str(folder), size=64)
    for refused in (prior.ensure_available, lambda: prior.load(CPU)):
        with pytest.raises(WeightsError, match="is a pickle, which can run code when it is read") as error:
            refused()
    assert "\n" not in str(error.value)
    assert str(pickle) in str(error.value)
    command = str(error.value).partition("convert it: ")[2].replace("python", sys.executable, 1)
    subprocess.run(shlex.split(command), check=True)
    prior.load(CPU)


def test_files_of_a_variant_are_asked_for_and_loaded(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    prior = StableDiffusion(checkpoint=str(folder), size=64, variant="fp16")
    with pytest.raises(WeightsError, match=r"has no text_encoder/model\.fp16\.safetensors and 2 more"):
        prior.ensure_available()
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    prior.load(CPU).condition(torch.zeros(1, 3, 64, 64), "of a variant")
    assert prior.describe()["variant"] == "fp16"


def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    """transformers would make an empty one."""
    folder = copy_of("sd15", tmp_path)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"has no tokenizer/vocab\.json and 1 more"):
        StableDiffusion(checkpoint=str(folder)).ensure_available()


@pytest.mark.parametrize("accelerate", [False, True])
def test_with_and_without_accelerate_a_model_is_whole_or_refused(
    accelerate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    if accelerate and importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: object() if accelerate else None)
    folder = copy_of("sd15", tmp_path)
    weights = load_file(folder / WEIGHTS)
    found = hub.whole_model(UNet2DConditionModel, str(folder), subfolder="unet").state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    for changed in ({"conv_in.bias": None}, {"conv_in.weight": torch.zeros(16, 9, 3, 3)}):
        kept = {k: v for k, v in (weights | changed).items() if v is not None}
        save_file(kept, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(WeightsError, match=r"cannot load UNet2DConditionModel from .*conv_in") as error:
            hub.whole_model(UNet2DConditionModel, str(folder), subfolder="unet")
        assert "\n" not in str(error.value)


# --- messages -------------------------------------------------------------------------------------


def test_the_cause_of_a_librarys_error_is_told_where_it_is_known() -> None:
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
        hub.from_pretrained(Model, "owner/name")


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
    with pytest.raises(WeightsError, match=r"--revision refs/pr/5 --include \"config\.json\"'"):
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
    with pytest.raises(WeightsError, match=r"^the weights of 'owner/name' are not in the cache"):
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
