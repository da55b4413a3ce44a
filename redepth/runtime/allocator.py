"""Memory on the CPU: keep what is freed in the process, or give large arrays pages of their own."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for reuse; return whether the C library supports it (glibc).

    On a CPU each step allocates and frees the same large tensors. By default the kernel maps and clears the
    pages of each one again. The setting is process-wide: call it in a program, not in a library.
    """
    map_at_most, trim_above = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(allocator(map_at_most, 0) and allocator(trim_above, 1 << 30))


def give_back_freed_memory() -> None:
    """Return freed memory to the system, also after `keep_freed_memory`, where the C library can (glibc)."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def paged_array(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a float32 array of zeros in pages of its own, which go back to the system with the array.

    After `keep_freed_memory`, the gaps that large arrays leave are rarely used again: each further one of a
    photo of 100 megapixels would add 0.4 GB to the process.
    """
    pages = mmap.mmap(-1, max(1, 4 * math.prod(shape)))
    return np.frombuffer(pages, np.float32, math.prod(shape)).reshape(shape)
