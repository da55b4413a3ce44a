"""The kernels against their twin in float64: in Triton's interpreter, and on the GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redepth.ops import shading
from tests.support.helpers import relative_error, seeded

triton = pytest.importorskip("triton")

from redepth.ops.triton import blinn_phong as shading_triton  # noqa: E402
from redepth.ops.triton.blinn_phong import autograd, launch  # noqa: E402

# The interpreter takes logarithms of what is masked afterwards.
pytestmark = [pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]
if not shading_triton.INTERPRETED:
    # Each layout is a kernel of its own.
    pytestmark += [pytest.mark.gpu, pytest.mark.compiles]

DEVICE = torch.device("cpu" if shading_triton.INTERPRETED else "cuda")
# The hardware's logarithm is off by 2^-22, times the exponent of the highlight.
TOLERANCE = 1e-5 if shading_triton.INTERPRETED else 1e-4
INVALID = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0)

Inputs = dict[str, Any]


def inputs(
    height: int,
    width: int,
    *,
    batch: int = 1,
    images: int = 1,
    lights: int = 1,
    invalid: float = 0.0,
    ambient: float = 0.1,
    seed: int = 0,
) -> Inputs:
    """Rough terrain, a photo and coloured lights, some from behind; a share of the pixels is invalid."""
    g = seeded(seed)
    depth = 1 + torch.rand(batch, 1, height, width, generator=g) / max(height, width, 4)
    kind = torch.rand(depth.shape, generator=g) / max(invalid, 1e-9) * len(INVALID)
    for number, value in enumerate(INVALID):
        depth[kind.long() == number] = value
    direction = torch.rand(batch, lights, 3, generator=g) * 2 - torch.tensor([1.0, 1.0, 0.3])
    return {
        "depth": depth,
        "image_linear": torch.rand(images, 3, height, width, generator=g),
        "direction": shading.normalize(direction),
        "diffuse": torch.rand(batch, lights, 3, generator=g),
        "specular": torch.rand(batch, lights, 3, generator=g) * 0.6,
        "shininess": 2.0 ** torch.randint(0, 8, (batch, lights), generator=g),
        "ambient": ambient,
    }


def run(
    relight: Callable[..., Tensor],
    given: Inputs,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = DEVICE,
    rounding: torch.dtype = torch.float32,
    layout: Callable[[Tensor], Tensor] = Tensor.contiguous,
    cotangent: Callable[[Tensor], Tensor] | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Relight and pull a random cotangent back: the result and the gradients of depth and photo."""
    tensors = {k: v.to(device, dtype) for k, v in given.items() if isinstance(v, Tensor)}
    depth, image = (layout(tensors[k]).detach().requires_grad_() for k in ("depth", "image_linear"))
    relit = relight(**{**given, **tensors, "depth": depth, "image_linear": image}, **options)
    pulled = torch.randn(relit.shape, generator=seeded(1)).to(rounding).to(relit)
    relit.backward((cotangent or layout)(pulled))
    assert depth.grad is not None
    assert image.grad is not None
    assert image.grad.dtype == image.dtype
    return relit.detach(), depth.grad, image.grad


