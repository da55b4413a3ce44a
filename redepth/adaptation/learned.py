"""What is learned of a depth model: its decoder, low-rank adapters or all weights; and their average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from redepth import depth_models
from redepth.adaptation.lessons import purpose_generator
from redepth.config.adaptation import Adapt, TrainingPrecision
from redepth.contracts import Adaptable, DepthModel
from redepth.errors import ConfigError, RedepthError
from redepth.runtime.low_rank import add_adapter, merge_adapters, start_adapter

ADAPTER = "adapted"
"""The name of the low-rank adapters."""


def check_adaptable(model: DepthModel | type[DepthModel]) -> None:
    """Raise ConfigError, which names those that can, unless a depth model can be trained and saved."""
    kind = model if isinstance(model, type) else type(model)
    if not issubclass(kind, Adaptable):
        raise ConfigError(
            f"{kind.__name__} cannot be adapted: it has no weights that redepth can train and save; choose "
            f"another depth_model.name ({', '.join(adaptable_models())})"
        )


def adaptable_models() -> list[str]:
    """Return the names of the depth models that can be adapted and whose packages are installed."""
    names = []
    for name, entry in depth_models.REGISTRY.entries().items():
        with suppress(RedepthError):
            if issubclass(entry.load(), Adaptable):
                names.append(name)
    return names


class Learned:
    """The learned weights of a depth model; the others are frozen.

    Args:
        model: loaded; low-rank adapters are put into it.
        settings: what is learned.
        seed: of the adapters' first weights.

    Attributes:
        parameters: the learned weights by name, in a fixed order.

    Raises:
        ConfigError: the model cannot be trained, or has no layer for adapters.
        MissingDependencyError: for adapters, if peft is not installed.
    """

    def __init__(self, model: DepthModel, settings: Adapt, seed: int) -> None:
        check_adaptable(model)
        assert isinstance(model, Adaptable)
        self.network = model.network().eval().requires_grad_(False)
        self._all = sum(p.numel() for p in self.network.parameters())
        if settings.learns == "low-rank":
            layers = [name for name, module in self.network.named_modules() if _takes_adapter(module)]
            if not layers:
                raise ConfigError(
                    f"{type(model).__name__} has no layer for adapters: set adapt.learns=all or decoder"
                )
            add_adapter(self.network, ADAPTER, layers, settings.rank, "adapt")
            start_adapter(self.network, ADAPTER, purpose_generator("adapters", seed))
        elif settings.learns == "decoder":
            for parameter in model.decoder_parameters().values():
                parameter.requires_grad_()
        else:
            self.network.requires_grad_()
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in self.network.named_parameters() if p.requires_grad
        }

    @property
    def count(self) -> tuple[int, int]:
        """Number of learned weights, and of all weights of the model."""
        return sum(p.numel() for p in self.parameters.values()), self._all

    def values(self) -> dict[str, Tensor]:
        """Return a copy of the learned weights."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Set the learned weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @contextmanager
    def replaced(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Use other weights inside the context."""
        own = self.values()
        self.set(values)
        try:
            yield
        finally:
            self.set(own)

    def finish(self, values: Mapping[str, Tensor]) -> None:
        """Set the weights for good: adapters are merged into their layers, and all is frozen."""
        self.set(values)
        merge_adapters(self.network)
        self.network.requires_grad_(False)


def _takes_adapter(module: nn.Module) -> bool:
    """Return whether a layer's output is linear in its weight: subclasses may change the weight first."""
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear


class Average:
    r"""The exponential moving average of the learned weights: :math:`a \leftarrow d \, a + (1 - d) \, w`.

    It starts as the starting model's weights.

    Args:
        learned: the weights.
        decay: d in [0, 1).
    """

    def __init__(self, learned: Learned, decay: float) -> None:
        self._learned, self._decay = learned, decay
        self.values = learned.values()

    @torch.no_grad()
    def update(self) -> None:
        """Include the present weights."""
        for name, parameter in self._learned.parameters.items():
            self.values[name].lerp_(parameter, 1 - self._decay)


class Trainee(nn.Module):
    """A depth model as a module from an image at network size to its raw output.

    Args:
        model: loaded, `Adaptable`.
        learned: its weights.
        precision: in which the network computes; its weights and its output are float32.
        device: where it is.
    """

    def __init__(
        self, model: DepthModel, learned: Learned, precision: TrainingPrecision, device: torch.device
    ) -> None:
        super().__init__()
        self.network = learned.network
        # In a tuple a model that is a module itself is not registered: its weights would be here twice.
        self._model = (model,)
        self._device = device
        self._half = chosen_precision(precision, device) == "bfloat16"

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) sRGB [0,1] to the network's size."""
        return self._model[0].prepare(photo)

    def forward(self, image: Tensor) -> Tensor:
        """Return the raw output (B,1,H,W) of images (B,3,H,W), float32."""
        (model,) = self._model
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            raw = model.decode(model.encode(image))
        return raw.float()


def chosen_precision(precision: TrainingPrecision, device: torch.device) -> TrainingPrecision:
    """Return the precision that ``auto`` means: bfloat16 on a CUDA GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
