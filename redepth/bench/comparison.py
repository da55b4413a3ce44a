"""The comparison of two benchmark runs, image by image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from redepth.bench.identity import TRUTH
from redepth.bench.records import RUN_FILE, RUN_KIND, Comparison, Result, Row, Run
from redepth.bench.tables import of_protocol, results_of, summarize
from redepth.errors import ConfigError, InputError
from redepth.protocols import EvaluationProtocol, difference
from redepth.runtime.resume import load_identity, read_identity, read_rows

log = logging.getLogger(__name__)

_NAMED = 3
"""How many images that are left out are named."""


@dataclass(frozen=True)
class _Finished:
    """A run and what its folder holds of it."""

    folder: Path
    run: Run
    results: list[Result]

    @classmethod
    def of(cls, folder: Path) -> _Finished:
        run = load_identity(folder / RUN_FILE, Run, RUN_KIND)
        return cls(folder, run, results_of(run, read_rows(folder, run.tasks(), Row).values()))

    def answers(self, protocol: EvaluationProtocol, preset: str) -> dict[str, Result]:
        """Return the results of a preset under a protocol, by image."""
        return {r.image: r for r in of_protocol(protocol, self.results) if r.preset == preset}

    def truths(self, preset: str) -> dict[str, dict[str, str]]:
        """Return of each image of a preset what it was measured against; rows without a record have none."""
        found = {}
        for image in dict.fromkeys(result.image for result in self.results if result.preset == preset):
            if (identity := read_identity(self.folder, (preset, image))) is not None:
                found[image] = {name: identity.inputs[name] for name in TRUTH if name in identity.inputs}
        return found


def compare(a: Path, b: Path) -> Iterator[Comparison]:
    """Compare the answers of two runs, each preset of one with each of the other, image by image.

    They are compared under every protocol that both were measured by. With a warning are left out: an image
    with another ground truth or mask in the other run, and a protocol without an image that both have.

    Raises:
        ConfigError: they share no protocol, with every difference.
        InputError: a folder holds no run, or the runs share no image.
    """
    first, second = _Finished.of(a), _Finished.of(b)
    shared = _shared_protocols(first, second)
    left_out: list[str] = []
    found = []
    for preset in first.run.presets:
        for other in second.run.presets:
            pair = preset if preset == other else f"{preset} against {other}"
            differing = _other_truths(first.truths(preset), second.truths(other))
            if differing:
                left_out.append(f"{_shown(differing)} ({pair})")
            for protocol in shared:
                joined = _joined(
                    first.answers(protocol, preset), second.answers(protocol, other), other, differing
                )
                if joined:
                    (summaries,) = summarize(protocol, joined).values()
                    found.append(Comparison(preset, other, summaries, protocol.name))
                else:
                    left_out.append(f"no finished image in common under {protocol.name} ({pair})")
    if not found:
        raise InputError(f"{a} and {b} cannot be compared: {'; '.join(left_out)}")
    for reason in left_out:
        log.warning("left out of the comparison: %s", reason)
    order = [protocol.name for protocol in shared]
    yield from sorted(found, key=lambda one: order.index(one.protocol))


def _shared_protocols(first: _Finished, second: _Finished) -> list[EvaluationProtocol]:
    """Return the protocols of both runs. Raises ConfigError if there is none."""
    ours, theirs = first.run, second.run
    hashes = {protocol.sha256 for protocol in theirs.protocols}
    shared = [protocol for protocol in ours.protocols if protocol.sha256 in hashes]
    if not shared:
        by_name = {protocol.name: protocol for protocol in theirs.protocols}
        pairs = [(one, by_name[one.name]) for one in ours.protocols if one.name in by_name]
        pairs = pairs or [(ours.protocols[0], theirs.protocols[0])]
        differences = [line for pair in pairs for line in difference(*pair)]
        folders = f"{first.folder} and {second.folder}"
        raise ConfigError(f"{folders} were measured by different protocols: {'; '.join(differences)}")
    return shared


def _other_truths(
    ours: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the images that were measured against something else, each with what differs first."""
    differing: dict[str, str] = {}
    for image in ours:
        for name in TRUTH:
            if image in theirs and ours[image].get(name) != theirs[image].get(name):
                differing.setdefault(image, name)
    return differing


def _shown(differing: Mapping[str, str]) -> str:
    names = ", ".join(list(differing)[:_NAMED]) + (", ..." if len(differing) > _NAMED else "")
    what = " or ".join(dict.fromkeys(differing.values()))
    images = "1 image" if len(differing) == 1 else f"{len(differing)} images"
    return f"{images} of which {what} differs in the two runs: {names}"


def _joined(
    ours: Mapping[str, Result], theirs: Mapping[str, Result], other: str, differing: Mapping[str, str]
) -> list[Result]:
    """Return rows whose ``initial`` is our answer and whose ``refined`` is theirs."""
    return [
        Result(image=image, preset=other, initial=result.answer, refined=theirs[image].answer)
        for image, result in ours.items()
        if image in theirs and image not in differing
    ]
