"""Every failure of a hub is one line of its own; the hub is a server on loopback."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redepth import checkpoints
from redepth.checkpoints import downloads
from redepth.checkpoints.cache import repository_folder, snapshot
from redepth.errors import WeightsError
from tests.support.hub_repositories import SD
from tests.support.hub_server import COMMIT, Hub, Repository, serving
from tests.support.loopback import UNET, cached, connect, new_process, refine, source


def complaint(run: Callable[[], Any]) -> str:
    with pytest.raises(WeightsError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("token", ["", "hf_secret"])
def test_a_gated_repository(online: Hub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    online.repositories[SD].gated = True
    message = complaint(source)
    assert message.startswith(f"checkpoint '{SD}': its licence has to be accepted first: open its page")


def test_a_renamed_repository_works_and_a_deleted_one_is_named(online: Hub) -> None:
    online.moved["runwayml/stable-diffusion-v1-5"] = SD
    moved = checkpoints.locate("runwayml/stable-diffusion-v1-5", None, ["unet/config.json", UNET])
    assert (moved.path() / UNET).is_file()
    message = complaint(lambda: checkpoints.locate("owner/deleted", None, ["config.json"]))
    assert message.startswith(
        "checkpoint 'owner/deleted': the hub has no such repository, or it is private: check"
    )


def test_a_missing_revision_and_a_missing_file(online: Hub, tmp_path: Path) -> None:
    message = complaint(lambda: source(revision="v9"))
    assert message.startswith(
        f"checkpoint '{SD}' at revision 'v9': the repository has no such revision: check"
    )
    message = complaint(lambda: checkpoints.locate(SD, None, ["image_encoder/config.json"]))
    assert message == f"'{SD}' has no image_encoder/config.json: the checkpoint is of another kind"
    # The file is listed, and gone when it is downloaded.
    copy = Path(shutil.copytree(online.repositories[SD].folder, tmp_path / "copy"))
    online.repositories[SD] = Repository(copy)
    located = source()
    (copy / UNET).unlink()
    message = complaint(located.path)
    assert message.startswith(
        f"cannot get {UNET} of '{SD}': the repository has no such file: check the revision"
    )


def test_a_full_disk_is_reported_before_the_download(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = complaint(source().path)
    assert f"'{SD}' needs 837 kB more and " in message
    assert message.endswith("has 1 kB left: free some space or set HF_HOME to a folder elsewhere")
    assert online.starts(UNET) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_becomes_full_is_reported(online: Hub, home: Path) -> None:
    digest = hashlib.sha256((online.repositories[SD].folder / UNET).read_bytes()).hexdigest()
    blobs = repository_folder(SD) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.redepth.incomplete").symlink_to("/dev/full")
    message = complaint(source().path)
    assert message.startswith(
        f"cannot get {UNET} of '{SD}': the disk is full: free some space or set HF_HOME"
    )


def test_a_cache_that_cannot_be_written_is_reported(online: Hub, home: Path) -> None:
    located = source()
    home.mkdir(exist_ok=True)
    (home / "hub").write_text("a file in its place")
    assert complaint(located.path).endswith("cannot be written to: set HF_HOME to a folder that can")


def test_what_arrives_damaged_is_refused_and_what_had_been_left_is_got_anew(online: Hub, home: Path) -> None:
    online.faults.corrupted = {UNET: 1}
    message = complaint(source().path)
    assert message.startswith(f"{UNET} of '{SD}' arrived damaged (its SHA-256 is not the hub's): run again")
    blobs = repository_folder(SD) / "blobs"
    assert not list(blobs.glob("*.incomplete"))
    digest = hashlib.sha256((online.repositories[SD].folder / UNET).read_bytes()).hexdigest()
    (blobs / f"{digest}.redepth.incomplete").write_bytes(bytes(1000))
    online.forget()
    source().path()
    assert online.starts(UNET) == [1000, 0]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "header"])
def test_a_damaged_file_in_the_cache_is_named_and_got_anew(
    online: Hub, home: Path, damage: str, coins: Path, tmp_path: Path
) -> None:
    options = ("--prompt", "coins")
    assert refine(coins, tmp_path, *options).code == 0
    blob = cached(home, SD, UNET)
    content = blob.read_bytes()
    blob.write_bytes(content[:5000] if damage == "truncated" else b"\xff" * 16 + content[16:])
    done = refine(coins, tmp_path, *options)
    assert (done.code, len(done.complaints)) == (2, 1)
    assert f"a weights file is damaged: delete '{blob}' and run again" in done.err
    blob.unlink()
    online.forget()
    new_process()
    assert refine(coins, tmp_path, *options).code == 0
    assert online.downloaded() == {SD: {UNET}}


@pytest.mark.parametrize(
    "name",
    [
        "../../../x.safetensors",
        "a/../../x.safetensors",
        "/tmp/x.safetensors",
        "..\\..\\x.safetensors",
        "D:\\x.safetensors",
        "D:x.safetensors",
        "./x.safetensors",
        "a//x.safetensors",
        "x\0.safetensors",
        "x\n.safetensors",
        "",
        ".",
    ],
)
def test_a_file_outside_its_repository_is_refused(online: Hub, tmp_path: Path, name: str) -> None:
    index = tmp_path / "odd" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    online.repositories["owner/odd"] = Repository(index.parent)
    message = complaint(checkpoints.locate("owner/odd", None, ["model.safetensors"]).path)
    assert message.endswith(f"index.json' names a file outside its folder, {name!r}: do not use it")
    assert f"{repository_folder('owner/odd')}" in message
    # The same holds for a local folder, and for names that no index lists.
    of_folder = complaint(lambda: checkpoints.locate(str(index.parent), None, ["model.safetensors"]))
    assert of_folder.endswith(message[-60:])
    message = complaint(lambda: downloads.download("owner/odd", None, COMMIT, [name]))
    assert message == f"'owner/odd' names a file outside itself, {name!r}: do not use it"
    assert not online.starts("x.safetensors")


def test_a_file_outside_its_repository_is_refused_where_it_exists(online: Hub, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"of another")
    message = complaint(
        lambda: downloads.download("owner/odd", None, COMMIT, [f"{tmp_path}/x.safetensors", "config.json"])
    )
    assert "names a file outside itself" in message


@pytest.mark.parametrize(
    "content",
    [
        '{"weight_map": {"a": 1, "b": "x"}}',
        '{"weight_map": {"a": ["x"]}}',
        '{"weight_map": {"a": null}}',
        '{"weight_map": ["x"]}',
        '{"weight_map": null}',
        "{}",
        "[1]",
        "null",
        "{",
        "[" * 100_000,
    ],
)
def test_an_index_that_is_none_is_one_line(online: Hub, tmp_path: Path, content: str) -> None:
    index = tmp_path / "odd" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(content)
    online.repositories["owner/odd"] = Repository(index.parent)
    message = complaint(checkpoints.locate("owner/odd", None, ["model.safetensors"]).path)
    # It is in the cache now, where the next run finds it.
    blob = (snapshot("owner/odd", COMMIT) / index.name).resolve()
    assert message.endswith(f"{index.name}' is not an index of weights: delete '{blob}' and run again")
    repository_folder("owner/odd").joinpath("refs").mkdir(exist_ok=True)
    repository_folder("owner/odd").joinpath("refs", "main").write_text(COMMIT)
    assert complaint(lambda: checkpoints.locate("owner/odd", None, ["model.safetensors"])) == message
    message = complaint(lambda: checkpoints.locate(str(index.parent), None, ["model.safetensors"]))
    assert message == f"'{index}' is not an index of weights: replace '{index}' by an intact copy"


def test_the_hubs_internal_errors_are_retried_and_then_reported(online: Hub) -> None:
    online.faults.statuses = [503, 500, 504]
    source().path()
    new_process()
    online.faults.statuses = [503] * 4
    message = complaint(lambda: source(revision="v2"))
    assert "the hub has an internal error (status 503): run again later" in message


def test_a_limit_of_requests(online: Hub) -> None:
    online.faults.headers = {"Retry-After": "0"}
    online.faults.statuses = [429, 429]
    located = source()
    online.faults.statuses = [429] * 4
    message = complaint(located.path)
    assert "the hub's rate limit is reached: wait some minutes and run again" in message


def test_what_answers_and_is_no_hub(online: Hub) -> None:
    online.faults.statuses = [200]
    assert complaint(source) == (
        f"checkpoint '{SD}': the server that answered is not a hub: check the network and HF_ENDPOINT"
    )


def test_a_hub_that_is_not_there(online: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as other:
        gone = other.url
    connect(monkeypatch, gone, home)
    message = complaint(source)
    assert "(the hub cannot be reached: check the connection, HTTPS_PROXY and HF_ENDPOINT)" in message


def test_a_proxy_that_refuses(online: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", online.url)
    connect(monkeypatch, "https://hub.invalid", home)
    assert "(the proxy did not let it through: check HTTPS_PROXY and NO_PROXY)" in complaint(source)


def test_a_connection_that_is_not_safe(online: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, online.url.replace("http:", "https:"), home)
    assert "(there is no safe connection (SSL): check HF_ENDPOINT and HTTPS_PROXY)" in complaint(source)


def test_an_unknown_certificate(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with serving(certificate=(certificate, key)) as server:
        connect(monkeypatch, server.url.replace("http:", "https:"), home)
        message = complaint(source)
    new_process()
    assert "(the hub's certificate was not accepted: behind a proxy that decrypts connections, set" in message
