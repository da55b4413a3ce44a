"""The record of a protocol, its hash, and the difference of two, spelled out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from redepth.contracts import Invariance, Predicts
from redepth.errors import ConfigError, nearest
from redepth.metrics import Method
from redepth.registry import Location, explain

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from redepth.data.datasets import Sample
    from redepth.protocols.measure import ImageMetrics, Measurement

PROTOCOLS = Path(__file__).parent
DEFAULT_PROTOCOL = "redepth-paper"
_PROSE: dict[str, Any] = {"description": True, "split": {"source"}}
_HOMES = {"kitti": "kitti-eigen", "nyuv2": "nyuv2-eigen"}

Positive = Annotated[float, Field(gt=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(_Record):
    """Which images: a list that ships, or all that the data set has, and how to know that they are those.

    Attributes:
        name: what papers call it.
        file: a list of names that ships in ``splits``, or None: every image that is there, or a list of the
            user's.
        count: how many images it must be; None is any number.
        sha256: of the sorted names, one a line; None is unknown.
        source: where the list, or what it lists, comes from.
    """

    name: str = "all"
    file: str | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    source: str = ""


class Size(_Record):
    """Rows and columns of pixels."""

    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class Crop(Size):
    """What is cut out of photo and ground truth before the photo is given to a model.

    Attributes:
        vertical: which rows are kept.
        horizontal: which columns are kept.
    """

    vertical: Literal["top", "centre", "bottom"] = "centre"
    horizontal: Literal["left", "centre", "right"] = "centre"


class Range(_Record):
    """Ground truth that is measured, near < depth < far, and what aligned depth is clipped to.

    None is no limit.
    """

    near: Positive | None = None
    far: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.near is not None and self.far is not None and self.near >= self.far:
            raise ValueError(f"near {self.near:g} must be less than far {self.far:g}")
        return self


class Region(_Record):
    """Where in the picture is measured: rows [top, bottom), columns [left, right).

    Attributes:
        unit: ``pixels``, or ``fraction`` of height and width, rounded down to pixels.
    """

    unit: Literal["pixels", "fraction"]
    top: Annotated[float, Field(ge=0)]
    bottom: Positive
    left: Annotated[float, Field(ge=0)]
    right: Positive


class Alignment(_Record):
    """How predictions are brought to the ground truth's units; see `redepth.metrics.align`.

    Attributes:
        disparity: method for a model that predicts disparity.
        depth: method for a model that predicts depth.
        trim: share of outliers that each least-squares fit may leave out.
        clip: ``range`` clips aligned depth to the range; ``non-positive`` only mends what is not positive or
            infinite.
    """

    disparity: Method
    depth: Method
    trim: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Literal["range", "non-positive"] = "range"


class Protocol(_Record):
    """Everything that decides a number besides the prediction.

    Attributes:
        name: of the protocol.
        version: rises with every change of a shipped protocol that can change a number.
        description: one line; like ``split.source``, it does not go into the hash.
        dataset: the data set it belongs to; None is any.
        options: of the data set's reader that belong to the protocol.
        split: which images.
        crop: cut out of photo and truth before anything else; None is nothing.
        range: of the ground truth that is measured, and what aligned depth is clipped to.
        region: where in the (cropped) picture is measured; None is everywhere.
        alignment: how, and what is clipped.
        resolution: ``truth`` resizes the prediction to the ground truth, ``prediction`` samples the ground
            truth at the prediction's size (nearest pixel), a size does both.
        interpolation: of a resized prediction, bilinear with or without aligned corners.
        silog_lambda: see `redepth.metrics.depth_metrics`.
        measures: besides depth: ``boundaries`` for dense ground truth, ``normals`` where a data set has them.
        averaging: over a data set, of the images' metrics or of all their pixels.
    """

    name: str
    version: Annotated[int, Field(ge=1)] = 1
    description: str = ""
    dataset: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    split: Split = Split()
    crop: Crop | None = None
    range: Range = Range()
    region: Region | None = None
    alignment: Alignment
    resolution: Literal["truth", "prediction"] | Size = "truth"
    interpolation: Literal["bilinear", "bilinear-corners"] = "bilinear-corners"
    silog_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    measures: tuple[Literal["boundaries", "normals"], ...] = ()
    averaging: Literal["image", "pixel"] = "image"

    @property
    def sha256(self) -> str:
        """Hash of all that can change a number: two rows are comparable if theirs are equal."""
        content = self.model_dump(mode="json", exclude=_PROSE)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def pinned(self, names: Sequence[str]) -> Protocol:
        """Return the protocol with its split fixed to these images, their number and hash filled in."""
        found = names_hash(names)
        fixed: dict[str, Any] = {"count": len(names), "sha256": found}
        if self.split.sha256 not in (None, found) or self.split.count not in (None, len(names)):
            # The images are no longer those that the list and its name stand for.
            fixed |= {"file": None, "name": f"part of {self.split.name}"}
        return self.model_copy(update={"split": self.split.model_copy(update=fixed)})

    def prepare(self, sample: Sample) -> Sample:
        """Return the sample as a model is to see it: photo and ground truth cropped.

        Raises:
            InputError: naming image and protocol: the crop does not fit, or the sizes of photo and ground
                truth differ where there is one.
        """
        from redepth.protocols.measure import prepare

        return prepare(self, sample)

    def evaluate(
        self,
        raw: ArrayLike | Tensor,
        sample: Sample,
        *,
        predicts: Predicts = "disparity",
        invariance: Invariance = "affine",
    ) -> ImageMetrics:
        """Return the row of one image: the `measure` without its arrays."""
        return self.measure(raw, sample, predicts=predicts, invariance=invariance).row

    def measure(
        self,
        raw: ArrayLike | Tensor,
        sample: Sample,
        *,
        predicts: Predicts = "disparity",
        invariance: Invariance = "affine",
    ) -> Measurement:
        """Measure a prediction against a sample that `prepare` returned.

        Args:
            raw: (h, w), a model's output for the prepared photo, at any size.
            sample: prepared.
            predicts: whether it is disparity or depth.
            invariance: ``affine`` or ``metric``.

        Raises:
            InputError: naming image and protocol: nothing to measure, a prediction that is not finite, a
                sample that was not prepared, or a method that an affine-invariant prediction does not allow.
        """
        from redepth.protocols.measure import measure

        return measure(self, raw, sample, predicts, invariance)

    def average(self, rows: Sequence[ImageMetrics]) -> dict[str, float]:
        """Return the metrics over a data set, as `averaging` says.

        Normals and boundaries are averaged over those images that have them, always by image.

        Raises:
            ConfigError: if a row is of another protocol.
            InputError: without rows.
        """
        from redepth.protocols.measure import average

        return average(self, rows)

    def to_yaml(self) -> str:
        """Return YAML that `load_protocol` reads back to an equal protocol."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def names_hash(names: Iterable[str]) -> str:
    """Return the SHA-256 of image names, sorted, one a line: their order changes no result."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


# --- by name --------------------------------------------------------------------------------------


def protocol_names() -> list[str]:
    """Return the names of the protocols that ship with the package."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def protocol_for(dataset: str) -> str:
    """Return the name of a data set's usual protocol; the paper's if there is none of its own."""
    name = _HOMES.get(dataset, dataset)
    return name if name in protocol_names() else DEFAULT_PROTOCOL