def compare(
    given: Inputs,
    *,
    tolerance: float = TOLERANCE,
    out_dtype: torch.dtype = torch.float32,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hold the kernels against the twin in float64: same inputs, same cotangent, outputs and gradients."""
    options["rounding"] = out_dtype
    found = run(shading_triton.relight_blinn_phong, given, out_dtype=out_dtype, **options)
    expected = run(shading.relight_blinn_phong, given, dtype=torch.float64, **options)
    assert found[0].dtype == out_dtype
    for name, ours, theirs in zip(("relit", "depth.grad", "image.grad"), found, expected, strict=True):
        assert torch.isfinite(ours).all(), name
        assert relative_error(ours.double(), theirs) < tolerance, name
    return found


@pytest.fixture
def small_programs(monkeypatch: pytest.MonkeyPatch) -> launch.Launch:
    """Few rows and one strip per program, so that small images take many programs."""
    cut = launch.Launch(rows=3, strips=1)
    monkeypatch.setattr(launch, "FORWARD", cut)
    monkeypatch.setattr(launch, "BACKWARD", cut)
    return cut


# --- the twin -------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 2])
def test_gradcheck_of_the_twin(images: int) -> None:
    given = inputs(4, 5, batch=2, images=images, lights=2)
    # These three stay what they are when gradcheck nudges them.
    given["depth"][0, 0, 1, 1:4] = torch.tensor([float("nan"), float("inf"), -1.0])
    doubles = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    depth, image = doubles.pop("depth").requires_grad_(), doubles.pop("image_linear").requires_grad_()

    def relight(z: Tensor, i: Tensor) -> Tensor:
        return shading.relight_blinn_phong(z, i, **doubles)

    assert torch.autograd.gradcheck(relight, (depth, image))


# --- kernels against the twin ---------------------------------------------------------------------

SIZES = [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (2, 2), (3, 5), (4, 6), (5, 63)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sizes(height: int, width: int) -> None:
    compare(inputs(height, width))


@pytest.mark.parametrize(("height", "width"), [(8, 58), (6, 59), (7, 60), (3, 61), (4, 121)])
def test_strips_and_rows_of_programs_meet(height: int, width: int, small_programs: Any) -> None:
    compare(inputs(height, width, invalid=0.1))


@pytest.mark.slow
def test_the_smallest_normals_are_damped_as_the_twins() -> None:
    """In a tall image |c| is small enough for the 1e-8 that is added to it to show."""
    compare(inputs(130, 2), tolerance=0.3 * TOLERANCE)


def test_the_cut_to_programs_changes_nothing(small_programs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(7, 66, invalid=0.1)
    small = run(shading_triton.relight_blinn_phong, given)
    monkeypatch.setattr(launch, "FORWARD", launch.Launch(rows=5, strips=2))
    monkeypatch.setattr(launch, "BACKWARD", launch.Launch(rows=2, strips=4))
    for one, other in zip(small, run(shading_triton.relight_blinn_phong, given), strict=True):
        assert relative_error(other, one) < 1e-6


@pytest.mark.parametrize(("batch", "images"), [(1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("lights", [1, 3])
def test_batches_photos_and_lights(batch: int, images: int, lights: int) -> None:
    compare(inputs(5, 9, batch=batch, images=images, lights=lights, invalid=0.1))


@pytest.mark.parametrize("seed", range(3))
def test_invalid_pixels_leave_no_nan_and_the_twins_gradient(seed: int) -> None:
    compare(inputs(9, 12, lights=2, invalid=0.5, seed=seed))


@pytest.mark.parametrize("value", INVALID)
def test_an_image_of_invalid_pixels_alone(value: float) -> None:
    given = inputs(4, 6)
    given["depth"].fill_(value)
    _, depth_grad, _ = compare(given)
    assert not depth_grad.any()


def test_every_border_pixel_next_to_an_invalid_one() -> None:
    given = inputs(6, 8)
    given["depth"][..., 1::2, ::2] = float("nan")
    given["depth"][..., ::2, 1::2] = float("inf")
    _, depth_grad, _ = compare(given)
    assert not depth_grad[..., 1::2, ::2].any()


def test_saturated_and_black_pixels() -> None:
    given = inputs(6, 10, lights=2)
    given["image_linear"][..., ::3] = 0.0
    given["image_linear"][..., 1::3] = 1.0
    compare(given)
    given["direction"][:] = torch.tensor([0.0, 0.0, 1.0])
    given["diffuse"].fill_(3.0)
    given["specular"].zero_()
    relit, _, image_grad = compare(given)
    assert relit[..., ::3].max() == pytest.approx(shading.FLOOR ** (1 / 2.2), rel=1e-5)
    assert (relit[..., 1::3] == 1).all()
    assert not image_grad[..., ::3].any()
    assert not image_grad[..., 1::3].any()


def test_at_the_clip_itself_the_gradient_passes() -> None:
    """A flat white surface under a frontal light of weight 1 reflects 1 exactly, on both sides."""
    given = inputs(4, 4, ambient=0.0)
    given["depth"].fill_(1.0)
    given["image_linear"].fill_(1.0)
    given["direction"][:] = torch.tensor([0.0, 0.0, 1.0])
    given["diffuse"].fill_(1.0)
    given["specular"].zero_()
    _, _, image_grad = compare(given)
    assert image_grad.all()


def test_lights_from_behind_leave_the_ambient_share() -> None:
    given = inputs(4, 6, ambient=0.3)
    given["direction"][:] = torch.tensor([0.0, 0.6, -0.8])
    given["specular"].zero_()
    relit, depth_grad, _ = compare(given)
    assert torch.allclose(relit[:, 0].cpu(), shading.develop(0.3 * given["image_linear"]), atol=1e-6)
    assert not depth_grad.any()


@pytest.mark.parametrize("shininess", [0.5, 1.0, 256.0])
def test_exponents(shininess: float) -> None:
    given = inputs(5, 6, lights=2)
    given["shininess"].fill_(shininess)
    compare(given, tolerance=3 * TOLERANCE)


def test_a_photo_with_a_hole_is_not_painted_over() -> None:
    given = inputs(4, 6)
    given["image_linear"][0, 1, 2, 3] = float("nan")
    relit, _, _ = run(shading_triton.relight_blinn_phong, given)
    assert torch.isnan(relit).nonzero().tolist() == [[0, 0, 1, 2, 3]]


# --- memory ---------------------------------------------------------------------------------------


def shifted(tensor: Tensor) -> Tensor:
    """The same values, contiguous, but one element off any alignment."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


def strided(tensor: Tensor) -> Tensor:
    """The same values in every second column of every third row."""
    wide = tensor.new_zeros(*tensor.shape[:-2], 3 * tensor.shape[-2], 2 * tensor.shape[-1])
    wide[..., ::3, ::2] = tensor
    return wide[..., ::3, ::2]


def transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)


