"""The parts of self-contained pages."""

from __future__ import annotations

import base64
from pathlib import Path

from redepth.viz import pages

HOSTILE = "<script>alert(1)</script>\"'&"


def test_texts_are_escaped_wherever_they_stand() -> None:
    for html in (
        pages.text(HOSTILE),
        pages.table((HOSTILE,), [(HOSTILE,)]),
        pages.figure("data:", HOSTILE),
        pages.page(HOSTILE, []).partition("</title>")[0],
    ):
        assert "<script>alert" not in html
        assert "&lt;script&gt;" in html


def test_a_table_sorts_by_the_numbers_in_its_cells() -> None:
    html = pages.table(("photo", "change"), [("a", "-12.5 %"), ("b", "-")], sortable=True)
    assert '<td data-value="-12.5">-12.5 %</td>' in html
    assert "<td>-</td>" in html
    assert 'class="sortable"' in html
    assert "sortable" not in pages.table(("a",), [])


def test_pictures_are_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    assert pages.jpeg_url(path) == ""
    path.write_bytes(b"abc")
    encoded = base64.b64encode(b"abc").decode()
    assert pages.jpeg_url(path) == f"data:image/jpeg;base64,{encoded}"
    assert pages.data_url(b"abc", "png") == f"data:image/png;base64,{encoded}"


def test_a_page_has_its_own_style_and_script_beside_the_common_ones() -> None:
    html = pages.page("title", ["<p>body</p>"], style="b{}", script="let x;")
    assert html.startswith("<!doctype html>")
    assert all(part in html for part in (pages.STYLE, "b{}", "let x;", pages.SCRIPT, "<p>body</p>"))
