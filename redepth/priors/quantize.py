"""Weights of a frozen denoiser in 8 or 4 bits.

A score rule needs the denoiser's predictions alone, so its weights need no gradient, and neither does its
input. `vsd` is the exception: it trains adapters inside the denoiser, whose gradients pass its layers.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.errors import ConfigError
from redepth.registry import require

Quantize = Literal["none", "fp8-storage", "int8", "nf4"]

EXTRA = "int8"
PACKAGES = ("bitsandbytes", "accelerate")
"""The packages of ``int8`` and ``nf4``, all in the extra `EXTRA`."""

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Largest number of float8 e4m3."""


def by_library(form: Quantize) -> bool:
    """Return whether bitsandbytes quantises the weights, while they are loaded."""
    return form in ("int8", "nf4")


def check_packages(form: Quantize) -> None:
    """Raise MissingDependencyError if a package is missing that the form needs."""
    if by_library(form):
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                require(package, EXTRA)


class _CastOfInputs(logging.Filter):
    """Leaves out what bitsandbytes says at each call of each layer; the documentation says it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is another one."""
        return "inputs will be cast" not in str(record.msg)


_CAST_OF_INPUTS = _CastOfInputs()


def check_device(form: Quantize, device: torch.device) -> None:
    """Raise ConfigError if a form cannot run on a device."""
    runs_on = {"none": (), "fp8-storage": ("cpu", "cuda"), "int8": ("cuda",), "nf4": ("cuda",)}[form]
    if runs_on and device.type not in runs_on:
        kinds = " or ".join({"cpu": "a CPU", "cuda": "an NVIDIA GPU"}[kind] for kind in runs_on)
        other = "fp8-storage or none" if device.type == "cpu" else "none"
        raise ConfigError(
            f"prior.quantize: {form} runs on {kinds}, and the device is '{device}': take {other}"
        )


def loading_options(form: Quantize, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the options by which diffusers quantises a model while it loads it; none for other forms.

    Raises:
        MissingDependencyError: a package is missing.
    """
    if not by_library(form):
        return {}
    check_packages(form)
    from diffusers import BitsAndBytesConfig

    if form == "int8":
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_CAST_OF_INPUTS)
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    # The fast path of loading needs accelerate, and so does bitsandbytes.
    return {"quantization_config": config, "device_map": {"": str(device)}, "low_cpu_mem_usage": True}


# --- fp8 storage ----------------------------------------------------------------------------------


class StoredLinear(nn.Linear):
    """A linear layer with `stored` weights."""

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Compute in the dtype of x."""
        return F.linear(x, widened(self.weight, self.scale, x.dtype), _cast(self.bias, x))


class StoredConv2d(nn.Conv2d):
    """A convolution with `stored` weights."""

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Compute in the dtype of x."""
        return self._conv_forward(x, widened(self.weight, self.scale, x.dtype), _cast(self.bias, x))


_STORED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: StoredLinear, nn.Conv2d: StoredConv2d}


def stored(weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return a weight in float8 (e4m3), and the scale of each of its rows.

    .. math:: w \approx 2^k q, \qquad k = \lceil \log_2 (\max |w| / 448) \rceil

    A power of 2 multiplies without rounding (in float16 down to its smallest numbers), so that the error is
    that of float8 alone: at most 1 part in 16 of a weight, and 2^-18 of the largest in its row. Without a
    scale, weights below 2^-6 have fewer digits; most of a large model's are.

    Args:
        weight: (rows, ...).

    Returns:
        q like the weight, and 2^k, float32 (rows, 1, ...).
    """
    largest = weight.detach().float().abs().flatten(1).amax(dim=1).clamp(min=2.0**-100)
    scale = torch.exp2(torch.ceil(torch.log2(largest / LARGEST)))
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight.detach().float() / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def widened(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight that `stored` has taken, as a new tensor in another dtype."""
    return weight.to(dtype) * scale.to(dtype)


def store_in_fp8(network: nn.Module) -> None:
    """Keep the weights of a network's large layers in float8; they compute in the dtype of their input.

    Linear layers and convolutions are changed, except those that diffusers' layerwise casting leaves out as
    well: norms, embeddings of positions, and what the model's class names. Biases keep their dtype. The
    library's own casting is not used: it replaces the ``forward`` of layers, as `runtime.networks.execute`
    does, and it casts in place, which a CUDA graph cannot repeat.
    """
    skipped = _skipped(network)
    for name, layer in network.named_modules():
        if type(layer) not in _STORED or any(re.search(pattern, name) for pattern in skipped):
            continue
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        weight, scale = stored(layer.weight)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.register_buffer("scale", scale, persistent=False)
        layer.__class__ = _STORED[type(layer)]  # type: ignore[assignment]


def widen(network: nn.Module) -> None:
    """Take a network to float32, without the weights that are stored in float8."""

    def wide(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() and tensor.dtype != FP8 else tensor

    network._apply(wide)


def _skipped(network: Any) -> Sequence[str]:
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

    own = getattr(network, "_skip_layerwise_casting_patterns", None) or ()
    in_full = getattr(network, "_keep_in_fp32_modules", None) or ()
    return (*DEFAULT_SKIP_MODULES_PATTERN, *own, *in_full)


def _cast(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype)
