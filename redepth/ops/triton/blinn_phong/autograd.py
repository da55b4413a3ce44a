"""Relighting as a function with gradients, and the checks of its arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from redepth.ops.triton.blinn_phong import launch
from redepth.ops.triton.blinn_phong.backward import gradient_kernel
from redepth.ops.triton.blinn_phong.forward import relight_kernel
from redepth.ops.triton.blinn_phong.rows import INTERPRETED


class _Relight(torch.autograd.Function):
    """`relight_blinn_phong` for checked arguments of one batch size."""

    @staticmethod
    def forward(
        ctx: Any, depth: Tensor, image: Tensor, ambient: float, out_dtype: torch.dtype, *light: Tensor
    ) -> Tensor:
        light = tuple(value.contiguous() for value in light)
        batch, lights = light[0].shape[:2]
        height, width = depth.shape[-2:]
        relit = torch.empty((batch, lights, 3, height, width), dtype=out_dtype, device=depth.device)
        launch.start(
            relight_kernel,
            launch.FORWARD,
            depth.shape,
            depth,
            image,
            *light,
            relit,
            ambient,
            height,
            width,
            *launch.normal_scale(height, width),
            launch.depth_strides(depth),
            image.stride(),
            LIGHTS=lights,
            PAIRED=launch.is_paired(depth, image, relit),
        )
        ctx.save_for_backward(depth, image, *light)
        ctx.ambient = ambient
        return relit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        depth, image, *light = ctx.saved_tensors
        height, width = depth.shape[-2:]
        depth_grad = torch.empty(depth.shape, dtype=depth.dtype, device=depth.device)
        depth_needed, image_needed, *_ = ctx.needs_input_grad
        # If the photo needs no gradient, the kernel does not use this pointer.
        image_grad = (
            torch.empty(image.shape, dtype=image.dtype, device=image.device) if image_needed else depth_grad
        )
        launch.start(
            gradient_kernel,
            launch.BACKWARD,
            depth.shape,
            depth,
            image,
            *light,
            cotangent,
            depth_grad,
            image_grad,
            ctx.ambient,
            height,
            width,
            *launch.normal_scale(height, width),
            launch.depth_strides(depth),
            image.stride(),
            cotangent.stride(),
            LIGHTS=cotangent.shape[1],
            IMAGE_GRAD=image_needed,
            PAIRED=launch.is_paired(depth, image, cotangent, depth_grad, image_grad),
        )
        return (
            depth_grad if depth_needed else None,
            image_grad if image_needed else None,
            *[None] * (2 + len(light)),
        )


def relight_blinn_phong(
    depth: Tensor,
    image_linear: Tensor,
    direction: Tensor,
    diffuse: Tensor,
    specular: Tensor,
    shininess: Tensor,
    ambient: float = 0.0,
    *,
    out_dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Relight a photo: depth to normals, Blinn-Phong, an ambient share of the photo, sRGB.

    .. math::
        \mathrm{clip}(R_c,\, 10^{-3},\, 1)^{1/2.2}, \qquad
        R_c = (k_{d,c} \max(n \cdot l, 0) + a) \, I_c + k_{s,c} \max(n \cdot h, 0)^{p}

    with h = (l + v) / |l + v|, v = (0, 0, 1), and n by `geometry.normals_from_depth` of an orthographic
    camera, its rules for borders and invalid pixels included. Gradients flow to depth and photo; where
    max(n.h, 0) is 0, the highlight's is 0. Arithmetic is float32.

    Args:
        depth: (B, 1, H, W) relative depth, float32, on a CUDA device; any strides.
        image_linear: (B or 1, 3, H, W) linear colours in [0, 1], float32, float16 or bfloat16; any strides.
        direction: (B, L, 3) unit vectors l towards the light, float32.
        diffuse: (B, L, 3) weight k_d >= 0 per colour channel; light colour and exposure are folded in.
        specular: (B, L, 3) weight k_s >= 0, likewise.
        shininess: (B, L) exponent p > 0.
        ambient: share a of the photo that is added unshaded.
        out_dtype: of the result: float32, float16 or bfloat16.

    Returns:
        (B, L, 3, H, W) sRGB in [1e-3, 1].

    Raises:
        TypeError: a dtype is not one of those above.
        ValueError: a shape or a device does not fit, a light requires grad (these kernels have none for it),
            or the tensors are not on a CUDA device.
    """
    lights = {"direction": direction, "diffuse": diffuse, "specular": specular, "shininess": shininess}
    _check_shapes(depth, image_linear, lights)
    _check_dtypes(depth, image_linear, lights, out_dtype)
    _check_devices(depth, {"image_linear": image_linear, **lights})
    if torch.is_grad_enabled():
        for name, value in lights.items():
            if value.requires_grad:
                raise ValueError(f"the triton kernels have no gradient for {name}; use backend torch")
    image = image_linear.expand(depth.shape[0], -1, -1, -1)
    return _Relight.apply(depth, image, float(ambient), out_dtype, *lights.values())


def _check_shapes(depth: Tensor, image: Tensor, lights: dict[str, Tensor]) -> None:
    if depth.dim() != 4 or depth.shape[1] != 1 or depth.numel() == 0:
        raise ValueError(f"depth must be (B, 1, H, W) and not empty, got {tuple(depth.shape)}")
    batch, _, height, width = depth.shape
    if tuple(image.shape) not in {(n, 3, height, width) for n in (1, batch)}:
        raise ValueError(
            f"image_linear must be ({batch} or 1, 3, {height}, {width}) like the depth, "
            f"got {tuple(image.shape)}"
        )
    count = lights["direction"].shape[1] if lights["direction"].dim() == 3 else 1
    for name, value in lights.items():
        expected = (batch, max(count, 1), 3)[: 2 if name == "shininess" else 3]
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} must be {expected} for a batch of {batch}, got {tuple(value.shape)}")


def _check_dtypes(depth: Tensor, image: Tensor, lights: dict[str, Tensor], out_dtype: torch.dtype) -> None:
    for name, value in {"depth": depth, **lights}.items():
        if value.dtype != torch.float32:
            raise TypeError(f"{name} must be float32, got {value.dtype}")
    for name, dtype in (("image_linear", image.dtype), ("out_dtype", out_dtype)):
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise TypeError(f"{name} must be float32, float16 or bfloat16, got {dtype}")


def _check_devices(depth: Tensor, others: dict[str, Tensor]) -> None:
    for name, value in others.items():
        if value.device != depth.device:
            raise ValueError(f"{name} must be on {depth.device} as the depth is, got {value.device}")
    if depth.device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"the triton kernels need a CUDA device, got {depth.device}; use backend torch, or set "
            "TRITON_INTERPRET=1 before the import to run them in Triton's slow interpreter"
        )
