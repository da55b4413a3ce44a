"""The largest size of pictures and maps that are read, checked from their headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from redepth.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

MAX_PIXELS = 100_000_000

_limit: ContextVar[int] = ContextVar("redepth_max_pixels", default=MAX_PIXELS)


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Set the limit of all readers of this package that are called inside without ``max_pixels``.

    So a limit reaches the readers of data sets and depth models, whatever package they are from, without
    being one of their options.
    """
    token = _limit.set(max_pixels)
    try:
        yield
    finally:
        _limit.reset(token)


def with_pixel_limit(function: Callable[[T], R], max_pixels: int) -> Callable[[T], R]:
    """Return a function that calls another one inside `pixel_limit`."""

    def limited(argument: T) -> R:
        with pixel_limit(max_pixels):
            return function(argument)

    return limited


def limit_of(max_pixels: int | None) -> int:
    """Return a limit of pixels; None is that of `pixel_limit`."""
    return _limit.get() if max_pixels is None else max_pixels


def check_pixels(path: Path, width: int, height: int, max_pixels: int | None = None) -> None:
    """Raise InputError if a file declares more pixels than a limit; None is that of `pixel_limit`."""
    limit = limit_of(max_pixels)
    if width * height > limit:
        raise InputError(
            f"{path}: {width} x {height} is {width * height / 1e6:.1f} megapixels, the limit is "
            f"{limit / 1e6:g}; shrink it or raise the limit with --max-pixels {width * height} "
            "(max_pixels= in Python)"
        )
