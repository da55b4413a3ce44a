from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redepth.contracts import Execution
from redepth.ops import group_norm
from redepth.ops.triton import kernels as support
from redepth.runtime.fusion import Branches, fuse_norms, set_attention
from redepth.runtime.networks import Graphed, execute, release_graphs
from tests.support.checkpoints import SD
from tests.support.helpers import relative_error, seeded, tiny_unet

# An exponential overflows to infinity in Triton's interpreter, as intended, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


class Replayed(Graphed):
    """A graph on the CPU: a replay reads the captured inputs and overwrites the outputs, as on a GPU."""

    captures = 0

    def graphable(self, tensor: Tensor) -> bool:
        return True

    def capture(self, call: Any) -> tuple[Any, Any]:
        self.captures += 1
        outputs = call()
        return outputs, lambda: outputs["sum"].copy_(call()["sum"])


def test_each_kind_of_arguments_has_a_graph_and_results_are_copies() -> None:
    def add(a: Tensor, b: Tensor, *, factor: float = 1.0) -> dict[str, Any]:
        return {"sum": a + factor * b, "name": "add"}

    branches = Branches()
    call = Replayed(add, branches)
    two = torch.ones(2)
    with torch.no_grad():
        first = call(two, two)
        second = call(two, 3 * two)
        assert first["sum"].tolist() == [2.0, 2.0]
        assert second == {"sum": second["sum"], "name": "add"}
        assert second["sum"].tolist() == [4.0, 4.0]
        assert call(torch.ones(3), torch.ones(3), factor=2.0)["sum"].tolist() == [3.0] * 3
        assert call(two, two, factor=2.0)["sum"].tolist() == [3.0, 3.0]
        assert call.captures == 3
        with branches.of(2):
            assert call(two, two)["sum"].tolist() == [2.0, 2.0]
        assert call.captures == 4
    # A call with gradient is not a graph.
    leaf = two.clone().requires_grad_()
    call(leaf, two)["sum"].sum().backward()
    assert torch.equal(leaf.grad, two)
    assert call.captures == 4
    assert not Graphed(add).graphable(two)


def test_released_graphs_are_captured_again() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    execute(network, Execution(cuda_graphs=True), graph=True)
    graphed = network.forward = Replayed(lambda x: {"sum": x + 1})
    with torch.no_grad():
        network(torch.ones(2))
        network(torch.ones(2))
        assert graphed.captures == 1
        release_graphs(network)
        assert network(torch.ones(2))["sum"].tolist() == [2.0, 2.0]
        assert graphed.captures == 2
    release_graphs(nn.Linear(2, 2))  # has none


