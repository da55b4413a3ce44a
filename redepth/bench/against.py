"""The predictions of a run held against published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redepth import depth_models
from redepth.bench.anchors import Anchor, Anchors, Source
from redepth.bench.records import Result, Run
from redepth.bench.tables import of_protocol, summarize
from redepth.config import Component, Preset
from redepth.depth_models.catalog import hub_id
from redepth.errors import ConfigError
from redepth.protocols import EvaluationProtocol, load_protocol, protocol_names


@dataclass(frozen=True)
class Applied:
    """A number that a preset of a run can be held against under one of its protocols."""

    preset: str
    protocol: EvaluationProtocol
    anchor: Anchor
    source: Source


@dataclass(frozen=True)
class Held:
    """A number of a run beside a published one.

    Attributes:
        applied: the published number, and what it was held against.
        value: the run's, of the prediction.
        distance: relative, (value - published) / published.
        agrees: whether it is within the tolerance; None without one.
        reproduced: whether a number of the same model, protocol and metric agrees, of any source: the verdict
            on the measurement, which the sources share. None if none of them has a tolerance.
    """

    applied: Applied
    value: float
    distance: float
    agrees: bool | None
    reproduced: bool | None = None

    @property
    def measurement(self) -> tuple[str, str, str]:
        """Preset, protocol and metric: what the run measured once and several sources may have."""
        return self.applied.preset, self.applied.protocol.name, self.applied.anchor.metric

    def record(self) -> dict[str, Any]:
        """Return it as JSON-compatible data."""
        anchor, source = self.applied.anchor, self.applied.source
        return {
            "preset": self.applied.preset,
            "protocol_sha256": self.applied.protocol.sha256,
            **anchor.model_dump(),
            "source": source.model_dump(),
            "measured": self.value,
            "distance": self.distance,
            "agrees": self.agrees,
            "reproduced": self.reproduced,
        }


def check_against(dataset: str, anchors: Anchors) -> None:
    """Raise ConfigError if there is no number for a data set at all."""
    known = sorted({str(load_protocol(name).dataset) for name in anchors.protocols})
    if dataset not in known:
        raise ConfigError(
            f"--against published: there are no published numbers for {dataset} (there are for "
            f"{', '.join(known)}); docs/benchmarks.md lists them"
        )


def applicable(run: Run, anchors: Anchors) -> tuple[list[Applied], list[str]]:
    """Return the numbers that apply to a run, and for all else why none does, a line each."""
    found: list[Applied] = []
    reasons: list[str] = []
    for name, preset in run.presets.items():
        model = model_of(preset, anchors)
        if model is None:
            component = preset.depth_model
            checkpoint = component.options.get("checkpoint")
            what = component.name if checkpoint is None else f"{component.name} with {checkpoint}"
            reasons.append(f"{name}: no published number is about its depth model ({what})")
            continue
        if wrong := list(_other_options(preset.depth_model, model, anchors)):
            reasons.append(
                f"{name}: the published numbers of {model} are of other options: {'; '.join(wrong)}"
            )
            continue
        for protocol in run.protocols:
            own = [a for a in anchors.anchors if (a.model, a.protocol) == (model, protocol.name)]
            if not own:
                others = sorted({a.protocol for a in anchors.anchors if a.model == model} & _of(run.dataset))
                advice = f"; there is under {', '.join(others)}" if others else ""
                reasons.append(f"{name}, {protocol.name}: no published number of {model}{advice}")
            elif reason := _not_whole(run, protocol, anchors):
                reasons.append(f"{name}, {protocol.name}: {reason}")
            else:
                found += [Applied(name, protocol, anchor, anchors.source(anchor)) for anchor in own]
    return found, reasons


def hold(run: Run, results: Sequence[Result], applied: Sequence[Applied]) -> tuple[list[Held], list[str]]:
    """Hold the predictions of a run against numbers that apply to it.

    Sources differ from each other: a measurement is reproduced if it agrees with one of them.

    Returns:
        The numbers side by side, and a line for each that could not be held, because images failed or the
        metric was not measured.
    """
    held: list[Held] = []
    reasons: dict[str, None] = {}
    for one in applied:
        measured = of_protocol(one.protocol, [r for r in results if r.preset == one.preset])
        if len(measured) < len(run.images):
            missing = f"{len(measured)} of {len(run.images)} images are measured"
            reasons[f"{one.preset}, {one.protocol.name}: {missing}, which is a part of the split"] = None
            continue
        summaries = {s.metric: s for s in summarize(one.protocol, measured)[one.preset]}
        summary = summaries.get(one.anchor.metric)
        if summary is None or summary.images < len(run.images):
            reasons[f"{one.preset}, {one.protocol.name}: {one.anchor.metric} was not measured"] = None
            continue
        distance = summary.initial / one.anchor.value - 1
        tolerance = one.anchor.tolerance
        agrees = None if tolerance is None else abs(distance) <= tolerance
        held.append(Held(one, summary.initial, distance, agrees))
    reproduced = verdicts(held)
    return [replace(one, reproduced=reproduced.get(one.measurement)) for one in held], list(reasons)


def verdicts(held: Sequence[Held]) -> dict[tuple[str, str, str], bool]:
    """Return whether each measurement (`Held.measurement`) agrees with a source, if one has a tolerance."""
    found: dict[tuple[str, str, str], bool] = {}
    for one in held:
        if one.agrees is not None:
            found[one.measurement] = found.get(one.measurement, False) or one.agrees
    return found


def model_of(preset: Preset, anchors: Anchors) -> str | None:
    """Return the model of the anchors that a preset's depth model is: the same class and checkpoint."""
    registry = depth_models.REGISTRY
    component = preset.depth_model
    checkpoint = hub_id(str(component.options.get("checkpoint", "")))
    for model in dict.fromkeys(anchor.model for anchor in anchors.anchors):
        entry = registry.entries().get(model)
        if entry is None or registry.get(model) is not _class_of(component):
            continue
        if hub_id(str(entry.defaults.get("checkpoint", ""))) == checkpoint:
            return model
    return None


