"""The folder of a clip: its frames' results, its record, and what an unfinished run needs to go on.

A clip's folder holds::

    frames/000001/...     the first frame's maps and run.json, as of a photo
    depth.mp4             the refined disparity in colours
    side-by-side.mp4      photo, before and after
    clip.json             the record: settings, figures, the frames
    unfinished/...        only until the clip is finished: rows and small maps of the frames that are done

Each frame's row is written last. So a frame is done if it has a row, and its files are as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from redepth import exports, io
from redepth.clips.state import ClipSummary, FrameResult
from redepth.components import as_resolved_now
from redepth.errors import InputError
from redepth.exports.source import inverted
from redepth.refinement import Refinement
from redepth.runtime.resume import Identity, first_difference, read_record, why_again

RECORD = "clip.json"
DEPTH_VIDEO = "depth.mp4"
COMPARISON_VIDEO = "side-by-side.mp4"
FRAMES = "frames"
UNFINISHED = "unfinished"

_LARGEST_HALF = 60_000.0
"""Largest value of float16, a little less; its precision is 0.05 % down to a billionth of that."""
_SMALLEST_UNIT = 1e-30

_FRAME = re.compile(r"\d{6,}")
_KEPT = re.compile(r"\d{6,}\.(json|npz|safetensors)|(\.redepth-.*)")
"""Files in the folder of an unfinished run."""


class FrameRow(BaseModel):
    """What the record says of a frame.

    Attributes:
        folder: of its results, inside the clip's folder.
        source: its name in the folder of photos, or its number in the video.
        seconds: its time in the clip.
        tied: whether it is tied to the frame before.
        reason: why not.
        valid: share of its pixels that the frame before shows too.
        scale: with ``shift``, from the model's prediction to the scale of the clip.
        shift: see ``scale``.
        steps: that each member took.
        change: mean absolute change over the range of the initial output.
        flicker_initial: change since the frame before that motion does not explain, of the predictions; None
            where a chain starts.
        flicker_refined: likewise, of the results.
        flicker_aligned: likewise, of the predictions in the scale of the clip.
        flicker_share: share of the pixels that the three are measured over.
        flagged: titles of the failure signatures above their thresholds.
        optimise_seconds: time of the optimisation.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    folder: str
    source: str
    seconds: float
    tied: bool
    reason: str
    valid: float
    scale: float
    shift: float
    steps: int
    change: float
    flicker_initial: float | None
    flicker_refined: float | None
    flicker_aligned: float | None
    flicker_share: float | None
    flagged: list[str]
    optimise_seconds: float

    @classmethod
    def of(cls, result: FrameResult, source: str, seconds: float) -> FrameRow:
        """Return the row of a frame's result."""
        link, flicker, refinement = result.link, result.flicker, result.refinement
        return cls(
            folder=f"{FRAMES}/{_name(result.index)}",
            source=source,
            seconds=seconds,
            tied=link.tied,
            reason=link.reason,
            valid=link.valid,
            scale=link.scale,
            shift=link.shift,
            steps=link.steps,
            change=refinement.change,
            flicker_initial=None if flicker is None else flicker.initial,
            flicker_refined=None if flicker is None else flicker.refined,
            flicker_aligned=None if flicker is None else flicker.aligned,
            flicker_share=None if flicker is None else flicker.share,
            flagged=[signature.title for signature in refinement.flagged],
            optimise_seconds=refinement.outcome.seconds,
        )