class FakeCuda:
    """The part of torch.cuda that a capture uses; ending a failed capture raises another error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = "main"
        self.ended = 0
        stream = SimpleNamespace(wait_stream=lambda _: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda *_, **__: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
        monkeypatch.setattr(torch.cuda, "stream", self.on_stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    @contextmanager
    def on_stream(self, _: Any) -> Iterator[None]:
        self.current = "side"
        try:
            yield
        finally:
            self.current = "main"

    def capture_begin(self) -> None: ...

    def capture_end(self) -> None:
        self.ended += 1
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_out_of_memory_in_a_capture_is_raised_and_the_stream_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, calls = FakeCuda(monkeypatch), iter(range(4))

    def call() -> None:
        if next(calls) == 3:  # three come before the capture
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        Graphed(call).capture(call)
    assert cuda.ended == 1
    assert cuda.current == "main"


def test_group_normalisation_in_half_precision_is_computed_in_float32_on_a_cpu() -> None:
    x = torch.randn(2, 8, 5, 6, generator=seeded()).bfloat16()
    for norm in (
        nn.GroupNorm(2, 8).bfloat16(),
        nn.GroupNorm(2, 8),
        nn.GroupNorm(2, 8, affine=False).bfloat16(),
    ):
        network = nn.Sequential(norm)
        execute(network, Execution())
        replaced = "forward" in norm.__dict__
        assert replaced == (norm.affine and norm.weight.dtype == torch.bfloat16)
        if replaced:
            exact = F.group_norm(x.float(), 2, eps=norm.eps)
            assert network(x).dtype == torch.bfloat16
            assert torch.equal(network(x), exact.bfloat16())
            # In float32 it is the class's method again.
            execute(network.float(), Execution())
            assert "forward" not in norm.__dict__


def test_a_later_execution_replaces_the_former() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    plain = network.forward
    execute(network, Execution(cuda_graphs=True), graph=True)
    assert isinstance(network.forward, Graphed)
    assert not network[0].weight.is_contiguous()
    execute(network, Execution(channels_last=False, cuda_graphs=True))
    assert network.forward == plain
    assert network[0].weight.is_contiguous()


# --- fused normalisation --------------------------------------------------------------------------

Network = tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]]]
"""A network, and a function that returns its output and the gradient of its input."""


def with_gradient(call: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    x = torch.randn(shape, generator=seeded()).to(dtype).requires_grad_()
    y = call(x)
    return y.detach(), torch.autograd.grad(y, x, torch.randn(y.shape, generator=seeded(1)).to(y))[0]


def pixel_unet() -> Network:
    """A UNet in pixel space, with a class embedding."""
    unet = tiny_unet().unet.requires_grad_(False)
    light, time = torch.rand(2, 8, generator=seeded(2)), torch.tensor([3, 700])

    def call(x: Tensor) -> Tensor:
        return unet(x, time, None, class_labels=light.to(x)).sample

    return unet, lambda: with_gradient(call, (2, 24, 8, 8), unet.dtype)


def plain_unet() -> Network:
    """A UNet without condition."""
    unet = tiny_unet(relighting=False).unet.requires_grad_(False)
    return unet, lambda: with_gradient(
        lambda x: unet(x, torch.tensor([3, 700])).sample, (2, 12, 8, 8), unet.dtype
    )


def latent_unet() -> Network:
    """Stable Diffusion's UNet: cross attention, whose blocks have a norm."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(SD, subfolder="unet")
    unet = unet.eval().requires_grad_(False)
    text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=seeded(3))

    def call(x: Tensor) -> Tensor:
        return unet(x, torch.tensor([3, 700]), text.to(x)).sample

    return unet, lambda: with_gradient(call, (2, 4, 8, 8), unet.dtype)


def encoder() -> Network:
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL.from_pretrained(SD, subfolder="vae")
    network = vae.encoder.eval().requires_grad_(False)
    return network, lambda: with_gradient(network, (2, 3, 32, 24), network.conv_in.weight.dtype)


NETWORKS = [pixel_unet, plain_unet, latent_unet, encoder]


