"""The channel: a photo as the depth model sees it, and the records that are fitted to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from redepth.literals import Predicts
from redepth.ops import panorama
from redepth.ops.camera import Camera


@dataclass(frozen=True)
class Frame:
    """A photo as the frozen depth model sees it; `PhotoData.prepared` fits the data to it.

    Attributes:
        image: (1,3,H,W) the photo at network size, sRGB, on the device of the run.
        initial: (1,1,H,W) raw output of the frozen model, divided by ``unit``.
        unit: the divisor of raw outputs inside the optimisation; 1 unless the model's scale is ``auto``.
        predicts: what the raw output is.
        metric: whether ``initial * unit`` is in metres (depth) or 1 / metres (disparity).
        camera: of the photo. ``image`` and ``initial`` of a panorama go on beyond one turn by its ``margin``.
    """

    image: Tensor
    initial: Tensor
    unit: float
    predicts: Predicts
    metric: bool
    camera: Camera


class PhotoData(Protocol):
    """Data of one photo that an objective reads, such as a mask or measured points.

    A third-party objective brings a class of its own, and finds its record by that class:
    ``surface.guidance.get(MyData)``.
    """

    def prepared(self, frame: Frame) -> Self:
        """Return the data at network size, on the device of ``frame.initial``. Raises InputError."""
        ...


Data = TypeVar("Data")


@dataclass(frozen=True)
class Guidance:
    """The data of one photo, at most one record of each class."""

    records: Mapping[type, PhotoData] = field(default_factory=dict)

    def get(self, kind: type[Data]) -> Data | None:
        """Return the record of this class; None if the photo has none."""
        record = self.records.get(kind)
        return record if isinstance(record, kind) else None

    @classmethod
    def prepare(cls, data: Iterable[PhotoData], frame: Frame) -> Guidance:
        """Fit all records to a photo.

        Raises:
            ValueError: if two are of the same class.
            InputError: if one does not fit the photo.
        """
        records: dict[type, PhotoData] = {}
        for record in data:
            if type(record) in records:
                raise ValueError(f"two records of {type(record).__name__} for one photo")
            records[type(record)] = record.prepared(frame)
        return cls(records)


UNGUIDED = Guidance()
"""No data, not even of the sky."""


@dataclass(frozen=True)
class Given:
    """What the caller of a refinement knows of a photo.

    Attributes:
        camera: the photo's; ``model``: the one that the depth model predicts; None: the renderer's own.
        data: for objectives.
    """

    camera: Camera | Literal["model"] | None = None
    data: tuple[PhotoData, ...] = ()


NOTHING = Given()
"""Nothing is known but the pixels."""


@dataclass(frozen=True)
class SkyMask:
    """Where the photo shows sky.

    Attributes:
        mask: (1,1,h,w) bool, any size.
        given: whether the caller gave it; else it was detected.
    """

    mask: Tensor
    given: bool = True

    def prepared(self, frame: Frame) -> Self:
        """Return the mask at network size: sky where half of a pixel or more is."""
        share = self.mask.to(frame.initial.device, torch.float32)
        height, width = frame.initial.shape[-2:]
        return type(self)(panorama.fit(share, height, width, frame.camera.margin) >= 0.5, self.given)
