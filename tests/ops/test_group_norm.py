"""The kernels against their twin in float64, on the GPU or in Triton's interpreter."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redepth.ops import group_norm as twin
from redepth.ops.triton import kernels as support
from tests.support.helpers import relative_error, seeded

triton = pytest.importorskip("triton")

from redepth.ops.triton import group_norm as kernels  # noqa: E402
from redepth.ops.triton.group_norm import autograd, launch  # noqa: E402

# The interpreter's exponential warns when it overflows to infinity, which is the right result.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

DEVICE = torch.device("cpu" if kernels.INTERPRETED else "cuda")
TOLERANCE = 1e-6
HALVES = [(torch.float16, 6e-4), (torch.bfloat16, 5e-3)]


@pytest.fixture(params=["alone", "in chunks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both forward paths: one program for each group, and sums over chunks."""
    if request.param == "in chunks":
        monkeypatch.setattr(launch, "LARGEST_WHOLE", 0)
    launch.whole_tile.cache_clear()
    yield
    launch.whole_tile.cache_clear()


BOTH_WAYS = pytest.mark.usefixtures("way")

# (N, C, H, W) and groups: channels per group 4, 10, 20, 30, 40, 60, 80, 1; pixels that fill no tile.
SHAPES = [
    ((2, 16, 5, 7), 4),
    ((1, 320, 4, 3), 32),
    ((1, 40, 17, 9), 2),
    ((3, 60, 6, 6), 2),
    ((2, 80, 3, 5), 2),
    ((1, 120, 9, 2), 2),
    ((1, 160, 1, 3), 2),
    ((2, 6, 4, 4), 6),
    ((1, 32, 40, 40), 8),
]


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def inputs(
    shape: tuple[int, ...], *, mean: float = 0.0, std: float = 1.0, seed: int = 0
) -> dict[str, Tensor]:
    g = seeded(seed)
    weight = 1 + 0.5 * torch.randn(shape[1], generator=g)
    bias = 0.5 * torch.randn(shape[1], generator=g)
    return {"x": mean + std * torch.randn(shape, generator=g), "weight": weight, "bias": bias}


