"""The base class of the depth networks: options, preprocessing, loading, the split into two halves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import Self

from redepth import checkpoints, io
from redepth.contracts import Execution, Features, Invariance, Predicts
from redepth.depth_models.catalog import hub_id
from redepth.errors import WeightsError, brief, cut
from redepth.ops import geometry
from redepth.ops.constants import constant
from redepth.ops.geometry import ResizeRule
from redepth.runtime.networks import execute, take_rows

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

OUTPUT_MAP = frozenset({"depth", "low-rank"})
"""The parameterizations of a model without encoder and decoder: only its output can be refined."""

SPLIT = OUTPUT_MAP | {"embeddings+decoder", "embeddings", "decoder", "full"}
"""The parameterizations of a model that is split into encoder and decoder."""

WEIGHTS, PREPROCESSOR = "model.safetensors", "preprocessor_config.json"

LARGEST_SIDE = 8192
"""Most pixels along a side of a network's input."""

Rule = ResizeRule | Literal["stretch"]

_NAMES = {
    "depth_anything": "depth-anything",
    "depth_pro": "depth-pro",
    "dpt": "dpt",
    "glpn": "glpn",
    "moge": "moge-2",
    "prompt_depth_anything": "prompt-depth-anything",
    "zoedepth": "zoedepth",
}
"""model_type of a checkpoint -> depth_model.name that loads it."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network's input is made from a photo.

    Attributes:
        mean: mean per channel, which is subtracted from sRGB [0, 1].
        std: standard deviation per channel, which the difference is divided by.
        target: height and width that ``rule`` aims at, in pixels.
        multiple: both sides must be multiples of this, in pixels.
        rule: see `ops.geometry.network_size`; ``stretch`` resizes the network's input to exactly ``target``
            and changes its aspect ratio; the refined image keeps the photo's.
        align_corners: whether resizing aligns the centres of the corner pixels.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    target: tuple[int, int] = (518, 518)
    multiple: int = 14
    rule: Rule = "minimal"
    align_corners: bool = False

    def updated(self, config: Mapping[str, Any]) -> Self:
        """Return a copy with the settings of a checkpoint's ``preprocessor_config.json``.

        Raises:
            WeightsError: one of them is of the wrong type or out of range.
        """
        settings: dict[str, Any] = {}
        if config.get("do_normalize", True):
            settings |= {
                k: _three(config[f"image_{k}"], k) for k in ("mean", "std") if f"image_{k}" in config
            }
        else:
            settings |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        size = config.get("size")
        if isinstance(size, int):
            settings["target"] = (_side(size), _side(size))
        elif isinstance(size, Mapping) and {"height", "width"} <= size.keys():
            settings["target"] = (_side(size["height"]), _side(size["width"]))
        if "keep_aspect_ratio" in config:
            settings["rule"] = "minimal" if config["keep_aspect_ratio"] else "stretch"
        multiple = config.get("ensure_multiple_of") or config.get("size_divisor")
        # A processor that accepts any size does not change the network's patches: keep their multiple.
        if isinstance(multiple, int) and multiple > 1:
            settings["multiple"] = _side(multiple)
        return replace(self, **settings)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which a photo is refined."""
        if self.rule == "stretch":
            return geometry.network_size(height, width, target=max(self.target), multiple=1)
        return geometry.network_size(
            height, width, target=self.target, multiple=self.multiple, rule=self.rule
        )

    def normalised(self, image: Tensor) -> Tensor:
        """Normalise sRGB [0, 1] by mean and standard deviation."""
        mean, std = (constant(values, image).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (image - mean) / std


def _three(values: Any, name: str) -> tuple[float, ...]:
    """Return a mean or a standard deviation per channel. Raises WeightsError if it is none."""
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) for v in values)
    if not numbers or len(values) != 3 or (name == "std" and min(values) <= 0):
        raise WeightsError(f"{PREPROCESSOR}: image_{name} must be three numbers, got {brief(values)}")
    return tuple(values)


