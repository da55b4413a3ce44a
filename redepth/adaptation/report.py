"""The report of an adaptation: one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from shlex import join

from redepth import io
from redepth.adaptation.lessons import TOTAL
from redepth.adaptation.record import CHECKPOINT, PRESET_FILE, REPORT_FILE, Adapted, Job
from redepth.adaptation.state import read_log
from redepth.config.units import duration
from redepth.viz import curve_figure, pages

VALIDATION = "distance on held-out photos, in percent"
SHOWN = 4
"""Number of held-out photos whose pictures are open when the page is loaded."""

MEANING = (
    "The distance is SI-log between a prediction and the photo's refinement, in percent: no ground truth is "
    "used, so it says how much of refinement the model has learned, not how true its depth is."
)


@dataclass(frozen=True)
class HeldOut:
    """A held-out photo in the report.

    Attributes:
        name: of the photo.
        before: distance of the starting model, in percent.
        after: distance of the adapted model.
        pictures: caption -> JPEG.
    """

    name: str
    before: float
    after: float
    pictures: Mapping[str, bytes] = field(default_factory=dict)


Curve = list[tuple[int, float]]

_SECONDS = {"refine": "optimisation of the photos used", "train": "training"}
"""What the stages of `Adapted.seconds` took their time for."""


def write_report(job: Job, result: Adapted, losses: Mapping[str, Curve], held_out: Sequence[HeldOut]) -> None:
    """Write ``report.html``.

    Args:
        job: what was adapted, and how.
        result: of the adaptation.
        losses: name -> step and loss.
        held_out: the photos that were not learned from.
    """
    parts = [
        f"<h1>{pages.text(_title(job, result))}</h1>",
        f"<p>{pages.text(_headline(result))}</p>",
        f'<p class="soft">{pages.text(MEANING)}</p>' if result.validations else "",
        _usage(result),
        "<h2>Numbers</h2>",
        pages.table(("", "value"), _numbers(job, result)),
        "<h2>Curves</h2>",
        _curves(result, losses),
        *_held_out(held_out),
        *_left_out(result),
        f"<details><summary>Settings</summary><pre>{pages.text(job.preset.to_yaml())}</pre></details>",
    ]
    io.save_text(result.folder / REPORT_FILE, pages.page("redepth adapt", parts))


def read_losses(training: Path) -> dict[str, Curve]:
    """Return the curves in a training's log: the loss of each step, and its parts where there are several.

    Args:
        training: folder of the training.
    """
    curves: dict[str, Curve] = {}
    for row in read_log(training):
        if "loss" not in row:
            continue
        parts = {"loss": row["loss"]}
        for lesson, losses in row["losses"].items():
            # What a lesson or a part is alone, the loss shows.
            if len(row["losses"]) > 1:
                parts[lesson] = losses[TOTAL]
            if len(losses) > 2:
                parts |= {f"{lesson}: {name}": value for name, value in losses.items() if name != TOTAL}
        for name, value in parts.items():
            if value is not None:
                curves.setdefault(name, []).append((row["step"], value))
    return curves


def _title(job: Job, result: Adapted) -> str:
    name = job.preset.depth_model.name
    checkpoint = job.preset.depth_model.options.get("checkpoint")
    return f"{name}{f' ({checkpoint})' if checkpoint else ''}, adapted to {result.training} photos"


def _headline(result: Adapted) -> str:
    """Return the outcome in a sentence or two."""
    if result.before is None or result.after is None:
        return "No photos were held out, so nothing says whether the last weights are better."
    if result.chosen == 0:
        return (
            "No step came nearer to the refinements of the held-out photos: the result is the starting model."
        )
    change = 100 * (result.after / result.before - 1) if result.before else 0.0
    return (
        f"On {len(result.held_out)} held-out photos the distance to their refinements went from "
        f"{result.before:.2f} % to {result.after:.2f} % ({change:+.1f} %), at step {result.chosen}."
    )


def _usage(result: Adapted) -> str:
    command, folder = ("redepth", "refine", "photo.jpg", "--preset"), io.as_text(result.folder)
    lines = [
        join([*command, f"{folder}/{PRESET_FILE}"]),
        join([*command, "PRESET", "--set", f"depth_model.checkpoint={folder}/{CHECKPOINT}"]),
    ]
    return f"<pre>{pages.text(chr(10).join(lines))}</pre>"


def _numbers(job: Job, result: Adapted) -> list[tuple[str, str]]:
    settings = job.preset.adapt
    rows = [
        ("method", settings.method),
        ("learned", f"{settings.learns}: {result.learned[0]:,} of {result.learned[1]:,} numbers"),
        ("photos learned from", str(result.training)),
        ("photos held out", str(len(result.held_out))),
        ("photos left out", str(len(result.left_out))),
        ("photos to keep", str(result.keep)),
        ("steps", f"{result.steps} of {settings.steps}"),
        ("why it ended", result.stopped),
        ("step of the result", str(result.chosen)),
    ]
    rows += [(f"time of the {_SECONDS[name]}", duration(value)) for name, value in result.seconds.items()]
    if result.peak_memory is not None:
        rows.append(("most GPU memory of the training", f"{result.peak_memory / 2**30:.1f} GiB"))
    return [*rows, *_times(result)]


def _times(result: Adapted) -> list[tuple[str, str]]:
    """Return the rows that compare one prediction with one refinement, as measured in this run."""
    rows = []
    if result.predict_seconds:
        rows.append(("one prediction", f"{1000 * result.predict_seconds:.0f} ms"))
    if result.refine_seconds:
        rows.append(("one refinement", f"{result.refine_seconds:.1f} s"))
    if result.predict_seconds and result.refine_seconds:
        rows.append(
            ("refinement over prediction", f"{result.refine_seconds / result.predict_seconds:.0f} times")
        )
    return rows


def _curves(result: Adapted, losses: Mapping[str, Curve]) -> str:
    curves, noisy = dict(losses), list(losses)
    validated = [(v.step, v.distance) for v in result.validations]
    if validated:
        curves = {VALIDATION: validated, **curves}
    if not curves:
        return "<p>No step was taken.</p>"
    picture = BytesIO()
    figure = curve_figure(curves, marks={VALIDATION: result.chosen}, smoothed=noisy)
    figure.savefig(picture, format="png", dpi=110)
    url = pages.data_url(picture.getvalue(), "png")
    words = "The marked step gave the result. Losses: each step, and their running mean."
    return f'<img alt="curves of the training" style="max-width:100%" src="{url}"><p class="soft">{words}</p>'


def _held_out(held_out: Sequence[HeldOut]) -> list[str]:
    if not held_out:
        return []
    head = ("photo", "distance before", "after", "change")
    rows = [
        (h.name, f"{h.before:.2f} %", f"{h.after:.2f} %", f"{100 * (h.after / h.before - 1):+.1f} %")
        for h in held_out
        if h.before
    ]
    table = pages.table(head, rows, sortable=True)
    return ["<h2>Held-out photos</h2>", table, *(_photo(h, n < SHOWN) for n, h in enumerate(held_out))]


def _photo(photo: HeldOut, shown: bool) -> str:
    title = f"{photo.name}: {photo.before:.2f} % to {photo.after:.2f} %"
    figures = "".join(pages.figure(pages.data_url(jpeg), name) for name, jpeg in photo.pictures.items())
    opened = " open" if shown else ""
    return (
        f'<details{opened}><summary>{pages.text(title)}</summary><div class="row">{figures}</div></details>'
    )


def _left_out(result: Adapted) -> list[str]:
    if not result.left_out:
        return []
    rows = sorted(result.left_out.items())
    return ["<h2>Left out</h2>", pages.table(("photo", "why"), rows)]
