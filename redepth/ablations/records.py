"""The rows of an ablation: one for each variant and photo, read from the record of its result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from redepth.errors import InputError
from redepth.exports import RECORD
from redepth.metrics.diagnostics import Measured
from redepth.runtime.resume import read_record


class Row(BaseModel):
    """The numbers of one refinement.

    Attributes:
        variant: its name.
        photo: its label.
        folder: of the result.
        members: of the ensemble.
        steps: that the longest member took.
        change: mean absolute change of the raw output over the range of the initial one.
        turn: mean angle between the normals before and after, in degrees; None if it is not known anywhere.
        seconds: of the optimisation.
        flagged: names of the failure signatures above their thresholds.
        silog: SI-log before and after, with ground truth.
        warnings: of the refinement, if this call made it; as `redepth.batch.Refined.warnings`.
        unwritten: a line for each file that this call could not write.
    """

    model_config = ConfigDict(frozen=True)

    variant: str
    photo: str
    folder: Path
    members: int
    steps: int
    change: float
    turn: float | None
    seconds: float
    flagged: list[str]
    silog: tuple[float, float] | None = None
    # No numbers, so they are left out of the tables.
    warnings: tuple[str, ...] = Field(default=(), exclude=True)
    unwritten: tuple[str, ...] = Field(default=(), exclude=True)

    @classmethod
    def read(cls, folder: Path, variant: str, photo: str, thresholds: Mapping[str, float]) -> Row:
        """Read the row of a result.

        Args:
            folder: of the result.
            variant: its name.
            photo: its label.
            thresholds: by which the failure signatures are judged, because a result that was made earlier may
                have been judged by others.

        Raises:
            InputError: the folder holds no result, or one of an older version.
        """
        try:
            record = read_record(folder / RECORD) or {}
            metrics = record.get("metrics")
            return cls(
                variant=variant,
                photo=photo,
                folder=folder,
                members=record["members_done"],
                steps=max(record["steps_done"]),
                change=record["change"],
                turn=record["turn_degrees"],
                seconds=record["timings"]["optimise_seconds"],
                flagged=[
                    name
                    for name, found in record["diagnostics"].items()
                    if Measured.of_record(name, found).signature(thresholds).flagged
                ],
                silog=metrics and tuple(metrics[when]["silog"] for when in ("initial", "refined")),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / RECORD} does not hold what a table needs ({error})") from None


@dataclass(frozen=True)
class Average:
    """The means of a variant over the photos that it has refined.

    Attributes:
        photos: how many they are.
        change: as `Row.change`.
        turn: as `Row.turn`; NaN if it is not known for any photo.
        seconds: as `Row.seconds`.
        flagged: name of a failure signature -> number of photos on which it is above its threshold.
        silog: means over the photos that have ground truth.
    """

    photos: int
    change: float
    turn: float
    seconds: float
    flagged: dict[str, int]
    silog: tuple[float, float] | None


def average(rows: Sequence[Row]) -> Average:
    """Return the means over rows of one variant; there is at least one."""
    turns = [row.turn for row in rows if row.turn is not None]
    silogs = [row.silog for row in rows if row.silog is not None]
    return Average(
        photos=len(rows),
        change=_mean([row.change for row in rows]),
        turn=_mean(turns),
        seconds=_mean([row.seconds for row in rows]),
        flagged=dict(Counter(name for row in rows for name in row.flagged)),
        silog=(_mean([s[0] for s in silogs]), _mean([s[1] for s in silogs])) if silogs else None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
