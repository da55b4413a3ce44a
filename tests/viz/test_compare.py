"""Sheets: panels keep their shape and their labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from redepth import viz

PINK = (255, 0, 200)


SHAPES = [(60, 90), (80, 80), (120, 50), (20, 320), (320, 20)]


def sheet(height: int = 60, width: int = 90, **options: object) -> Image.Image:
    """A comparison whose photo is plain pink, so that its panel can be found again."""
    ramp = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    normals = np.broadcast_to(np.float32([0, 0, 1]), (height, width, 3))
    maps = {"initial": ramp, "refined": ramp**2, **options}
    photo = np.broadcast_to(np.uint8(PINK), (height, width, 3))
    return viz.comparison(
        photo, normals_before=normals, normals_after=normals, **{"title": "a photo", **maps}
    )


def box_of(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of the pixels of one colour."""
    rows, cols = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return cols.min(), rows.min(), cols.max() + 1, rows.max() + 1


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is written on the sheets."""
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, xy: object, text: str, **options: object) -> None:
        written.extend([text] if text else [])
        draw(self, xy, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return written


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (700, 1400)])
def test_panels_keep_the_aspect_ratio_and_stay_small(height: int, width: int) -> None:
    picture = sheet(height, width)
    left, top, right, bottom = box_of(picture, PINK)
    # The frame takes one pixel on each side.
    panel_width, panel_height = right - left + 2, bottom - top + 2
    assert max(panel_width, panel_height) == min(max(height, width, 320), 640)
    assert panel_width == pytest.approx(panel_height * width / height, abs=width / height)


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("columns", [3, 4])
def test_no_label_of_ours_is_cut(height: int, width: int, rows: int, columns: int, texts: list[str]) -> None:
    ramp = np.linspace(1, 1234.5, height * width).reshape(height, width)
    options: dict[str, object] = {"initial": ramp, "refined": ramp[::-1]}
    if columns == 4:
        options["uncertainty"] = ramp
    if rows == 3:
        options["ground_truth"] = np.sqrt(ramp) * 100
    picture = sheet(height, width, **options)
    assert len([t for t in texts if t.split()[0] in HEADINGS]) == rows * columns
    assert not [text for text in texts if "…" in text]
    edge = np.asarray(picture)
    for border in (edge[:8], edge[-8:], edge[:, :8], edge[:, -8:]):
        assert (border == 255).all()


HEADINGS = {
    *("Photo", "Initial", "Refined", "Difference", "Normals"),
    *("Uncertainty", "Turn", "Ground", "Error", "Change"),
}


def test_both_disparities_share_one_range() -> None:
    ramp = np.tile(np.linspace(0, 1, 90, dtype=np.float32), (60, 1))
    picture = sheet(initial=ramp, refined=np.ones_like(ramp))
    brightest = tuple(viz.colorize([[1.0]], lo=0.0, hi=1.0)[0, 0].tolist())
    left, top, right, bottom = box_of(picture, PINK)
    refined = np.asarray(picture)[top:bottom, picture.width - right : picture.width - left]
    # With a range of its own, a constant map would not be bright.
    assert (refined == brightest).all()


def test_difference_is_symmetric_and_signed() -> None:
    flat = np.ones((60, 90), np.float32)
    lifted = flat.copy()
    lifted[:, :30], lifted[:, 60:] = 2, 0.5
    picture = np.asarray(sheet(initial=flat, refined=lifted))
    left, _, right, bottom = box_of(Image.fromarray(picture), PINK)
    below = picture[bottom + 40 :, left:right]
    nearer, same, farther = (below[below.shape[0] // 2, x].astype(int) for x in (50, 160, 270))
    assert nearer[0] > nearer[2]
    assert farther[2] > farther[0]
    assert same.min() > 240
    # The range is symmetric: half the change is half the way to blue, so paler than the red.
    assert farther.sum() > nearer.sum()


def test_error_does_not_depend_on_scale_and_shift(texts: list[str]) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, (60, 90))
    truth[:5], truth[5:9] = np.nan, 0
    good = np.where(np.isfinite(truth) & (truth > 0), 0.25 * truth - 7, 100)
    sheet(initial=rng.uniform(1, 5, truth.shape), refined=good, ground_truth=truth)
    before, after = (float(t.split("mean ")[1]) for t in texts if "mean" in t)
    assert before > 0.5
    assert after < 1e-5


def test_user_text_is_cut_and_taken_literally(texts: list[str]) -> None:
    title = "long name " * 40
    picture = np.asarray(sheet(title=title, subtitle="$x^2$ on\ntwo lines"))
    assert texts[0].endswith("…")
    assert texts[1] == "$x^2$ on two lines"
    assert (picture[:, -8:] == 255).all()
    assert np.asarray(sheet(title="")).shape[0] < np.asarray(sheet(title="a")).shape[0]


def test_comparison_takes_invalid_pixels_and_refuses_other_shapes() -> None:
    broken = np.full((60, 90), np.nan)
    assert sheet(initial=broken, refined=broken, uncertainty=broken).mode == "RGB"
    with pytest.raises(ValueError, match="same shape"):
        sheet(initial=np.zeros((60, 91)))
    with pytest.raises(ValueError, match="ground_truth"):
        sheet(ground_truth=np.ones((61, 90)))
    with pytest.raises(ValueError, match="no pixel"):
        sheet(ground_truth=np.zeros((60, 90)))


def test_side_by_side_draws_every_kind_at_one_height(texts: list[str]) -> None:
    wide, green, blue = (np.zeros((40, 80, 3)) for _ in range(3))
    wide[..., 0], green[..., 1], blue[..., 2] = 1, 1, 1
    images = {
        "floats": wide,
        "bytes": (green[:, :40] * 255).astype(np.uint8),
        "Pillow": Image.fromarray((blue[:, :20] * 255).astype(np.uint8)),
        "map": np.eye(40),
        "mask": np.ones((40, 40), bool),
    }
    picture = viz.side_by_side(images)
    assert texts == list(images)
    boxes = [box_of(picture, colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    assert len({(top, bottom) for _, top, _, bottom in boxes}) == 1
    widths = [right - left + 2 for left, _, right, _ in boxes]
    assert widths == [320, 160, 80]
    assert viz.side_by_side(images, columns=2).height > 2 * picture.height


def test_side_by_side_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="no image"):
        viz.side_by_side({})
    with pytest.raises(ValueError, match="'odd'"):
        viz.side_by_side({"odd": np.zeros((4, 4, 2))})
