"""What keeps the app's server to itself: no telemetry, no address is fetched, no other host is answered."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redepth.errors import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FETCHING = ("/file=http", "/file/http", "/proxy=")
"""Parts of paths by which gradio fetches another server's files."""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment variables that gradio has to see before it is imported.

    Args:
        folder: of its temporary files.
    """
    return {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder),
        # By default ./.gradio, whose files the server would answer with.
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ALLOWED_PATHS": "",
        "GRADIO_SHARE": "False",
        "GRADIO_MCP_SERVER": "False",
        "GRADIO_RUN_HISTORY": "False",
        # Seconds after which a client that is gone is missed.
        "GRADIO_HEARTBEAT_INTERVAL": "4",
    }


@contextmanager
def private_environment(folder: Path) -> Iterator[None]:
    """Set the variables of `environment` in this process, and put the former ones back."""
    changed = environment(folder)
    former = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_addresses(data: Any) -> None:
    """Raise InputError if a file in the data of a request is an address, which gradio would fetch."""
    if isinstance(data, Mapping):
        for key in ("path", "url"):
            value = data.get(key)
            if key == "path" and isinstance(value, str) and "://" in value:
                raise InputError("photos are uploaded: an address is not fetched")
            if key == "url" and isinstance(value, str) and value.startswith("data:"):
                raise InputError("photos are uploaded as files, not as data: addresses")
        data = list(data.values())
    if isinstance(data, list | tuple):
        for part in data:
            refuse_addresses(part)


class Guard:
    """ASGI middleware: refuses requests for another host's files, and requests under a foreign host name.

    A web page could make its own host name point to this machine (DNS rebinding); its requests would then
    carry that name.

    Args:
        app: the application.
        only_loopback: whether only loopback names are answered.
    """

    def __init__(self, app: Application, only_loopback: bool = True) -> None:
        self._app, self._only_loopback = app, only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http" and self._is_refused(scope):
            start = {
                "type": "http.response.start",
                "status": 403,
                "headers": [(b"content-type", b"text/plain")],
            }
            await send(start)
            await send({"type": "http.response.body", "body": b"refused"})
            return
        await self._app(scope, receive, send)

    def _is_refused(self, scope: Scope) -> bool:
        if any(part in scope["path"] for part in FETCHING):
            return True
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return self._only_loopback and not is_loopback(_without_port(host))


def _without_port(host: str) -> str:
    """Return the name in a Host header: ``[::1]:7860`` -> ``[::1]``."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def guarded(blocks: type) -> Any:
    """Return gradio's class of pages with a check of the data of every request.

    Args:
        blocks: `gradio.Blocks`.
    """

    class Guarded(blocks):  # type: ignore[misc]
        async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            refuse_addresses(inputs)
            return await super().preprocess_data(block_fn, inputs, *args, **options)

    return Guarded
