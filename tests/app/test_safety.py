import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from redepth.app.safety import Guard, is_loopback, private_environment, refuse_addresses
from redepth.errors import InputError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.com", "::", "localhost.example.com", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def status(path: str, host: str = "127.0.0.1:7860", *, only_loopback: bool = True, kind: str = "http") -> int:
    """The status of an answer of the guard; 200 where it passes the request on."""
    statuses: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    async def receive() -> Any:
        return {}

    scope = {"type": kind, "path": path, "headers": [(b"host", host.encode())]}
    asyncio.run(Guard(application, only_loopback)(scope, receive, send))
    return statuses[0]


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://example.com/a", "/gradio_api/file/https://x", "/gradio_api/proxy=https://x"],
)
def test_no_other_server_is_asked(path: str) -> None:
    assert status(path) == 403
    assert status(path, only_loopback=False) == 403


def test_only_loopback_names_are_answered() -> None:
    assert status("/", "localhost:7860") == 200
    assert status("/", "[::1]:7860") == 200
    assert status("/", "evil.example:7860") == 403
    assert status("/", "") == 403
    assert status("/", "evil.example", only_loopback=False) == 200
    assert status("/", kind="lifespan") == 200


@pytest.mark.parametrize(
    "data",
    [
        [{"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}],
        {"value": [{"path": "file:///etc/passwd"}]},
        [[{"url": "data:image/png;base64,AAAA"}]],
    ],
)
def test_addresses_in_a_request_are_refused(data: Any) -> None:
    with pytest.raises(InputError, match="uploaded"):
        refuse_addresses(data)


def test_uploads_and_texts_are_not_refused() -> None:
    refuse_addresses(
        [{"path": "/tmp/a.png", "url": "/gradio_api/file=/tmp/a.png"}, "https://a prompt", 3, None]
    )


def test_the_environment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with private_environment(tmp_path):
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert os.environ["GRADIO_SHARE"] == "False"
        assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert os.environ["GRADIO_SHARE"] == "True"
    assert "GRADIO_TEMP_DIR" not in os.environ
