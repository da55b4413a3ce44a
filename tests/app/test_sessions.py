import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from redepth.app.results import Shown
from redepth.app.sessions import LONGEST_IDLE, Fields, Job, Session, Sessions


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def sessions(tmp_path: Path, now: list[float]) -> Sessions:
    return Sessions(tmp_path, lambda: now[0])


def running_job(session: Session) -> tuple[Job, ExitStack]:
    """A job whose turn has come; the stack ends it."""
    job, turn = session.begin(Fields()), ExitStack()
    turn.enter_context(session.turn(job))
    return job, turn


def finish(session: Session, job: Job) -> Path:
    """Write a file for a job, and make it the result of the session."""
    written = job.made_folder() / "map.npy"
    written.write_bytes(b"x")
    session.finish(job, cast(Shown, SimpleNamespace()))
    return written


def test_a_session_is_made_once(sessions: Sessions) -> None:
    one = sessions.get("tab")
    assert sessions.get("tab") is one
    assert sessions.get("other") is not one
    assert sessions.get(None) is not sessions.get(None)


def test_no_part_of_a_name_is_in_a_path(sessions: Sessions, tmp_path: Path) -> None:
    job = sessions.get("../../etc").begin(Fields())
    assert job.made_folder().parent == tmp_path


def test_the_next_result_takes_the_place_of_the_former(sessions: Sessions) -> None:
    session = sessions.get("tab")
    job, turn = running_job(session)
    with turn:
        former = finish(session, job)
    job, turn = running_job(session)
    with turn:
        assert former.exists(), "the former result is gone before there is another"
        next_one = finish(session, job)
    assert next_one.exists()
    assert not former.parent.exists()
    assert session.shown is job.shown


def test_jobs_at_the_same_time_are_apart(sessions: Sessions) -> None:
    session = sessions.get("client")
    (one, turn_of_one), (two, turn_of_two) = running_job(session), running_job(session)
    assert one.folder != two.folder
    assert one.stop is not two.stop
    with turn_of_one:
        written = finish(session, one)
        two.made_folder()
    assert written.exists()
    assert session.going_on == [two]
    turn_of_two.close()
    assert not two.folder.exists(), "files without a result are left behind"
    assert written.exists()


def test_the_end_of_a_session_ends_its_jobs_and_removes_its_files(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("tab")
    finished, turn = running_job(session)
    with turn:
        finish(session, finished)
    waits = session.begin(Fields("photo.png", "smoke"))
    running, turn = running_job(session)
    writes = running.made_folder()
    sessions.end("tab")
    assert waits.stop.is_set()
    assert running.stop.is_set()
    assert session.ended
    assert list(tmp_path.iterdir()) == [writes], "a folder is removed while files are written to it"
    turn.close()
    assert not any(tmp_path.iterdir())
    assert sessions.get("tab") is not session
    sessions.end("unknown")
    sessions.end(None)


def test_a_result_of_a_session_that_has_ended_is_removed(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("tab")
    job, turn = running_job(session)
    with turn:
        sessions.end("tab")
        finish(session, job)
    assert not any(tmp_path.iterdir())
    assert session.begin(Fields()).stop.is_set()


def test_stop_says_whether_a_job_was_running(sessions: Sessions) -> None:
    session = sessions.get("tab")
    waits = session.begin(Fields())
    assert session.waiting() is waits
    assert not session.stop()
    assert waits.stop.is_set()
    assert session.waiting() is None
    running, turn = running_job(session)
    with turn:
        assert session.stop()
    assert running.stop.is_set()
    assert not session.begin(Fields()).stop.is_set(), "a new job is ended by the stop of the former"


def test_idle_sessions_end(sessions: Sessions, now: list[float]) -> None:
    idle, running = sessions.get("idle"), sessions.get("running")
    _, turn = running_job(running)
    with turn:
        now[0] = LONGEST_IDLE + 1
        sessions.get("new")
    assert (idle.ended, running.ended) == (True, False)


def test_all_sessions_end_with_the_app(sessions: Sessions) -> None:
    found = [sessions.get(name) for name in "ab"]
    sessions.close()
    assert all(session.ended for session in found)


def test_the_end_of_the_app_waits_for_files_that_are_written(sessions: Sessions, tmp_path: Path) -> None:
    jobs = []
    for name in ("tab", "closed tab"):
        session = sessions.get(name)
        job, turn = running_job(session)
        jobs.append(job)

        def write(job: Job = job, turn: ExitStack = turn) -> None:
            with turn:
                assert job.stop.wait(60)
                job.made_folder()

        threading.Thread(target=write, daemon=True).start()
    sessions.end("closed tab")
    sessions.close(patience=60)
    assert all(job.over.is_set() for job in jobs)
    assert not any(tmp_path.iterdir())


def test_the_end_of_the_app_does_not_wait_for_ever(sessions: Sessions) -> None:
    _, turn = running_job(sessions.get("tab"))
    with turn:
        sessions.close(patience=0)
