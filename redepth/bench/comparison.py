"""The comparison of two benchmark runs, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from redepth.bench.records import RUN_FILE, RUN_KIND, Comparison, Result, Row, Run
from redepth.bench.tables import of_protocol, results_of, summarize
from redepth.errors import ConfigError, InputError
from redepth.protocols import EvaluationProtocol, difference
from redepth.runtime.resume import load_identity, read_rows


def compare(a: Path, b: Path) -> Iterator[Comparison]:
    """Compare the answers of two runs, each preset of one with each of the other, image by image.

    They are compared under every protocol that both were measured by.

    Raises:
        ConfigError: they share no protocol, with every difference.
        InputError: a folder holds no run, or the runs share no image.
    """
    ours, theirs = (load_identity(folder / RUN_FILE, Run, RUN_KIND) for folder in (a, b))
    shared = _shared_protocols(ours, theirs, a, b)
    our_results, their_results = _results(ours, a), _results(theirs, b)
    for protocol in shared:
        before, after = (of_protocol(protocol, results) for results in (our_results, their_results))
        for preset in ours.presets:
            for other in theirs.presets:
                joined = _joined(before, preset, after, other)
                if not joined:
                    raise InputError(f"{a} and {b} have no finished image in common")
                (summaries,) = summarize(protocol, joined).values()
                yield Comparison(preset, other, summaries, protocol.name)


def _shared_protocols(ours: Run, theirs: Run, a: Path, b: Path) -> list[EvaluationProtocol]:
    """Return the protocols of both runs. Raises ConfigError if there is none."""
    hashes = {protocol.sha256 for protocol in theirs.protocols}
    shared = [protocol for protocol in ours.protocols if protocol.sha256 in hashes]
    if not shared:
        by_name = {protocol.name: protocol for protocol in theirs.protocols}
        pairs = [(one, by_name[one.name]) for one in ours.protocols if one.name in by_name]
        pairs = pairs or [(ours.protocols[0], theirs.protocols[0])]
        differences = [line for pair in pairs for line in difference(*pair)]
        raise ConfigError(f"{a} and {b} were measured by different protocols: {'; '.join(differences)}")
    return shared


def _results(run: Run, folder: Path) -> list[Result]:
    """Return the finished results of a run."""
    return results_of(run, read_rows(folder, run.tasks(), Row).values())


def _joined(ours: Sequence[Result], preset: str, theirs: Sequence[Result], other: str) -> list[Result]:
    """Return rows whose ``initial`` is our answer and whose ``refined`` is theirs."""
    before = {result.image: result.answer for result in ours if result.preset == preset}
    after = {result.image: result.answer for result in theirs if result.preset == other}
    return [
        Result(image=image, preset=other, initial=answer, refined=after[image])
        for image, answer in before.items()
        if image in after
    ]
