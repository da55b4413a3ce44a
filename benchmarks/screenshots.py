"""The pictures of the documentation that a browser takes. They need Chromium and the development tools.

python -m benchmarks.screenshots viewer     # docs/pictures/viewer.png
python -m benchmarks.screenshots app        # docs/pictures/app.png
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import skimage
import typer
from PIL import Image

import redepth
from redepth.app.serving import AppOptions, serving
from redepth.exports.viewer import page_of
from tests.support.browser import headless

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
DATA = Path(skimage.__file__).parent / "data"
LONG = 300_000
"""Milliseconds within which a refinement ends."""

COLOURS = 256
"""Of a stored picture: a palette keeps it small."""

commands = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)


@commands.callback()
def screenshots() -> None:
    """Keep the name of the picture a word of the command, however many pictures there are."""


@commands.command()
def viewer(
    photo: Annotated[Path, typer.Option(help="The photo that is refined.")] = DATA / "coins.png",
    out: Annotated[Path, typer.Option(help="The picture.")] = PICTURES / "viewer.png",
) -> None:
    """Take the tabs Light and 3D of a refined photo, one above the other."""
    result = redepth.refine(photo, "embedded", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "view.html")
        page.write_text(page_of(result), encoding="utf-8")
        taken = [shot(page, act, Path(folder)) for act in (show_light, show_space)]
        save(taken, out)


@commands.command("app")
def app_page(out: Annotated[Path, typer.Option(help="The picture.")] = PICTURES / "app.png") -> None:
    """Take the page of `redepth app` while it refines an example, and when it has done so."""
    options = AppOptions(preset="embedded", device="cpu")
    with serving(options) as running, tempfile.TemporaryDirectory() as folder:
        taken = [
            shot(running.address, act, Path(folder), width=1440, height=900)
            for act in (start_run, finish_run)
        ]
    save(taken, out)


def start_run(page: Page) -> None:
    """Refine the coins, some steps long."""
    page.get_by_role("img", name="Coins").click()
    page.locator("#size", has_text="pixels").wait_for()
    page.click("#run")
    page.locator("#status", has_text=re.compile(r"step ([5-9]|\d\d) of")).wait_for(timeout=LONG)


def finish_run(page: Page) -> None:
    """Refine the coins, and light them."""
    start_run(page)
    page.locator("#status", has_text="Done").wait_for(timeout=LONG)
    page.get_by_role("tab", name="Light").click()
    page.frame_locator("#light iframe").locator("html[data-ready]").wait_for(timeout=LONG)


def show_light(page: Page) -> None:
    """Light the photo from the upper left."""
    page.wait_for_selector("html[data-ready]")
    page.fill("#azimuth", "150")
    page.fill("#elevation", "35")


def show_space(page: Page) -> None:
    """Turn the surface, without the photo, a little further than at first."""
    page.wait_for_selector("html[data-ready]")
    page.click("#tab-space")
    page.wait_for_selector("#space-stage[data-drawn]:not(.waits)")
    page.check("input[value=clay]", force=True)
    page.focus("#space-stage")
    for key in ["ArrowDown"] * 2:
        page.keyboard.press(key)


def shot(address: str | Path, act: Callable[[Page], None], folder: Path, **size: int) -> Image.Image:
    """Return a picture of a page after some action, by default of 1280 x 740 pixels, in the dark theme."""
    with headless() as browser:
        viewport = {"width": 1280, "height": 740} | size
        context = browser.new_context(viewport=viewport, color_scheme="dark")
        page = context.new_page()
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        act(page)
        page.evaluate("document.activeElement.blur()")
        # Pictures, and what moves for a moment.
        page.wait_for_timeout(1000)
        path = folder / "shot.png"
        page.screenshot(path=path)
        with Image.open(path) as picture:
            return picture.convert("RGB")


def save(pictures: list[Image.Image], out: Path) -> None:
    """Write pictures one above the other."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    typer.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(commands())