def _side(value: Any) -> int:
    """Return a number of pixels. Raises WeightsError if it is none that a network can have."""
    if type(value) not in (int, float) or not 1 <= value <= LARGEST_SIDE or value != int(value):
        raise WeightsError(f"{PREPROCESSOR}: a size must be 1 to {LARGEST_SIDE} pixels, got {brief(value)}")
    return int(value)


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as the libraries publish them; the folder is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Layers may be in another memory layout, and two names may share a tensor: the file stores neither.
    contiguous = {name: values.detach().cpu().contiguous().clone() for name, values in weights.items()}
    save_file(contiguous, path, metadata={"format": "pt"})


def patch_size(model: Any) -> int:
    """Return the patch size of a network over a DINOv2 backbone. Raises WeightsError if it is not one."""
    own, backbones = model.config.patch_size, getattr(model.backbone.config, "patch_size", None)
    if type(own) is not int or own < 1 or own != backbones:
        raise WeightsError(f"config.json: patch_size {brief(own)} is not the backbone's, {brief(backbones)}")
    return own


@dataclass(kw_only=True, eq=False)
class Backbone:
    """A network that is split into a frozen encoder and a decoder.

    A family of networks is a subclass: it sets ``model_type``, the transformers class and the preprocessing,
    and splits the network in `halves`.

    Args:
        checkpoint: hub id, short name (`redepth list depth-models`), local folder or ``embedded:NAME``.
        revision: commit, tag or branch of the hub repository.
        longer_side: the image's size under ``resize_rule`` (its longer side for upper_bound and
            stretch), in pixels; null takes it from the checkpoint's preprocessing.
        resize_rule: which side of the photo gets ``longer_side`` (`Preprocessing`); null takes it from the
            checkpoint's preprocessing.
        antialias: whether photos are low-pass filtered when they are shrunk.
        scale: s of `ops.geometry.relative_depth`, how steep the surface is; ``auto`` takes it from each
            photo's first prediction.
        margin: m of `ops.geometry.relative_depth`.
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
    scale: Annotated[float, Field(gt=1, le=1e6)] | Literal["auto"] = "auto"
    margin: Annotated[float, Field(ge=1e-6, le=3)] = 0.1

    predicts: Predicts = field(init=False, default="disparity")
    invariance: Invariance = field(init=False, default="affine")
    preprocessing: Preprocessing = field(init=False, default=Preprocessing())

    def __post_init__(self) -> None:
        self.checkpoint = hub_id(self.checkpoint)
        self.preprocessing = self._chosen(self.preprocessing)
        self._model: Any = None
        self._preprocessor: dict[str, Any] = {}
        self._encoder: nn.Module = nn.Identity()
        self._decoder: nn.Module = nn.Identity()
        self._device = torch.device("cpu")
        self.batches_decoders = False
        """See `contracts.BatchesDecoders`; set by `tune`."""
        self._commit: str | None = None
        self._defaults_for: tuple[str, ...] = ()

    def halves(self, model: Any) -> tuple[nn.Module, nn.Module]:
        """Split the network: a module from pixels to `Features`, one from `Features` to the raw output."""
        raise NotImplementedError

    def inspect(self, config: Mapping[str, Any]) -> None:
        """Check a checkpoint's ``config.json`` before its weights are read. Raises WeightsError."""
        model_type = config.get("model_type")
        if model_type != self.model_type:
            other = _NAMES.get(str(model_type))
            hint = f"choose depth_model.name={other}" if other else "choose another checkpoint"
            found = cut(str(model_type))
            raise WeightsError(
                f"'{self.checkpoint}' is a '{found}' checkpoint, not {type(self).__name__}: {hint}"
            )

    def ensure_available(self) -> None:
        """Raise WeightsError if the weights are unavailable."""
        self._locate()

    def load(self, device: torch.device) -> Self:
        """Load the checkpoint in float32, frozen and in eval mode.

        Raises:
            WeightsError: missing, unreachable, corrupted, incomplete or of another class.
        """
        with checkpoints.one_line(self.checkpoint):
            self._load(device)
        return self

    def _load(self, device: torch.device) -> None:
        source = self._source()
        self.inspect(source.json("config.json"))
        library = getattr(importlib.import_module("transformers"), self.library_class)
        model = source.model(library, None, dtype=torch.float32)
        # A checkpoint without preprocessor settings keeps the family's.
        preprocessor = source.json(PREPROCESSOR) if source.holds(PREPROCESSOR) else {}
        self._commit, self._defaults_for = source.commit, source.defaults_for()
        self.use(model.eval().requires_grad_(False).to(device), device, preprocessor)

    def _locate(self) -> checkpoints.Source:
        files = ("config.json", WEIGHTS)
        return checkpoints.locate(self.checkpoint, self.revision, files, optional=self.optional_files)

    def _source(self) -> checkpoints.Source:
        # A local folder is read file by file: the error about a checkpoint of another kind comes before the
        # error about missing files.
        folder = checkpoints.Source(self.checkpoint, self.revision)
        return folder if folder.is_local else self._locate()

    def use(self, model: Any, device: torch.device, preprocessor: Mapping[str, Any] | None = None) -> None:
        """Use a frozen network that is already in memory, and its preprocessor's settings."""
        # The decoder's convolutions run about twice as fast in this layout, on the CPU and on the GPU.
        model.to(memory_format=torch.channels_last)
        self._encoder, self._decoder = self.halves(model)
        self._model, self._preprocessor = model, dict(preprocessor or {})
        self._device = device
        self.preprocessing = self._chosen(self.preprocessing.updated(preprocessor or {}))

    def tune(self, how: Execution) -> None:
        """Set how the decoder is executed. It has a backward pass, so it is not captured as a CUDA graph."""
        execute(self._decoder, how)
        # On a GPU one kernel for all members is faster. On a CPU the maps of a single member fit the cache.
        batched = how.decoders == "batched" or (how.decoders == "auto" and self._device.type == "cuda")
        self.batches_decoders = batched and take_rows(self._decoder)

    def _chosen(self, preprocessing: Preprocessing) -> Preprocessing:
        """Apply the options, which take precedence over the checkpoint's settings."""
        if self.resize_rule is not None:
            preprocessing = replace(preprocessing, rule=self.resize_rule)
        # With `stretch` the network needs exactly its own size.
        if self.longer_side is not None and preprocessing.rule != "stretch":
            preprocessing = replace(preprocessing, target=(self.longer_side, self.longer_side))
        return preprocessing

    def prepare(self, photo: Tensor) -> Tensor:
        """Resize a photo (1,3,H,W) under the resize rule; rounding may change its aspect ratio slightly."""
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
        """Return the network's input for an image (B,3,H,W) sRGB [0,1].

        Raises:
            ValueError: if the sides are not multiples of `Preprocessing.multiple`.
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
            ValueError: if the sides are not multiples of `Preprocessing.multiple`.
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

        If ``batches_decoders`` is true, each parameter may have a leading dimension: one entry per row of the
        features.
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
        """Move the encoder to the CPU; `encode` moves it back for the next photo."""
        self._encoder.to("cpu")

    def network(self) -> nn.Module:
        """Return both halves; replaced layers inside them are used by the next prediction."""
        return nn.ModuleDict({"encoder": self._encoder, "decoder": self._decoder})

    def save_checkpoint(self, folder: Path) -> None:
        """Write the weights, ``config.json`` and the preprocessor's settings. Raises OSError."""
        # Not by the model's own method, which shows a progress bar and splits large files.
        save_weights(self._model.state_dict(), folder / WEIGHTS)
        self._model.config.architectures = [type(self._model).__name__]
        self._model.config.save_pretrained(folder)
        if self._preprocessor:
            io.save_json(folder / PREPROCESSOR, self._preprocessor)

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
    """Make features from an encoder's states: class tokens are constants, the others can be optimized.

    Args:
        states: (B, 1 + tokens, C) with the class token first, or (B, C, rows, columns).
        grid: rows and columns of the tokens.
    """
    tokens = [s for s in states if s.dim() == 3]
    maps = [s[:, 1:] if s.dim() == 3 else s for s in states]
    return Features(maps=tuple(maps), constants=tuple(t[:, :1] for t in tokens), grid=grid)


class NeckAndHead(nn.Module):
    """A decoder of transformers: the neck fuses features across scales, the head predicts from them."""

    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.head = head


def with_class_token(features: Features) -> list[Tensor]:
    """Return the encoder's states, the inverse of `without_class_token`."""
    constants = iter(features.constants)
    return [torch.cat([next(constants), w], dim=1) if w.dim() == 3 else w for w in features.maps]
