"""Downloads: the first run and the next ones, from a hub on loopback with repositories like the real ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import filelock
import huggingface_hub
import pytest
from rich.console import Console

from redepth.checkpoints import downloads, fetch, pending, progress, sources_of
from redepth.checkpoints.cache import link_blob, repository_folder, snapshot
from redepth.cli import console
from redepth.errors import WeightsError
from redepth.priors.pixart import PixArtSigma
from tests.support import hub_repositories as repos
from tests.support.hub_repositories import (
    BLIP2,
    DA3,
    DEPTH,
    MOGE,
    PIXART,
    PIXART_512,
    PRX,
    QWEN_EDIT,
    SD,
    XL,
)
from tests.support.hub_server import COMMIT, Hub, Repository, serving
from tests.support.loopback import RUN, UNET, cached, connect, environment, new_process, refine, source

# --- what is downloaded ---------------------------------------------------------------------------


def test_the_first_run_downloads_what_the_preset_needs_and_nothing_else(
    online: Hub, coins: Path, tmp_path: Path
) -> None:
    done = refine(coins, tmp_path / "out")
    assert done.code == 0, done
    expected = {DEPTH: repos.DEPTH_FILES, SD: repos.sd_files(), BLIP2: repos.BLIP2_FILES}
    assert online.downloaded() == expected
    run = json.loads((tmp_path / "out" / "coins" / "run.json").read_text())
    assert {run[part]["commit"] for part in ("depth_model", "prior", "prompt_origin")} == {COMMIT}
    # Each repository is one line; without a terminal there is no progress bar.
    assert [f"of {name}" in done.err for name in expected] == [True] * 3
    assert "downloading 3 files of depth-anything/Depth-Anything-V2-Small-hf, 81" in done.err
    assert "\x1b" not in done.err
    online.forget()
    new_process()
    again = refine(coins, tmp_path / "again")
    assert (again.code, again.complaints) == (0, [])
    assert online.requests == []


def test_a_variant_is_all_that_is_downloaded_of_the_weights(online: Hub, coins: Path, tmp_path: Path) -> None:
    done = refine(coins, tmp_path, "--prompt", "coins", "-s", "prior.variant=fp16")
    assert done.code == 0, done
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES, SD: repos.sd_files(".fp16")}


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_stable_diffusion_xl(online: Hub, home: Path, coins: Path, tmp_path: Path, variant: str) -> None:
    options = ["-s", "prior.name=stable-diffusion-xl", "-s", f"prior.checkpoint={XL}", "--prompt", "coins"]
    options += ["-s", "prior.variant=fp16"] if variant else []
    done = refine(coins, tmp_path, *options)
    assert done.code == 0, done
    expected = repos.sd_files(variant, ("", "_2"))
    # Its tokenizers have files in common: a file that is cached under another name is not downloaded again.
    taken = online.downloaded()[XL]
    assert {name for name in expected - taken if not name.startswith("tokenizer")} == set()
    folder = snapshot(XL, COMMIT)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == expected
    assert taken <= expected


def test_qwen_image_edit(online: Hub, coins: Path, tmp_path: Path) -> None:
    """Weights in shards; of the processor only what pictures need."""
    done = refine(coins, tmp_path, "-s", "prior.name=qwen-image-edit", "--prompt", "coins")
    assert done.code == 0, done
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES, QWEN_EDIT: repos.QWEN_EDIT_FILES}


def test_prx_pixel(online: Hub, coins: Path, tmp_path: Path) -> None:
    """No VAE, and a transformer in shards."""
    done = refine(coins, tmp_path, "-s", "prior.name=prx-pixel", "--prompt", "coins")
    assert done.code == 0, done
    assert online.downloaded() == {DEPTH: repos.DEPTH_FILES, PRX: repos.PRX_FILES}


def test_pixart_sigma_and_a_transformer_of_its_own(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", ModuleType("sentencepiece"))
    fetch(map(pending, sources_of(PixArtSigma())))
    own = repos.PIXART_FILES | repos.TRANSFORMER_FILES
    assert online.downloaded() == {PIXART: own}
    online.forget()
    fetch(map(pending, sources_of(PixArtSigma(transformer_checkpoint=PIXART_512))))
    assert online.downloaded() == {PIXART_512: repos.TRANSFORMER_FILES}


def test_depth_anything_3(online: Hub, coins: Path, tmp_path: Path) -> None:
    pytest.importorskip("depth_anything_3")
    from tests.support.tiny_depth_models import small_da3

    with small_da3():
        done = refine(coins, tmp_path, "--prompt", "coins", preset="da3-mono-large")
    assert done.code == 0, done
    assert online.downloaded() == {DA3: repos.DA3_FILES, SD: repos.sd_files()}


def test_moge(online: Hub, coins: Path, tmp_path: Path) -> None:
    pytest.importorskip("moge")
    from tests.support.tiny_depth_models import small_moge

    options = ["-s", "depth_model.name=moge-2", "-s", "depth_model.longer_side=56", "--prompt", "coins"]
    with small_moge():
        done = refine(coins, tmp_path, *options)
    assert done.code == 0, done
    assert online.downloaded() == {MOGE: repos.MOGE_FILES, SD: repos.sd_files()}


def test_nothing_is_downloaded_before_all_is_known_to_be_there(
    online: Hub, coins: Path, tmp_path: Path
) -> None:
    del online.repositories[BLIP2]
    done = refine(coins, tmp_path)
    assert (done.code, len(done.complaints)) == (2, 1)
    assert "no captions by blip2: checkpoint 'Salesforce/blip2-opt-2.7b': the hub has no such" in done.err
    assert online.downloaded() == {}


def test_the_hubs_own_client_finds_what_was_downloaded(online: Hub, home: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    source().path()
    for revision in ("main", COMMIT):
        path = try_to_load_from_cache(SD, UNET, revision=revision)
        assert isinstance(path, str)
    (repository,) = scan_cache_dir(home / "hub").repos
    assert (repository.repo_id, repository.nb_files) == (SD, 2)


def test_the_token_stays_with_the_hub(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    source().path()
    stored = [request.token for request in online.requests if request.path.startswith("/store/")]
    assert stored == [False]
    assert all(request.token for request in online.requests if request.path.startswith(f"/{SD}/resolve"))


# --- what is shown --------------------------------------------------------------------------------


def test_a_terminal_shows_how_much_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=shown, force_terminal=True, width=100))
    with console.status("loading preset x"):
        progress.watcher().bytes(UNET, 500_000_000, 3_440_000_000)
        time.sleep(0.2)
    assert f"downloading 500 MB of 3.44 GB: {UNET}" in shown.getvalue()


def test_in_python_it_is_a_line_of_the_log(online: Hub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "redepth.checkpoints.downloads"):
        source().path()
    assert [
        r.message.partition(",")[0] for r in caplog.records if r.name == "redepth.checkpoints.downloads"
    ] == [f"downloading 2 files of {SD}"]


# --- connections that break -----------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1], ids=["closed", "reset"])
def test_a_connection_that_is_cut_goes_on_where_it_was(online: Hub, sign: int) -> None:
    # Five cuts, with at most three tries in a row: tries are counted anew after bytes have arrived.
    cuts = [200_000, 0, 100_000, 1, 300_000]
    online.faults.cuts = {UNET: [sign * cut for cut in cuts]}
    path = source().path() / UNET
    assert path.read_bytes() == (online.repositories[SD].folder / UNET).read_bytes()
    starts = online.starts(UNET)
    assert len(starts) == len(cuts) + 1
    assert starts == sorted(starts)
    # A reset may lose bytes that were on their way.
    assert starts[-1] == 600_001 if sign > 0 else starts[-1] > 0


def test_a_hub_that_stays_away_is_one_line_and_the_next_run_goes_on(
    online: Hub, coins: Path, tmp_path: Path
) -> None:
    online.faults.cuts = {UNET: [300_000, 0, 0, 0]}
    done = refine(coins, tmp_path, "--prompt", "coins")
    assert done.code == 2
    (error,) = (line for line in done.complaints if line.startswith("error:"))
    problem = "the connection was lost: run again, the download resumes where it stopped"
    assert error == f"error: cannot get {UNET} of '{SD}': {problem}"
    assert "Traceback" not in done.err
    assert done.err.count("stopped at") == 3
    online.forget()
    new_process()
    again = refine(coins, tmp_path, "--prompt", "coins")
    assert again.code == 0, again
    assert online.starts(UNET) == [300_000]
    assert not list((tmp_path / "home").rglob("*.incomplete"))


def test_a_store_that_knows_no_ranges_sends_it_all_again(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.ranges = False
    online.faults.cuts = {UNET: [200_000]}
    path = source().path() / UNET
    assert path.read_bytes() == (online.repositories[SD].folder / UNET).read_bytes()


def test_another_process_that_downloads_the_same_is_waited_for(online: Hub) -> None:
    located = source()
    with ThreadPoolExecutor(4) as pool:
        paths = {future.result() for future in [pool.submit(located.path) for _ in range(4)]}
    assert len(paths) == 1
    assert online.starts(UNET) == [0]


def test_another_process_that_links_the_same_first_costs_no_blob(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process creates its link after this process has checked the place."""
    link = Path.symlink_to

    def second(path: Path, target: str) -> None:
        link(path, target)
        link(path, target)

    monkeypatch.setattr(Path, "symlink_to", second)
    place = source().path() / UNET
    assert place.is_symlink()
    assert place.resolve().parent == repository_folder(SD) / "blobs"
    assert place.read_bytes() == (online.repositories[SD].folder / UNET).read_bytes()


