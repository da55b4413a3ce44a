"""Lay labelled panels out on a sheet, drawn with Pillow at exact pixel positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from redepth.viz.color import colour_table
from redepth.viz.library import import_matplotlib

_NARROWEST_COLUMN = 250
_INK, _SOFT_INK, _FRAME = "#1a1a1a", "#6b6b6b", "#d9d9d9"

# Heights of lines, in units of `Style`.
_TITLE, _SUBTITLE, _BELOW_HEADER = 2.0, 1.5, 0.9
_HEADING, _CAPTION, _BAR = 1.6, 1.25, 1.4


@dataclass(frozen=True)
class Scale:
    """A colour map, the values at its ends, and the labels of its colour bar."""

    cmap: str
    lo: float
    hi: float
    low_label: str
    high_label: str


@dataclass(frozen=True)
class Panel:
    """A picture with a heading above it, and a colour bar below it if it has a scale."""

    picture: Image.Image
    heading: str
    caption: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Style:
    """Fonts and distances in units of the heading's size, so that every sheet has the same proportions."""

    unit: int

    def font(self, size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
        """Return the typeface that comes with matplotlib, at ``size`` units."""
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(import_matplotlib().get_data_path(), "fonts", "ttf", name)
        # The basic engine draws the same on every machine; the other is not always installed.
        return ImageFont.truetype(str(path), round(size * self.unit), layout_engine=ImageFont.Layout.BASIC)

    def px(self, units: float) -> int:
        """Return a distance in pixels."""
        return round(units * self.unit)


@dataclass(frozen=True)
class Row:
    """The panels of a row, and the heights in pixels of its labels, pictures and colour bars."""

    panels: Sequence[Panel]
    labels: int
    pictures: int
    bars: int

    @property
    def height(self) -> int:
        """The height of the row in pixels."""
        return self.labels + self.pictures + self.bars


@dataclass(frozen=True)
class Sheet:
    """A sheet that is being drawn."""

    image: Image.Image
    style: Style

    def text(
        self,
        at: tuple[int, int],
        text: str,
        size: float,
        width: int,
        *,
        bold: bool = False,
        anchor: str = "la",
    ) -> int:
        """Write one line, cut with an ellipsis to ``width`` pixels; return the x at which it ends.

        Args:
            at: x and y of the anchor.
            text: line breaks in it become spaces, because Pillow measures single lines only.
            size: of the font, in units of the style.
            width: the greatest width in pixels.
            bold: whether the font is bold, and in the darker ink.
            anchor: as Pillow names it.
        """
        font = self.style.font(size, bold=bold)
        line = " ".join(text.split())
        if font.getlength(line) > width:
            while line and font.getlength(f"{line}…") > width:
                line = line[:-1]
            line = f"{line.rstrip()}…"
        ink = _INK if bold else _SOFT_INK
        ImageDraw.Draw(self.image).text(at, line, fill=ink, font=font, anchor=anchor)
        return at[0] + round(font.getlength(line))


def compose(rows: Sequence[Sequence[Panel]], title: str, subtitle: str) -> Image.Image:
    """Lay panels out in a grid, left-aligned in columns as wide as their widest panel."""
    widths = _column_widths(rows)
    style = Style(min(max(round(0.042 * sum(widths) / len(widths)), 16), 26))
    margin, gutter = style.px(1.6), style.px(1.1)
    title_height = style.px(_TITLE) if title else 0
    header = title_height + (style.px(_SUBTITLE) if subtitle else 0)
    if header:
        header += style.px(_BELOW_HEADER)
    measured = [_measure(row, style) for row in rows]
    width = 2 * margin + sum(widths) + gutter * (len(widths) - 1)
    height = 2 * margin + header + sum(row.height for row in measured) + gutter * (len(rows) - 1)
    sheet = Sheet(Image.new("RGB", (width, height), "white"), style)
    text_width = width - 2 * margin
    sheet.text((margin, margin), title, 1.5, text_width, bold=True)
    sheet.text((margin, margin + title_height), subtitle, 0.95, text_width)
    y = margin + header
    for row in measured:
        x = margin
        for panel, column in zip(row.panels, widths, strict=False):
            _draw_panel(sheet, panel, (x, y), column, row.labels)
            x += column + gutter
        y += row.height + gutter
    return sheet.image


def _column_widths(rows: Sequence[Sequence[Panel]]) -> list[int]:
    widths = [_NARROWEST_COLUMN] * max(len(row) for row in rows)
    for row in rows:
        for column, panel in enumerate(row):
            widths[column] = max(widths[column], panel.picture.width)
    return widths


def _measure(panels: Sequence[Panel], style: Style) -> Row:
    labels, bars = style.px(_HEADING), 0
    if any(panel.caption for panel in panels):
        labels += style.px(_CAPTION)
    if any(panel.scale for panel in panels):
        bars = style.px(_BAR)
    return Row(panels, labels, max(panel.picture.height for panel in panels), bars)


def _draw_panel(sheet: Sheet, panel: Panel, at: tuple[int, int], column: int, labels: int) -> None:
    """Draw a panel whose labels are ``labels`` high, at the upper left corner of its column."""
    x, y = at
    px = sheet.style.px
    sheet.text((x, y), panel.heading, 1.0, column, bold=True)
    sheet.text((x, y + px(1.4)), panel.caption, 0.75, column)
    top = y + labels
    sheet.image.paste(panel.picture, (x, top))
    right, bottom = x + panel.picture.width, top + panel.picture.height
    ImageDraw.Draw(sheet.image).rectangle((x, top, right - 1, bottom - 1), outline=_FRAME)
    if panel.scale:
        _draw_bar(sheet, panel.scale, (x, bottom + px(0.5)), column)


def _draw_bar(sheet: Sheet, scale: Scale, at: tuple[int, int], column: int) -> None:
    """Draw ``low [colours] high``."""
    x, y = at
    px = sheet.style.px
    third = column // 3
    bar = Image.fromarray(colour_table(scale.cmap)[None]).resize((third, px(0.6)))
    middle = y + bar.height // 2
    x = sheet.text((x, middle), scale.low_label, 0.75, third, anchor="lm") + px(0.4)
    sheet.image.paste(bar, (x, y))
    sheet.text((x + bar.width + px(0.4), middle), scale.high_label, 0.75, third, anchor="lm")
