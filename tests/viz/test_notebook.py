"""Pictures and pages go to the notebook where there is one, and to the desktop elsewhere."""

from __future__ import annotations

import html
import io
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
from PIL import Image

from redepth.viz import in_notebook, show_page, show_picture
from tests.support.notebooks import pretend_notebook

PAGE = '<!doctype html><title>a "page" & more</title><script>1 < 2</script>'


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_a_kernel_is_a_notebook_and_a_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    with monkeypatch.context() as patched:
        pretend_notebook(patched, kernel=False)
        assert not in_notebook()
    with monkeypatch.context() as patched:
        pretend_notebook(patched)
        assert in_notebook()


def test_asking_imports_no_ipython() -> None:
    code = "import sys, redepth.viz as v; assert not v.in_notebook(); assert 'IPython' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_picture_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    viewed: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda shown: viewed.append(shown))
    picture = noise(30, 40)
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "IPython", raising=False)
        show_picture(picture)
    assert viewed == [picture]
    shown = pretend_notebook(monkeypatch)
    show_picture(picture)
    assert len(viewed) == 1
    (only,) = shown
    assert only._mimetype == "image/jpeg"
    assert Image.open(io.BytesIO(only.data)).size == (40, 30)


def test_a_page_has_a_frame_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pretend_notebook(monkeypatch)
    show_page(PAGE, height=500)
    text = shown[0].data
    assert 'sandbox="allow-scripts"' in text
    assert "height: 500px" in text
    source = text.partition('srcdoc="')[2].partition('"')[0]
    assert html.unescape(source) == PAGE


def test_elsewhere_a_page_opens_in_the_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    show_page(PAGE)
    (address,) = opened
    path = Path(url2pathname(urlparse(address).path))
    assert path.is_relative_to(tmp_path)
    assert path.read_text(encoding="utf-8") == PAGE
