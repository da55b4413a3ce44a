"""A headless Chromium that Playwright drives; `make test-browser` runs the tests that use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # Chromium refuses its sandbox to root
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
]


def chromium() -> str:
    """Return the path of Chromium. The test is skipped without one, or fails if REDEPTH_CHROMIUM=required."""
    chosen = os.environ.get("REDEPTH_CHROMIUM", "")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if chosen not in ("", "required"):
        return chosen
    if found is None:
        message = f"none of {', '.join(NAMES)} is installed (Debian, Ubuntu: apt install chromium)"
        pytest.fail(message) if chosen else pytest.skip(message)
    return found


@contextmanager
def headless() -> Iterator[Browser]:
    """Start a browser, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str | Path, *, width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """Open a page of a size, offline if it is a file; fail at its end if it wrote an error to the console."""
    local = isinstance(address, Path)
    context = browser.new_context(viewport={"width": width, "height": height}, offline=local)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        yield page
    finally:
        context.close()
    assert not problems, problems
