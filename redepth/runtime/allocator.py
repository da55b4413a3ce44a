"""The C library's allocator: keep freed memory in the process."""

from __future__ import annotations

import ctypes


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
