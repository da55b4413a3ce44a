"""What the depth networks of transformers share: options, preprocessing, loading, the split in two halves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from redepth import checkpoints
from redepth.contracts import Execution, Features, Invariance, Predicts
from redepth.depth_models.catalog import hub_id
from redepth.errors import WeightsError
from redepth.ops import geometry
from redepth.ops.constants import constant
from redepth.ops.geometry import ResizeRule
from redepth.runtime.networks import execute, take_rows

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

OUTPUT_MAP = frozenset({"depth", "low-rank"})
"""The parameterizations of a model without a split: its output is all that can be refined."""

SPLIT = OUTPUT_MAP | {"embeddings+decoder", "embeddings", "decoder", "full"}
"""Those of a model with one."""

PREPROCESSOR = "preprocessor_config.json"

Rule = ResizeRule | Literal["stretch"]

_NAMES = {
    "depth_anything": "depth-anything",
    "depth_pro": "depth-pro",
    "dpt": "dpt",
    "glpn": "glpn",
    "prompt_depth_anything": "prompt-depth-anything",
    "zoedepth": "zoedepth",
}
"""model_type of a checkpoint -> depth_model.name that loads it."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pictures.

    Attributes:
        mean: taken from sRGB [0, 1], per channel.
        std: what that is divided by.
        target: height and width that ``rule`` aims at, in pixels.
        multiple: of which both sides must be, in pixels.
        rule: see `ops.geometry.network_size`; ``stretch`` gives the network exactly ``target`` and lets
            the photo's aspect ratio go, while the refined image keeps it.
        align_corners: of the resizing.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    target: tuple[int, int] = (518, 518)
    multiple: int = 14
    rule: Rule = "minimal"
    align_corners: bool = False

    def updated(self, config: Mapping[str, Any]) -> Self:
        """Return a copy with what a checkpoint's ``preprocessor_config.json`` says."""
        found: dict[str, Any] = {}
        if config.get("do_normalize", True):
            found |= {k: tuple(config[f"image_{k}"]) for k in ("mean", "std") if f"image_{k}" in config}
        else:
            found |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        size = config.get("size")
        if isinstance(size, int):
            found["target"] = (size, size)
        elif isinstance(size, Mapping) and {"height", "width"} <= size.keys():
            found["target"] = (int(size["height"]), int(size["width"]))
        if "keep_aspect_ratio" in config:
            found["rule"] = "minimal" if config["keep_aspect_ratio"] else "stretch"
        multiple = config.get("ensure_multiple_of") or config.get("size_divisor")
        # Where any size would do for the processor, the network still has its patches.
        if isinstance(multiple, int) and multiple > 1:
            found["multiple"] = multiple
        return replace(self, **found)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which a photo is refined."""
        if self.rule == "stretch":
            return geometry.network_size(height, width, target=max(self.target), multiple=1)
        return geometry.network_size(
            height, width, target=self.target, multiple=self.multiple, rule=self.rule
        )

    def normalised(self, image: Tensor) -> Tensor:
        """Take mean and standard deviation out of sRGB [0, 1]."""
        mean, std = (constant(values, image).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (image - mean) / std


@dataclass(kw_only=True, eq=False)
class Backbone:
    """A frozen encoder and a decoder cut out of one network; the halves' modules do the network's work.

    A family is a dataclass over this one: it names its ``model_type``, its transformers class and its
    preprocessing, and cuts the network in `halves`.

    Args:
        checkpoint: hub id, short name (`redepth list depth-models`), local folder or ``embedded:NAME``.
        revision: commit, tag or branch of the hub repository.
        longer_side: the image's size under ``resize_rule`` (its longer side for upper_bound and
            stretch), in pixels; None is what the checkpoint's own preprocessing says.
        resize_rule: see `Preprocessing`; None is what the checkpoint's own preprocessing says.
        antialias: whether photos are low-pass filtered when they are shrunk.
        scale: s of `ops.geometry.relative_depth`; ``auto`` takes it from each photo's first prediction.
        margin: m of the same.
    """

    supports: ClassVar[frozenset[str]] = SPLIT
    model_type: ClassVar[str]
    library_class: ClassVar[str]
    optional_files: ClassVar[tuple[str, ...]] = (PREPROCESSOR,)

    checkpoint: str = ""
    revision: str | None = None
    longer_side: Annotated[int, Field(ge=28, le=4096)] | None = None
    resize_rule: Rule | None = None
    antialias: bool = True
    scale: Annotated[float, Field(gt=1)] | Literal["auto"] = "auto"
    margin: Annotated[float, Field(gt=0, le=3)] = 0.1

    predicts: Predicts = field(init=False, default="disparity")
    invariance: Invariance = field(init=False, default="affine")
    preprocessing: Preprocessing = field(init=False, default=Preprocessing())

    def __post_init__(self) -> None:
        self.checkpoint = hub_id(self.checkpoint)
        self.preprocessing = self._chosen(self.preprocessing)
        self._encoder: nn.Module = nn.Identity()
        self._decoder: nn.Module = nn.Identity()
        self._device = torch.device("cpu")
        self.batches_decoders = False
        """See `contracts.BatchesDecoders`; what `tune` has come to."""
        self._commit: str | None = None
        self._defaults_for: tuple[str, ...] = ()

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Cut the network: modules from pixels to `Features` and from `Features` to the raw output."""
        raise NotImplementedError

    def inspect(self, config: Mapping[str, Any]) -> None:
        """Look at a checkpoint's ``config.json`` before its weights are read. Raises WeightsError."""
        found = config.get("model_type")
        if found != self.model_type:
            other = _NAMES.get(str(found))
            hint = f"choose depth_model.name={other}" if other else "choose another checkpoint"
            raise WeightsError(
                f"'{self.checkpoint}' is a '{found}' checkpoint, not {type(self).__name__}: {hint}"
            )

    def ensure_available(self) -> None:
        """Raise WeightsError now if the weights cannot be had."""
        self._locate()

    def load(self, device: torch.device) -> Self:
        """Load the checkpoint in float32, frozen and in eval mode.

        Raises:
            WeightsError: missing, unreachable, corrupted, incomplete or of another class.
        """
        source = self._source()
        self.inspect(source.json("config.json"))
        library = getattr(importlib.import_module("transformers"), self.library_class)
        model = source.model(library, None, dtype=torch.float32)
        # A checkpoint may go without; the family's stands then.
        own = source.json(PREPROCESSOR) if source.holds(PREPROCESSOR) else {}
        self._commit, self._defaults_for = source.commit, source.defaults_for()
        self.use(model.eval().requires_grad_(False).to(device), device, own)
        return self

    def _locate(self) -> checkpoints.Source:
        files = ("config.json", "model.safetensors")
        return checkpoints.locate(self.checkpoint, self.revision, files, optional=self.optional_files)

    def _source(self) -> checkpoints.Source:
        # A folder is read file by file, so that a checkpoint of another kind is said to be that.
        folder = checkpoints.Source(self.checkpoint, self.revision)
        return folder if folder.is_local else self._locate()

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Take a frozen network that is already in memory, and its preprocessor's settings."""
        # The decoder's convolutions run about twice as fast in this layout, on the CPU and on the GPU.
        model.to(memory_format=torch.channels_last)
        self._encoder, self._decoder = self.halves(model)
        self._device = device
        self.preprocessing = self._chosen(self.preprocessing.updated(preprocessor or {}))

    def tune(self, how: Execution) -> None:
        """Execute the decoder in this way from now on; it has a way back, so it becomes no CUDA graph."""
        execute(self._decoder, how)
        # One kernel for all members is what a GPU wants; on a CPU a member's own maps stay in the cache.
        wanted = how.decoders == "batched" or (how.decoders == "auto" and self._device.type == "cuda")
        self.batches_decoders = wanted and take_rows(self._decoder)

    def _chosen(self, preprocessing: Preprocessing) -> Preprocessing:
        """Let the options stand above what a checkpoint says."""
        if self.resize_rule is not None:
            preprocessing = replace(preprocessing, rule=self.resize_rule)
        # A network that is given an exact size has to get it.
        if self.longer_side is not None and preprocessing.rule != "stretch":
            preprocessing = replace(preprocessing, target=(self.longer_side, self.longer_side))
        return preprocessing

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) under the resize rule; its aspect ratio is kept but for the rounding."""
        own = self.preprocessing
        height, width = own.image_size(*photo.shape[-2:])
        if own.rule == "stretch" and self.longer_side is not None:
            height, width = geometry.network_size(
                *photo.shape[-2:], target=self.longer_side, multiple=1, rule="upper_bound"
            )
        return geometry.resize(
            photo, height, width, align_corners=own.align_corners, antialias=self.antialias
        )

    def pixels(self, image: Tensor) -> Tensor:
        """Return what the network is given for an image (B,3,H,W) sRGB [0,1].

        Raises:
            ValueError: if the sides are no multiples of what the network needs.
        """
        own = self.preprocessing
        height, width = image.shape[-2:]
        if own.rule == "stretch":
            image = geometry.resize(
                image, *own.target, align_corners=own.align_corners, antialias=self.antialias
            )
        elif height % own.multiple or width % own.multiple:
            raise ValueError(f"sides {height} x {width} are not multiples of {own.multiple}")
        return own.normalised(image)

    def encode(self, image: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Features:
        """Run the encoder on (B,3,H,W) sRGB [0,1]; ``parameters`` replace its own.

        Raises:
            ValueError: if the sides are no multiples of what the network needs.
        """
        pixels = self.pixels(image)
        if parameters is None:
            self._encoder.to(self._device)
            features = self._encoder(pixels)
        else:
            features = torch.func.functional_call(self._encoder, dict(parameters), (pixels,))
        height, width = image.shape[-2:]
        return replace(features, size=(height, width))

    def decode(self, features: Features, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Run the decoder: features to the raw output (B,1,H,W) >= 0; ``parameters`` replace its own.

        Where ``batches_decoders`` is true they may have the rows of the features in front.
        """
        if parameters is None:
            raw = self._decoder(features)
        else:
            raw = torch.func.functional_call(self._decoder, dict(parameters), (features,))
        return raw if features.size is None else self.at_image_size(raw, *features.size)

    def at_image_size(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Resize the network's output (B,1,h,w) to the encoded image's size."""
        return geometry.resize(raw, height, width, align_corners=self.preprocessing.align_corners)

    def encoder_parameters(self) -> dict[str, Tensor]:
        """Return the encoder's parameters by name."""
        return dict(self._encoder.named_parameters())

    def decoder_parameters(self) -> dict[str, Tensor]:
        """Return the decoder's parameters by name."""
        return dict(self._decoder.named_parameters())

    def release_encoder(self) -> None:
        """Move the encoder to the CPU; `encode` brings it back for the next photo."""
        self._encoder.to("cpu")

    def describe(self) -> dict[str, Any]:
        """Return checkpoint, revision and sizes for the run record."""
        defaults = {"defaults_for": list(self._defaults_for)} if self._defaults_for else {}
        return {
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "commit": self._commit,
            **defaults,
            "sides_multiple_of": self.preprocessing.multiple,
            "scale": self.scale,
            "encoder_parameters": sum(p.numel() for p in self.encoder_parameters().values()),
            "decoder_parameters": sum(p.numel() for p in self.decoder_parameters().values()),
        }


def without_class_token(states: Sequence[Tensor], grid: tuple[int, int]) -> Features:
    """Make features of an encoder's states: class tokens are constants, all else may be learned.

    Args:
        states: (B, 1 + tokens, C) with the class token in front, or (B, C, rows, columns).
        grid: rows and columns of the tokens.
    """
    tokens = [s for s in states if s.dim() == 3]
    maps = [s[:, 1:] if s.dim() == 3 else s for s in states]
    return Features(maps=tuple(maps), constants=tuple(t[:, :1] for t in tokens), grid=grid)


class NeckAndHead(nn.Module):
    """The two parts of the libraries' decoders: features fused across scales, and what reads them."""

    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.head = head


def with_class_token(features: Features) -> list[Tensor]:
    """Return the states that `without_class_token` took apart."""
    constants = iter(features.constants)
    return [torch.cat([next(constants), w], dim=1) if w.dim() == 3 else w for w in features.maps]
