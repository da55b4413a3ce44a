from pathlib import Path

import pytest

from redepth.app.sessions import LONGEST_IDLE, Fields, Sessions


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def sessions(tmp_path: Path, now: list[float]) -> Sessions:
    return Sessions(tmp_path, lambda: now[0])


def test_a_session_is_made_once(sessions: Sessions) -> None:
    one = sessions.get("tab")
    assert sessions.get("tab") is one
    assert sessions.get("other").folder != one.folder
    assert sessions.get(None) is not sessions.get(None)


def test_no_part_of_a_name_is_in_a_path(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("../../etc")
    assert session.folder.parent == tmp_path
    assert session.fresh_folder().parent == session.folder


def test_the_next_result_takes_the_place_of_the_former(sessions: Sessions) -> None:
    session = sessions.get("tab")
    former = session.fresh_folder()
    (former / "map.npy").write_bytes(b"x")
    assert session.fresh_folder() != former
    assert not former.exists()


def test_the_end_of_a_session_ends_its_run_and_removes_its_files(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("tab")
    session.begin(Fields("photo.png", "smoke"))
    session.fresh_folder()
    sessions.end("tab")
    assert session.stop.is_set()
    assert session.ended
    assert not any(tmp_path.iterdir())
    assert sessions.get("tab") is not session
    sessions.end("unknown")
    sessions.end(None)


def test_a_new_run_is_not_ended_by_the_stop_of_the_former(sessions: Sessions) -> None:
    session = sessions.get("tab")
    session.begin(Fields())
    session.stop.set()
    session.begin(Fields())
    assert not session.stop.is_set()


def test_idle_sessions_end(sessions: Sessions, now: list[float]) -> None:
    idle, running = sessions.get("idle"), sessions.get("running")
    running.running = True
    now[0] = LONGEST_IDLE + 1
    sessions.get("new")
    assert (idle.ended, running.ended) == (True, False)


def test_all_sessions_end_with_the_app(sessions: Sessions) -> None:
    found = [sessions.get(name) for name in "ab"]
    sessions.close()
    assert all(session.ended for session in found)