def summary_of(rows: Sequence[FrameRow]) -> ClipSummary:
    """Return the figures of the frames that are done."""
    return ClipSummary(
        frames=len(rows),
        starts=tuple(index for index, row in enumerate(rows) if not row.tied),
        steps=tuple(row.steps for row in rows),
        seconds=sum(row.optimise_seconds for row in rows),
        measured=sum(row.flicker_initial is not None for row in rows),
        flicker_initial=_mean([row.flicker_initial for row in rows]),
        flicker_refined=_mean([row.flicker_refined for row in rows]),
        flicker_aligned=_mean([row.flicker_aligned for row in rows]),
        measured_share=_mean([row.flicker_share for row in rows]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class MadeFrom:
    """What decides the results of a clip.

    Attributes:
        settings: as JSON-compatible data.
        identity: contents of the files, and versions.
    """

    settings: Mapping[str, Any]
    identity: Identity


class ClipFolder:
    """The folder of one clip's results.

    Args:
        path: of the folder.
        made_from: what decides the results.
    """

    def __init__(self, path: Path, made_from: MadeFrom) -> None:
        self.path, self.made_from = path, made_from

    # --- what is there -----------------------------------------------------------------------------

    def why_refine(self) -> str | None:
        """Return None if the folder holds this clip, complete; else why it does not, in words.

        The reason is empty where there is no result, or where an unfinished one of this clip goes on.
        """
        try:
            record = read_record(self.path / RECORD)
            if record is None:
                return ""
            reason = self._differences(record)
            if reason or not record["finished"]:
                return reason
            for row in record["frames"]:
                if damage := _damage(self.path / row["folder"]):
                    return f"{row['folder']}: {damage}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{RECORD} is damaged"
        return None

    def _differences(self, record: Mapping[str, Any]) -> str:
        stored, now = record["settings"], dict(self.made_from.settings)
        if stored != now:
            preset = as_resolved_now(stored["preset"])
            stored = {**stored, "preset": {key: preset[key] for key in now["preset"]}}
        if stored != now:
            return first_difference(stored, now)
        return why_again(record, self.made_from.identity, self.path)

    def done(self) -> list[FrameRow]:
        """Return the rows of the first frames that are done; empty if they are of another clip."""
        try:
            record = read_record(self.path / RECORD)
            if record is None or record["finished"] or self._differences(record):
                return []
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
        rows: list[FrameRow] = []
        while (row := self._row(len(rows))) is not None:
            rows.append(row)
        # The states before the last one are gone.
        while rows and not self.state(len(rows) - 1).is_file():
            rows.pop()
        return rows

    def _row(self, index: int) -> FrameRow | None:
        try:
            content = read_record(self._kept(index, "json"))
            if content is None or _damage(self.frame(index)) or not self._kept(index, "npz").is_file():
                return None
            return FrameRow.model_validate(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def frame(self, index: int) -> Path:
        """Return the folder of a frame's results."""
        return self.path / FRAMES / _name(index)

    def _kept(self, index: int, suffix: str) -> Path:
        return self.path / UNFINISHED / f"{_name(index)}.{suffix}"

    def state(self, index: int) -> Path:
        """Return the file from which the frame after this one goes on."""
        return self._kept(index, "safetensors")

    # --- what is written ---------------------------------------------------------------------------

    def check(self, source: Path, inputs: Sequence[Path]) -> None:
        """Raise InputError if results could not be written, or would replace what they are made from."""
        here = Path(io.as_text(self.path.resolve()))
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is not a folder; move it away, or choose another --out")
        kept = {here / RECORD, here / DEPTH_VIDEO, here / COMPARISON_VIDEO}
        for path in (source, *inputs):
            real = Path(io.as_text(path.resolve()))
            inside = any(folder in (real, *real.parents) for folder in (here / FRAMES, here / UNFINISHED))
            if real in kept or inside:
                raise InputError(f"{path}: the results would replace this; choose another --out")

    def begin(self, source: str) -> None:
        """Remove the results of an earlier run, and write the record of an unfinished one."""
        self.clear()
        record = self._record(source) | {"finished": False, "frames": [], "files": {}}
        io.save_json(self.path / RECORD, record)

    def clear(self) -> None:
        """Remove the results of an earlier run, its record first; other files in the folder stay."""
        for name in (RECORD, DEPTH_VIDEO, COMPARISON_VIDEO):
            (self.path / name).unlink(missing_ok=True)
        for folder in self._numbered():
            for name in exports.earlier_files(folder):
                if io.is_safe_name(name):
                    (folder / name).unlink(missing_ok=True)
            _remove_empty(folder)
        _remove_empty(self.path / FRAMES)
        self._forget_unfinished()

    def _numbered(self) -> list[Path]:
        frames = self.path / FRAMES
        if not frames.is_dir():
            return []
        return [entry for entry in frames.iterdir() if _FRAME.fullmatch(entry.name) and entry.is_dir()]

    def _forget_unfinished(self) -> None:
        folder = self.path / UNFINISHED
        if folder.is_dir():
            for entry in folder.iterdir():
                if _KEPT.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()
            _remove_empty(folder)

    def save(self, result: FrameResult, source: str, seconds: float) -> FrameRow:
        """Write a frame's results, its small maps for the videos, and last its row.

        Raises:
            PartlyWrittenError: one of the chosen files could not be written; the rest and the row are.
            OutputError: the results cannot be written.
        """
        row = FrameRow.of(result, source, seconds)
        try:
            result.refinement.save(self.frame(result.index))
        finally:
            written = (self.frame(result.index) / exports.RECORD).is_file()
            if written:
                io.save_npz(self._kept(result.index, "npz"), _small(shown_maps(result.refinement)))
                io.save_json(self._kept(result.index, "json"), row.model_dump())
                self._forget_states(result.index)
        return row

    def _forget_states(self, index: int) -> None:
        """Remove all states but those of this frame and of the one before, in case the files are damaged."""
        for path in (self.path / UNFINISHED).glob("*.safetensors"):
            if path.stem.isdigit() and int(path.stem) < index:
                path.unlink()

    def shown(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Return the disparity before and after of a frame that is done, at network size."""
        with np.load(self._kept(index, "npz"), allow_pickle=False) as stored:
            return {name: stored[name] * stored[f"{name}_unit"] for name in ("initial", "refined")}

    def finish(self, source: str, rows: Sequence[FrameRow], more: Mapping[str, Any]) -> None:
        """Write the record of the finished clip, and remove what an unfinished run needs."""
        files = [self.path / name for name in (DEPTH_VIDEO, COMPARISON_VIDEO)]
        record = self._record(source) | {
            "finished": True,
            **more,
            **summary_of(rows).record(),
            "frames": [row.model_dump() for row in rows],
            "files": io.manifest(path for path in files if path.is_file()),
        }
        io.save_json(self.path / RECORD, record)
        self._forget_unfinished()

    def _record(self, source: str) -> dict[str, Any]:
        identity = self.made_from.identity.model_dump()
        return {"clip": {"source": source}, "settings": dict(self.made_from.settings), "identity": identity}


def room_of_shown(height: int, width: int) -> int:
    """Return how many bytes the small maps of a frame take that an unfinished run keeps."""
    return 2 * np.dtype(np.float16).itemsize * height * width


def shown_maps(refinement: Refinement) -> dict[str, NDArray[np.float32]]:
    """Return the disparity before and after at network size, (h, w), near is large."""
    outcome = refinement.outcome
    maps = {"initial": outcome.initial, "refined": outcome.refined}
    raw = {name: values[0, 0].float().cpu().numpy() for name, values in maps.items()}
    return raw if refinement.predicts == "disparity" else {name: inverted(v) for name, v in raw.items()}


def _small(maps: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Return maps in half the bytes, each with its unit; the colours of a video are coarser than float16."""
    stored: dict[str, NDArray[Any]] = {}
    for name, values in maps.items():
        unit = np.float32(max(float(np.abs(values).max()), _SMALLEST_UNIT * _LARGEST_HALF) / _LARGEST_HALF)
        stored |= {name: (values / unit).astype(np.float16), f"{name}_unit": np.asarray(unit)}
    return stored


def _name(index: int) -> str:
    return f"{index + 1:06d}"


def _damage(folder: Path) -> str:
    """Return what is wrong with a frame's files; empty if they are as they were written."""
    record = read_record(folder / exports.RECORD)
    return "its results are missing" if record is None else io.damage(folder, record["files"])


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
