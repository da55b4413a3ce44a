"""Small files that change results and that the cache lacks, because another program filled it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import _CACHED_NO_EXIST, constants, try_to_load_from_cache

from redepth import checkpoints
from redepth.checkpoints.cache import repository_folder
from redepth.depth_models.backbone import PREPROCESSOR
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import WeightsError
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.stable_diffusion_xl import StableDiffusionXL
from tests.support.helpers import CPU
from tests.support.hub_repositories import DEPTH, PROCESSOR, SD, XL, sd_files
from tests.support.hub_server import COMMIT, Hub, Repository
from tests.support.loopback import new_process, refine

UNUSUAL_MEAN = (0.1, 0.2, 0.3)


def others_run(repository: str, *files: str) -> None:
    """Fill the cache as a program does that does not read our optional files."""
    checkpoints.locate(repository, None, files).path()
    new_process()


def network(**options: Any) -> DepthAnything:
    return DepthAnything(checkpoint=DEPTH, **options).load(CPU)


@pytest.fixture
def folder(online: Hub, tmp_path: Path) -> Path:
    """The folder of the depth model's repository. The cache lacks its preprocessing, which is unusual."""
    folder = Path(shutil.copytree(online.repositories[DEPTH].folder, tmp_path / "copy"))
    (folder / PREPROCESSOR).write_text(json.dumps(PROCESSOR | {"image_mean": UNUSUAL_MEAN}))
    online.repositories[DEPTH] = Repository(folder)
    others_run(DEPTH, "config.json", "model.safetensors")
    online.forget()
    return folder


def test_the_hub_is_asked_once_for_what_another_program_did_not_read(
    online: Hub, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DepthAnything(checkpoint=DEPTH).ensure_available()
    assert online.requests == []
    loaded = network()
    assert loaded.preprocessing.mean == UNUSUAL_MEAN
    assert online.downloaded() == {DEPTH: {PREPROCESSOR}}
    assert len(online.requests) <= 5
    assert "defaults_for" not in loaded.describe()
    assert "defaults are used" not in caplog.text
    online.forget()
    new_process()
    assert network().preprocessing.mean == UNUSUAL_MEAN
    assert online.requests == []


def test_where_the_hub_cannot_be_asked_one_warning_says_so_and_it_is_recorded(
    online: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for _ in range(2):
        loaded = network()
        assert loaded.preprocessing.mean != UNUSUAL_MEAN
        assert loaded.describe()["defaults_for"] == [PREPROCESSOR]
    logger = "redepth.checkpoints.optional_files"
    assert [record.message for record in caplog.records if record.name == logger] == [
        f"'{DEPTH}' is in the cache without {PREPROCESSOR}, and the hub could not be asked "
        "(HF_HUB_OFFLINE is set): defaults are used, and results may differ from those of other machines; "
        "run once where the hub can be reached"
    ]
    assert online.requests == []


def test_a_run_says_so_and_records_it(
    folder: Path,
    coins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    others_run(SD, *sorted(sd_files()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = refine(coins, tmp_path, "--prompt", "coins")
    assert done.code == 0, done
    assert caplog.text.count("defaults are used") == 1
    run = json.loads((tmp_path / "coins" / "run.json").read_text())
    assert run["depth_model"]["defaults_for"] == [PREPROCESSOR]
    assert "defaults_for" not in run["prior"]


@pytest.mark.parametrize("fault", ["gated", "gone", "broken"])
def test_a_hub_that_does_not_give_it_costs_no_run(
    online: Hub, folder: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = {"gated": "its licence has to be accepted", "gone": "no such repository", "broken": "status 503"}
    online.repositories[DEPTH].gated = fault == "gated"
    if fault == "gone":
        del online.repositories[DEPTH]
    online.faults.statuses = [503] * 4 if fault == "broken" else []
    assert network().describe()["defaults_for"] == [PREPROCESSOR]
    assert words[fault] in caplog.text
    assert not (repository_folder(DEPTH) / ".no_exist").exists()


def test_a_file_that_the_hub_does_not_have_is_asked_for_once(
    online: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / PREPROCESSOR).unlink()
    assert "defaults_for" not in network().describe()
    # The hub's own client knows now that there is no such file.
    assert try_to_load_from_cache(DEPTH, PREPROCESSOR) is _CACHED_NO_EXIST
    online.forget()
    new_process()
    network()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    new_process()
    assert "defaults_for" not in network().describe()
    assert online.requests == []
    assert "defaults are used" not in caplog.text


def test_what_the_hubs_own_client_noted_counts(online: Hub, folder: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    (folder / PREPROCESSOR).unlink()
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(DEPTH, PREPROCESSOR, revision=COMMIT, endpoint=online.url)
    online.forget()
    network()
    assert online.requests == []


def test_the_first_download_notes_what_there_is_not(online: Hub, folder: Path) -> None:
    (folder / PREPROCESSOR).unlink()
    shutil.rmtree(repository_folder(DEPTH))
    network()
    online.forget()
    new_process()
    network()
    assert online.requests == []


def test_a_cache_where_nothing_can_be_noted_costs_no_run(online: Hub, folder: Path) -> None:
    (repository_folder(DEPTH) / ".no_exist").write_text("a file in its place")
    (folder / PREPROCESSOR).unlink()
    assert "defaults_for" not in network().describe()


def test_a_damaged_one_is_no_missing_one(online: Hub, folder: Path) -> None:
    (folder / PREPROCESSOR).write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json' is not JSON .*: delete '"):
        network()


# --- priors ---------------------------------------------------------------------------------------


def test_a_pipelines_own_settings_and_its_family_are_asked_for(
    online: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(online.repositories[XL].folder, tmp_path / "copy"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": False}))
    online.repositories[XL] = Repository(folder)
    others_run(XL, *sorted(sd_files("", ("", "_2")) - {"model_index.json"}))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    alone = StableDiffusionXL(checkpoint=XL, size=64).load(CPU)
    assert alone.describe()["defaults_for"] == ["model_index.json"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    new_process()
    with pytest.raises(WeightsError, match="is a StableDiffusionXLPipeline: take"):
        StableDiffusion(checkpoint=XL, size=64).load(CPU)
    loaded = StableDiffusionXL(checkpoint=XL, size=64).load(CPU)
    assert "defaults_for" not in loaded.describe()
    # What one embeds is no embedding of the other's.
    assert loaded.text_origin() != alone.text_origin()
    assert loaded.embed_text("")["embedding"].any()


@pytest.mark.parametrize("local", [True, False])
def test_files_on_this_machine_alone_are_enough(
    online: Hub, folder: Path, local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = ("config.json", "model.safetensors")
    source = checkpoints.locate(DEPTH, None, files, optional=[PREPROCESSOR], local_files_only=local)
    assert source.holds(PREPROCESSOR) is not local
    assert ("local_files_only is set" in caplog.text) is local
    assert source.identity(files) == f"{DEPTH}@{COMMIT}" + (f" without {PREPROCESSOR}" if local else "")
