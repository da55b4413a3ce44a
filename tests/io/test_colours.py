"""Linear colours: the same numbers from every format, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.errors import InputError
from redepth.io.arrays import read_pfm

HEIGHT, WIDTH = 18, 24


def colours(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH, 3)).astype(np.float32)


def save_pfm(path: Path, values: np.ndarray) -> None:
    kind = b"PF" if values.ndim == 3 else b"Pf"
    header = b"%b\n%d %d\n-1.0\n" % (kind, values.shape[1], values.shape[0])
    path.write_bytes(header + values[::-1].astype("<f4").tobytes())


def save_layers(path: Path, layers: dict[str, np.ndarray]) -> None:
    io.save_exr(
        path, {f"{layer}{c}": v[..., i] for layer, v in layers.items() for i, c in enumerate("RGB")}, {}
    )


def save(path: Path, values: np.ndarray) -> None:
    if path.suffix == ".npy":
        io.save_npy(path, values)
    elif path.suffix == ".pfm":
        save_pfm(path, values)
    else:
        save_layers(path, {"": values})


@pytest.mark.parametrize("suffix", io.LINEAR_SUFFIXES)
def test_every_format_gives_the_numbers_upright(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"albedo{suffix}"
    save(path, colours())
    found = io.load_linear(path)
    assert found.dtype == np.float32
    assert np.array_equal(found, colours())


@pytest.mark.parametrize("suffix", [".npy", ".pfm"])
def test_grey_becomes_three_equal_channels(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"albedo{suffix}"
    save(path, colours()[..., 1])
    assert np.array_equal(io.load_linear(path), np.repeat(colours()[..., 1:2], 3, axis=2))


def test_the_layer_of_the_albedo_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "blender.exr"
    save_layers(path, {"ViewLayer.Combined.": colours(1), "ViewLayer.DiffCol.": colours(2)})
    assert np.array_equal(io.load_linear(path), colours(2))
    save_layers(path, {"ViewLayer.Combined.": colours(1), "ViewLayer.Emit.": colours(2)})
    with pytest.raises(InputError, match="several are colours"):
        io.load_linear(path)
    io.save_exr(path, {"Z": colours()[..., 0]}, {})
    with pytest.raises(InputError, match="none are red, green and blue"):
        io.load_linear(path)


def test_a_map_still_has_one_channel(tmp_path: Path) -> None:
    save_pfm(tmp_path / "colour.pfm", colours())
    with pytest.raises(InputError, match="colours of a PFM"):
        read_pfm(tmp_path / "colour.pfm")


WRONG: dict[str, tuple[Any, str]] = {
    "too bright": (2 * np.ones((HEIGHT, WIDTH, 3), np.float32), "0 to 1, and these values are from 2 to 2"),
    "negative": (-np.ones((HEIGHT, WIDTH, 3), np.float32), "from -1 to -1"),
    "unknown": (np.full((HEIGHT, WIDTH, 3), np.nan, np.float32), f"{HEIGHT * WIDTH} pixels are not finite"),
    "integers": (np.ones((HEIGHT, WIDTH, 3), np.uint8), "linear colours are floats"),
    "two channels": (np.ones((HEIGHT, WIDTH, 2), np.float32), "linear colours are floats"),
    "tiny": (np.ones((4, 4, 3), np.float32), "too small"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_albedo_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    values, problem = WRONG[name]
    io.save_npy(tmp_path / "albedo.npy", values)
    with pytest.raises(InputError, match=problem) as error:
        io.load_linear(tmp_path / "albedo.npy")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "albedo.npy") in str(error.value)


def test_the_limit_of_pixels_counts_pixels_and_not_numbers(tmp_path: Path) -> None:
    save(tmp_path / "albedo.npy", colours())
    assert io.load_linear(tmp_path / "albedo.npy", max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    for suffix in io.LINEAR_SUFFIXES:
        path = tmp_path / f"albedo{suffix}"
        save(path, colours())
        with pytest.raises(InputError, match="megapixels"), io.pixel_limit(HEIGHT * WIDTH - 1):
            io.load_linear(path)
