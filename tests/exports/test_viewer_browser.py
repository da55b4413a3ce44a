"""The page of a result in Chromium: what it draws, and that mouse, keys and small screens work."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from redepth.exports.viewer import page_of
from redepth.ops import shading
from redepth.ops.camera import ORTHOGRAPHIC, SPHERICAL, Camera
from redepth.ops.color import srgb_to_linear
from redepth.refinement import Refinement
from tests.support.browser import headless, opened
from tests.support.viewed import SIZE, result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PINHOLE = Camera(intrinsics=(0.8, 1.1, 0.45, 0.6))
HOSTILE = '</script><img src=x onerror="window.hit=1">{{data}}\'&amp;.png'
READY = "html[data-ready]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as started:
        yield started


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a result of two members with a name that is hard to show."""
    made = result(members=2, photo_size=(300, 400), source=f"photos/{HOSTILE.replace('/', '')}")
    return written(made, tmp_path_factory.mktemp("page"))


def written(made: Refinement, folder: Path) -> Path:
    path = folder / "view.html"
    path.write_text(page_of(made), encoding="utf-8")
    return path


def picture(page: Page, element: str) -> np.ndarray[Any, Any]:
    """What an element of the page looks like, as numbers."""
    shot = page.locator(element).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def difference(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    return float(np.abs(first - second).mean())


def settle(page: Page) -> None:
    """Wait until the page has drawn all that it was asked for.

    It draws in the next frame, or in the one after it if its size has changed.
    """
    page.evaluate(
        """async () => {
          await Promise.all([...document.images].filter((image) => image.src).map((image) => image.decode()));
          for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
        }"""
    )


def settled_picture(page: Page, element: str) -> np.ndarray[Any, Any]:
    settle(page)
    return picture(page, element)


def changes(page: Page, element: str, act: Callable[[], Any]) -> float:
    """Mean change of the pixels of an element by an action."""
    before = settled_picture(page, element)
    act()
    return difference(settled_picture(page, element), before)


def light_of(page: Page) -> str:
    """Azimuth and elevation of the light as drawn."""
    settle(page)
    return page.get_attribute("#light-stage", "data-light") or ""


def drag_finger(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    touch = page.context.new_cdp_session(page)
    places = [{"x": x, "y": y} for x, y in (begin, end)]
    for kind, points in (("Start", places[:1]), ("Move", places[1:]), ("End", [])):
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    settle(page)


def is_left_to_the_browser(page: Page, element: str, key: str, modifier: str) -> bool:
    """Whether a key held with ctrl, meta or alt is not taken by the page.

    The event is made by a script, so that the browser does not zoom or leave the page.
    """
    return bool(
        page.eval_on_selector(
            element,
            "(target, [key, modifier]) => target.dispatchEvent(new KeyboardEvent("
            '"keydown", { key, [`${modifier}Key`]: true, bubbles: true, cancelable: true }))',
            [key, modifier],
        )
    )


def open_space(page: Page) -> None:
    page.click("#tab-space")
    page.wait_for_selector("#space-stage[data-drawn]:not(.waits)", timeout=60_000)


# --- the shading is that of redepth ---------------------------------------------------------------

LIGHTS = [(0.0, 0.0, 1.0), (-0.6, 0.5, 0.62), (0.9, -0.2, 0.2), (0.3, 0.95, 0.05)]
MATERIALS: list[dict[str, Any]] = [
    {"model": "blinn-phong", "diffuse": 0.7, "specular": 0.3, "shininess": 4.0, "ambient": 0.0},
    {"model": "blinn-phong", "diffuse": 0.2, "specular": 0.8, "shininess": 256.0, "ambient": 0.1},
    {"model": "ggx", "roughness": 0.2, "metalness": 0.0, "ambient": 0.0},
    {"model": "ggx", "roughness": 0.8, "metalness": 0.7, "ambient": 0.2},
]


def photo_in(page_text: str) -> torch.Tensor:
    """The photo that the page holds, (1, 3, H, W) sRGB."""
    found = re.search(r'id="redepth-data">(.*?)</script>', page_text, re.DOTALL)
    assert found
    src = json.loads(found[1])["pictures"][0]["src"]
    jpeg = base64.b64decode(src.partition(",")[2])
    values = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def expected(
    normals: np.ndarray[Any, Any], photo: torch.Tensor, camera: Camera, settings: dict[str, Any]
) -> np.ndarray[Any, Any]:
    """The picture by `redepth.ops.shading`, (H, W, 3) in [0, 255]."""
    vectors = torch.from_numpy(normals).permute(2, 0, 1)[None]
    grey = settings["albedo"] == "grey"
    albedo = torch.full_like(photo, 0.5) if grey else srgb_to_linear(photo)
    direction = torch.tensor(settings["light"]).view(1, 1, 3)
    view = camera.view(*normals.shape[:2], like=vectors)
    one = {name: torch.tensor([[value]]) for name, value in settings.items() if isinstance(value, float)}
    if settings["model"] == "ggx":
        linear = shading.ggx(vectors, albedo, direction, one["roughness"], one["metalness"], view)
    else:
        linear = shading.blinn_phong(
            vectors, albedo, direction, one["diffuse"], one["specular"], one["shininess"], view
        )
    lit = shading.develop(linear + settings["ambient"] * albedo[:, None])
    return 255 * lit[0, 0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE, SPHERICAL], ids=lambda camera: camera.kind)
def test_the_light_is_that_of_redepth(camera: Camera, browser: Browser, tmp_path: Path) -> None:
    made = result(camera)
    page_path = written(made, tmp_path)
    photo = photo_in(page_path.read_text(encoding="utf-8"))
    worst = 0.0
    with opened(browser, page_path) as page:
        page.wait_for_selector(READY)
        for light in LIGHTS:
            direction = [part / math.hypot(*light) for part in light]
            for material in MATERIALS:
                for side, normals in ((1.0, made.normals_before), (0.0, made.normals_after)):
                    for albedo in ("photo", "grey"):
                        settings = {**material, "albedo": albedo, "light": direction, "split": side}
                        pixels = page.evaluate(
                            "([settings, width, height]) =>"
                            " Array.from(window.redepthView.pixels(settings, width, height))",
                            [settings, SIZE[1], SIZE[0]],
                        )
                        drawn = np.array(pixels).reshape(*SIZE, 4)[::-1, :, :3]
                        difference = np.abs(drawn - expected(normals, photo, camera, settings))
                        worst = max(worst, float(difference.max()))
    assert 0 < worst <= 2


def test_unknown_pixels_are_striped(browser: Browser, tmp_path: Path) -> None:
    holes = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    holes[..., 10:30, 20:40] = True
    page_path = written(result(holes=holes), tmp_path)
    with opened(browser, page_path) as page:
        page.wait_for_selector(READY)
        pixels = page.evaluate(
            "([width, height]) => Array.from(window.redepthView.pixels({}, width, height))", [*SIZE[::-1]]
        )
        drawn = np.array(pixels).reshape(*SIZE, 4)[::-1, :, :3]
        inside = drawn[10:30, 20:40].reshape(-1, 3)
        assert {tuple(colour) for colour in inside.tolist()} == {(143,) * 3, (163,) * 3}
        page.click("#tab-about")
        assert "13.0 % of the photo" in page.inner_text("#facts")
        open_space(page)
        assert "triangles" in page.inner_text("#space-note")


def test_a_surface_that_is_unknown_everywhere_is_said_to_be(browser: Browser, tmp_path: Path) -> None:
    made = result()
    for depth in (made.outcome.initial_depth, made.outcome.member_depths):
        depth.fill_(math.nan)
    with opened(browser, written(made, tmp_path)) as page:
        page.wait_for_selector(READY)
        open_space(page)
        assert page.inner_text("#space-note").startswith("Nothing to show")


# --- by mouse, by key, by touch -------------------------------------------------------------------


def test_the_mouse_moves_the_light_and_the_border(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        box = page.locator("#light-stage").bounding_box()
        assert box

        def drag(begin: tuple[float, float], end: tuple[float, float]) -> None:
            places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (begin, end)]
            page.mouse.move(*places[0])
            page.mouse.down()
            page.mouse.move(*places[1], steps=4)
            page.mouse.up()

        assert changes(page, "#light-canvas", lambda: drag((0.2, 0.2), (0.9, 0.8))) > 5
        azimuth, elevation = map(float, page.get_attribute("#light-stage", "data-light").split())
        # To the right and down.
        assert azimuth == pytest.approx(math.degrees(math.atan2(-0.3 * 3, 0.4 * 4)), abs=0.5)
        assert elevation == pytest.approx(90 - 80 * math.hypot(0.8, 0.6), abs=0.5)
        lamp = page.locator(".lamp").bounding_box()
        assert lamp
        assert lamp["x"] + 11 == pytest.approx(box["x"] + 0.9 * box["width"], abs=3)
        before = light_of(page)
        drag((0.5, 0.5), (0.25, 0.5))
        assert float(page.input_value("#light-split")) == pytest.approx(25, abs=1)
        # By the edge of the grip, which is wider than the border.
        grip = page.locator("#light-stage .grip").bounding_box()
        assert grip
        page.mouse.move(grip["x"] + 1.5, grip["y"] + grip["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
        page.mouse.up()
        assert float(page.input_value("#light-split")) == pytest.approx(60, abs=1)
        assert light_of(page) == before


def test_a_finger_moves_the_light_and_the_border(browser: Browser, path: Path) -> None:
    context = browser.new_context(
        offline=True, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}
    )
    page = context.new_page()
    page.goto(path.resolve().as_uri())
    page.wait_for_selector(READY)
    box = page.locator("#light-stage").bounding_box()
    assert box
    x, y = box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"]
    drag_finger(page, (x - 30, y), (x, y))
    light = light_of(page)
    azimuth, elevation = map(float, light.split())
    assert azimuth == pytest.approx(math.degrees(math.atan2(0.2 * 3, 0.3 * 4)), abs=1)
    assert elevation == pytest.approx(90 - 80 * math.hypot(0.6, 0.4), abs=1)
    # A finger is less exact than a mouse.
    border = box["x"] + box["width"] / 2
    drag_finger(page, (border + 18, y), (box["x"] + 0.3 * box["width"], y))
    split = float(page.input_value("#light-split"))
    border_moved = light_of(page) == light
    context.close()
    assert border_moved
    assert split == pytest.approx(30, abs=1)


def test_keys_move_the_light_and_every_control_is_reached(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        reached = []
        for _ in range(13):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        assert reached == [
            *("tab-light", "theme", "light-stage", "light-split", "azimuth", "elevation", "ambient"),
            *("orbit-light", "reset-light", "albedo", "model", "specular", "shininess"),
        ]
        page.focus("#light-stage")
        before = light_of(page)
        press = page.keyboard.press
        assert changes(page, "#light-canvas", lambda: [press("Shift+ArrowRight") for _ in range(6)]) > 2
        assert light_of(page) != before
        page.keyboard.press("Home")
        assert light_of(page) == before
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.focus("#tab-light")
        page.keyboard.press("ArrowRight")
        assert page.get_attribute("#tab-compare", "aria-selected") == "true"
        assert page.is_visible("#compare-stage")
        page.focus("#compare-split")
        assert changes(page, "#compare-stage", lambda: [press("PageUp") for _ in range(3)]) > 1


def test_each_control_changes_the_picture(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        canvas = "#light-canvas"
        for name, value in (("azimuth", "20"), ("elevation", "75"), ("ambient", "0.4"), ("specular", "0.9")):
            assert changes(page, canvas, lambda n=name, v=value: page.fill(f"#{n}", v)) > 0.5, name
        assert changes(page, canvas, lambda: page.fill("#shininess", "8")) > 0.2
        assert changes(page, canvas, lambda: page.check("input[value=grey]", force=True)) > 1
        assert changes(page, canvas, lambda: page.check("input[value=ggx]", force=True)) > 1
        assert page.is_hidden("#shininess")
        assert changes(page, canvas, lambda: page.fill("#roughness", "1")) > 0.2
        assert changes(page, canvas, lambda: page.fill("#metalness", "1")) > 0.2
        assert changes(page, canvas, lambda: page.click("#reset-light")) > 1
        assert page.is_visible("#shininess")
        page.click("#orbit-light")
        page.wait_for_function(
            "before => document.querySelector('#light-stage').dataset.light !== before", arg=light_of(page)
        )
        page.click("#orbit-light")


def test_any_two_pictures_are_compared(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        page.click("#tab-compare")
        names = page.eval_on_selector_all("#left option", "options => options.map((o) => o.value)")
        maps = ["initial", "refined", "normals-before", "normals-after", "uncertainty"]
        assert names == ["photo", *maps]
        stage = "#compare-stage"
        page.fill("#compare-split", "100")
        for name in reversed(maps):
            assert changes(page, stage, lambda n=name: page.select_option("#left", n)) > 1, name
        assert changes(page, stage, lambda: page.fill("#compare-split", "0")) > 1
        for button in page.locator("#pairs button").all():
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
        assert "uncertainty" in page.inner_text("#compare-note")


def test_the_surface_turns_in_3d(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        open_space(page)
        stage = "#space-stage"
        drawn = settled_picture(page, stage)
        corner = drawn[5, 40]
        assert 0.1 < (np.abs(drawn - corner).sum(axis=-1) > 30).mean() < 0.95
        box = page.locator(stage).bounding_box()
        assert box
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def orbit() -> None:
            page.mouse.move(*middle)
            page.mouse.down()
            page.mouse.move(middle[0] + 150, middle[1] + 40, steps=5)
            page.mouse.up()

        assert changes(page, stage, orbit) > 2
        assert changes(page, stage, lambda: page.click("#reset-space")) > 2
        np.testing.assert_allclose(settled_picture(page, stage), drawn, atol=3)
        for value, least in (("before", 0.2), ("clay", 2), ("points", 2)):
            assert changes(page, stage, lambda v=value: page.check(f"input[value={v}]", force=True)) > least
        assert changes(page, stage, lambda: page.fill("#point-size", "8")) > 0.2


@pytest.mark.parametrize("camera", [ORTHOGRAPHIC, PINHOLE, SPHERICAL], ids=lambda camera: camera.kind)
def test_keys_do_in_3d_what_the_mouse_does(camera: Camera, browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(result(camera), tmp_path), width=900, height=700) as page:
        page.wait_for_selector(READY)
        open_space(page)
        stage = "#space-stage"
        box = page.locator(stage).bounding_box()
        assert box
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def seen(act: Callable[[], Any]) -> np.ndarray[Any, Any]:
            page.click("#reset-space")
            settle(page)
            act()
            # The ring of the focus is no part of the surface.
            page.eval_on_selector(stage, "stage => stage.blur()")
            return settled_picture(page, stage)

        def press(key: str) -> np.ndarray[Any, Any]:
            return seen(lambda: [page.focus(stage), *(page.keyboard.press(key) for _ in range(4))])

        def drag(right: int, down: int) -> None:
            page.mouse.move(*middle)
            page.mouse.down()
            page.mouse.move(middle[0] + right, middle[1] + down, steps=4)
            page.mouse.up()

        def scroll(down: int) -> None:
            drawn = page.get_attribute(stage, "data-drawn")
            page.mouse.move(*middle)
            page.mouse.wheel(0, down)
            page.wait_for_function(
                "before => document.querySelector('#space-stage').dataset.drawn !== before", arg=drawn
            )

        start = seen(lambda: None)
        pairs = (
            ("ArrowRight", "ArrowLeft", lambda: drag(30, 0)),
            ("ArrowLeft", "ArrowRight", lambda: drag(-30, 0)),
            ("ArrowDown", "ArrowUp", lambda: drag(0, 30)),
            ("ArrowUp", "ArrowDown", lambda: drag(0, -30)),
            ("+", "-", lambda: scroll(-400)),
            ("-", "+", lambda: scroll(400)),
        )
        for key, opposite, act in pairs:
            by_mouse, by_key = seen(act), press(key)
            assert difference(by_key, start) > 1, key
            assert difference(by_mouse, start) > 0.5, key
            assert difference(by_key, by_mouse) < 0.8 * difference(press(opposite), by_mouse), key
        # What is looked at more closely is larger.
        height, width = start.shape[:2]
        inner = [round(0.2 * side) for side in (width, height, 4 * width, 4 * height)]
        enlarged = Image.fromarray(start.astype(np.uint8)).crop(tuple(inner)).resize((width, height))
        assert difference(press("+"), np.asarray(enlarged)) < 0.7 * difference(
            press("-"), np.asarray(enlarged)
        )


def test_keys_of_the_browser_are_left_to_it(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        page.wait_for_selector(READY)
        light = light_of(page)
        for key in ("ArrowLeft", "Home"):
            for modifier in ("ctrl", "meta", "alt"):
                assert is_left_to_the_browser(page, "#light-stage", key, modifier)
        assert light_of(page) == light
        is_left_to_the_browser(page, "#tab-light", "ArrowRight", "alt")
        assert page.is_visible("#light-stage")
        open_space(page)
        drawn = settled_picture(page, "#space-stage")
        for key, modifier in (
            ("+", "ctrl"),
            ("-", "meta"),
            ("=", "ctrl"),
            ("ArrowLeft", "alt"),
            ("r", "ctrl"),
        ):
            assert is_left_to_the_browser(page, "#space-stage", key, modifier)
        np.testing.assert_array_equal(settled_picture(page, "#space-stage"), drawn)


@pytest.mark.parametrize("camera", [PINHOLE, SPHERICAL], ids=lambda camera: camera.kind)
def test_surfaces_of_other_cameras_fill_the_view(camera: Camera, browser: Browser, tmp_path: Path) -> None:
    page_path = written(result(camera), tmp_path)
    with opened(browser, page_path, width=900, height=700) as page:
        page.wait_for_selector(READY)
        open_space(page)
        page.evaluate("document.documentElement.style.setProperty('--well', 'rgb(0, 255, 0)')")
        drawn = settled_picture(page, "#space-stage")
        shown = (drawn != np.array([0, 255, 0])).any(axis=-1)
        # The photo's camera sees all of its surface; the ground shows where the aspect ratios differ.
        assert shown.mean() > 0.5


# --- small screens, dark rooms, old browsers, hostile names ---------------------------------------


@pytest.mark.parametrize("width", [390, 1600])
def test_no_tab_is_wider_than_the_screen(width: int, browser: Browser, path: Path) -> None:
    with opened(browser, path, width=width, height=844) as page:
        page.wait_for_selector(READY)
        for tab in ("light", "compare", "space", "about"):
            open_space(page) if tab == "space" else page.click(f"#tab-{tab}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
            inside = page.eval_on_selector_all(
                f"#panel-{tab} input, #panel-{tab} button, #panel-{tab} select, #panel-{tab} .stage",
                "all => all.map((e) => e.getBoundingClientRect())"
                ".every((box) => box.left >= 0 && box.right <= innerWidth)",
            )
            assert inside, tab


def test_it_is_dark_where_the_system_is_and_on_demand(browser: Browser, path: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, path) as page:
        colours = []
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_selector(f"html[data-theme={theme}]")
            colours.append(page.evaluate(ground))
        light, dark = colours
        assert light != dark
        page.click("#theme")
        assert page.evaluate(ground) == light
        page.click("#theme")
        assert page.evaluate(ground) == dark


NO_WEBGL = """
const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : get.call(this, kind, ...rest);
};
"""


@pytest.mark.parametrize(
    ("missing", "words"),
    [(NO_WEBGL, "no WebGL 2"), ("delete window.DecompressionStream", "too old")],
    ids=["webgl", "old"],
)
def test_without_webgl_the_comparison_works(missing: str, words: str, browser: Browser, path: Path) -> None:
    context = browser.new_context(offline=True)
    context.add_init_script(missing)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.resolve().as_uri())
    page.wait_for_selector(READY)
    assert page.is_visible("#compare-stage")
    for tab in ("light", "space"):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(f"#{tab}-message:visible")
        assert words in page.inner_text(f"#{tab}-message")
    context.close()
    assert not problems


def test_a_hostile_name_is_text_and_nothing_else_is_loaded(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
        page.reload()
        page.wait_for_selector(READY)
        open_space(page)
        assert page.inner_text("#title") == HOSTILE.replace("/", "")
        assert page.evaluate("window.hit") is None
        assert page.locator("img").count() == 2
        assert set(asked) <= {"file", "data"}
