"""What a notebook gets, in Chromium: the card of a result, and its page in a frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import headless, opened
from tests.support.notebooks import pretend_notebook
from tests.support.viewed import result

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

NOTEBOOK = "<!doctype html><meta charset=utf-8><body style='margin: 0; {colours}'>{output}"
DARK = "color: #ddd; background: #111"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as started:
        yield started


@pytest.mark.parametrize("width", [390, 1600])
def test_a_card_fits_its_cell_and_takes_its_colours(browser: Browser, tmp_path: Path, width: int) -> None:
    card = result(photo_size=(300, 400), source="a.png")._repr_html_()
    path = tmp_path / "cell.html"
    path.write_text(NOTEBOOK.format(colours=DARK, output=card), encoding="utf-8")
    with opened(browser, path, width=width) as page:
        # Nothing is wider than the window, and the picture has its proportions.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box: Any = page.locator("img").bounding_box()
        assert box["width"] / box["height"] == pytest.approx((4 * 320 + 12) / 240, rel=0.02)
        assert page.locator("strong").evaluate("e => getComputedStyle(e).color") == "rgb(221, 221, 221)"
        labels = page.locator("img + div > span")
        assert labels.all_inner_texts() == ["photo", "initial", "refined", "refined normals"]


def test_the_page_works_in_the_frame_of_a_cell(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = pretend_notebook(monkeypatch)
    result(photo_size=(300, 400), source="a.png").view()
    path = tmp_path / "cell.html"
    path.write_text(NOTEBOOK.format(colours="", output=shown[0].data), encoding="utf-8")
    with opened(browser, path) as page:
        frame = page.frame_locator("iframe")
        frame.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
        assert "a.png" in frame.locator("body").inner_text()
        # The frame has an origin of its own: it reaches neither the notebook's page nor its storage.
        reach = "() => { try { return parent.document.title } catch { return 'refused' } }"
        assert page.frames[1].evaluate(reach) == "refused"
