"""Kernels of group normalisation and SiLU for channels-last tensors on CUDA; the twin is `ops.group_norm`.

In torch, a GroupNorm between two channels-last convolutions copies its input to another layout and its output
back, and SiLU reads and writes everything once more. These kernels read and write channels-last only. They
see memory as rows, (N, P, C): P pixels of C channels. Memory traffic is the lower bound of their time:
forward, x is read twice and y is written once; backward, x and its cotangent are read twice and the gradient
is written once. Only x and the mean and 1 / deviation of each group are kept in between.

The forward pass of small pictures, as inside a denoiser, is one launch: one program normalises one group of
one picture. All other passes are three launches:

- The first sums a chunk of pixels for a block of channels in each program. Loads are wide, over neighbouring
  channels, and sums are by channel, so any number of channels per group works.
- The second, a tiny kernel, adds up the chunks and channels of each group in a fixed order, without atomics:
  results are equal to the bit in every run. The cut into chunks does not depend on the number of pictures, so
  a picture's result is the same in every batch.
- The third writes the result.

An addend is a number for each channel, such as the bias of the convolution before, or a UNet's embedding of
the time step. It needs no separate pass because it only shifts the mean of a channel.

The mean of the chunk's first rows is subtracted before squares are summed, and chunks are joined by their
means, so a mean that is large compared to the deviation costs no digits. All sums are float32.

At import, Triton decides whether kernels run in its interpreter (``TRITON_INTERPRET=1``). The interpreter
takes CPU tensors and is for tests only.
"""

from __future__ import annotations

from redepth.ops.triton.group_norm.autograd import INTERPRETED, group_norm
from redepth.ops.triton.group_norm.compilation import ahead_of_time

__all__ = ["INTERPRETED", "ahead_of_time", "group_norm"]
