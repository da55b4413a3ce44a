"""Triton kernels of `redepth.ops`; the functions that use them have a twin in torch."""