def load_protocol(source: str | Path | Mapping[str, Any]) -> Protocol:
    """Load a protocol by name, from a YAML file or from a mapping.

    Raises:
        ConfigError: unknown protocol or key (with the nearest valid one), wrong type, value out of range,
            unreadable file.
    """
    data = dict(source) if isinstance(source, Mapping) else _read(_find(source))
    try:
        return Protocol.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"protocol: {explain(error, '', _valid_keys, Protocol)}") from None


def _find(source: str | Path) -> Path:
    names = protocol_names()
    if str(source) in names:
        return PROTOCOLS / f"{source}.yaml"
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"}:
        raise ConfigError(f"protocol file '{source}' does not exist")
    hint = nearest(str(source), names)
    raise ConfigError(f"unknown protocol '{source}'{hint} (valid: {', '.join(names)}, or a YAML file)")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read protocol file '{path}': {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"protocol file '{path}' must hold a mapping")
    return {"name": path.stem, **data}


def _valid_keys(location: Location) -> list[str]:
    """Return the keys that may stand at a place of the record."""
    section: type[BaseModel] | None = Protocol
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        section = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return list(section.model_fields) if section else []


# --- comparing ------------------------------------------------------------------------------------

_WORDS = {
    "name": "the name",
    "version": "the version",
    "dataset": "the data set",
    "options": "the reader's option",
    "split.name": "the split",
    "split.file": "the list of the split",
    "split.count": "the number of images",
    "split.sha256": "the hash of the image names",
    "crop": "the crop of photo and ground truth",
    "range.near": "the least depth",
    "range.far": "the greatest depth",
    "region": "the region that is measured",
    "alignment.disparity": "the alignment of disparity",
    "alignment.depth": "the alignment of depth",
    "alignment.trim": "the share that the alignment leaves out",
    "alignment.clip": "which aligned depths are clipped",
    "resolution": "the resolution of the evaluation",
    "interpolation": "the interpolation of the prediction",
    "silog_lambda": "the lambda of SI-log",
    "measures": "what is measured besides depth",
    "averaging": "the averaging",
}


def difference(a: Protocol, b: Protocol) -> list[str]:
    """Return in words each thing in which two protocols differ that can change a number; empty if none."""
    first, second = (_flat(protocol.model_dump(mode="json", exclude=_PROSE)) for protocol in (a, b))
    one, other = (a.name, b.name) if a.name != b.name else ("the first", "the second")
    return [
        f"{_worded(key)} is {_shown(first.get(key))} in {one} and {_shown(second.get(key))} in {other}"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def require_same(a: Protocol, b: Protocol) -> None:
    """Refuse to compare results of two protocols.

    Raises:
        ConfigError: with every difference, if there is one.
    """
    found = difference(a, b)
    if found:
        raise ConfigError(
            f"results under {a.name} and {b.name} cannot be compared: {'; '.join(found)}. "
            "Measure both under one protocol"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _worded(key: str) -> str:
    """``crop.height`` -> ``the crop of photo and ground truth (height)``."""
    if key in _WORDS:
        return _WORDS[key]
    section, _, rest = key.partition(".")
    return f"{_WORDS.get(section, section)} ({rest})"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
