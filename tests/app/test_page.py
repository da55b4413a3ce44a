"""The app's page in Chromium, with real refinements."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from redepth.app.serving import Serving
from tests.support.browser import headless, opened

pytestmark = pytest.mark.browser

LONG = 120_000
"""Milliseconds within which a refinement of seconds ends on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as found:
        yield found


@contextmanager
def page_of(browser: Browser, app: Serving, width: int = 1600) -> Iterator[Page]:
    """Open the app; fail at the end if it asked another host, or wrote an error to the console."""
    asked: list[str] = []
    with opened(browser, app.address, width=width) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        expect(page.locator("#run")).to_be_visible(timeout=LONG)
        yield page
    assert asked
    local = (app.address, "data:", "blob:", "about:")
    assert [address for address in asked if not address.startswith(local)] == []


def pick(page: Page, example: str) -> None:
    page.get_by_role("img", name=example).click()
    expect(page.locator("#size")).to_contain_text("pixels")


def fill(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{name} input, #{name} textarea").fill(value)


def test_an_example_is_refined_and_shown(browser: Browser, app: Serving) -> None:
    with page_of(browser, app) as page:
        expect(page.locator("#examples button.thumbnail-item")).to_have_count(5)
        pick(page, "Coins")
        fill(page, members="1", steps="4")
        page.locator("#run").click()
        expect(page.locator("#live img")).to_have_count(2, timeout=LONG)
        expect(page.locator("#status")).to_contain_text("Done: 1 member of 4 steps", timeout=LONG)
        expect(page.locator("#run")).to_be_visible()

        expect(page.locator("#slider img")).to_have_count(2, timeout=LONG)
        before = page.locator("#slider img").first.get_attribute("src")
        page.get_by_label("Normals, before and after").click()
        expect(page.locator("#slider img").first).not_to_have_attribute("src", str(before))

        page.get_by_role("tab", name="Light").click()
        light = page.frame_locator("#light iframe")
        expect(light.locator("#panel-light canvas")).to_be_visible(timeout=LONG)

        page.get_by_role("tab", name="3D").click()
        space = page.frame_locator("#space iframe")
        expect(space.locator("#panel-space canvas")).to_be_visible(timeout=LONG)

        page.get_by_role("tab", name="Diagnostics").click()
        expect(page.locator("#words .redepth-card")).to_have_count(4)

        page.get_by_role("tab", name="Files").click()
        expect(page.get_by_role("cell", name="disparity.npy")).to_be_visible()
        with page.expect_download() as download:
            page.locator("#archive").click()
        assert download.value.suggested_filename == "redepth.zip"

        page.get_by_role("tab", name="Repeat").click()
        command = "redepth refine coins.png --preset smoke --set optim.members=1 --set optim.steps=4"
        expect(page.locator("#shell .cm-content")).to_contain_text(command)


def test_a_run_can_be_cancelled_and_keeps_its_steps(browser: Browser, app: Serving) -> None:
    with page_of(browser, app) as page:
        pick(page, "Moon")
        fill(page, members="1", steps="100000")
        page.locator("#run").click()
        status = page.locator("#status")
        expect(status).to_contain_text("step 1 of 100000", timeout=LONG)
        first = page.locator("#live img").first.get_attribute("src")
        # The surface changes while it runs.
        expect(status).to_contain_text(re.compile(r"step (?!1 )\d+ of 100000"), timeout=LONG)
        expect(page.locator("#live img").first).not_to_have_attribute("src", str(first), timeout=LONG)
        expect(status).to_contain_text("left")
        page.locator("#cancel").click()
        expect(status).to_contain_text("Partial (cancelled)", timeout=LONG)
        expect(page.locator("#slider img")).to_have_count(2, timeout=LONG)
        expect(page.locator("#run")).to_be_visible()


def test_a_second_page_waits_and_a_closed_one_ends_its_run(browser: Browser, app: Serving) -> None:
    with page_of(browser, app) as second:
        with page_of(browser, app) as first:
            pick(first, "Brick")
            fill(first, members="1", steps="100000")
            first.locator("#run").click()
            expect(first.locator("#status")).to_contain_text("step", timeout=LONG)
            pick(second, "Brick")
            fill(second, members="1", steps="2")
            second.locator("#run").click()
            expect(second.locator("#status")).to_contain_text(re.compile("waiting|queue"))
            (running,) = app.service.sessions.running()
            assert [Path(str(job.fields.photo)).name for job in running.going_on] == ["brick.png"]
            assert [job.fields.steps for job in running.going_on] == [100_000]
        # The tab of the first is closed: the second one's turn comes.
        expect(second.locator("#status")).to_contain_text("Done: 1 member of 2 steps", timeout=LONG)


def test_a_run_that_waits_can_be_cancelled_and_begun_again(browser: Browser, app: Serving) -> None:
    with page_of(browser, app) as first, page_of(browser, app) as second:
        pick(first, "Brick")
        fill(first, members="1", steps="100000")
        first.locator("#run").click()
        expect(first.locator("#status")).to_contain_text("step", timeout=LONG)
        pick(second, "Coins")
        fill(second, members="1", steps="3")
        second.locator("#run").click()
        expect(second.locator("#status")).to_contain_text(re.compile("waiting|queue"))
        second.locator("#cancel").click()
        expect(second.locator("#status")).to_contain_text("cancelled before the first step")
        expect(second.locator("#run")).to_be_visible()
        expect(second.locator("#cancel")).to_be_hidden()
        (running,) = app.service.sessions.running()
        assert [job.fields.steps for job in running.going_on] == [100_000]
        fill(second, steps="2")
        second.locator("#run").click()
        expect(second.locator("#cancel")).to_be_visible()
        first.locator("#cancel").click()
        expect(first.locator("#status")).to_contain_text("Partial (cancelled)", timeout=LONG)
        expect(second.locator("#status")).to_contain_text("Done: 1 member of 2 steps", timeout=LONG)


def test_a_wrong_field_is_told_at_once(browser: Browser, app: Serving) -> None:
    with page_of(browser, app) as page:
        page.locator("#run").click()
        told = page.get_by_test_id("toast-text")
        expect(told).to_have_text("no photo: upload one, or pick an example")
        pick(page, "Gravel")
        fill(page, budget="soon")
        page.locator("#run").click()
        expect(told.last).to_contain_text("optim.budget")
        expect(page.locator("#run")).to_be_visible()


def test_an_upload_is_described(browser: Browser, app: Serving, coins: Path, tmp_path: Path) -> None:
    name = "<b>my & photo.png"
    (tmp_path / name).write_bytes(coins.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with page_of(browser, app) as page:
        page.locator("#photo input[type=file]").set_input_files(tmp_path / name)
        expect(page.locator("#size")).to_contain_text("384 x 303 pixels", timeout=LONG)
        expect(page.locator("#size b")).to_have_count(0)
        page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
        page.locator("#photo input[type=file]").set_input_files(tmp_path / "broken.png")
        expect(page.locator("#size")).to_contain_text("broken.png: not a readable image", timeout=LONG)


def test_a_phone_shows_everything(browser: Browser, app: Serving) -> None:
    with page_of(browser, app, width=390) as page:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        for name in ("Progress", "Compare", "Light", "3D", "Diagnostics", "Files", "Repeat"):
            expect(page.get_by_role("tab", name=name)).to_be_visible()
