"""Fuzz the locator and the loading of checkpoints: any folder loads or gives one line.

``REDEPTH_FUZZ_EXAMPLES=20000 python -m pytest -m slow tests/fuzz/test_checkpoints.py`` tries more.
"""

from __future__ import annotations

import io
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redepth.checkpoints import locate, read_pickled
from redepth.checkpoints.guard import check_folder
from redepth.depth_models.depth_anything import DepthAnything
from redepth.errors import RedepthError
from redepth.priors.pixel_diffusion import PixelDiffusion
from tests.support.checkpoints import tiny
from tests.support.fuzz import fuzzing, mutate
from tests.support.helpers import CPU, GOLDEN

pytestmark = pytest.mark.slow

LIMIT = 30.0
"""Seconds of CPU time for one folder; an intact one takes about 0.05."""
MEMORY = 6 * 2**30
"""Bytes that the process may add: a mutated size may ask for any number."""

DEPTH = GOLDEN / "tiny-random-depth-anything"
WEIGHTS = "model.safetensors"
INDICES = [path.read_bytes() for path in sorted((Path(__file__).parent / "seeds" / "checkpoints").iterdir())]
ODD = st.one_of(
    st.sampled_from([None, True, 0, -1, 10**12, 10**30, 0.5, 1e300, "x", "", "../x", [], [0], {}, {"a": 1}]),
    st.integers(-3, 70),
)


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory() -> Iterator[None]:
    # The libraries are imported before time and memory are measured.
    DepthAnything(checkpoint=str(DEPTH)).load(CPU)
    PixelDiffusion(checkpoint=str(tiny("ddpm"))).load(CPU)
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def with_file(source: Path, to: Path, name: str, content: bytes) -> Path:
    """Return a folder with links to a checkpoint's files, one of them replaced."""
    for path in (p for p in source.rglob("*") if p.is_file()):
        place = to / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    (to / name).unlink(missing_ok=True)
    (to / name).write_bytes(content)
    return to


def check(load: Callable[[], Any]) -> None:
    """Assert that a call ends well or with one short line, in time."""
    began, message = time.process_time(), ""
    try:
        load()
    except RedepthError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 3000
    assert time.process_time() - began < LIMIT


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON object with some entries changed, at any depth."""
    settings = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        place = settings
        while True:
            key = draw(st.sampled_from(sorted(place)))
            if not (isinstance(place[key], dict) and place[key] and draw(st.booleans())):
                break
            place = place[key]
        place[key] = draw(ODD)
    return json.dumps(settings).encode()


@fuzzing(120)
@given(data=st.data())
def test_a_depth_model_with_a_mutated_file(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(["config.json", "config.json", WEIGHTS]))
    content = (DEPTH / name).read_bytes()
    odd = changed(content) if name == "config.json" and data.draw(st.booleans()) else mutate([content])
    folder = with_file(DEPTH, tmp_path_factory.mktemp("c"), name, data.draw(odd))
    check(lambda: DepthAnything(checkpoint=str(folder)).load(CPU))


@fuzzing(120)
@given(data=st.data())
def test_a_prior_with_a_mutated_file(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tiny("ddpm")
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.*") if path.is_file())
    name = data.draw(st.sampled_from(names))
    content = (source / name).read_bytes()
    odd = changed(content) if name.endswith(".json") and data.draw(st.booleans()) else mutate([content])
    folder = with_file(source, tmp_path_factory.mktemp("c"), name, data.draw(odd))
    check(lambda: PixelDiffusion(checkpoint=str(folder)).load(CPU))


def published() -> bytes:
    """A file of tensors and settings as torch writes it."""
    file = io.BytesIO()
    torch.save({"model_config": {"dims": [1, 2], "name": "a"}, "model": {"w": torch.arange(6.0)}}, file)
    return file.getvalue()


@fuzzing(400)
@given(content=mutate([published()]))
def test_a_mutated_model_pt(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("c") / "model.pt"
    path.write_bytes(content)
    check(lambda: read_pickled(path))


@fuzzing(800)
@given(content=mutate(INDICES))
def test_a_mutated_index_names_safetensors_or_is_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")
    (folder / "model.safetensors.index.json").write_bytes(content)

    def load() -> None:
        check_folder(folder)
        locate(str(folder), None, [WEIGHTS])

    check(load)


@fuzzing(800)
@given(
    name=st.one_of(st.text(max_size=12), st.from_regex(r"[ab./~@:-]{1,6}/[ab./~@:-]{1,6}")),
    revision=st.one_of(st.none(), st.text(max_size=12), st.from_regex(r"[ab./~@:-]{1,8}")),
)
def test_any_name_and_revision(
    name: str, revision: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        check(lambda: locate(name, revision, ["config.json"], local_files_only=True))