@pytest.mark.parametrize("layout", [shifted, strided, transposed, channels_last])
def test_layouts(layout: Callable[[Tensor], Tensor]) -> None:
    given = inputs(4, 6, batch=2, images=2, lights=2, invalid=0.1)
    plain = run(shading_triton.relight_blinn_phong, given)
    for name in ("direction", "diffuse", "specular", "shininess"):
        given[name] = transposed(given[name])
    found = run(shading_triton.relight_blinn_phong, given, layout=layout)
    for one, other in zip(plain, found, strict=True):
        assert relative_error(other, one) < 1e-6


def far_apart(tensor: Tensor) -> Tensor:
    """The same values, each light's picture so far from the next that all lie beyond 2^31 elements.

    The memory between them is never touched, and so never taken.
    """
    apart = 2**31 // (tensor.shape[1] - 1) + 2
    apart += apart % 2
    inner = tensor[0, 0].numel()
    strides = (tensor.shape[1] * apart, apart, *tensor[0, 0].contiguous().stride())
    wide = torch.empty(tensor.shape[1] * apart, dtype=tensor.dtype, device=tensor.device)
    assert inner < apart < 2**31
    return wide.as_strided(tensor.shape, strides).copy_(tensor)


@pytest.mark.slow
@pytest.mark.skipif(not shading_triton.INTERPRETED, reason="a GPU takes the memory between the pictures too")
def test_lights_beyond_the_range_of_32_bits() -> None:
    """64 lights of 3371 x 3371 pixels are so many elements; `test_gpu` has them."""
    compare(inputs(4, 6, lights=64), out_dtype=torch.float16, tolerance=1e-3, cotangent=far_apart)


