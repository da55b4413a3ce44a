"""The published numbers that an installation is held against: their schema, and the file that ships."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from redepth.errors import ConfigError, InputError, cut
from redepth.io import read_text
from redepth.io.markup import TEXT_LIMIT, parse_yaml
from redepth.registry import Checked, explain

FILE = Path(__file__).with_name("anchors.yaml")

Kind = Literal["published", "reproduced", "ours"]
"""Whose number it is: of a paper, of somebody who ran the model again, or of this project."""


class _Record(Checked):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Record):
    """Where numbers are from.

    Attributes:
        kind: whose numbers they are.
        by: who measured them, and where they are printed.
        url: of the paper or the repository.
    """

    kind: Kind
    by: Annotated[str, Field(min_length=1)]
    url: Annotated[str, Field(pattern="^https://")]


class ModelRun(_Record):
    """How models were run for their numbers.

    Attributes:
        models: names of components.
        options: option of the component -> the values that it may have; every other one has its default.
        free: options that may have any value, because they change no number.
    """

    models: Annotated[list[str], Field(min_length=1)]
    options: dict[str, Annotated[list[Any], Field(min_length=1)]]
    free: list[str] = Field(default_factory=list)


class Anchor(_Record):
    """One number.

    Attributes:
        model: name of the depth model.
        protocol: name of the evaluation protocol.
        metric: name of the metric, averaged over the protocol's images.
        value: of the model's prediction, not refined.
        source: key of `Anchors.sources`.
        tolerance: the largest relative distance at which a measurement agrees with the number; None: the
            number is for orientation and no measure of an installation.
        differs: how its measurement differs from the protocol; stated where there is no tolerance.
    """

    model: str
    protocol: str
    metric: str
    value: Annotated[float, Field(gt=0, lt=1000)]
    source: str
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    differs: str = ""

    @model_validator(mode="after")
    def _says_why(self) -> Anchor:
        if self.tolerance is None and not self.differs:
            raise ValueError("without a tolerance it must say under differs why it is no measure")
        return self


class Anchors(_Record):
    """All anchors.

    Attributes:
        sources: where they are from.
        protocols: name -> SHA-256 of the protocol when its anchors were entered.
        runs: how the models were run.
        anchors: the numbers.
    """

    sources: dict[str, Source]
    protocols: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    runs: list[ModelRun] = Field(default_factory=list)
    anchors: Annotated[list[Anchor], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Anchors:
        seen = set()
        for anchor in self.anchors:
            if anchor.source not in self.sources:
                raise ValueError(f"no source is named '{cut(anchor.source)}'")
            if anchor.protocol not in self.protocols:
                raise ValueError(f"protocol '{cut(anchor.protocol)}' has no hash under protocols")
            key = (anchor.model, anchor.protocol, anchor.metric, anchor.source)
            if key in seen:
                raise ValueError(f"{', '.join(key)} stands there twice")
            seen.add(key)
        return self

    def source(self, anchor: Anchor) -> Source:
        """Return where a number is from."""
        return self.sources[anchor.source]

    def options(self, model: str) -> dict[str, list[Any]]:
        """Return the values that options of a model may have, so that its numbers apply."""
        found: dict[str, list[Any]] = {}
        for run in self.runs:
            if model in run.models:
                found |= run.options
        return found

    def free(self, model: str) -> set[str]:
        """Return the options of a model that change none of its numbers."""
        return {option for run in self.runs if model in run.models for option in run.free}


@cache
def published() -> Anchors:
    """Return the numbers that ship with the package."""
    return load_anchors(FILE)


def load_anchors(source: Path | Mapping[str, Any]) -> Anchors:
    """Load anchors from a YAML file or a mapping.

    Raises:
        ConfigError: it cannot be read, or a key or a value is wrong.
    """
    where = "anchors" if isinstance(source, Mapping) else str(source)
    if isinstance(source, Path):
        try:
            data = parse_yaml(read_text(source, limit=4 * TEXT_LIMIT))
        except (InputError, ValueError) as error:
            raise ConfigError(f"cannot read {where}: {error}") from None
    else:
        data = dict(source)
    try:
        return Anchors.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, '', lambda _: [], Anchors)}") from None
