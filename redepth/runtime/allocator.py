"""How this process keeps the memory that it has freed."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next use; return whether the C library can (glibc).

    On a CPU each step allocates and frees the same large tensors. By default each one is mapped anew, page by
    page, and the kernel clears it. Call it where the process is yours.
    """
    map_at_most, trim_above = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(allocator(map_at_most, 0) and allocator(trim_above, 1 << 30))
