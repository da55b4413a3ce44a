"""Where a checkpoint's files are: the cache, a folder, the hub, and what is refused before a download."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth import checkpoints
from redepth.checkpoints import Source, hub_api, retries
from redepth.errors import WeightsError
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.stable_diffusion_3 import StableDiffusion3
from tests.support.checkpoints import COMMIT, copy_of, tiny, to_cache, to_pickle, to_shards
from tests.support.helpers import CPU
from tests.support.loopback import UNET


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
    checkpoints.ensure_available("owner/whole", None, needed)
    with pytest.raises(
        WeightsError, match=r"run 'hf download owner/part --include \"unet/config\.json\" --inc"
    ):
        checkpoints.ensure_available("owner/part", None, needed)


def test_the_command_downloads_what_is_loaded_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is parsed by the hub's own command line."""
    import huggingface_hub.cli.download
    from click.testing import CliRunner
    from huggingface_hub.cli.hf import app

    with pytest.raises(WeightsError) as error:
        StableDiffusion3(t5=True, revision="v1").ensure_available()
    command = re.findall("run '(hf download .*?)',", str(error.value))
    words = shlex.split(command[0])[1:]
    options: dict[str, Any] = {}
    monkeypatch.setattr(
        huggingface_hub.cli.download, "snapshot_download", lambda **given: str(options.update(given))
    )
    CliRunner().invoke(app, words)
    assert (options["repo_id"], options["revision"]) == (
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "v1",
    )
    needed = (
        "transformer/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "text_encoder_3/model.safetensors.index.json",
        "text_encoder_3/model-00001-of-00002.safetensors",
        "tokenizer_3/spiece.model",
        "tokenizer_2/merges.txt",
        "vae/config.json",
    )
    needless = (
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "sd3_medium.safetensors",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
    )

    def matches(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in options["allow_patterns"])

    assert all(map(matches, needed))
    assert not any(map(matches, needless))


def test_local_folders_are_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    checkpoints.ensure_available(str(tmp_path), None, ["config.json"])
    with pytest.raises(WeightsError, match=r"--preset embedded"):
        checkpoints.ensure_available("owner/name", None, ["config.json"])


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The URLs that the hub's client requests; every request is refused."""
    import huggingface_hub

    calls: list[str] = []

    class Session:
        def head(self, url: str, **_: Any) -> None:
            calls.append(url)
            raise OSError("refused")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    hub_api._probe.cache_clear()
    yield calls
    hub_api._probe.cache_clear()


def test_offline_the_network_is_not_even_tried(requests: list[str]) -> None:
    assert not checkpoints.hub_reachable()
    assert requests == []


def test_an_unreachable_endpoint_is_no_crash(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not checkpoints.hub_reachable()
    assert len(requests) == 1
    with pytest.raises(WeightsError, match=r"cannot be reached \(it did not answer: refused\): connect"):
        checkpoints.ensure_available("owner/name", None, ["config.json"])


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes the hub answer with a listing, or with an error of the client."""
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    monkeypatch.setattr(hub_api, "unreachable", lambda: "")
    monkeypatch.setattr(retries, "WAITS", ())
    hub_api.listing.cache_clear()

    def answer(*names: str, error: str | None = None) -> None:
        def model_info(_api: Any, repository: str, **_: Any) -> ModelInfo:
            if error is not None:
                cls = getattr(huggingface_hub.errors, error)
                # The constructor needs a response of the HTTP library, which depends on the version.
                raise cls.__new__(cls, "the hub refuses")
            return ModelInfo(id=repository, sha=COMMIT, siblings=[{"rfilename": name} for name in names])

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)

    return answer


def test_before_a_download_the_listing_is_checked_and_its_commit_taken(listing: Callable[..., None]) -> None:
    listing("unet/config.json", f"{UNET}.index.json", "tokenizer/tokenizer.json")
    needed = ("unet/config.json", UNET, "tokenizer/vocab.json", "tokenizer/merges.txt")
    assert checkpoints.locate("owner/listed", "v1", needed).describe() == {
        "checkpoint": "owner/listed",
        "revision": "v1",
        "commit": COMMIT,
    }
    with pytest.raises(WeightsError, match=r"'owner/listed' has no vae/config\.json"):
        checkpoints.locate("owner/listed", None, [*needed, "vae/config.json"])


def test_a_repository_of_pickles_is_refused_before_the_download(listing: Callable[..., None]) -> None:
    listing("unet/config.json", "unet/diffusion_pytorch_model.bin", "vae/other.bin")
    with pytest.raises(WeightsError, match=r"has unet/diffusion_pytorch_model\.bin only, a pickle.*convert"):
        checkpoints.locate("owner/pickled", None, ["unet/config.json", UNET])


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
        checkpoints.ensure_available("owner/refused", "v2", ["config.json"])
    assert "\n" not in str(raised.value)
    assert "owner/refused" in str(raised.value)


def test_local_files_only_never_asks(listing: Callable[..., None]) -> None:
    listing(error="RepositoryNotFoundError")
    with pytest.raises(WeightsError, match="not in the cache"):
        checkpoints.locate("owner/name", None, ["config.json"], local_files_only=True)
    assert not Source("owner/name", local_files_only=True).holds("config.json")


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
    record = prior.load(CPU).describe()
    assert (record["revision"], record["commit"]) == (None, COMMIT)
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


def test_shards_count_as_the_whole_and_a_missing_one_does_not(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    for name in (UNET, "text_encoder/model.safetensors"):
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
    pickle = to_pickle(folder / UNET)
    prior = StableDiffusion(checkpoint=str(folder), size=64)
    for refused in (prior.ensure_available, lambda: prior.load(CPU)):
        with pytest.raises(WeightsError, match="is a pickle, which can run code when it is read") as error:
            refused()
    assert "\n" not in str(error.value)
    assert str(pickle) in str(error.value)
    command = str(error.value).partition("convert it: ")[2].replace("python", sys.executable, 1)
    subprocess.run(shlex.split(command), check=True)
    prior.load(CPU)


def test_files_of_a_variant_are_requested_and_loaded(tmp_path: Path) -> None:
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


def test_a_revision_is_part_of_the_command_that_downloads() -> None:
    with pytest.raises(WeightsError, match=r"--revision refs/pr/5 --include \"config\.json\"'"):
        checkpoints.ensure_available("owner/name", "refs/pr/5", ["config.json"])
