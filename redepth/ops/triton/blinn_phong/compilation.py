"""The kernels as sources for Triton's compiler, which needs no GPU."""

from __future__ import annotations

from typing import Any

from triton.compiler import ASTSource

from redepth.ops.triton.blinn_phong.backward import gradient_kernel
from redepth.ops.triton.blinn_phong.forward import relight_kernel
from redepth.ops.triton.blinn_phong.launch import BACKWARD, FORWARD, Launch


def ahead_of_time(
    lights: int = 1, *, image_grad: bool = False, paired: bool = True
) -> dict[str, tuple[ASTSource, dict[str, Any]]]:
    """Return source and options of both kernels for `triton.compile`, which needs no GPU.

    They are specialized like the launches for float32 images whose columns are adjacent in memory.

    Args:
        lights: L.
        image_grad: whether the backward kernel writes the gradient of the photo.
        paired: whether every two columns are an aligned pair, as in contiguous images of even width.
    """
    constants = {"LIGHTS": lights, "PAIRED": paired}
    return {
        "forward": _source(relight_kernel, FORWARD, constants),
        "backward": _source(gradient_kernel, BACKWARD, {**constants, "IMAGE_GRAD": image_grad}),
    }


def _source(kernel: Any, launch: Launch, constants: dict[str, Any]) -> tuple[ASTSource, dict[str, Any]]:
    constants = {**constants, "ROWS": launch.rows, "STRIPS": launch.strips}
    strides = {"depth_strides": 3, "image_strides": 4, "cotangent_strides": 5}
    scalars = dict.fromkeys(("ambient", "x_scale", "y_scale"), "fp32")
    scalars |= dict.fromkeys(("height", "width"), "i32")
    signature: dict[str, Any] = {}
    values: dict[tuple[int, ...], Any] = {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[position,] = "constexpr", constants[name]
        elif name in strides:
            signature[name] = (*["i32"] * (strides[name] - 1), "constexpr")
            values[position, strides[name] - 1] = 1
        else:
            signature[name] = scalars.get(name, "*fp32")
    return ASTSource(kernel, signature, values), {"num_warps": launch.strips, "enable_fp_fusion": True}