def _class_of(component: Component) -> type:
    return depth_models.REGISTRY.get(component.name)


def _other_options(component: Component, model: str, anchors: Anchors) -> Iterator[str]:
    """Yield in words each option that is not as it was for a model's numbers, which may change them."""
    usual = {key: [value] for key, value in depth_models.REGISTRY.check(model, {}).items()}
    # `model_of` has compared the checkpoints.
    for key in anchors.free(model) | {"checkpoint"}:
        usual.pop(key, None)
    for key, values in {**usual, **anchors.options(model)}.items():
        value = component.options.get(key)
        if value not in values:
            shown = " or ".join("null" if one is None else str(one) for one in values)
            yield f"depth_model.{key} is {value} here and {shown} there"


def _of(dataset: str) -> set[str]:
    """Return the names of the protocols of a data set."""
    return {name for name in protocol_names() if load_protocol(name).dataset == dataset}


def _not_whole(run: Run, protocol: EvaluationProtocol, anchors: Anchors) -> str:
    """Return why a run's protocol is not the anchors', or its images not all of the split; empty if it is."""
    shipped = load_protocol(protocol.name) if protocol.name in protocol_names() else None
    if shipped is None or shipped.sha256 != anchors.protocols[protocol.name]:
        return "the protocol has changed since its published numbers were entered"
    count = shipped.split.count
    if count is not None and len(run.images) != count:
        part = f"{len(run.images)} of the split's {count} images"
        return f"{part}: a part cannot be held against the number of all"
    if shipped.pinned(run.images).sha256 != protocol.sha256:
        return "the protocol is not the one that ships under this name"
    if shipped.split.sha256 not in (None, protocol.split.sha256):
        return "these are not the images of the split"
    return ""
