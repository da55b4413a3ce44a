"""A server of the app for the tests of its page and of its endpoint."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from redepth.app.serving import AppOptions, Serving, serving


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def app() -> Iterator[Serving]:
    """The app on a free port, with the preset smoke chosen."""
    pytest.importorskip("gradio")
    options = AppOptions(
        port=free_port(), preset="smoke", device="cpu", max_upload=300_000, max_pixels=400_000
    )
    with serving(options) as running:
        yield running
    assert not running.service.folder.exists(), "the app has left files behind"