def test_a_link_is_made_under_the_lock_of_its_file(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = []

    def watched(blob: Path, path: Path) -> None:
        lock = blob.parents[2] / ".locks" / blob.parents[1].name / f"{blob.name}.lock"
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(lock).acquire(timeout=0)
        locks.append(lock)
        link_blob(blob, path)

    monkeypatch.setattr(downloads, "link_blob", watched)
    source().path()
    assert len(locks) == 2


def refused(*_: object) -> None:
    """What Windows says of symbolic links."""
    raise OSError(1314, "a required privilege is not held by the client")


@pytest.mark.parametrize("hard", [True, False])
def test_where_there_are_no_symbolic_links_the_blob_stays_too(
    online: Hub, hard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "symlink_to", refused)
    if not hard:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    place = source().path() / UNET
    content = (online.repositories[SD].folder / UNET).read_bytes()
    blobs = repository_folder(SD) / "blobs"
    (blob,) = (path for path in blobs.iterdir() if path.stat().st_size == len(content))
    assert place.read_bytes() == blob.read_bytes() == content
    assert place.samefile(blob) == hard
    assert not list(blobs.parent.rglob("*.incomplete"))


def test_a_damaged_file_that_is_no_link_is_got_anew_once_it_is_deleted(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blob has the same damage, and the message named only the file."""
    monkeypatch.setattr(Path, "symlink_to", refused)
    place = source().path() / UNET
    content = place.read_bytes()
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    place.unlink()
    new_process()
    assert (source().path() / UNET).read_bytes() == content


# --- the next run ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["offline", "stopped"])
def test_the_next_run_needs_no_hub(
    online: Hub, home: Path, coins: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refine(coins, tmp_path / "first").code == 0
    with serving() as other:
        gone = other.url
    connect(monkeypatch, gone, home)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", how == "offline")
    # Embeddings and captions are computed again, so the text encoder and the captioner are read too.
    monkeypatch.setenv("REDEPTH_CACHE", str(home / "other"))
    done = refine(coins, tmp_path / "next")
    assert (done.code, done.complaints) == (0, [])
    first, following = (
        (tmp_path / name / "coins" / "disparity.npy").read_bytes() for name in ("first", "next")
    )
    assert first == following


def test_a_download_that_ends_early_leaves_the_former_commit_as_it_was(online: Hub, home: Path) -> None:
    source().path()
    reference = home / "hub" / f"models--{SD.replace('/', '--')}" / "refs" / "main"
    reference.write_text("f" * 40)
    new_process()
    pending = source()
    cached(home, SD, UNET).unlink()
    online.faults.cuts = {UNET: [0] * 4}
    with pytest.raises(WeightsError, match="the connection was lost"):
        pending.path()
    assert reference.read_text() == "f" * 40
    pending.path()
    assert reference.read_text() == COMMIT


def test_a_reader_finds_the_former_commit_while_the_new_one_is_written(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository_folder(SD)
    reference = folder / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("f" * 40)
    pending, write, seen = source(), Path.write_text, []

    def halfway(path: Path, content: str) -> int:
        write(path, "")
        seen.append(reference.read_text())
        return write(path, content)

    monkeypatch.setattr(Path, "write_text", halfway)
    pending.path()
    assert (seen, reference.read_text()) == (["f" * 40], COMMIT)
    assert list(reference.parent.iterdir()) == [reference]
    assert not list(folder.rglob("*.incomplete"))


def test_a_note_that_cannot_be_written_is_one_line(online: Hub) -> None:
    located = source()
    folder = repository_folder(SD)
    folder.mkdir(parents=True)
    (folder / "refs").write_text("a file in its place")
    with pytest.raises(WeightsError, match=r"cannot record .* cannot be written to: set HF_HOME") as error:
        located.path()
    assert "\n" not in str(error.value)


# --- all of it, in child processes ----------------------------------------------------------------


@pytest.mark.slow
def test_a_user_on_a_poor_line(hub_folders: dict[str, Path], home: Path, coins: Path, tmp_path: Path) -> None:
    """Three calls: the hub fails during the first, works in the second, and is gone in the third."""

    def run(server: Hub, **more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "redepth",
            "refine",
            str(coins),
            "--out",
            str(tmp_path),
            "--preset",
            "re-depth-anything",
            *RUN,
        ]
        variables = environment(server, home, **more)
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)

    with serving() as server:
        server.repositories = {name: Repository(folder) for name, folder in hub_folders.items()}
        server.faults.cuts = {UNET: [200_000, 0, 0, 0, 0]}
        first = run(server)
    assert first.returncode == 2, first.stderr
    assert "Traceback" not in first.stderr
    with serving() as server:
        server.repositories = {name: Repository(folder) for name, folder in hub_folders.items()}
        second = run(server)
        assert second.returncode == 0, second.stderr
        assert DEPTH not in server.downloaded()
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        third = run(server, **more)
        assert third.returncode == 0, third.stderr
        assert "downloading" not in third.stderr
