"""Fuzz the preset loader: any text is a preset or one line, within a second.

``REDEPTH_FUZZ_EXAMPLES=100000 python -m pytest -m slow tests/fuzz/test_presets.py`` tries more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redepth.components import resolve
from redepth.config import Preset, load_preset
from redepth.config.loading import PRESETS
from redepth.errors import RedepthError
from redepth.io.markup import dump_yaml, parse_yaml
from tests.support.fuzz import fuzzing, mutate

pytestmark = pytest.mark.slow

LIMIT = 30.0
"""Seconds of CPU time for one input."""


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    resolve(load_preset("smoke"))


FOLDERS = (PRESETS, Path(__file__).parent / "seeds" / "presets")
SEEDS = [path.read_bytes() for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]

KEYS = (
    "extends",
    "name",
    "description",
    "depth_model",
    "renderer",
    "prior",
    "prompt",
    "optim",
    "optim.steps",
    "optim.members",
    "optim.weight_decay",
    "optim.blend_scale",
    "optim.blend_pixels",
    "optim.budget",
    "optim.vram",
    "optim.objectives",
    "optim.objectives.smoothness.weight",
    "optim.learning_rates.depth",
    "optim.early_stop.window",
    "optim.performance.cuda_graphs",
    "renderer.name",
    "renderer.lights",
    "renderer.camera",
    "renderer.intrinsics",
    "renderer.field_of_view",
    "prior.name",
    "prior.score",
    "prior.checkpoint",
    "prior.revision",
    "prior.t_min",
    "prior.clip",
    "depth_model.name",
    "depth_model.checkpoint",
    "depth_model.scale",
    "x",
    "",
)
ODD = """
null true off yes 0 -1 1 3 1e-3 1e30 1e999 .nan .inf 0x1F 0123 1_000 2026-01-31 1:30 60s 8GB auto smoke
embedded ~user /dev/zero .. [] {} [1,1,.5,.5] [[[[ *a &a !!int !x {a:1,a:2} depth-anything lambert pinhole
pixel-diffusion stable-diffusion csd
"""
VALUES = st.one_of(
    st.sampled_from(ODD.split()),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)
TOKENS = st.one_of(
    st.sampled_from(
        [*"[]{},:-?|>'\"&*!%@`#~\n\t ", ": ", "\n  ", "- ", "---\n", "...\n", "<<: ", "\ufeff", "\\x"]
    ),
    st.sampled_from([key.rpartition(".")[2] for key in KEYS]),
    VALUES,
)


def check(load: Callable[[], Preset]) -> None:
    """Assert that a call gives a preset or one short line, in time."""
    began, message = time.process_time(), ""
    try:
        assert isinstance(load(), Preset)
    except RedepthError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 3000
    assert time.process_time() - began < LIMIT


def from_file(content: bytes, folder: Path) -> Preset:
    # A name of its own: what a file holds is kept for its name and time.
    path = folder / f"{len(list(folder.iterdir()))}.yaml"
    path.write_bytes(content)
    return resolve(load_preset(path))


@fuzzing(1200)
@given(content=mutate(SEEDS))
def test_a_mutated_preset(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("presets")
    check(lambda: from_file(content, folder))


@fuzzing(300)
@given(text=st.lists(TOKENS, max_size=40).map("".join))
def test_a_text_of_the_parts_of_yaml(text: str) -> None:
    def load() -> Preset:
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise RedepthError(str(error)) from None
        assert parse_yaml(dump_yaml(value)) == value or "nan" in repr(value)
        return resolve(load_preset(value if isinstance(value, dict) else {"extends": "smoke"}))

    check(load)


@fuzzing(500)
@given(overrides=st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=4))
def test_overrides_of_real_keys(overrides: list[tuple[str, str]]) -> None:
    check(lambda: resolve(load_preset("smoke", [f"{key}={value}" for key, value in overrides])))
