import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from redepth.app import serving as module
from redepth.app.serving import AppOptions
from tests.support.command import call, one_line


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[AppOptions]:
    """The options of the servers that were started; Ctrl-C ends each at once."""
    found: list[AppOptions] = []

    @contextmanager
    def serving(options: AppOptions) -> Iterator[SimpleNamespace]:
        found.append(options)
        public = "https://x.gradio.live" if options.share else None
        yield SimpleNamespace(address="http://127.0.0.1:7860/", public_address=public)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "serving", serving)
    monkeypatch.setattr("redepth.cli.web_app.Event", Interrupted)
    return found


def test_the_app_is_this_machines_alone(started: list[AppOptions]) -> None:
    done = call("app", "--no-open")
    assert (done.code, done.err) == (0, "")
    assert "http://127.0.0.1:7860/" in done.out
    assert started == [AppOptions()]
    assert started[0].is_private


@pytest.mark.parametrize("options", [("--share",), ("--host", "0.0.0.0"), ("--host", "192.168.1.2")])
def test_who_opens_it_to_others_is_warned(started: list[AppOptions], options: tuple[str, ...]) -> None:
    done = call("app", "--no-open", *options)
    assert done.code == 0
    assert "everybody who can reach this app can use this machine" in done.err
    assert not started[0].is_private
    assert ("https://x.gradio.live" in done.out) == ("--share" in options)


def test_the_options_are_passed_on(started: list[AppOptions]) -> None:
    options = ["--port", "8000", "--preset", "smoke", "--device", "cpu", "--max-upload", "5MB"]
    done = call("app", "--no-open", *options, "--max-pixels", "1000", "--concurrent", "2")
    assert done.code == 0
    assert started == [
        AppOptions(
            port=8000, preset="smoke", device="cpu", max_upload=5_000_000, max_pixels=1000, concurrent=2
        )
    ]


def test_a_browser_is_opened(started: list[AppOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("redepth.cli.web_app.has_screen", lambda: True)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert call("app").code == 0
    assert opened == ["http://127.0.0.1:7860/"]


def test_a_wrong_limit_is_one_line() -> None:
    one_line(call("app", "--max-upload", "much"), "--max-upload much", "8GB")


def test_without_gradio_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    one_line(call("app", "--no-open"), 'pip install "redepth[app]"')


def test_a_preset_that_cannot_run_is_one_line() -> None:
    pytest.importorskip("gradio")
    one_line(call("app", "--no-open", "--preset", "smok"), "--preset smok cannot run here", "smoke")