def test_one_cotangent_for_every_pixel() -> None:
    compare(inputs(4, 6, lights=2), cotangent=lambda c: c[..., :1, :1].expand(c.shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("width", [6, 7])
def test_half_precision(dtype: torch.dtype, tolerance: float, width: int) -> None:
    given = inputs(4, width, lights=2)
    compare(given, out_dtype=dtype, tolerance=tolerance)
    given["image_linear"] = given["image_linear"].to(dtype)
    compare(given, tolerance=tolerance)
    compare(given, out_dtype=dtype, tolerance=tolerance)


@pytest.mark.slow
def test_the_same_to_the_bit_in_every_run() -> None:
    given = inputs(6, 62, batch=2, lights=2, invalid=0.1)
    first, second = (run(shading_triton.relight_blinn_phong, given) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


# --- autograd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [("depth",), ("image_linear",), ()])
def test_gradients_only_where_they_are_wanted(wanted: Sequence[str]) -> None:
    given = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in inputs(4, 6).items()}
    expected = dict(zip(("depth", "image_linear"), run(shading.relight_blinn_phong, given)[1:], strict=True))
    for name in wanted:
        given[name].requires_grad_()
    relit = shading_triton.relight_blinn_phong(**given)
    assert relit.requires_grad == bool(wanted)
    if wanted:
        relit.backward(torch.randn(relit.shape, generator=seeded(1)).to(DEVICE))
    for name, gradient in expected.items():
        found = given[name].grad
        assert (found is not None) == (name in wanted)
        if found is not None:
            assert relative_error(found, gradient) < TOLERANCE * 10


def test_there_is_no_second_derivative() -> None:
    given = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in inputs(3, 4).items()}
    relit = shading_triton.relight_blinn_phong(**{**given, "depth": given["depth"].requires_grad_()})
    (gradient,) = torch.autograd.grad((relit**2).sum(), given["depth"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- what is refused ------------------------------------------------------------------------------

LIGHT = ("direction", "diffuse", "specular", "shininess")


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_that_requires_grad_is_refused(name: str) -> None:
    given = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in inputs(3, 4).items()}
    given[name].requires_grad_()
    with pytest.raises(ValueError, match=f"no gradient for {name}; use backend torch"):
        shading_triton.relight_blinn_phong(**given)
    with torch.no_grad():
        assert shading_triton.relight_blinn_phong(**given).shape == (1, 1, 3, 3, 4)


WRONG_SHAPES = [
    ("depth", (1, 3, 4), r"depth must be \(B, 1, H, W\) and not empty, got \(1, 3, 4\)"),
    ("depth", (2, 3, 3, 4), r"depth must be \(B, 1, H, W\)"),
    ("depth", (2, 1, 0, 4), r"not empty"),
    ("image_linear", (1, 3, 4, 3), r"image_linear must be \(2 or 1, 3, 3, 4\) like the depth, got"),
    ("image_linear", (3, 3, 3, 4), r"image_linear must be"),
    ("image_linear", (2, 1, 3, 4), r"image_linear must be"),
    ("direction", (2, 3), r"direction must be \(2, 1, 3\) for a batch of 2, got \(2, 3\)"),
    ("direction", (1, 2, 3), r"direction must be \(2, 2, 3\)"),
    ("direction", (2, 0, 3), r"direction must be \(2, 1, 3\)"),
    ("diffuse", (2, 2), r"diffuse must be \(2, 2, 3\) for a batch of 2, got \(2, 2\)"),
    ("specular", (2, 1, 3), r"specular must be \(2, 2, 3\)"),
    ("shininess", (2, 2, 3), r"shininess must be \(2, 2\)"),
]


@pytest.mark.parametrize(("name", "shape", "message"), WRONG_SHAPES)
def test_wrong_shapes_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    given = inputs(3, 4, batch=2, lights=2)
    with pytest.raises(ValueError, match=message):
        shading_triton.relight_blinn_phong(**{**given, name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("depth", torch.float64, "depth must be float32, got torch.float64"),
        ("depth", torch.float16, "depth must be float32"),
        ("shininess", torch.int64, "shininess must be float32, got torch.int64"),
        ("image_linear", torch.uint8, "image_linear must be float32, float16 or bfloat16, got torch.uint8"),
    ],
)
def test_wrong_dtypes_are_refused(name: str, value: torch.dtype, message: str) -> None:
    given = inputs(3, 4)
    with pytest.raises(TypeError, match=message):
        shading_triton.relight_blinn_phong(**{**given, name: given[name].to(value)})
    with pytest.raises(TypeError, match="out_dtype must be float32, float16 or bfloat16"):
        shading_triton.relight_blinn_phong(**given, out_dtype=torch.float64)


def test_tensors_on_several_devices_are_refused() -> None:
    given = inputs(3, 4)
    with pytest.raises(ValueError, match="diffuse must be on cpu as the depth is, got meta"):
        shading_triton.relight_blinn_phong(**{**given, "diffuse": given["diffuse"].to("meta")})


def test_cpu_tensors_are_refused_where_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "INTERPRETED", False)
    with pytest.raises(
        ValueError, match=r"need a CUDA device, got cpu; use backend torch, or set TRITON_INT"
    ):
        shading_triton.relight_blinn_phong(**inputs(3, 4))


def test_more_images_than_a_grid_has_room_for_are_refused() -> None:
    given = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in inputs(1, 1, batch=65_536).items()}
    with pytest.raises(ValueError, match="at most 65535 images of 2097120 rows at a time, got 65536 of 1"):
        shading_triton.relight_blinn_phong(**given)