def run(
    norm: Callable[..., Tensor],
    given: dict[str, Tensor],
    groups: int,
    *,
    silu: bool,
    addend: Tensor | None = None,
    dtype: torch.dtype | None = None,
    layout: Callable[[Tensor], Tensor] = channels_last,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Normalise and backpropagate a random cotangent; return the result and the gradient of x."""
    given = {name: value.to(DEVICE, dtype) for name, value in given.items()}
    x = layout(given["x"]).detach().requires_grad_()
    if addend is not None:
        addend = addend.to(DEVICE, dtype)
    y = norm(x, groups, given["weight"], given["bias"], eps, silu=silu, addend=addend)
    cotangent = torch.randn(y.shape, generator=seeded(1)).to(given["x"])
    y.backward(layout(cotangent))
    assert x.grad is not None
    assert y.dtype == x.grad.dtype == x.dtype
    assert y.shape == x.shape
    return y.detach(), x.grad


def compare(
    given: dict[str, Tensor], groups: int, *, silu: bool = True, tolerance: float = TOLERANCE, **options: Any
) -> None:
    """Compare outputs and gradients of the kernels with the twin in float64, on the same inputs."""
    found = run(kernels.group_norm, given, groups, silu=silu, **options)
    options["dtype"] = torch.float64
    expected = run(twin.group_norm, given, groups, silu=silu, **options)
    for name, ours, theirs in zip(("y", "gradient"), found, expected, strict=True):
        assert relative_error(ours.double(), theirs) < tolerance, name


@BOTH_WAYS
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("silu", [True, False])
def test_the_kernels_agree_with_their_twin(shape: tuple[int, ...], groups: int, silu: bool) -> None:
    compare(inputs(shape), groups, silu=silu)


@pytest.mark.slow
@BOTH_WAYS
@pytest.mark.parametrize(("shape", "groups"), SHAPES[:4])
@pytest.mark.parametrize("own", [True, False])
def test_an_addend_is_added_before(shape: tuple[int, ...], groups: int, own: bool) -> None:
    """The addend is one for all pictures or one for each, and as large as the pictures' spread."""
    addend = 3 * torch.randn(shape[0] if own else 1, shape[1], generator=seeded(5))
    compare(inputs(shape), groups, addend=addend)
    given = inputs(shape)
    moved = {**given, "x": given["x"] + addend[..., None, None]}
    found, _ = run(kernels.group_norm, given, groups, silu=True, addend=addend)
    assert relative_error(found, run(kernels.group_norm, moved, groups, silu=True)[0]) < 1e-5


@BOTH_WAYS
def test_vectors_of_any_stride_are_read_correctly() -> None:
    given = inputs((2, 16, 5, 4))
    expected = run(kernels.group_norm, given, 4, silu=True)
    for name in ("weight", "bias"):
        given[name] = given[name].repeat_interleave(2)[::2]
    found = run(kernels.group_norm, given, 4, silu=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_an_addend_that_does_not_fit_is_refused() -> None:
    given = {name: value.to(DEVICE) for name, value in inputs((3, 8, 4, 4)).items()}
    with pytest.raises(ValueError, match=r"addend must be \(1, 8\) or \(3, 8\), got \(2, 8\)"):
        kernels.group_norm(**given, groups=2, addend=torch.zeros(2, 8, device=DEVICE))


@pytest.mark.parametrize("silu", [True, False])
def test_the_twin_is_torch_group_norm(silu: bool) -> None:
    given = inputs((2, 8, 5, 4))
    exact = F.group_norm(given["x"], 4, given["weight"], given["bias"], 1e-5)
    found = twin.group_norm(given["x"], 4, given["weight"], given["bias"], 1e-5, silu=silu)
    assert torch.equal(found, F.silu(exact) if silu else exact)


@pytest.mark.parametrize("silu", [True, False])
def test_the_twin_passes_gradcheck(silu: bool) -> None:
    given = [value.double().requires_grad_() for value in inputs((2, 6, 3, 2)).values()]
    assert torch.autograd.gradcheck(lambda x, w, b: twin.group_norm(x, 3, w, b, silu=silu), given)


# --- numbers --------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("silu", [True, False])
def test_a_large_mean_costs_no_digits(silu: bool) -> None:
    """The remaining error is that of the mean itself: 100 is rounded to 4e-6 where the deviation is 0.1."""
    compare(inputs((1, 16, 33, 35), mean=100.0, std=0.1), 4, silu=silu, tolerance=1e-4)


@BOTH_WAYS
def test_channels_of_different_means_and_pixels_that_stand_out() -> None:
    given = inputs((1, 8, 24, 24))
    given["x"] += 50 * torch.arange(8.0).view(1, 8, 1, 1)
    given["x"][:, :, 0, 0] = 1e4
    compare(given, 2, tolerance=1e-5)


@BOTH_WAYS
def test_a_constant_picture_is_its_bias() -> None:
    given = inputs((1, 8, 9, 9), std=0.0, mean=3.0)
    y, gradient = run(kernels.group_norm, given, 2, silu=False)
    assert torch.allclose(y.cpu(), given["bias"].view(1, 8, 1, 1).expand_as(y), atol=1e-4)
    assert torch.isfinite(gradient).all()


@BOTH_WAYS
@pytest.mark.parametrize(("dtype", "tolerance"), HALVES)
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_half_precision_is_rounded_once(dtype: torch.dtype, tolerance: float, mean: float) -> None:
    given = {k: v.to(dtype) for k, v in inputs((2, 40, 9, 8), mean=mean).items()}
    compare(given, 4, dtype=dtype, tolerance=tolerance)


@BOTH_WAYS
def test_float16_sums_do_not_overflow() -> None:
    given = {k: v.to(torch.float16) for k, v in inputs((1, 4, 30, 30), mean=3e4, std=1e3).items()}
    compare(given, 2, dtype=torch.float16, tolerance=6e-4)


@BOTH_WAYS
def test_the_same_to_the_bit_in_every_run_and_in_every_batch() -> None:
    given = inputs((3, 20, 11, 9))
    first, second = (run(kernels.group_norm, given, 2, silu=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    alone = run(kernels.group_norm, {**given, "x": given["x"][:1]}, 2, silu=True)
    assert torch.equal(alone[0], first[0][:1])


# --- memory ---------------------------------------------------------------------------------------


def strided(x: Tensor) -> Tensor:
    wide = x.new_zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:])
    wide[:, ::2] = x
    return wide[:, ::2]


@BOTH_WAYS
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, channels_last])
def test_layouts(layout: Callable[[Tensor], Tensor]) -> None:
    given = inputs((2, 12, 5, 6))
    compare(given, 3, layout=layout)
    y, gradient = run(kernels.group_norm, given, 3, silu=True, layout=layout)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.shape == y.shape


