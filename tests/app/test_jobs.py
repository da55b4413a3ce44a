"""Jobs from their fields to their files, with refinements that compute nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redepth import io
from redepth.app import jobs
from redepth.app.jobs import Event, Failed, Finished, Started, events_of
from redepth.app.offers import Offer
from redepth.app.running import Run
from redepth.app.service import Service
from redepth.app.sessions import Fields, Job, Session


class Refinements:
    """What the runs of a service do: each ends once it may, with its photo's name as its result."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.may_end = threading.Event()
        self.may_end.set()

    def run(self, photo: Path, settings: Any, stop: threading.Event) -> Run:
        def work(on_step: Any, say: Any) -> Any:
            say("refining")
            assert self.may_end.wait(60)
            return photo.name

        return Run(work, threading.Semaphore(1), stop)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "files", [Offer("smoke", members=2, steps=3)], concurrent=2)


@pytest.fixture
def refinements(service: Service, monkeypatch: pytest.MonkeyPatch) -> Refinements:
    found = Refinements(service)
    monkeypatch.setattr(service, "run", found.run)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were written, one for each result."""
    files: list[Path] = []

    def write_result(result: Any, folder: Path) -> Any:
        files.append(folder / result)
        files[-1].write_bytes(b"x")
        return files[-1]

    monkeypatch.setattr(jobs, "write_result", write_result)
    return files


def begun(service: Service, session: Session, name: str) -> tuple[Job, Iterator[Event]]:
    photo = service.folder / name
    io.save_png(photo, np.zeros((20, 20, 3), np.uint8))
    job = session.begin(Fields(str(photo), "smoke"))
    return job, events_of(service, session, job)


@pytest.fixture(autouse=True)
def folder(service: Service) -> None:
    service.folder.mkdir()


def test_a_job_is_reported_to_its_end(
    service: Service, refinements: Refinements, written: list[Path]
) -> None:
    session = service.sessions.get("tab")
    _, events = begun(service, session, "a.png")
    kinds = [type(event) for event in events if event is not None]
    assert (kinds[0], kinds[-1]) == (Started, Finished)
    assert session.shown == written[0]
    assert not session.going_on


def test_two_jobs_of_a_client_do_not_touch_each_other(
    service: Service, refinements: Refinements, written: list[Path]
) -> None:
    session = service.sessions.get("client")
    (one, events_of_one), (two, events_of_two) = (begun(service, session, name) for name in ("a", "b"))
    for events in (events_of_one, events_of_two):
        assert isinstance(next(events), Started)
    one.stop.set()
    assert not two.stop.is_set()
    end = list(events_of_one)[-1]
    assert isinstance(end, Failed)
    assert end.cancelled
    assert session.going_on == [two]
    assert isinstance(list(events_of_two)[-1], Finished)
    assert [path.name for path in written] == ["b"]
    assert written[0].exists()


def test_nothing_is_written_for_a_tab_that_is_closed(
    service: Service, refinements: Refinements, written: list[Path]
) -> None:
    refinements.may_end.clear()
    session = service.sessions.get("tab")
    job, events = begun(service, session, "a.png")
    assert isinstance(next(events), Started)
    assert next(events) == "refining"
    service.sessions.end("tab")
    refinements.may_end.set()
    assert [event for event in events if event is not None] == []
    assert written == []
    assert job.is_over(60)


def test_a_tab_that_is_closed_while_files_are_written_is_no_failure(
    service: Service, refinements: Refinements, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_result(result: Any, folder: Path) -> Any:
        service.sessions.end("tab")
        (folder / result).write_bytes(b"x")  # fails if the folder is gone
        return folder

    monkeypatch.setattr(jobs, "write_result", write_result)
    job, events = begun(service, service.sessions.get("tab"), "a.png")
    assert not any(isinstance(event, Failed) for event in events)
    assert not job.folder.exists()