# --- compiled code --------------------------------------------------------------------------------

COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from redepth.ops.triton.blinn_phong import INTERPRETED, ahead_of_time

assert not INTERPRETED
cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
found = {}
for capability, options in json.loads(sys.argv[1]):
    for name, (source, launch) in ahead_of_time(**options).items():
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)
        binary = Path(tempfile.mkdtemp()) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([cuobjdump, "--dump-resource-usage", binary], capture_output=True, text=True)
        fields = re.findall(r"(REG|STACK|SHARED|LOCAL):(\\d+)", usage.stdout)
        key = f"sm_{capability} {name} {options}"
        found[key] = {field: int(number) for field, number in fields}
        found[key]["shuffles"] = compiled.asm["ptx"].count("shfl.sync")
        found[key]["vectors"] = len(re.findall(r"ld\\.global\\.v2", compiled.asm["ptx"]))
print(json.dumps(found))
"""


def compiled(tmp_path: Path, wanted: list[tuple[int, dict[str, Any]]]) -> dict[str, dict[str, int]]:
    """Compile for GPUs that need not be here, in a process without the interpreter."""
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
    """No spills; neighbours travel in registers, not in shared memory."""
    for kernel, usage in found.items():
        assert usage["STACK"] == usage["LOCAL"] == usage["SHARED"] == 0, (kernel, usage)
        assert 0 < usage["REG"] <= 128, (kernel, usage)
        assert usage["shuffles"] == (2 if "forward" in kernel else 4), (kernel, usage)
        assert (usage["vectors"] > 0) == ("'paired': False" not in kernel), (kernel, usage)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler is there on Linux only")
def test_compiled_code_spills_nothing(tmp_path: Path) -> None:
    found = compiled(tmp_path, [(90, {}), (80, {})])
    assert len(found) == 4
    check(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler is there on Linux only")
@pytest.mark.parametrize("capability", [80, 90])
def test_every_variant_of_compiled_code_spills_nothing(tmp_path: Path, capability: int) -> None:
    variants = [
        {"lights": lights, "image_grad": image_grad, "paired": paired}
        for lights in (1, 2, 4)
        for image_grad in (False, True)
        for paired in (True, False)
    ]
    check(compiled(tmp_path, [(capability, options) for options in variants]))