def agree(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> bool:
    return all(relative_error(a, b) < tolerance for a, b in zip(actual, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("kernels", [True, False])
def test_fused_norms_change_nothing(
    make: Callable[[], Network], kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernels and with the torch implementation; restored, the network is the same to the bit."""
    monkeypatch.setattr(support, "INTERPRETED", kernels and support.INTERPRETED)
    network, run = make()
    how = Execution(channels_last=False)
    execute(network, how)
    plain, names = run(), list(network.state_dict())
    execute(network, Execution(channels_last=False, fused_kernels=True))
    assert agree(run(), plain, 1e-5)
    assert list(network.state_dict()) == names
    execute(network, how)
    assert all(torch.equal(a, b) for a, b in zip(run(), plain, strict=True))
    fuse_norms(network)
    fuse_norms(network, on=False)
    assert not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("make", [pixel_unet, encoder])
def test_fused_norms_follow_the_dtype_of_their_network(
    make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "INTERPRETED", False)
    network, run = make()
    execute(network.bfloat16(), Execution(fused_kernels=True))
    half = run()
    assert half[0].dtype == torch.bfloat16
    execute(network.float(), Execution())
    plain = run()
    assert agree([t.float() for t in half], plain, 0.1)
    execute(network, Execution(fused_kernels=True))
    assert agree(run(), plain, 1e-5)


@pytest.mark.parametrize("make", NETWORKS)
def test_every_norm_is_fused_with_the_activation_after_it(
    make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No torch normalisation is left, and SiLU remains for vectors only."""
    network, run = make()
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    attentions = sum(type(m).__name__ in ("Attention", "Transformer2DModel") for m in network.modules())
    calls: list[bool] = []

    def counted(*args: Any, silu: bool, **more: Any) -> Tensor:
        calls.append(silu)
        return group_norm.group_norm(*args, silu=silu, **more)

    execute(network, Execution(fused_kernels=True))
    monkeypatch.setattr("redepth.runtime.fusion.fused_group_norm", counted)
    run()
    assert len(calls) == len(norms)
    with_silu = sum(calls)
    assert with_silu % 2 == 1  # two of each residual block, one before the last convolution
    assert len(calls) - with_silu <= attentions


def test_a_copy_of_a_fused_network_uses_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "INTERPRETED", False)
    network, run = encoder()
    execute(network, Execution(fused_kernels=True))
    before = run()
    other = deepcopy(network)
    for parameter in other.parameters():
        parameter.zero_()
    assert other(torch.ones(1, 3, 16, 16)).abs().max() == 0
    assert torch.equal(run()[0], before[0])


def test_a_shared_activation_is_not_fused() -> None:
    from diffusers.models.resnet import ResnetBlock2D

    blocks = [ResnetBlock2D(in_channels=8, temb_channels=4, groups=2) for _ in range(2)]
    blocks[1].nonlinearity = blocks[0].nonlinearity
    scaled = ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, time_embedding_norm="scale_shift")
    odd = ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, non_linearity="mish")
    network = nn.ModuleList([*blocks, scaled, odd]).requires_grad_(False)
    x, time = torch.randn(1, 8, 4, 4, generator=seeded()), torch.randn(1, 4, generator=seeded(1))
    plain = [block(x, time) for block in network]
    fuse_norms(network)
    assert [m.forward.args[1] for m in network.modules() if isinstance(m, nn.GroupNorm)] == [False] * 8
    for block, expected in zip(network, plain, strict=True):
        assert relative_error(block(x, time), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("make", [latent_unet, encoder])
def test_the_additions_of_a_residual_block_are_fused(make: Callable[[], Network]) -> None:
    """No convolution of a block adds its bias, nothing is divided, and results differ by rounding only."""
    from diffusers.models.resnet import ResnetBlock2D

    network, run = make()
    execute(network, Execution(channels_last=False))
    plain = run()
    execute(network, Execution(channels_last=False, fused_kernels=True))
    blocks = [m for m in network.modules() if isinstance(m, ResnetBlock2D)]
    assert blocks
    assert all("forward" in block.__dict__ for block in blocks)
    for block in blocks:
        for layer in (block.conv1, block.conv2):
            layer.forward = None  # would add the bias in a pass of its own
    assert agree(run(), plain, 1e-5)


def test_a_block_of_another_kind_keeps_its_forward() -> None:
    from diffusers.models.resnet import ResnetBlock2D

    kinds: list[dict[str, Any]] = [
        {"output_scale_factor": 2.0},
        {"down": True},
        {"skip_time_act": True},
        {},
        {},
    ]
    blocks = [ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, **kind) for kind in kinds]
    blocks[-2].conv1.padding_mode = "circular"
    blocks[-2].conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]
    hooked: list[int] = []
    blocks[-1].conv2.register_forward_hook(lambda *_: hooked.append(1))
    network = nn.ModuleList(blocks).requires_grad_(False)
    x, time = torch.randn(1, 8, 4, 4, generator=seeded()), torch.randn(1, 4, generator=seeded(1))
    plain = [block(x, time) for block in network]
    fuse_norms(network)
    assert not any("forward" in block.__dict__ for block in network)
    for block, expected in zip(network, plain, strict=True):
        assert relative_error(block(x, time), expected) < 1e-5
    assert len(hooked) == 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [pixel_unet, encoder])
def test_fused_norms_compile(make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import partial

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    network, run = make()
    plain = run()
    execute(network, Execution(fused_kernels=True, compile=True))
    assert agree(run(), plain, 1e-5)


# --- attention ------------------------------------------------------------------------------------


def processors(network: nn.Module) -> set[str]:
    from diffusers.models.attention_processor import Attention

    return {type(m.processor).__name__ for m in network.modules() if isinstance(m, Attention)}


def test_explicit_and_fused_attention_agree() -> None:
    network, run = encoder()
    plain = run()
    assert processors(network) == {"AttnProcessor2_0"}
    set_attention(network, explicit=True)
    assert processors(network) == {"AttnProcessor"}
    assert agree(run(), plain, 1e-5)
    set_attention(network, explicit=False)
    assert processors(network) == {"AttnProcessor2_0"}
    assert all(torch.equal(a, b) for a, b in zip(run(), plain, strict=True))
