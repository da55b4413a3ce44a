"""The endpoint of the app, called by gradio's own client, with real refinements."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io, refine
from redepth.app.serving import AppOptions, Serving, serving
from redepth.errors import RedepthError
from tests.app.conftest import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(app: Serving) -> Iterator[Any]:
    gradio_client = pytest.importorskip("gradio_client")
    made = gradio_client.Client(app.address, verbose=False, analytics_enabled=False)
    yield made
    made.close()


def submitted(client: Any, photo: Path | None, **fields: Any) -> Any:
    """Start a refinement through the client."""
    from gradio_client import handle_file

    given = {"preset": "smoke", "members": None, "steps": None, "budget": "", "seed": 0, "prompt": ""}
    upload = None if photo is None else handle_file(photo)
    return client.submit(photo=upload, **(given | fields), api_name="/refine")


def submitted_to(address: str, photo: Path) -> Any:
    """Refine a photo by a client of its own."""
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    result = submitted(client, photo, members=1, steps=1).result(timeout=120)
    client.close()
    return result


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_client_gets_the_files_of_a_refinement(client: Any, coins: Path) -> None:
    files, record = submitted(client, coins, members=1, steps=2, seed=3).result(timeout=120)
    paths = {Path(name).name: Path(name) for name in files}
    assert {"run.json", "disparity.npy", "normals.png", "mesh.glb", "comparison.png"} <= set(paths)
    assert (record["seed"], record["steps_done"], record["members_done"]) == (3, [2], 1)
    assert record["photo"]["source"] == "coins.png"
    overrides = ["optim.members=1", "optim.steps=2"]
    expected = refine(coins, "smoke", overrides=overrides, seed=3, device="cpu").refined
    np.testing.assert_allclose(np.load(paths["disparity.npy"]), expected, rtol=1e-4, atol=1e-4)


def test_there_is_one_endpoint(client: Any) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert list(named) == ["/refine"]
    names = [parameter["parameter_name"] for parameter in named["/refine"]["parameters"]]
    assert names == ["photo", "preset", "members", "steps", "budget", "seed", "prompt"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "/etc/passwd"}, "passwd"),
        ({"members": 2.5}, "members: give a whole number"),
        ({"budget": "soon"}, "budget"),
    ],
)
def test_a_client_is_told_what_is_wrong(
    client: Any, coins: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        submitted(client, coins, **fields).result(timeout=60)


def test_a_broken_photo_is_told_by_its_name_alone(client: Any, app: Serving, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(Exception, match=r"broken\.png: not a readable image") as error:
        submitted(client, broken).result(timeout=60)
    assert str(app.service.folder) not in str(error.value)
    with pytest.raises(Exception, match="no photo"):
        submitted(client, None).result(timeout=60)


def test_large_photos_are_refused(client: Any, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    io.save_png(wide, np.zeros((600, 800, 3), np.uint8))
    with pytest.raises(Exception, match=r"0\.5 megapixels"):
        submitted(client, wide).result(timeout=60)
    heavy = tmp_path / "heavy.bmp"
    heavy.write_bytes(bytes(400_000))
    with pytest.raises(Exception, match=r"Exceeded|size"):
        submitted(client, heavy).result(timeout=60)


def test_an_address_is_not_fetched(client: Any) -> None:
    address = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="not fetched"):
        client.predict(
            photo=address,
            preset="smoke",
            members=None,
            steps=None,
            budget="",
            seed=0,
            prompt="",
            api_name="/refine",
        )


def test_a_client_that_goes_away_ends_its_run(app: Serving, coins: Path) -> None:
    from gradio_client import Client

    leaving = Client(app.address, verbose=False, analytics_enabled=False)
    job = submitted(leaving, coins, members=1, steps=100_000)
    sessions = app.service.sessions
    assert eventually(lambda: any("step" in str(output) for output in job.outputs()))
    (session,) = sessions.running()
    (running,) = session.going_on
    assert not running.is_over()
    leaving.close()
    assert eventually(running.is_over)
    assert session.ended
    assert not session.going_on
    assert not running.folder.exists()


def test_two_submits_of_a_client_have_their_own_results(coins: Path) -> None:
    from gradio_client import Client

    with serving(AppOptions(port=free_port(), preset="smoke", device="cpu", concurrent=2)) as wide:
        client = Client(wide.address, verbose=False, analytics_enabled=False)
        long = submitted(client, coins, members=1, steps=100_000)
        assert eventually(lambda: any("step" in str(output) for output in long.outputs()))
        (session,) = wide.service.sessions.running()
        (running,) = session.going_on
        files, record = submitted(client, coins, members=1, steps=2, seed=3).result(timeout=120)
        assert record["seed"] == 3
        assert all(Path(name).is_file() for name in files)
        assert session.going_on == [running]
        assert not running.stop.is_set()
        running.stop.set()
        _, record = long.result(timeout=120)
        assert record["partial"]
        client.close()


def status_of(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_reads_no_other_file(app: Serving, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    assert status_of(app.address) == 200
    for name in (secret, "/etc/passwd", "pyproject.toml", "http://example.com/"):
        assert status_of(f"{app.address}gradio_api/file={name}") == 403
    assert status_of(app.address, Host="evil.example") == 403
    assert status_of(f"{app.address}monitoring") != 200


def test_a_port_that_is_taken_is_an_error(app: Serving) -> None:
    port = int(app.address.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(RedepthError, match="another --port"),
        serving(AppOptions(port=port, preset="smoke", device="cpu")),
    ):
        pass


def answers(address: str) -> bool:
    try:
        return status_of(address) == 200
    except OSError:  # it has not started yet
        return False


def test_two_apps_run_beside_each_other(app: Serving, client: Any, coins: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    options = ["--no-open", "--port", str(port), "--preset", "smoke", "--device", "cpu"]
    other = subprocess.Popen(
        [sys.executable, "-m", "redepth", "app", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A suite in a shell's background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert eventually(lambda: answers(address))
        for files, _ in (
            submitted(client, coins, members=1, steps=1).result(timeout=120),
            submitted_to(address, coins),
        ):
            assert files
    finally:
        other.send_signal(signal.SIGINT)
        assert other.wait(60) == 0
    assert not answers(address)
    assert status_of(app.address) == 200