def test_sequences_and_one_cotangent_for_all() -> None:
    """Attention normalises (N, C, P), the transpose of (N, P, C)."""
    given = inputs((2, 12, 15))
    compare(given, 3, layout=lambda x: x.mT.contiguous().mT)
    x = given["x"].to(DEVICE).requires_grad_()
    weight, bias = given["weight"].to(DEVICE), given["bias"].to(DEVICE)
    (found,) = torch.autograd.grad(kernels.group_norm(x, 3, weight, bias, silu=True).sum(), x)
    (expected,) = torch.autograd.grad(twin.group_norm(x, 3, weight, bias, silu=True).sum(), x)
    assert relative_error(found, expected) < 1e-5


def test_only_x_mean_and_deviation_are_kept() -> None:
    given = {k: v.to(DEVICE) for k, v in inputs((2, 12, 8, 8)).items()}
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        kernels.group_norm(given["x"], 3, given["weight"], given["bias"])
        assert kept == []
        kernels.group_norm(given["x"].requires_grad_(), 3, given["weight"], given["bias"])
    assert sorted(kept) == [(2, 3), (2, 3), (2, 12, 8, 8), (12,), (12,)]


def test_a_second_derivative_is_an_error() -> None:
    given = {k: v.to(DEVICE) for k, v in inputs((1, 4, 3, 3)).items()}
    x = given["x"].requires_grad_()
    y = kernels.group_norm(x, 2, given["weight"], given["bias"])
    (gradient,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- as operators ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("silu", [True, False])
def test_the_operators_follow_the_rules_of_torch(silu: bool) -> None:
    given = {k: v.to(DEVICE) for k, v in inputs((2, 8, 4, 5)).items()}
    x = channels_last(given["x"]).requires_grad_()
    for addend in (None, torch.ones(1, 8, device=DEVICE)):
        arguments = (x, 2, given["weight"], given["bias"], 1e-5, silu, addend)
        torch.library.opcheck(autograd._forward_op, arguments)


@pytest.mark.parametrize("grad", [True, False])
def test_a_compiled_caller_keeps_them_in_one_graph(grad: bool) -> None:
    given = {k: v.to(DEVICE) for k, v in inputs((2, 8, 4, 5)).items()}

    def call(x: Tensor) -> Tensor:
        return twin.fused_group_norm(2 * x, 2, given["weight"], given["bias"], silu=True) + 1

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    x = channels_last(given["x"]).requires_grad_(grad)
    expected, found = call(x), compiled(x)
    assert torch.equal(found, expected)
    if grad:
        cotangent = torch.randn(x.shape, generator=seeded(1)).to(DEVICE)
        pulled = [torch.autograd.grad(y, x, cotangent)[0] for y in (expected, found)]
        assert torch.equal(*pulled)


# --- the choice ------------------------------------------------------------------------------------


def chosen(monkeypatch: pytest.MonkeyPatch, x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    calls: list[bool] = []
    original = kernels.group_norm
    monkeypatch.setattr(kernels, "group_norm", lambda *a, **k: (calls.append(True), original(*a, **k))[1])
    y, expected = (
        f(x, 2, weight, bias, silu=True).detach() for f in (twin.fused_group_norm, twin.group_norm)
    )
    assert relative_error(y, expected) < 1e-6
    return bool(calls)


def test_the_kernels_are_used_where_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = (v.to(DEVICE) for v in inputs((1, 4, 3, 3)).values())
    assert chosen(monkeypatch, x, weight, bias)
    assert not chosen(monkeypatch, x.double(), weight.double(), bias.double())
    assert not chosen(monkeypatch, x, weight.clone().requires_grad_(), bias)
    monkeypatch.setattr(support, "TRITON_PROBLEM", "not there")
    assert not chosen(monkeypatch, x, weight, bias)


def test_without_a_gpu_and_the_interpreter_the_twin_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = inputs((1, 4, 3, 3)).values()
    monkeypatch.setattr(support, "INTERPRETED", False)
    assert not chosen(monkeypatch, x, weight, bias)
    monkeypatch.setattr(autograd, "INTERPRETED", False)
    with pytest.raises(ValueError, match="need a CUDA device, got cpu; use the twin, or set TRITON_INT"):
        kernels.group_norm(x, 2, weight, bias)


def test_an_older_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "3.1.0")
    assert support.triton_problem().startswith("triton 3.1.0 is older than 3.4")

    def missing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert support.triton_problem().startswith("pip install")


def test_wrong_arguments_are_refused() -> None:
    x, weight, bias = (v.to(DEVICE) for v in inputs((2, 6, 3, 4)).values())
    for arguments, message in (
        ((x[0, 0], 2, weight, bias), "x must be"),
        ((x[:0], 2, weight, bias), "not empty"),
        ((x, 4, weight, bias), "6 channels do not fall into 4 groups"),
        ((x, 2, weight[:3], bias), r"weight must be \(6,\), got \(3,\)"),
        ((x, 2, weight, bias.to("meta")), "bias must be on"),
        ((x, 2, weight, bias.clone().requires_grad_()), "no gradient for bias"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.group_norm(*arguments)
    with pytest.raises(TypeError, match=r"x must be float32, float16 or bfloat16, got torch\.float64"):
        kernels.group_norm(x.double(), 2, weight, bias)


# --- compiled code --------------------------------------------------------------------------------

COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from redepth.ops.triton.group_norm import INTERPRETED, ahead_of_time

assert not INTERPRETED
cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
found = {}
for shape, dtype, silu in json.loads(sys.argv[1]):
    for name, (source, launch) in ahead_of_time(shape, dtype=dtype, silu=silu).items():
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch)
        binary = Path(tempfile.mkdtemp()) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([cuobjdump, "--dump-resource-usage", binary], capture_output=True, text=True)
        fields = re.findall(r"(REG|STACK|SHARED|LOCAL):(\\d+)", usage.stdout)
        key = f"{name} {shape} {dtype} {silu}"
        found[key] = {field: int(number) for field, number in fields}
        found[key]["wide"] = len(re.findall(r"ld\\.global[.\\w:]*\\.v4", compiled.asm["ptx"]))
print(json.dumps(found))
"""


def compiled(tmp_path: Path, wanted: list[tuple[tuple[int, ...], str, bool]]) -> dict[str, dict[str, int]]:
    """Compile for a GPU, which need not be present, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", COMPILE, json.dumps(wanted)]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, dict[str, int]]) -> None:
    """No kernel spills; kernels that read pictures load 16 bytes a lane."""
    for kernel, usage in found.items():
        assert usage["STACK"] == usage["LOCAL"] == 0, (kernel, usage)
        assert 0 < usage["REG"] <= 128, (kernel, usage)
        assert usage["wide"] > 0 or "_join" in kernel or "_whole" in kernel, (kernel, usage)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler exists on Linux only")
def test_compiled_code_spills_nothing(tmp_path: Path) -> None:
    shapes = (1, 128, 512, 512), (2, 1280, 16, 16)
    found = compiled(tmp_path, [(shape, "fp16", True) for shape in shapes])
    assert len(found) == 10
    check(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler exists on Linux only")
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_every_shape_of_stable_diffusion_compiles_without_spills(tmp_path: Path, dtype: str) -> None:
    encoder = [(128, 512), (128, 256), (256, 256), (256, 128), (512, 128), (512, 64)]
    unet = [(320, 64), (640, 64), (960, 64), (640, 32), (1920, 32), (1280, 16), (2560, 16), (1280, 8)]
    variants = [((2, c, side, side), dtype, silu) for c, side in encoder + unet for silu in (True, False)]
    check(compiled(tmp_path, variants))
