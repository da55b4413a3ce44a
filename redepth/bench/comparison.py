"""The comparison of two benchmark runs, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from redepth.bench.records import RUN_FILE, RUN_KIND, Comparison, Result, Run
from redepth.bench.tables import summarize
from redepth.errors import ConfigError, InputError
from redepth.protocols import difference
from redepth.runtime.resume import load_identity, read_rows


def compare(a: Path, b: Path) -> Iterator[Comparison]:
    """Compare the refined results of two runs, each preset of one with each of the other, image by image.

    Raises:
        ConfigError: their protocols differ, with every difference.
        InputError: a folder holds no run, or the runs share no image.
    """
    ours, theirs = (load_identity(folder / RUN_FILE, Run, RUN_KIND) for folder in (a, b))
    differences = difference(ours.protocol, theirs.protocol)
    if differences:
        raise ConfigError(f"{a} and {b} were measured by different protocols: {'; '.join(differences)}")
    our_results, their_results = _results(ours, a), _results(theirs, b)
    for preset in ours.presets:
        for other in theirs.presets:
            joined = _joined(our_results, preset, their_results, other)
            if not joined:
                raise InputError(f"{a} and {b} have no finished image in common")
            (summaries,) = summarize(ours.protocol, joined).values()
            yield Comparison(preset, other, summaries, ours.protocol.name)


def _results(run: Run, folder: Path) -> list[Result]:
    """Return the finished rows of a run."""
    tasks = run.tasks()
    return list(read_rows(folder, tasks, Result).values())


def _joined(ours: Sequence[Result], preset: str, theirs: Sequence[Result], other: str) -> list[Result]:
    """Return rows whose ``initial`` is our refined output and whose ``refined`` is theirs."""
    before = {result.image: result.refined for result in ours if result.preset == preset}
    after = {result.image: result.refined for result in theirs if result.preset == other}
    return [
        Result(image=image, preset=other, initial=refined, refined=after[image])
        for image, refined in before.items()
        if image in after
    ]
