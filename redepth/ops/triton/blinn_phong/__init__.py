"""Blinn-Phong relighting in one Triton kernel each way, for CUDA; the twin is `shading.relight_blinn_phong`.

Both kernels read depth, photo and light and write their result; normals stay in registers. Memory traffic is
the lower bound of their time: for one light in float32, 28 bytes per pixel forward and 32 backward. At that
rate a GPU has time for about 200 instructions per pixel, so the kernels save instructions. A warp walks down
a strip of columns:

- The pixels above and below the current row stay in registers from row to row.
- A lane holds two pixels side by side: a warp reads 64 columns with one 8-byte load per lane, and the pixels
  to the left and right come from the next lane by a shuffle.
- The next row is loaded before the current one is computed: waiting for each row would take most of the time.
- The lights of an image are a loop inside the row: depth and photo are read once for all of them.

The outer lanes of a warp only provide neighbours to the inner ones, so a strip writes 60 of its 64 columns,
and the gradient's kernel computes one more row at either end. This repeats an eighth of the arithmetic, but
needs no atomics, no memory between programs and no barrier, and every run gives bit-identical results.

At import, Triton decides whether kernels run in its interpreter (``TRITON_INTERPRET=1``). The interpreter
takes CPU tensors and is for tests only.
"""

from __future__ import annotations

from redepth.ops.triton.blinn_phong.autograd import relight_blinn_phong
from redepth.ops.triton.blinn_phong.compilation import ahead_of_time
from redepth.ops.triton.blinn_phong.rows import INTERPRETED

__all__ = ["INTERPRETED", "ahead_of_time", "relight_blinn_phong"]
