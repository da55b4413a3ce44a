"""The work of a job: one refinement for a page or a client, from a form to the files of its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redepth.app.results import Shown, write_result
from redepth.app.running import CancelledError, Update
from redepth.app.service import Service, required_photo, shown_name
from redepth.app.sessions import Fields, Job, Session
from redepth.app.settings import RunSettings
from redepth.refinement import Refinement


@dataclass(frozen=True)
class Started:
    """The settings are right; the run waits for its turn, or goes on."""

    settings: RunSettings
    photo: str


@dataclass(frozen=True)
class Finished:
    """The run has ended, and its files are there."""

    result: Refinement
    shown: Shown


@dataclass(frozen=True)
class Failed:
    """The run has no result.

    Attributes:
        message: what to tell the user.
        cancelled: whether the user wanted that.
    """

    message: str
    cancelled: bool = False


Event = Started | Update | Finished | Failed | None
"""What a job reports; None: it goes on, and there is nothing new."""


def checked(service: Service, fields: Fields) -> tuple[Path, RunSettings]:
    """Return the photo and the checked settings. Raises RedepthError."""
    photo = required_photo(fields.photo)
    service.size_of(photo)
    settings = service.settings(
        fields.preset, fields.members, fields.steps, fields.budget, fields.seed, fields.prompt
    )
    return photo, settings


def events_of(service: Service, session: Session, job: Job) -> Iterator[Event]:
    """Do a job, and yield what it reports; `Finished` or `Failed` is the last, if somebody is still there.

    Who leaves early ends the run.
    """
    with session.turn(job):
        try:
            photo, settings = checked(service, job.fields)
            yield Started(settings, shown_name(photo))
            job.run = service.run(photo, settings, job.stop)
            yield from job.run.updates()
            result = job.run.result()
            if session.ended:
                return
            yield "writing the files"
            shown = write_result(result, job.made_folder())
            session.finish(job, shown)
            yield Finished(result, shown)
        except CancelledError as error:
            yield Failed(str(error), cancelled=True)
        except Exception as error:  # of a component, or a user's
            yield Failed(service.explain(error))
