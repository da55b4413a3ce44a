"""A result in plain words, as HTML: what happened, and what the diagnostics say."""

from __future__ import annotations

from html import escape

from redepth.app.progress import Progress
from redepth.config.units import duration
from redepth.metrics.diagnostics import ADVICE, Signature
from redepth.refinement import Refinement

GOOD, BAD, UNKNOWN = "good", "bad", "unknown"

PLAIN = {
    "hallucinated_edges": "Edges that the refinement drew onto flat, painted texture.",
    "over_smoothing": "Fine detail of the first depth that was smoothed away.",
    "geometry_collapse": "How much of the depth's range or order was lost.",
    "sky_geometry": "Depth in the sky, which should be far away everywhere.",
}
"""What each diagnostic looks for, in a sentence."""


def progress_html(line: str, share: float | None = None) -> str:
    """Return a line about a run, over a bar; without a share the bar says only that something is done."""
    width = "" if share is None else f' style="width: {100 * min(1.0, max(0.0, share)):.1f}%"'
    kind = "redepth-bar" if share is not None else "redepth-bar redepth-busy"
    bar = f'<div class="{kind}"><div{width}></div></div>'
    return f'<div class="redepth-progress"><p>{escape(line)}</p>{bar}</div>'


def note_html(text: str, kind: str = UNKNOWN) -> str:
    """Return a line that stays: ``good``, ``bad`` or ``unknown`` colours it."""
    return f'<div class="redepth-progress"><p class="redepth-{kind}">{escape(text)}</p></div>'


def step_html(progress: Progress) -> str:
    """Return a step in progress."""
    return progress_html(progress.line, progress.share)


def summary_of(result: Refinement) -> str:
    """Return what happened, in a line."""
    outcome = result.outcome
    members, steps = len(outcome.members), max(outcome.steps_done)
    some = "1 member" if members == 1 else f"{members} members"
    size = f"{result.photo.shape[1]} x {result.photo.shape[0]} pixels"
    parts = [
        f"{some} of {steps} steps in {duration(outcome.seconds)}",
        f"depth changed by {100 * result.change:.1f} % of its range",
        f"normals turned by {result.turn:.1f}° on average",
        size,
    ]
    start = "Done: "
    if result.partial:
        start = f"Partial ({outcome.reason}): "
    elif outcome.reason:
        start = f"Done, {outcome.reason}: "
    return start + ", ".join(parts)


def summary_html(result: Refinement) -> str:
    """Return what happened, as a line that stays."""
    return note_html(summary_of(result), BAD if result.partial else GOOD)


def diagnostics_html(result: Refinement) -> str:
    """Return the failure signatures and the warnings of a result."""
    cards = "".join(map(_card, result.diagnostics.values()))
    signatures = {signature.warning for signature in result.flagged}
    others = [line for line in result.warnings if line not in signatures]
    lines = "".join(f'<p class="redepth-bad">{escape(line)}</p>' for line in others)
    flagged = len(result.flagged)
    headline = "Nothing looks wrong."
    if flagged:
        headline = f"{flagged} of {len(result.diagnostics)} diagnostics found something."
    meaning = f"<p>The numbers of the map: {escape(result.meaning)}.</p>"
    return f'<div class="redepth-words"><h3>{headline}</h3>{lines}{cards}{meaning}</div>'


def _card(signature: Signature) -> str:
    state = UNKNOWN if signature.value is None else BAD if signature.flagged else GOOD
    value = "not measured" if signature.value is None else f"{signature.value:.2g}"
    verdict = {GOOD: "as it should be", BAD: "look at this", UNKNOWN: "unknown"}[state]
    limit = f"a warning above {signature.threshold:.2g}"
    if not signature.calibrated_for:
        limit += ", which was not chosen for this preset"
    title = signature.title.capitalize() + (f" ({signature.part})" if signature.part else "")
    advice = f"<p><b>What to do:</b> {escape(ADVICE[signature.name])}.</p>" if signature.flagged else ""
    note = f"<p>{escape(signature.note)}.</p>" if signature.note else ""
    return (
        f'<div class="redepth-card redepth-{state}"><h4>{escape(title)}: '
        f"<b>{value}</b> <span>({limit}; {verdict})</span></h4>"
        f"<p>{escape(PLAIN.get(signature.name, ''))} Measured: {escape(signature.meaning)}.</p>"
        f"{note}{advice}</div>"
    )
